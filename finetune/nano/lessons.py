"""Lessons: random rows of tiles with a question and the turn that answers it, as token ids, features and a mask.

They are made as training asks for them: a lesson costs no encoding (see :mod:`echo_agent.finetune.nano.tiles`). A call
to listen again is followed by the audio of that crop, encoded on its own, as in a run. The mask marks by origin what
the policy writes: only that is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from echo_agent.errors import DataError
from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.vocabulary import DIGITS, WORDS
from echo_agent.finetune.nano.questions import CATEGORIES, SOUNDS, Question, ask, pick
from echo_agent.finetune.nano.reasoning import Part, thought, trace
from echo_agent.finetune.nano.tiles import Crop, Span, Tile
from echo_agent.nano import processing
from echo_agent.nano.adapter import SoundBranch, pool
from echo_agent.nano.configuration import NanoConfig

CLOSER_SECONDS = 20.0
"""Seconds from which questions about what is in one event get a closer listen. Well below the durations from which
the gate counts such questions as detail: a crop is read better long before."""

QUIET_SHARE = 0.1
"""Share of tiles without any event, so that recordings have long pauses too."""
PLACES_SHARE = 0.15
"""Share of lessons that ask where several sounds are."""
SPOKEN = 20.0
"""Seconds up to which a list of all events has what is spoken in it."""
GIVEN_SHARE = 0.25
"""Share of calls with random margins, whose span is not learned: a policy will not always point exactly."""
NEAR = 1.25
"""Seconds per audio token of the first listen (60 s long) up to which a near crop is taken; above it a wide one."""


@dataclass(frozen=True)
class Spoken:
    """Words of a listen, in order."""

    first: int
    """Place of the listen's first audio token among those of the lesson."""
    count: int
    words: tuple[int, ...]
    """Token ids."""


@dataclass(frozen=True)
class Pointing:
    """A sound that is named in the reasoning, and where it is in the first listen."""

    place: int
    """Index of the name among the ids."""
    first: int
    last: int
    """Audio tokens that overlap the sound (inclusive), counted from the first of the lesson."""


@dataclass(frozen=True)
class Lesson:
    """One training sequence."""

    ids: list[int]
    mask: list[int]
    """1 = written by the policy and trained on."""
    listing: list[int]
    """1 = part of the list of events."""
    features: Tensor
    """Pooled features of all audio tokens ``[total, feature_dim]``."""
    times: list[int]
    spoken: list[Spoken]
    """What is spoken in a listen, where the listen is close enough to tell."""
    pointings: list[Pointing]
    category: str
    events: tuple[Event, ...]
    question: Question
    duration: float


@torch.no_grad()
def with_branch(tile: Tile, branch: SoundBranch) -> Tile:
    """The tile with the hidden states and scores of the sound branch added to its features, by window (float16)."""

    def widen(frames: Tensor) -> Tensor:
        windows = [torch.cat([w, branch.describe(w.float()[None])[0].half()], -1) for w in frames.split(125)]
        return torch.cat(windows)

    crops = tuple(Crop(c.start, c.end, c.event, widen(c.frames)) for c in tile.crops)
    return Tile(tile.seconds, tile.events, widen(tile.frames), crops)


