"""Listening again, taught on text: what ears would write into each listen, and when a policy should ask for another.

A simulated recording is heard as echo-small hears it: a first listen whose note has so many tokens, whatever there is
to tell, and words only where the span is short. Where the note lacks what the question needs (an end, a length,
strokes, loudness, what is said), the lesson listens again to the place, reads the answer there, and gives it; where the
note has it, the lesson answers at once. So the policy learns what a listen is worth without a second of audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from echo_agent.finetune.data.natural.asking import Asked, ask, ask_about
from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.talk import Talk, make_talk
from echo_agent.finetune.data.natural.timelines import SECONDS_PER_WORD, heard, simulate
from echo_agent.finetune.data.natural.transcripts import Transcript
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
OVERLAP = 4.0
"""Seconds that a window begins before the end of the one before it: a sentence that was cut is whole in the next."""
LONGEST_TALK = 16
"""Lines of the longest talk: in more windows than a lesson has, little could be found."""
FEW_LINES = 6
"""Lines of the longest talk that is heard among sounds."""
NOT_OF_SOUNDS_ALONE = frozenset(
    "order/next order/previous order/sequence order/nth between/which count/different repeat/once list/all "
    "describe/summary".split()
)
"""Kinds that ask about all that is heard: where somebody speaks, a voice is of it, and these are not asked."""


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

    def text(self, ids: Sequence[int]) -> str:
        """Text of token ids, tags kept."""
        return self._tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)

    def detail(self, events: Sequence[Heard]) -> int:
        """How much the note of these events tells of each: 1 to 3, and 0 where it leaves some out."""
        return detail_of(events, self.budget.sounds, lambda text: len(self.ids(text)))

    def listen(self, events: Sequence[Heard], seconds: float, words: str = "") -> list[int]:
        """A listen between its markers: what is heard in it, and the words where they are heard."""
        ids = sound_ids(events, self.budget.sounds, self._tokenizer, self._blank)
        if seconds <= self.budget.words_seconds:
            written = self.ids(f'\n"{words}"')[: self.budget.words] if words else []
            ids += written + [self._blank] * (self.budget.words - len(written))
        return self.between(ids)

    def between(self, ids: Sequence[int]) -> list[int]:
        """What stands in the places of a listen, between its markers."""
        return [*self.ids(AUDIO_START), *ids, *self.ids(AUDIO_END)]

    def fitting(self, words: Sequence[str]) -> int:
        """How many words from the first on a listen's places hold."""
        ids = self.ids(f'\n"{" ".join(words)}"')[: self.budget.words]
        text = self._tokenizer.decode(ids).removeprefix('\n"').removesuffix('"')
        whole = len(ids) < self.budget.words or text.endswith(tuple(words[-1:]))
        return len(words) if whole else max(0, len(text.split()) - 1)

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


# --- a scene ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """One word and when it is said."""

    word: str
    time: float


@dataclass(frozen=True)
class Scene:
    """What there is to hear in a recording: sounds, and the words of whoever speaks."""

    duration: float
    events: tuple[Heard, ...]
    """In order of onset; where somebody speaks there is a voice."""
    said: tuple[Said, ...] = ()

    def words(self, start: float, end: float) -> str:
        """What is said between two times."""
        return " ".join(one.word for one in self.said if start <= one.time < end)

    def listen(self, listener: Listener, start: float, end: float) -> list[int]:
        """A listen to a span."""
        return listener.listen(within(self.events, start, end), end - start, self.words(start, end))


def within(events: Sequence[Heard], start: float, end: float) -> list[Heard]:
    """Events as they are heard in a span: what begins before it or ends behind it is cut."""
    return [
        Heard(e.name, max(e.onset, start), min(e.offset, end), e.hits, e.level_db, e.score)
        for e in events
        if e.onset < end and e.offset > start
    ]


def in_order(events: Sequence[Heard]) -> tuple[Heard, ...]:
    """Events in order of onset."""
    return tuple(sorted(events, key=lambda event: event.onset))


