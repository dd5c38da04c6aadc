"""From an idea to a question as somebody types it: wording, names of sounds, choices, and the manner of typing.

Words are of one *hand*: those trained on, or those of the second author. Choices are bare, with articles, lettered, in
sentences or as times of day; some people put them into the question; some type without capitals and with mistakes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.kinds.view import Idea, View
from echo_agent.finetune.data.natural.sounds import Hand, bare, sounds, the
from echo_agent.finetune.data.natural.talk import SENTENCE, Line, Talk
from echo_agent.finetune.data.natural.talk_questions import TalkQuestion, ask_talk, holds
from echo_agent.finetune.data.natural.transcripts import Transcript
from echo_agent.finetune.data.natural.written import read_yaml
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.vocabulary import DIGITS

CHOSEN = ("presence/which", "presence/missing")
"""Kinds that are always asked with choices: they ask for one of these."""
VERBATIM = ("talk/after", "talk/transcribe")
"""Kinds that ask for words as they are said."""
CLOSE_SECONDS = 1
"""Seconds by which an open answer to "when" may be off."""


@dataclass(frozen=True)
class Asked:
    """A question, as it is asked, and its answer."""

    kind: str
    question: str
    choices: tuple[str, ...] | None
    answer: str
    accepted: tuple[str, ...]
    """Every spelling that counts as right, the answer among them."""
    steps: str
    """What leads to the answer, in the words of a timeline."""
    gold: tuple[int, ...] = ()
    """Events that must be heard: indices among the record's sounds."""


@cache
def wordings(hand: Hand) -> dict[str, list[str]]:
    """Wordings by kind."""
    return read_yaml(f"wordings-{hand}.yaml")


def ask(record: Record, kind: str, hand: Hand, rng: np.random.Generator) -> Asked | None:
    """A question of a kind about a record, or None where the record offers none."""
    idea = MAKERS[kind](View(record, rng))
    if idea is None:
        return None
    lines = wordings(hand)[kind]
    names = {key: sounds()[key].called(hand, rng) for key in (idea.a, idea.b) if key}
    slots = {
        "a": the(names[idea.a]) if idea.a else "",
        "b": the(names[idea.b]) if idea.b else "",
        "an": names.get(idea.a, ""),
        "bn": names.get(idea.b, ""),
    }
    times = {slot: _time(int(text), rng) for slot, text in idea.slots.items() if slot in ("t", "t2")}
    slots |= idea.slots | times
    text = lines[int(rng.integers(len(lines)))].format(**slots)
    text = text[0].upper() + text[1:] if rng.random() < 0.7 else text
    answer, accepted, choices = _answered(idea, names, hand, rng)
    if choices and rng.random() < 0.08 and max(map(len, choices)) < 30:
        text = f"{text.rstrip('?. ')}: {', '.join(choices[:-1])} or {choices[-1]}?"
        choices = None
    return Asked(idea.kind, typed(text, rng), choices, answer, accepted, idea.steps, idea.gold)


@cache
def talk_wordings() -> dict[str, list[str]]:
    """Wordings of questions about speech, for training."""
    return read_yaml("talk-train.yaml")


def ask_about(talk: Talk, rng: np.random.Generator, heard: Transcript | None = None) -> list[Asked]:
    """Questions about speech, in the wordings of training; what leads to an answer is the sentence that says it.

    Where it is given what was heard, that is quoted, and what asks for the very words is asked only where they were
    heard as they were said.
    """
    found: list[Asked] = []
    for one in ask_talk(talk, rng, talk_wordings()):
        if heard is not None and one.kind in VERBATIM and _is_changed(talk, one.lines, heard):
            continue
        quoted = [i for i in one.lines if one.kind != "talk/transcribe"][:1]
        steps = "".join(f'{talk.lines[i].speaker}: "{_said(talk.lines[i], one, heard)}"' for i in quoted)
        if one.kind == "talk/speakers":
            steps = ", ".join(sorted({line.speaker for line in talk.lines})) + "."
        accepted = tuple(dict.fromkeys((one.answer, *one.accepted)))
        found.append(Asked(one.kind, typed(one.question, rng), one.choices, one.answer, accepted, steps))
    return found


