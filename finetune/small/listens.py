"""Listening again, taught on text: what ears would write into each listen, and when a policy should ask for another.

A simulated recording is heard as echo-small hears it: a first listen whose note has so many tokens, whatever there is
to tell, and words only where the span is short. Where the note lacks what the question needs (an end, a length,
strokes, loudness, what is said), the lesson listens again to the place, reads the answer there, and gives it; where the
note has it, the lesson answers at once. So the policy learns what a listen is worth without a second of audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from echo_agent.finetune.data.natural.asking import Asked, ask, ask_about
from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.talk import Line, make_talk
from echo_agent.finetune.data.natural.timelines import SECONDS_PER_WORD, heard, simulate
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.small.packing import Pack, Stretch, pack_branches
from echo_agent.small.notes import DETAILS, VOICE, Heard, detail_of, second
from echo_agent.small.processing import (
    ANSWER,
    ANSWER_END,
    AUDIO_END,
    AUDIO_START,
    SEG,
    SEG_END,
    TURN_END,
    USER,
    prompt_text,
    sound_ids,
)

SPANS = frozenset({"when/end", "when/at", "when/range", "duration/how_long", "duration/longer"})
"""Kinds that need to know when a sound ends."""
EVERYTHING = frozenset({"count/hits", "loudness/louder"})
"""Kinds that need all that a note may say of a sound."""
ONE_ONLY = frozenset({"presence/is", "presence/which", "presence/either", "kind/any", "unknowable/sounds"})
"""Kinds that can be answered though a note leaves something out."""
MOST_LISTENS = 4
"""Further listens of a lesson, at most."""
AROUND = 1.0
"""Seconds before and behind what is listened to again."""
WINDOW = 14.0
"""Seconds of speech that a listen's places for words hold."""
LONGEST_TALK = 16
"""Lines of the longest talk: in more windows than a lesson has, little could be found."""


@dataclass(frozen=True)
class Budget:
    """Places of a listen."""

    sounds: int = 48
    words: int = 48
    words_seconds: float = 30.0


class Listener:
    """Writes listens and lessons as token ids."""

    def __init__(self, tokenizer: Any, blank: int, budget: Budget | None = None) -> None:
        """Take the decoder's tokenizer, the token of an empty place, and the budget."""
        self._tokenizer, self._blank, self.budget = tokenizer, blank, budget or Budget()

    def ids(self, text: str) -> list[int]:
        """Token ids of a text."""
        return self._tokenizer.encode(text, add_special_tokens=False)

    def detail(self, events: Sequence[Heard]) -> int:
        """How much the note of these events tells of each: 1 to 3, and 0 where it leaves some out."""
        return detail_of(events, self.budget.sounds, lambda text: len(self.ids(text)))

    def listen(self, events: Sequence[Heard], seconds: float, words: str = "") -> list[int]:
        """A listen between its markers: what is heard in it, and the words where they are heard."""
        ids = sound_ids(events, self.budget.sounds, self._tokenizer, self._blank)
        if seconds <= self.budget.words_seconds:
            written = self.ids(f'\n"{words}"')[: self.budget.words] if words else []
            ids += written + [self._blank] * (self.budget.words - len(written))
        return [*self.ids(AUDIO_START), *ids, *self.ids(AUDIO_END)]

    def reply(self, steps: str, answer: str) -> Stretch:
        """What the policy writes at the end."""
        return Stretch(self.ids(f"{steps}{ANSWER}{answer}{ANSWER_END}{TURN_END}"), written=True)

    def call(self, start: float, end: float, before: str = "") -> Stretch:
        """A call to listen again."""
        return Stretch(self.ids(f"{before}{SEG}{second(start)}, {second(end) + 1}{SEG_END}"), written=True)

    def opened(self, listen: Sequence[int]) -> list[int]:
        """The user's turn with the first listen."""
        return [*self.ids(USER), *listen]

    def question(self, asked: Asked, duration: float) -> Stretch:
        """What follows on the first listen, up to the assistant's turn."""
        return Stretch(self.ids(prompt_text(asked.question, asked.choices, duration)))


# --- sounds -----------------------------------------------------------------------------------------------------


def sound_lesson(listener: Listener, rng: np.random.Generator, size: int) -> Pack:
    """A recording of sounds with up to ``size`` questions, each answered at once or after listening again."""
    record = simulate(rng)
    events = [heard(event) for event in record.events]
    branches: list[list[Stretch]] = []
    kinds = list(MAKERS)
    for i in rng.permutation(len(kinds)):
        asked = ask(record, kinds[int(i)], "train", rng)
        if asked is not None and (branch := sound_branch(listener, record, events, asked)):
            branches.append(branch)
        if len(branches) == size:
            break
    return pack_branches(listener.opened(listener.listen(events, record.duration)), branches)


