"""Wordings: filled in, and read back to what they were made from."""

from __future__ import annotations

import numpy as np
import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.questions.phrasings import ORDINALS, place, read, word, wordings

LABELS = ("bell", "footsteps", "dog bark", "car")


@pytest.mark.parametrize("kind", sorted(wordings()))
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_wording_is_read_back(kind: str, split: str) -> None:
    rng = np.random.default_rng(1)
    for number in range(60):
        label = LABELS[number % 4]
        where = place(rng, **[{"after": label}, {"before": label}, {}][number % 3])
        slots = {"a": label, "b": LABELS[(number + 1) % 4], "n": ORDINALS[number % 4], "where": where, "t": "12",
                 "how": "rises"}  # fmt: skip
        text, name = word(kind, slots, split, rng)  # pyright: ignore[reportArgumentType]
        assert text[0].isupper() or text[0].isdigit()
        assert name.startswith(f"{kind}/{split}/")
        found, values = read(text)
        assert found == kind
        line = wordings()[kind][split][int(name.rpartition("/")[2])]
        for slot in ("a", "b", "n", "t", "how"):
            assert ("{" + slot + "}" in line) == (slot in values)
            if slot in values:
                assert values[slot].lower() == slots[slot]
        if "{where}" in line:
            assert values.get("after", values.get("before")) == ([label, label, None][number % 3])


def test_every_kind_has_wordings_of_both_splits() -> None:
    for kind, splits in wordings().items():
        assert set(splits) == {"train", "test"} and all(splits.values()), kind
        assert len(set(splits["train"]) & set(splits["test"])) == 0


def test_what_is_no_wording_is_refused() -> None:
    with pytest.raises(DataError, match="reads as 0 kinds"):
        read("What colour is the bell?")