def _is_changed(talk: Talk, lines: Sequence[int], heard: Transcript) -> bool:
    return any(talk.lines[i].text != heard.lines[i].text for i in lines)


def _said(line: Line, asked: TalkQuestion, heard: Transcript | None) -> str:
    """The line that says the answer, or of what was heard, the sentence of it."""
    if heard is None:
        return line.text
    sentences = SENTENCE.split(line.text)
    forms = (asked.answer, *asked.accepted)
    saying = [sentence for sentence in sentences if any(holds(sentence, form) for form in forms if form)]
    return heard.heard((saying or sentences)[0])


def _answered(
    idea: Idea, names: dict[str, str], hand: Hand, rng: np.random.Generator
) -> tuple[str, tuple[str, ...], tuple[str, ...] | None]:
    """The answer, all its spellings, and the choices where some are given."""
    if idea.form == "sentence":
        (text,) = idea.answer
        filled = text.format(a=bare(names[idea.a])) if idea.a else text
        return filled, (filled,), None
    if idea.form == "yes-no":
        (answer,) = idea.answer
        return answer, (answer, answer.title()), _yes_or_no(rng) if rng.random() < 0.3 else None
    if idea.form == "sounds":
        return _several(idea, hand, rng)
    if idea.form == "sound":
        return _one(idea, names, hand, rng)
    (answer,) = idea.answer
    wrong = [text for (text,) in idea.wrong]
    if idea.form == "time":
        style = TIMES[int(rng.integers(len(TIMES)))]
        if len(wrong) < 3 or rng.random() < 0.5:
            near = range(max(0, int(answer) - CLOSE_SECONDS), int(answer) + CLOSE_SECONDS + 1)
            return f"{answer} s", tuple(form for t in near for form in spellings(t)), None
        return _laid_out(style(int(answer)), [style(int(text)) for text in wrong], rng)
    if idea.form == "number":
        if len(wrong) < 2 or rng.random() < 0.5:
            return answer, (answer, *([DIGITS[int(answer)]] if int(answer) < 10 else [])), None
        return _laid_out(answer, wrong, rng)
    if not wrong or rng.random() < 0.4:
        return answer, (answer, f"the {answer}", f"in the {answer}", f"a {answer}", f"in a {answer}"), None
    return _laid_out(answer, wrong, rng)


def _yes_or_no(rng: np.random.Generator) -> tuple[str, ...]:
    return ("yes", "no") if rng.random() < 0.6 else ("no", "yes")


def _one(
    idea: Idea, names: dict[str, str], hand: Hand, rng: np.random.Generator
) -> tuple[str, tuple[str, ...], tuple[str, ...] | None]:
    """A sound as the answer: as the question called it, or by a name of its own."""
    (key,) = idea.answer
    wrong = [other for (other,) in idea.wrong]
    if idea.a and idea.b and key in (idea.a, idea.b):
        wrong = [idea.b if key == idea.a else idea.a]
        if rng.random() < 0.6:
            return the(names[key]), (*sounds()[key].spellings(), names[key], the(names[key])), None
    elif idea.kind not in CHOSEN and (len(wrong) < 3 or rng.random() < 0.35):
        name = sounds()[key].names[0]
        return name, (*sounds()[key].spellings(), name), None
    style = STYLES[int(rng.integers(len(STYLES)))]

    def called(k: str) -> str:
        return style(names[k] if k in names else sounds()[k].called(hand, rng))

    return _laid_out(called(key), [called(k) for k in wrong], rng)


