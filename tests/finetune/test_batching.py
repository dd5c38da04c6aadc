"""Batches: what the policy wrote is learned, whatever its ids are; nothing else is; audio stands in reading order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.dialects import dialect_named
from echo_agent.engine.frozen_features import FrozenFeatures
from echo_agent.families.base import Family
from echo_agent.finetune.audio_inputs import AudioHook, AudioInput, AudioLoader
from echo_agent.finetune.batching import IGNORED, Collator, Example
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.policy import mark_trainable
from echo_agent.finetune.trajectories import to_trajectory
from echo_agent.stores import RecordingStore
from echo_agent.trajectory import Origin, Segment, Trajectory
from tests.tiny import KINDS, QWEN_KINDS, sounds, tiny_family

END = 2
"""Id that ends a turn here."""


class Ears:
    """Fetches nothing, and notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[AudioRef]] = []

    def __call__(self, refs: Sequence[AudioRef]) -> list[AudioInput]:
        self.asked.append(list(refs))
        return [AudioInput(ref, features={}) for ref in refs]


def refs(count: int) -> list[AudioRef]:
    return [AudioRef(source="s", sha256="0" * 64, duration=9, start=i, end=i + 1) for i in range(count)]


def trajectory(*parts: tuple[Origin, tuple[int, ...]], audio: Sequence[AudioRef] = ()) -> Trajectory:
    """Parts by origin; the audio belongs to the first."""
    segments = [Segment(origin=origin, ids=ids) for origin, ids in parts]
    segments[0] = segments[0].model_copy(update={"audio": tuple(audio)})
    return Trajectory().append(*segments)


def collate(*trajectories: Trajectory, pad: int = END, listen: Any = None) -> dict[str, Any]:
    examples = [Example.of(one) for one in trajectories]
    return Collator(examples, listen or Ears(), pad)([{"example": i} for i in range(len(examples))])


# --- labels ---------------------------------------------------------------------------------------------------------


def test_labels_follow_origins_and_not_ids() -> None:
    """The tool writes 8 and 2 too: these are not learned, and the same ids of the policy are."""
    given = trajectory(
        ("prompt", (5, 8, 2)), ("sampled", (7, 8)), ("tool", (8, 2, 7)), ("sampled", (9, 8, END))
    )
    batch = collate(given)
    assert batch["labels"].tolist() == [[IGNORED] * 3 + [7, 8] + [IGNORED] * 3 + [9, 8, END]]
    assert batch["input_ids"].tolist() == [list(given.ids)]


def test_labels_by_id_are_others() -> None:
    """The twin: were the tool's part the policy's, or told by its ids, the labels would differ."""
    parts: list[tuple[Origin, tuple[int, ...]]] = [("prompt", (5, 6)), ("sampled", (7, 8)), ("tool", (8, 7))]
    given = trajectory(*parts, ("sampled", (9, END)))
    written = trajectory(*parts[:2], ("sampled", (8, 7)), ("sampled", (9, END)))
    right, wrong = collate(given), collate(written)
    assert torch.equal(right["input_ids"], wrong["input_ids"])
    assert not torch.equal(right["labels"], wrong["labels"])
    ids = right["input_ids"]
    by_id = ids.where(torch.isin(ids, torch.tensor([7, 8, 9, END])), IGNORED)
    assert not torch.equal(right["labels"], by_id) and torch.equal(wrong["labels"], by_id)


def test_padding_is_not_learned_though_its_id_is() -> None:
    long = trajectory(("prompt", (5, 6)), ("sampled", (7, 8, 9, END)))
    short = trajectory(("prompt", (5,)), ("sampled", (7, END)))
    batch = collate(short, long, pad=END)
    assert batch["input_ids"].tolist() == [[5, 7, END, END, END, END], [5, 6, 7, 8, 9, END]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6]
    assert batch["labels"].tolist() == [[IGNORED, 7, END] + [IGNORED] * 3, [IGNORED, IGNORED, 7, 8, 9, END]]
    assert {batch[name].dtype for name in ("input_ids", "attention_mask", "labels")} == {torch.int64}
    other = collate(short, long, pad=0)
    assert torch.equal(other["labels"], batch["labels"]) and int(other["input_ids"][0, -1]) == 0


