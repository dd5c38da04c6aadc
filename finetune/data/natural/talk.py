"""Speech as people have it: messages, announcements, conversations, talks; each with the facts that are said in it.

The patterns are data (``talk.yaml`` and the files beside it). A genre is a plan: parts in a row, each with its speaker
and many sentences to choose from, in which slots stand for names, hours, places and so on. A slot keeps its value
through a talk; where it is first said, a fact is noted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from echo_agent.errors import DataError
from echo_agent.finetune.data.natural.spoken import COUNTRIES, MADE, Value, make, pick
from echo_agent.finetune.data.natural.written import read_yaml

FILES = ("talk.yaml", "talk-announcements.yaml", "talk-conversations.yaml", "talk-lectures.yaml")
SENTENCE = re.compile(r"(?<=[.?!]) +")
"""Where one sentence ends and the next begins."""
SLOT = re.compile(r"\{(\w+)(?:\|(\w+))?\}")
DETERMINER = re.compile(r"(?:the|an?|my|your|our|some) ", re.IGNORECASE)
ON_NEXT = re.compile(r"\bon (?=(?:this|next) [MTWFS]\w+day)", re.IGNORECASE)
"""What a day loses that is said as "next Friday"."""
NAMES = ("first", "full_name", "surname", "titled")
"""Fillings that are names of persons."""


@dataclass(frozen=True)
class Line:
    """What one person says at a stretch: a sentence or two, or a turn of a conversation."""

    speaker: str
    text: str


@dataclass(frozen=True)
class Fact:
    """Something said that can be asked for.

    ``line`` is where it is first said, or -1 for what this kind of talk often says and this one does not. ``about``
    holds what a question needs: the thing in question (``about``), the word for a room or platform (``spot``), and
    where other values of the kind come from (``fill``, ``among``, ``country``).
    """

    kind: str
    answer: str
    accepted: tuple[str, ...]
    line: int
    about: dict[str, str]


@dataclass(frozen=True)
class Talk:
    """A recording of speech, as text: its lines, its facts, what it is about, and what it leaves unsaid."""

    genre: str
    lines: tuple[Line, ...]
    facts: tuple[Fact, ...]
    subjects: tuple[str, ...] = ()
    missing: tuple[Fact, ...] = ()


@cache
def grammar() -> dict[str, dict[str, Any]]:
    """``fillings``, ``patterns`` (sentences that genres share) and ``genres``, from all files."""
    found: dict[str, dict[str, Any]] = {"fillings": {}, "patterns": {}, "genres": {}}
    for name in FILES:
        for part, entries in read_yaml(name).items():
            found[part].update(entries)
    return found


def genres(family: str | None = None) -> list[str]:
    """Names of all genres, or of a family: "conversation" stands for "conversation/cafe" and others."""
    return [x for x in grammar()["genres"] if family is None or x == family or x.startswith(f"{family}/")]


def make_talk(rng: np.random.Generator, genre: str | None = None) -> Talk:
    """A new talk of a genre, of a family of genres, or of any.

    Raises:
        DataError: There is no such genre.
    """
    names = genres(genre)
    if not names:
        raise DataError(f"there is no genre {genre!r}; there are: {', '.join(genres())}")
    name = pick(rng, names)
    writer = _Writer(name, rng)
    for part in _parts(grammar()["genres"][name]["plan"], rng):
        writer.say(part)
    return writer.talk()


def listed(entry: object) -> Value:
    """A value from a list of fillings: ``a sofa|couch`` accepts the couch too; articles are left out as well."""
    said, *others = str(entry).split("|")
    forms = [said, *others]
    return Value.of(
        said, said, [*others, *(DETERMINER.sub("", x, count=1) for x in forms if DETERMINER.match(x))]
    )


def filling(
    fill: str, rng: np.random.Generator, country: str, records: dict[str, Any] | None = None
) -> Value:
    """A value for a slot: made, from a list, or from a field of a record ("errand.reason")."""
    if fill.split()[0] in MADE:
        return make(fill, rng, country)
    lists = grammar()["fillings"]
    if fill in ("full_name", "titled"):
        surname = str(pick(rng, lists["surname"]))
        front = str(pick(rng, lists["first" if fill == "full_name" else "title"]))
        both = f"{front} {surname}"
        return Value.of(
            both, both, [front, surname] if fill == "full_name" else [surname, f"{front[:2]} {surname}"]
        )
    name, _, field = fill.partition(".")
    if not field:
        return listed(pick(rng, lists[name]))
    records = {} if records is None else records
    if name not in records:
        records[name] = pick(rng, lists[name])
    return listed(records[name][field])


def shape(text: str, how: str | None) -> str:
    """A filling in a form that its sentence needs: ``the`` for "a bicycle" said again, ``bare`` without its article."""
    if how is None:
        return text
    bare = DETERMINER.sub("", text, count=1)
    return {"the": f"the {bare}", "bare": bare, "first": text.split()[0]}[how]


def tidy(text: str) -> str:
    """Sentences with their capitals."""
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"(^|[.?!] )([a-z])", lambda found: found[1] + found[2].upper(), text)


def _parts(plan: list[dict[str, Any]], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """The parts that this talk has, in its order: some stand or fall together, some change places with the next."""
    coins: dict[str, bool] = {}
    kept = []
    for part in plan:
        for key in (part.get("when"), part.get("unless")):
            if key is not None and key not in coins:
                coins[key] = bool(rng.random() < 0.6)
        if coins.get(part.get("when", ""), True) and not coins.get(part.get("unless", ""), False):
            kept.append(part)
    for i in range(len(kept) - 1):
        if kept[i].get("swap") and rng.random() < 0.5:
            kept[i], kept[i + 1] = kept[i + 1], {key: x for key, x in kept[i].items() if key != "swap"}
    yield from kept


class _Writer:
    """Writes one talk: keeps the values of its slots, and where each was first said."""

    def __init__(self, genre: str, rng: np.random.Generator) -> None:
        self.genre, self.rng = genre, rng
        self.rules: Mapping[str, Any] = grammar()["genres"][genre]
        self.country = pick(rng, COUNTRIES)
        self.records: dict[str, Any] = {}
        self.values: dict[str, Value] = {}
        self.seen: dict[str, int] = {}
        self.lines: list[Line] = []
        self.points: list[Fact] = []
        self.used: set[str] = set()

    def value(self, slot: str) -> Value:
        """A slot's value, chosen when it is first needed, and other than those of its siblings."""
        if slot not in self.values:
            fill = self.rules["slots"][slot][0]
            taken = {form for value in self.values.values() for form in (value.answer, value.said)}
            for _ in range(30):
                value = filling(fill, self.rng, self.country, self.records)
                if not {value.said, value.answer, *value.accepted} & taken or "." in fill:
                    break
            else:
                raise DataError(f"{self.genre}: no unused value for {slot}")
            self.values[slot] = value
        return self.values[slot]

    def fill(self, pattern: str, extra: Mapping[str, str] | None = None) -> str:
        """A pattern with its slots filled in."""

        def found(match: re.Match[str]) -> str:
            said = (extra or {}).get(match[1]) or self.value(match[1]).said
            return shape(said, match[2])

        return ON_NEXT.sub("", SLOT.sub(found, pattern))

    def choose(self, patterns: str | list[str]) -> str:
        """One of the sentences of a part that was not yet said."""
        lines = grammar()["patterns"][patterns] if isinstance(patterns, str) else patterns
        fresh = [x for x in lines if x not in self.used] or lines
        self.used.add(line := pick(self.rng, fresh))
        return line

    def add(self, speaker: str, pattern: str, extra: Mapping[str, str] | None = None) -> None:
        """Say one line, and note what is first said in it."""
        for slot, _ in SLOT.findall(pattern):
            if slot not in (extra or {}):
                self.seen.setdefault(slot, len(self.lines))
        self.lines.append(Line(speaker, tidy(self.fill(pattern, extra))))

    def say(self, part: Mapping[str, Any]) -> None:
        """Say a part: one line, or a row of points."""
        speaker = part.get("who", "a")
        if "each" not in part:
            self.add(speaker, self.choose(part["say"]))
            return
        name, _, field = part["each"].partition(".")
        self.records.setdefault(name, pick(self.rng, grammar()["fillings"][name]))
        points: list[dict[str, Any]] = [
            x if isinstance(x, dict) else {"name": x, "say": []} for x in self.records[name][field]
        ]
        names = [point["name"] for point in points]
        about = {"about": "", "fill": part["each"], "among": "|".join(names), "country": self.country}
        for i, point in enumerate(points):
            place = "first" if i == 0 else "last" if i == len(points) - 1 else "middle"
            plain = listed(point["name"])
            if point["say"] and place != "middle":
                self.points.append(
                    Fact(f"{place}_point", plain.answer, plain.accepted, len(self.lines), about)
                )
            elif not point["say"]:
                when = f"right after you {names[i - 1]}" if i else "first of all"
                when = pick(self.rng, (when, "last of all")) if place == "last" else when
                self.points.append(
                    Fact("step", plain.answer, plain.accepted, len(self.lines), about | {"about": when})
                )
            self.add(speaker, self.choose(part[place]), {"step": point["name"]})
            for line in point["say"]:
                self.add(speaker, line)
            if "extras" in part and place != "last" and self.rng.random() < 0.75:
                unsaid = [
                    x for x in part["extras"] if not any(slot in self.seen for slot, _ in SLOT.findall(x))
                ]
                self.add(speaker, self.choose(unsaid))

    def ready(self, pattern: str) -> bool:
        """Whether a pattern speaks only of what was said, or of the same record as something said."""
        fills = [self.rules["slots"][slot][0] for slot in self.seen]
        records = {fill.partition(".")[0] for fill in fills if "." in fill}
        slots = [slot for slot, _ in SLOT.findall(pattern)]
        return all(x in self.seen or self.rules["slots"][x][0].partition(".")[0] in records for x in slots)

    def fact(self, slot: str, line: int) -> Fact | None:
        """What is known of a slot, if it is one to be asked for."""
        fill, *rest = self.rules["slots"][slot]
        if not rest:
            return None
        kind, *abouts = rest
        ready = [x for x in abouts if self.ready(x)]
        if abouts and not ready:
            return None
        about = {
            "about": self.fill(pick(self.rng, ready)) if ready else "",
            "fill": fill,
            "country": self.country,
        }
        if kind == "room":
            about["spot"] = fill.split(".")[-1]
        value = self.value(slot) if line >= 0 else Value("", "")
        return Fact(kind, value.answer, value.accepted, line, about)

    def talk(self) -> Talk:
        """The finished talk."""
        facts = [x for slot, line in self.seen.items() if (x := self.fact(slot, line)) is not None]
        facts += self.points
        said = {fact.kind for fact in facts}
        absent = [
            x
            for slot in self.rules["slots"]
            if slot not in self.seen and (x := self.fact(slot, -1)) is not None
        ]
        ready = [x for x in self.rules["subjects"] if self.ready(x)]
        if not ready:
            raise DataError(f"{self.genre}: nothing says what it is about")
        return Talk(
            self.genre,
            tuple(self.lines),
            tuple(sorted(facts, key=lambda fact: fact.line)),
            tuple(self.fill(x) for x in ready),
            tuple(x for x in absent if x.kind not in said),
        )