class Teacher:
    """Draws lessons from tiles."""

    def __init__(
        self, tiles: Sequence[Tile], config: NanoConfig, tokenizer: processing.PreTrainedTokenizerFast
    ) -> None:
        """Take tiles that :func:`with_branch` has widened.

        Raises:
            DataError: No tile holds anything to ask about.
        """
        if not any(tile.events for tile in tiles):
            raise DataError("the tiles hold no events: there is nothing to ask about; add shards")
        self.tiles = tiles
        self.quiet = [tile for tile in tiles if not tile.events]
        self.config = config
        self.tokenizer = tokenizer
        self._near = NEAR * config.listen_tokens

    def row(self, rng: np.random.Generator, seconds: float) -> tuple[list[tuple[int, Tile]], list[Event]]:
        """Tiles with their offsets that fill ``seconds``, and the events on the common clock.

        Of three tiles drawn, the one with the fewest sounds that the row already has is taken: most sounds occur once.
        """
        row: list[tuple[int, Tile]] = []
        events: list[Event] = []
        seen: set[str] = set()
        clock = 0
        while clock < seconds:
            pool_of = self.quiet if self.quiet and rng.random() < QUIET_SHARE else self.tiles
            drawn = [pool_of[int(i)] for i in rng.integers(len(pool_of), size=3)]
            tile = min(drawn, key=lambda t: sum(e.label in seen for e in t.events if e.label != "voice"))
            row.append((clock, tile))
            for event in tile.events:
                events.append(replace(event, onset=event.onset + clock, offset=event.offset + clock))
                seen.add(event.label)
            clock += tile.seconds
        return row, events

    def lesson(
        self,
        rng: np.random.Generator,
        seconds: float,
        *,
        refused: float = 0.15,
        lists: float = 0.15,
        mistakes: float = 0.35,
    ) -> Lesson:
        """One lesson on a recording of about ``seconds``.

        Args:
            rng: Source of every choice.
            seconds: Length that the row of tiles reaches at least.
            refused: Share of calls that are refused.
            lists: Share of lessons that ask for all events.
            mistakes: Share of steps towards an answer, and of what is heard, that are given with a mistake and not
                learned; the answer is still one of the choices.
        """
        while True:
            row, events = self.row(rng, seconds)
            categories = [CATEGORIES[int(i)] for i in rng.permutation(len(CATEGORIES))]
            draw = rng.random()
            if draw < lists + PLACES_SHARE:
                categories.insert(0, "list" if draw < lists else "places")
            question = next((q for f in categories if (q := ask(events, rng, f)) is not None), None)
            if question is not None:
                break
        duration = float(sum(tile.seconds for _, tile in row))
        span, crop, given, tile = None, None, False, None
        if question.event is not None and duration > CLOSER_SECONDS:
            given = rng.random() < GIVEN_SHARE
            span, crop, tile = self._crop(row, question.event, 2 if given else int(duration > self._near))
        turn = thought(
            events,
            question,
            span,
            refused=rng.random() < refused,
            given=given,
            mislooked=mislooked(events, question, rng) if rng.random() < mistakes else None,
            misheard=misheard(question, rng) if rng.random() < mistakes else None,
            spoken=duration <= SPOKEN,
        )
        frames = torch.cat([tile.frames for _, tile in row])
        tokens = self.config.listen_size(duration)
        parts = [pool(frames.float(), tokens)]
        times = processing.listen_times(0.0, duration, tokens)
        spoken = [self._spoken(0, tokens, events)] if duration <= SPOKEN else []
        prompt = processing.prompt_text(question.text, question.choices, duration)
        ids = [
            *self._encode(processing.USER),
            *self._listen(tokens),
            *self._encode(prompt + processing.END + processing.ASSISTANT),
        ]
        looked = turn[0]
        pointings = self._pointings(ids, looked, question, events, duration, tokens) if looked.sampled else []
        mask = [0] * len(ids)
        listing = [0] * len(ids)
        for part in turn:
            new = self._part(part, crop, parts, times)
            ids += new
            mask += [int(part.sampled)] * len(new)
            listing += [int(part.listing)] * len(new)
        if crop is not None and tile is not None and len(parts) > 1 and not _cut(tile, crop):
            inside = [event for event in tile.events if crop.start <= event.onset < crop.end]
            spoken.append(self._spoken(tokens, len(times) - tokens, inside))
        return Lesson(
            ids,
            mask,
            listing,
            torch.cat(parts),
            times,
            spoken,
            pointings,
            question.category,
            tuple(events),
            question,
            duration,
        )

    def _part(self, part: Part, crop: Crop | None, parts: list[Tensor], times: list[int]) -> list[int]:
        if part.span is None:
            return self._encode(part.text)
        assert crop is not None
        tokens = self.config.listen_size(float(part.span[1] - part.span[0]))
        parts.append(pool(crop.frames.float(), tokens))
        times += processing.listen_times(*part.span, tokens)
        return self._listen(tokens)

    def _crop(self, row: Sequence[tuple[int, Tile]], event: int, which: int) -> tuple[Span, Crop, Tile]:
        """A crop of the event with the given index in the row, its span in the recording, and its tile."""
        for clock, tile in row:
            if event < len(tile.events):
                crop = [crop for crop in tile.crops if crop.event == event][which]
                return (crop.start + clock, crop.end + clock), crop, tile
            event -= len(tile.events)
        raise IndexError("no such event in the row")

    def _pointings(
        self,
        before: list[int],
        looked: Part,
        question: Question,
        events: Sequence[Event],
        duration: float,
        tokens: int,
    ) -> list[Pointing]:
        """Where the reasoning after ``before`` names sounds of the question, and where these are heard."""
        written = self._encode(looked.text)
        found: list[Pointing] = []
        place = 0
        for label, index in zip(question.named, question.trace, strict=False):
            (name,) = self._encode(f" {label}")
            place = written.index(name, place) + 1
            if index is not None:
                first = int(events[index].onset / duration * tokens)
                last = min(tokens - 1, int(events[index].offset / duration * tokens))
                found.append(Pointing(len(before) + place - 1, first, last))
        return found

    def _spoken(self, first: int, count: int, events: Sequence[Event]) -> Spoken:
        said = " ".join(word for event in events for word in event.content)
        return Spoken(first, count, tuple(self._encode(f" {said}")) if said else ())

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _listen(self, tokens: int) -> list[int]:
        markers = [processing.AUDIO_START, processing.AUDIO, processing.AUDIO_END]
        ids: Any = self.tokenizer.convert_tokens_to_ids(markers)
        start, audio, end = ids
        return [start, *[audio] * tokens, end]