def test_rows_are_the_examples_that_are_named() -> None:
    examples = [Example.of(trajectory(("prompt", (5,)), ("sampled", (10 + i, END)))) for i in range(4)]
    ears = Ears()
    batch = Collator(examples, ears, 0)([{"example": 2}, {"example": 0, "length": 3}, {"example": 2}])
    assert batch["labels"][:, 1].tolist() == [12, 10, 12]
    assert batch["audio"] == [[], [], []] and ears.asked == [[]]


def test_audio_stands_in_reading_order() -> None:
    a, b, c, d = refs(4)
    ears = Ears()
    one = trajectory(("prompt", (5,)), ("sampled", (7,)), audio=[c, a])
    none = trajectory(("prompt", (5,)), ("sampled", (7,)))
    more = trajectory(("prompt", (5,)), ("sampled", (7,)), audio=[d, a, b])
    batch = collate(one, none, more, listen=ears)
    assert [[heard.ref for heard in row] for row in batch["audio"]] == [[c, a], [], [d, a, b]]
    assert ears.asked == [[c, a, d, a, b]]  # all of the batch at once


def test_listens_that_are_missing_are_noticed() -> None:
    one = trajectory(("prompt", (5,)), ("sampled", (7,)), audio=refs(2))
    with pytest.raises((StopIteration, RuntimeError)):
        collate(one, listen=lambda asked: Ears()(asked[:1]))


# --- trajectories of samples ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store() -> RecordingStore:
    return RecordingStore()


@pytest.fixture(scope="module")
def recording(store: RecordingStore) -> AudioRef:
    return store.add(Recording.from_array(sounds(5.0), 16000))


def samples(count: int) -> list[Sample]:
    """Samples whose reasoning listens as often as their number says."""
    calls = ["", "<seg>1, 3</seg> ", "<seg>4, 9</seg> "]  # the last is clamped, and the tool says so
    fields: Any = {"choices": ("a dog", "a cat"), "answer": "a dog", "duration": 5.0, "audio": "s.flac"}
    return [
        Sample(
            id=f"s{n}", question="What barks?", reasoning=f"Near {''.join(calls[: n + 1])}the end.", **fields
        )
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("kind", "dialect"),
    [*((kind, "inline") for kind in KINDS), *((kind, "turns") for kind in QWEN_KINDS)],
)
def test_what_is_learned_is_what_the_policy_writes(
    kind: str, dialect: str, store: RecordingStore, recording: AudioRef
) -> None:
    family, way = tiny_family(kind), dialect_named(dialect)
    made = [to_trajectory(sample, family, way, recording) for sample in samples(3)]
    batch = collate(*made, pad=family.pad_id)
    for row, one in zip(batch["labels"], made, strict=True):
        learned = row[row != IGNORED].tolist()
        assert learned == [token for s in one.segments if s.origin == "sampled" for token in s.ids]
        assert learned[-1] == family.eos_ids[0] and learned.count(family.eos_ids[0]) == 1
        assert not set(family.banned_ids) & set(learned)
        text = family.detokenize(learned[:-1]).replace(" ", "")
        assert text.startswith("<think>Near".lower() if kind == "echo-nano" else "<think>Near")
        assert text.endswith("<answer>adog</answer>")
        assert (
            len(batch["audio"][made.index(one)]) == len(one.audio) == len(family.placeholder_ranges(one.ids))
        )
    tool = {token for s in made[2].segments if s.origin == "tool" for token in s.ids}
    assert tool & set(batch["labels"][2].tolist())  # a rule by ids would have gone wrong here


def test_every_loss_is_finite_and_heard(store: RecordingStore, recording: AudioRef) -> None:
    """The batch as the trainer gives it to the model: other audio, another loss."""
    family: Family = tiny_family("qwen2.5-omni")
    mark_trainable(family, train_encoder=False)
    hearing = AudioHook(family)
    other = store.add(Recording.from_array(sounds(5.0, seed=1), 16000))
    losses = []
    for ref in (recording, other, recording):
        made = [to_trajectory(sample, family, dialect_named("inline"), ref) for sample in samples(3)]
        features = FrozenFeatures(family, store, 1 << 24).get
        batch = collate(*made, pad=family.pad_id, listen=AudioLoader(family, store, features))
        with torch.no_grad():
            losses.append(family.model(**batch).loss.item())
    hearing.remove()
    assert losses[0] == losses[2] and abs(losses[0] - losses[1]) > 1e-4 and losses[0] > 0
