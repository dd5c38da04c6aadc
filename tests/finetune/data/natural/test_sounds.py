"""Names of sounds by two authors."""

from __future__ import annotations

import numpy as np
import pytest

from echo_agent.finetune.data.natural.kinds.what import CLASSES
from echo_agent.finetune.data.natural.sounds import bare, kin, sounds, the


def test_every_sound_has_names_by_both_authors() -> None:
    for key, sound in sounds().items():
        assert len(set(sound.names)) >= 4 and len(set(sound.test_names)) >= 2, key
        assert sound.kind in ("", *CLASSES), key


def test_a_name_means_one_sound() -> None:
    for names in ("names", "test_names"):
        every = [bare(name) for sound in sounds().values() for name in getattr(sound, names)]
        assert len(every) == len(set(every))


@pytest.mark.parametrize(("name", "short", "known"), [
    ("a dog", "dog", "the dog"),
    ("an owl", "owl", "the owl"),
    ("barking", "barking", "the barking"),
    ("a cat's meow", "cat's meow", "the cat's meow"),
])  # fmt: skip
def test_forms_of_a_name(name: str, short: str, known: str) -> None:
    assert bare(name) == short and the(name) == known


def test_what_may_be_one_sound_is_kin() -> None:
    assert kin("siren", "police_siren") and kin("telephone", "ringtone") and kin("dog", "dog")
    assert not kin("dog", "violin") and not kin("rain", "telephone")


def test_hands_use_their_own_names() -> None:
    rng = np.random.default_rng(0)
    dog = sounds()["dog"]
    assert {dog.called("train", rng) for _ in range(99)} == set(dog.names)
    assert {dog.called("test", rng) for _ in range(99)} == set(dog.test_names)
    assert {"dog", "a dog", "the dog"} <= set(dog.spellings())