def _cut(tile: Tile, crop: Crop) -> bool:
    """Whether an edge of the crop goes through something spoken."""
    edges = (crop.start, crop.end)
    return any(e.content and any(e.onset < edge < e.offset for edge in edges) for e in tile.events)


def misheard(question: Question, rng: np.random.Generator) -> str | None:
    """What is heard, with mistakes that lead to none of the choices; None if there are no such mistakes."""
    if question.choices is None or not question.heard:
        return None
    if question.category == "count":
        others = [str(hits) for hits in range(1, 10) if str(hits) not in question.choices]
        return pick(rng, others)
    said = question.heard.split()
    if rng.random() < 0.4:  # as if another place was heard
        pool_of = WORDS if rng.random() < 0.5 else DIGITS
        said = [pick(rng, pool_of) for _ in range(int(rng.integers(1, 5)))]
    elif question.category == "digit_sequence":
        place = int(rng.integers(len(said)))
        change = rng.random()
        if change < 0.6:
            said[place] = pick(rng, DIGITS)
        elif change < 0.8 and len(said) > 1:
            del said[place]
        else:
            said.insert(place, pick(rng, DIGITS))
    if question.category == "digit_sequence":
        return None if " ".join(said) in question.choices else " ".join(said)
    others = [
        word for word in (WORDS if question.category == "word" else DIGITS) if word not in question.choices
    ]
    wrong = pick(rng, others)
    return " ".join(wrong if word in question.choices else word for word in said)


def mislooked(events: Sequence[Event], question: Question, rng: np.random.Generator) -> str | None:
    """The steps to the answer, with mistakes that lead to none of the choices; None if there are no such mistakes.

    A sound is not found, or found elsewhere, or what is next to it is taken for another.
    """
    if question.choices is None or not question.named or question.trace[-1] is None:
        return None
    first, found = question.named[0], question.trace[len(question.named) :]
    missed = bool(rng.random() < 0.3)
    if question.category == "time":
        second = math.floor(events[question.trace[-1]].onset)
        away = int(rng.integers(math.ceil(events[-1].offset))) if rng.random() < 0.4 else second
        away = max(0, away + int(rng.choice([-2, -1, 1, 2])))
        return f" {first} none." if missed or f"{away} s" in question.choices else f" {first} {away}."
    if question.category in ("order", "between") and found:
        if missed:
            return f" {first} none."
        label = events[question.trace[-1]].label
        taken = {*question.choices, *question.named}
        wrong = pick(rng, [other for other in SOUNDS if other not in taken])
        return trace(events, question).removesuffix(f" {label}.") + f" {wrong}."
    if question.category == "order":  # which of two is first: the later one is missed, or both
        missing = [
            None if missed or label != question.answer else i
            for label, i in zip(question.named, question.trace, strict=True)
        ]
        return trace(events, replace(question, trace=tuple(missing)))
    if found and missed:  # of what is spoken, all but the sound next to it
        return trace(events, replace(question, trace=(None, *found)))
    return None


def collate(lessons: Sequence[Lesson], pad: int, listing_weight: float = 1.0) -> dict[str, Tensor]:
    """Pad lessons to one batch, as ``NanoForConditionalGeneration.forward`` takes it; labels are -100 where given.

    ``weights`` holds the weight of each label: ``listing_weight`` in the list of events, 1 elsewhere.
    """
    longest = max(len(lesson.ids) for lesson in lessons)
    ids = torch.full((len(lessons), longest), pad)
    labels = torch.full_like(ids, -100)
    real = torch.zeros_like(ids)
    weights = torch.ones(ids.shape)
    for i, lesson in enumerate(lessons):
        size = len(lesson.ids)
        row = torch.tensor(lesson.ids)
        ids[i, :size] = row
        real[i, :size] = 1
        weights[i, :size] = torch.where(torch.tensor(lesson.listing) == 1, listing_weight, 1.0)
        labels[i, :size] = torch.where(torch.tensor(lesson.mask) == 1, row, -100)
    return {
        "input_ids": ids,
        "attention_mask": real,
        "labels": labels,
        "weights": weights,
        "audio_features": torch.cat([lesson.features for lesson in lessons]),
        "audio_times": torch.tensor([second for lesson in lessons for second in lesson.times]),
    }
