"""Sounds and what people call them.

Every sound has a key ("church_bell"), names for training and others, by a second author, for tests, the AudioSet
classes that mean it, and what follows from it: whether it is an animal, an instrument, ..., and which places it
suggests. A name is a noun phrase with its article ("a dog", "barking"); the forms that wordings need are made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from echo_agent.finetune.data.natural.written import read_yaml

Hand = Literal["train", "test"]
"""Whose words: those trained on, or those of the second author."""

NO_SOUND = frozenset({"voice", "music"})
"""Keys that are asked about in ways of their own: speech and music."""


class Sound(BaseModel):
    """One sound."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    key: str
    kind: str = ""
    """``animal``, ``instrument``, ``vehicle``, ``alarm``, ``tool``, or empty."""
    places: tuple[str, ...] = ()
    """Places that it suggests: ``kitchen``, ``street``, ..."""
    indoors: bool | None = None
    audioset: tuple[str, ...] = ()
    """Display names of its classes in AudioSet's ontology."""
    names: tuple[str, ...]
    """What people call it, the plainest first; those of training."""
    test_names: tuple[str, ...]
    """What the second author calls it."""

    @property
    def plain(self) -> str:
        """The name that stands in a timeline: ``church bell``."""
        return self.key.replace("_", " ")

    def called(self, hand: Hand, rng: np.random.Generator) -> str:
        """One of its names, with its article."""
        names = self.names if hand == "train" else self.test_names
        return names[int(rng.integers(len(names)))]

    def spellings(self) -> tuple[str, ...]:
        """Every way of naming it, with each article: what is accepted as an open answer."""
        every = dict.fromkeys((self.plain, *map(bare, self.names), *map(bare, self.test_names)))
        return tuple(form for name in every for form in (name, f"a {name}", f"an {name}", f"the {name}"))


def bare(name: str) -> str:
    """A name without its article."""
    for article in ("a ", "an ", "the "):
        if name.startswith(article):
            return name.removeprefix(article)
    return name


def the(name: str) -> str:
    """A name as something known: ``the dog``."""
    return f"the {bare(name)}"


@cache
def sounds() -> Mapping[str, Sound]:
    """All sounds by key."""
    first, second = read_yaml("sounds-train.yaml"), read_yaml("sounds-test.yaml")
    return {
        key: Sound(
            key=key,
            kind=entry["class"],
            places=tuple(entry["places"]),
            indoors=entry["indoors"],
            audioset=tuple(entry["audioset"]),
            names=tuple(entry["names"]),
            test_names=tuple(second[key]),
        )
        for key, entry in first.items()
    }


@cache
def kin(a: str, b: str) -> bool:
    """Whether two keys may well name one sound: they share a word of a name, or an AudioSet class."""
    if a == b:
        return True
    one, other = sounds()[a], sounds()[b]
    if set(one.audioset) & set(other.audioset):
        return True
    return bool(_words(one) & _words(other))


def _words(sound: Sound) -> set[str]:
    names = (sound.plain, *map(bare, sound.names), *map(bare, sound.test_names))
    return {word for name in names for word in name.replace("'s", "").split() if len(word) > 2} - _COMMON


_COMMON = frozenset(
    "sound sounds noise noises the someone person people playing being loud something and off with from ringing "
    "running note notes going".split()
)
"""Words of names that do not tell sounds apart."""