# --- sounds -----------------------------------------------------------------------------------------------------


def sound_lesson(listener: Listener, rng: np.random.Generator, size: int) -> Pack:
    """A recording of sounds with up to ``size`` questions, each answered at once or after listening again."""
    record = simulate(rng)
    scene = Scene(record.duration, tuple(heard(event) for event in record.events))
    branches = [branch for _, branch in asked_about(listener, rng, size, record, scene, frozenset())]
    return pack_branches(listener.opened(scene.listen(listener, 0.0, scene.duration)), branches)


def asked_about(
    listener: Listener,
    rng: np.random.Generator,
    size: int,
    record: Record,
    scene: Scene,
    without: frozenset[str],
) -> list[tuple[Asked, list[Stretch]]]:
    """Up to ``size`` questions about the sounds of a scene with their branches, of different kinds but ``without``."""
    found: list[tuple[Asked, list[Stretch]]] = []
    kinds = [kind for kind in MAKERS if kind not in without]
    for i in rng.permutation(len(kinds)):
        asked = ask(record, kinds[int(i)], "train", rng)
        if asked is not None and (branch := sound_branch(listener, record, scene, asked)):
            found.append((asked, branch))
        if len(found) == size:
            break
    return found


def sound_branch(listener: Listener, record: Record, scene: Scene, asked: Asked) -> list[Stretch]:
    """Question, further listens and answer; nothing where more listens are needed than a lesson has."""
    detail = listener.detail(scene.events)
    begun = listener.question(asked, record.duration)
    is_a_row = asked.kind == "count/times" and len(asked.gold) == 1  # of strokes, perhaps
    needed = DETAILS if asked.kind in EVERYTHING or is_a_row else 2 if asked.kind in SPANS else 1
    if detail >= needed or (asked.kind in ONE_ONLY and not asked.gold):
        return [begun, listener.reply(asked.steps, asked.answer)]
    if detail and asked.gold:
        gold = [record.events[i] for i in asked.gold]
        spans = merged([(event.onset, event.offset) for event in gold], record.duration)
    else:
        spans = parts(listener, scene.events, record.duration)
    if not spans or len(spans) > MOST_LISTENS:
        return []
    branch = [begun]
    for start, end in spans:
        branch += [listener.call(start, end - 1), Stretch(scene.listen(listener, start, end))]
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


# --- speech -----------------------------------------------------------------------------------------------------


def timed(transcript: Transcript, start: float = 0.0) -> list[list[Said]]:
    """The words of a talk that begins at a time, line by line."""
    lines, clock = list[list[Said]](), start
    for line in transcript.lines:
        words = line.text.split()
        lines.append([Said(word, clock + SECONDS_PER_WORD * place) for place, word in enumerate(words)])
        clock += SECONDS_PER_WORD * len(words) + 0.5
    return lines


def voices(lines: Sequence[Sequence[Said]], rng: np.random.Generator) -> list[Heard]:
    """A talk as ears hear it: one voice, or several in a row where it pauses."""
    apart = 0.0 if rng.random() < 0.6 else 0.5
    found: list[Heard] = []
    for line in lines:
        start, end = line[0].time, line[-1].time + SECONDS_PER_WORD
        if found and rng.random() >= apart:
            found[-1] = Heard(VOICE, found[-1].onset, end)
        else:
            found.append(Heard(VOICE, start, end))
    return found


def draw_talk(rng: np.random.Generator, most: int) -> Talk:
    """A talk of so many lines at most."""
    talk = make_talk(rng)
    while len(talk.lines) > most:
        talk = make_talk(rng)
    return talk