def _several(
    idea: Idea, hand: Hand, rng: np.random.Generator
) -> tuple[str, tuple[str, ...], tuple[str, ...] | None]:
    """Several sounds as the answer: in order, or simply all of them."""
    if idea.wrong and rng.random() < 0.6:
        called = {key: bare(sounds()[key].called(hand, rng)) for key in idea.answer}
        glue = (", ", " - ", " > ", ", then ")[int(rng.integers(4))]
        return _laid_out(
            glue.join(called[k] for k in idea.answer),
            [glue.join(called[k] for k in w) for w in idea.wrong],
            rng,
        )
    every = [sounds()[key].names[0] for key in idea.answer]
    if idea.kind == "order/sequence":
        answer = ", then ".join(every)
    elif idea.kind == "describe/summary":
        answer = told(every)
    else:
        answer = joined(every) + "."
    return answer, (answer,), None


def joined(names: Sequence[str]) -> str:
    """``a dog, rain and a bell``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def told(names: Sequence[str]) -> str:
    """A summary, in one sentence: ``First there is a dog, then rain, and at the end a bell.``."""
    if len(names) == 1:
        return f"All that is heard is {names[0]}."
    if len(names) == 2:
        return f"First there is {names[0]}, then {names[1]}."
    return f"First there is {names[0]}, then {', '.join(names[1:-1])}, and at the end {names[-1]}."


def _laid_out(
    answer: str, wrong: Sequence[str], rng: np.random.Generator
) -> tuple[str, tuple[str, ...], tuple[str, ...] | None]:
    """Choices in random order, some with letters; wrong ones that read like the answer are left out."""
    options = [answer]
    for text in wrong:
        if text.casefold() not in {o.casefold() for o in options}:
            options.append(text)
    if len(options) < 2:
        return answer, (answer,), None
    options = [options[int(i)] for i in rng.permutation(len(options))]
    if rng.random() < 0.12:
        mark = ("{}. ", "{}) ", "({}) ")[int(rng.integers(3))]
        lettered = tuple(mark.format("ABCD"[k]) + text for k, text in enumerate(options))
        right = lettered[options.index(answer)]
        return right, (right, answer), lettered
    return answer, (answer,), tuple(options)


def _time(seconds: int, rng: np.random.Generator) -> str:
    """A place in time as somebody writes it into a question."""
    clock = f"{seconds // 60}:{seconds % 60:02d}"
    forms = (clock, f"{seconds} s", f"{seconds} seconds", f"second {seconds}", f"{seconds}s")
    return forms[int(rng.integers(len(forms)))]


def spellings(seconds: int) -> tuple[str, ...]:
    """A time as it may be answered."""
    clock = f"{seconds // 60}:{seconds % 60:02d}"
    return (f"{seconds} s", f"{seconds}", f"{seconds} seconds", f"{seconds}s", f"second {seconds}", clock)


TIMES = (
    lambda t: f"{t} s",
    lambda t: f"{t} seconds",
    lambda t: f"{t // 60}:{t % 60:02d}",
    lambda t: f"second {t}",
)
"""How choices that are times are written."""
STYLES = (
    bare,
    bare,
    lambda name: name,
    the,
    lambda name: bare(name).capitalize(),
    lambda name: f"{name[0].upper()}{name[1:]}.",
    lambda name: f"It is {the(name)}.",
)
"""How choices that are sounds are written."""


def typed(text: str, rng: np.random.Generator) -> str:
    """The question as somebody types it: some in lower case and without punctuation, some with a mistake or two."""
    if rng.random() < 0.2:
        text = text.lower().rstrip("?.!")
    if rng.random() < 0.12:
        for _ in range(1 + int(rng.random() < 0.4)):
            text = _mistyped(text, rng)
    return text


def _mistyped(text: str, rng: np.random.Generator) -> str:
    """Two letters swapped, one missing or one doubled, inside a word of four letters or more."""
    places = [i for i in range(1, len(text) - 2) if text[i - 1 : i + 3].isalpha()]
    if not places:
        return text
    i = places[int(rng.integers(len(places)))]
    how = int(rng.integers(3))
    if how == 0:
        return text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text[:i] + text[i + 1 :] if how == 1 else text[: i + 1] + text[i] + text[i + 1 :]