def sound_branch(listener: Listener, record: Record, events: Sequence[Heard], asked: Asked) -> list[Stretch]:
    """Question, further listens and answer; nothing where more listens are needed than a lesson has."""
    detail = listener.detail(events)
    begun = listener.question(asked, record.duration)
    needed = DETAILS if asked.kind in EVERYTHING else 2 if asked.kind in SPANS else 1
    if detail >= needed or (asked.kind in ONE_ONLY and not asked.gold):
        return [begun, listener.reply(asked.steps, asked.answer)]
    if detail and asked.gold:
        spans = merged([(events[i].onset, events[i].offset) for i in asked.gold], record.duration)
    else:
        spans = parts(listener, events, record.duration)
    if not spans or len(spans) > MOST_LISTENS:
        return []
    branch = [begun]
    for start, end in spans:
        inside = within(events, start, end)
        branch += [listener.call(start, end - 1), Stretch(listener.listen(inside, end - start))]
    return [*branch, listener.reply(asked.steps, asked.answer)]


def merged(spans: Sequence[tuple[float, float]], duration: float) -> list[tuple[float, float]]:
    """Spans with a second around them, in whole seconds, those that touch as one."""
    joined: list[tuple[float, float]] = []
    for onset, offset in sorted(spans):
        start, end = float(max(0, second(onset - AROUND))), float(second(min(duration, offset + AROUND)) + 1)
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def parts(listener: Listener, events: Sequence[Heard], duration: float) -> list[tuple[float, float]]:
    """The whole recording in as few equal parts as a listen tells completely; empty where four do not do."""
    for count in range(2, MOST_LISTENS + 1):
        edges = [float(round(duration * k / count)) for k in range(count)] + [float(second(duration) + 1)]
        spans = list(zip(edges, edges[1:], strict=False))
        if all(listener.detail(within(events, *span)) >= 1 for span in spans):
            return spans
    return []


def within(events: Sequence[Heard], start: float, end: float) -> list[Heard]:
    """Events as they are heard in a span: what begins before it or ends behind it is cut."""
    return [
        Heard(e.name, max(e.onset, start), min(e.offset, end), e.hits, e.level_db, e.score)
        for e in events
        if e.onset < end and e.offset > start
    ]


# --- speech -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """One word and when it is said."""

    word: str
    time: float


def timed(lines: Sequence[Line]) -> list[Said]:
    """The words of a talk, each with its time."""
    said, clock = list[Said](), 0.0
    for line in lines:
        for word in line.text.split():
            said.append(Said(word, clock))
            clock += SECONDS_PER_WORD
        clock += 0.5
    return said


def talk_lesson(listener: Listener, rng: np.random.Generator, size: int) -> Pack:
    """A talk with up to ``size`` questions: its words are read in the first listen, or looked for part by part."""
    talk = make_talk(rng)
    while len(talk.lines) > LONGEST_TALK:
        talk = make_talk(rng)
    said = timed(talk.lines)
    duration = said[-1].time + 1.0
    events = [Heard(VOICE, 0.0, duration)]
    whole = " ".join(one.word for one in said)
    first = listener.listen(events, duration, whole)
    branches: list[list[Stretch]] = []
    questions = ask_about(talk, rng)
    for i in rng.permutation(len(questions)):
        branch = _talk_branch(listener, said, duration, questions[int(i)])
        if branch:
            branches.append(branch)
        if len(branches) == size:
            break
    return pack_branches(listener.opened(first), branches)


def _talk_branch(listener: Listener, said: Sequence[Said], duration: float, asked: Asked) -> list[Stretch]:
    """Listens to windows in order until the line that holds the answer has been heard, then quotes it."""
    quoted = asked.steps.partition('"')[2].removesuffix('"')
    steps = f'"{quoted}"' if quoted else ""
    begun = listener.question(asked, duration)
    whole = " ".join(one.word for one in said)
    if (
        duration <= listener.budget.words_seconds
        and len(listener.ids(f'\n"{whole}"')) <= listener.budget.words
    ):
        return [begun, listener.reply(steps, asked.answer)]
    branch, start = [begun], 0.0
    for _ in range(MOST_LISTENS):
        end = min(start + WINDOW, duration)
        words = " ".join(one.word for one in said if start <= one.time < end)
        branch += [
            listener.call(start, end - 1),
            Stretch(listener.listen([Heard(VOICE, start, end)], end - start, words)),
        ]
        if quoted and quoted.split()[-1] in words.split() and quoted.split()[0] in words.split():
            return [*branch, listener.reply(steps, asked.answer)]
        if end >= duration:
            return [*branch, listener.reply(steps, asked.answer)] if not quoted else []
        start = end - 2.0 if quoted else end
    return []