def talk_lesson(listener: Listener, rng: np.random.Generator, size: int) -> Pack:
    """A talk with questions: its words are read in the first listen, or looked for part by part.

    ``size`` is for questions that bring listens of their own; of those that bring none there are up to six.
    """
    talk = draw_talk(rng, LONGEST_TALK if rng.random() < 0.5 else FEW_LINES)
    transcript = Transcript(talk, rng)
    lines = timed(transcript, float(rng.choice([0.0, round(rng.uniform(0, 3), 1)])))
    said = [one for line in lines for one in line]
    duration = round(said[-1].time + 1.0 + rng.uniform(0, 2), 1)
    scene = Scene(duration, tuple(voices(lines, rng)), tuple(said))
    branches = _about_talk(listener, rng, size, talk, transcript, scene)
    return pack_branches(listener.opened(scene.listen(listener, 0.0, duration)), branches)


def mixed_lesson(listener: Listener, rng: np.random.Generator, size: int) -> Pack:
    """A recording of sounds in which somebody speaks, with questions about both."""
    record = simulate(rng)
    while not 1 <= len(record.events) <= 6 or record.duration > 120:
        record = simulate(rng)
    talk = draw_talk(rng, FEW_LINES)
    transcript = Transcript(talk, rng)
    place = int(rng.integers(len(record.events) + 1))
    begin = max(
        (event.offset for event in record.events[:place] if event.offset < record.duration), default=0.0
    )
    lines = timed(transcript, begin + 0.5)
    said = [one for line in lines for one in line]
    gap = said[-1].time + 1.0 - begin
    events = tuple(
        replace(event, onset=event.onset + gap, offset=event.offset + gap) if event.onset >= begin else event
        for event in record.events
    )
    record = record.model_copy(update={"events": events, "duration": round(record.duration + gap, 1)})
    scene = Scene(record.duration, in_order([*map(heard, record.events), *voices(lines, rng)]), tuple(said))
    branches = _about_talk(listener, rng, size, talk, transcript, scene)
    asked = asked_about(listener, rng, 2 * size, record, scene, NOT_OF_SOUNDS_ALONE)
    branches += [branch for _, branch in asked]
    return pack_branches(listener.opened(scene.listen(listener, 0.0, scene.duration)), branches)


def _about_talk(
    listener: Listener,
    rng: np.random.Generator,
    size: int,
    talk: Talk,
    transcript: Transcript,
    scene: Scene,
) -> list[list[Stretch]]:
    branches, at_once = list[list[Stretch]](), list[list[Stretch]]()
    if not listener.detail(scene.events):
        return []
    questions = ask_about(talk, rng, transcript)
    for i in rng.permutation(len(questions)):
        branch = talk_branch(listener, scene, questions[int(i)])
        if len(branch) == 2:
            at_once.append(branch)
        elif branch and len(branches) < size:
            branches.append(branch)
    return branches + at_once[: 3 * size]


def talk_branch(listener: Listener, scene: Scene, asked: Asked) -> list[Stretch]:
    """Reads what holds the answer in the first listen, or listens on in order until it is heard; quotes and answers.

    Nothing where that takes more listens than a lesson has.
    """
    quoted = asked.steps.partition('"')[2].removesuffix('"')
    last = scene.said[-1].time
    reply = listener.reply(f'"{quoted}"' if quoted else "", asked.answer)
    branch = [listener.question(asked, scene.duration)]
    start = scene.said[0].time
    if scene.duration <= listener.budget.words_seconds:
        seen = listener.fitting([one.word for one in scene.said])
        if (quoted in " ".join(one.word for one in scene.said[:seen])) if quoted else seen == len(scene.said):
            return [*branch, reply]
        start = max(start, scene.said[min(seen, len(scene.said) - 1)].time - OVERLAP)
    for _ in range(MOST_LISTENS):
        start, end = float(second(start)), min(float(second(start)) + WINDOW, scene.duration)
        branch += [listener.call(start, end - 1), Stretch(scene.listen(listener, start, end))]
        if quoted and quoted in scene.words(start, end):
            return [*branch, reply]
        if end > last:
            return [] if quoted else [*branch, reply]
        start = end - OVERLAP
    return []
