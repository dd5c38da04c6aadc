"""Hours, dates, numbers, prices and phone numbers: how they are said, and how a person writes them down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T")

COUNTRIES = ("uk", "uk", "us", "us", "au", "ie", "eu")
"""Where a talk is from, the more frequent ones twice: it decides the money and the shape of phone numbers."""
MONEY = {"uk": ("£", "pound"), "us": ("$", "dollar"), "au": ("$", "dollar"), "ie": ("€", "euro")}
MONEY["eu"] = MONEY["ie"]
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
MONTHS += ("November", "December")
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
RANKS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth"}
RANKS |= {"nine": "ninth", "twelve": "twelfth", "twenty": "twentieth", "thirty": "thirtieth"}
PHONES = {
    "uk": ("07700 900###", "01632 960###", "020 7946 0###"),
    "us": ("555 01##", "212 555 01##", "415 555 01##", "303 555 01##"),
    "au": ("0491 570 ###", "5550 ####", "02 5550 ####"),
    "ie": ("020 915 ####", "020 917 ####"),
    "eu": ("0171 39200 ##", "030 23125 ###", "01 99 00 ## ##"),
}
"""Shapes of numbers that are kept free for films and books, or belong to nobody."""


@dataclass(frozen=True)
class Value:
    """A thing said: its words, how a person writes it, and what else is as good."""

    said: str
    answer: str
    accepted: tuple[str, ...] = ()

    @classmethod
    def of(cls, said: str, answer: str, others: Sequence[str] = ()) -> Value:
        """A value whose accepted spellings are all its other ones, what was said among them."""
        return cls(said, answer, tuple(dict.fromkeys(x for x in (said, *others) if x != answer)))


def words(number: int, *, joined: bool = True) -> str:
    """A whole number below a million in words: "four hundred and fifty", or without "and"."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{ONES[number % 10]}" if number % 10 else "")
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    head, rest = words(number // size, joined=joined), number % size
    if not rest:
        return f"{head} {name}"
    return f"{head} {name} {'and ' if joined and rest < 100 else ''}{words(rest, joined=joined)}"


def rank(number: int) -> str:
    """The ordinal of a number below a hundred: "twenty-first"."""
    head, dash, tail = words(number).rpartition("-")
    return head + dash + RANKS.get(tail, f"{tail}th")


def short_rank(number: int) -> str:
    """The ordinal as written: "21st"."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number // 10 != 1 else 0, "th")
    return f"{number}{ending}"


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def hour(rng: np.random.Generator, country: str, low: int = 7, high: int = 20) -> Value:
    """A time of day between two hours, in one of the ways of saying it."""
    h = int(rng.integers(low, high + 1))
    m = int(rng.choice([0, 0, 0, 15, 30, 30, 30, 45, 5, 10, 20, 25, 35, 40, 50, 55]))
    twelve = (h - 1) % 12 + 1
    now, following = words(twelve), words(twelve % 12 + 1)
    half = "am" if h < 12 else "pm"
    part = "in the morning" if h < 12 else "in the afternoon" if h < 18 else "in the evening"
    past = "after" if country == "us" else "past"
    if m == 0:
        plain = [f"{now} o'clock", now]
        said = [*plain, f"{now} o'clock", f"{twelve} {half}", f"{now} {part}"] + ["noon"] * 2 * (h == 12)
    else:
        minutes = words(m) if m >= 10 else f"oh {words(m)}"
        plain = [f"{now} {minutes}"]
        if m == 30:
            plain.append(f"half past {now}")
        elif m in (15, 45):
            plain.append(f"quarter {past} {now}" if m == 15 else f"quarter to {following}")
        else:
            plain.append(f"{words(m)} {past} {now}" if m < 30 else f"{words(60 - m)} to {following}")
        if h > 12:
            plain.append(f"{words(h)} {minutes}")
        said = [*plain, f"{plain[1]} {part}" if m in (15, 30, 45) else plain[1]]
    spoken = pick(rng, said)
    written = f"{h if spoken.startswith(words(h)) else twelve}:{m:02d}"
    forms = [f"{twelve}:{m:02d}", f"{h:02d}:{m:02d}", f"{twelve}.{m:02d}", f"{twelve}:{m:02d} {half}"]
    forms.append(f"{twelve}:{m:02d} {half[0]}.m.")
    forms += [f"{twelve} {half}", f"{twelve} o'clock", str(twelve)] * (m == 0)
    forms += [x.replace(" after ", " past ") for x in plain] + [f"{x} {part}" for x in plain]
    answer = spoken if rng.random() < 0.5 or spoken == "noon" else written
    return Value.of(spoken, answer, [*forms, *plain, *(["noon", "midday"] if (h, m) == (12, 0) else [])])


def day(rng: np.random.Generator) -> Value:
    """A day of the week, sometimes as "next" or "this"."""
    name = pick(rng, DAYS)
    said = pick(rng, (name, name, name, f"next {name}", f"this {name}"))
    return Value.of(said, name, [f"on {name}"])


def date(rng: np.random.Generator, country: str) -> Value:
    """A day of the year."""
    number, month = int(rng.integers(1, 29)), pick(rng, MONTHS)
    first = [f"the {rank(number)} of {month}"]
    second = [f"{month} {rank(number)}", f"{month} the {rank(number)}"]
    written = [f"{number} {month}", f"{month} {number}"]
    said = pick(rng, second if country == "us" else [*first, *second[1:]])
    short = [
        f"{short_rank(number)} of {month}",
        f"{month} {short_rank(number)}",
        f"the {short_rank(number)} of {month}",
    ]
    answer = said if rng.random() < 0.3 else written[country == "us"]
    return Value.of(said, answer, [*written, *short, *first, *second])


def count(rng: np.random.Generator, low: int = 2, high: int = 40) -> Value:
    """A number of things."""
    number = int(rng.integers(low, high + 1))
    if number > 100:
        number -= number % (10 if number < 1000 else 100)
    said = words(number)
    answer = str(number) if number > 9 or rng.random() < 0.4 else said
    return Value.of(said, answer, [str(number), f"{number:,}", words(number, joined=False)])


def price(rng: np.random.Generator, country: str, low: int = 5, high: int = 400) -> Value:
    """An amount of money; small ones often with pence or cents."""
    number = int(rng.integers(low, high + 1))
    if number > 60:
        number -= number % 5
    sign, name = MONEY[country]
    plural = name if number == 1 else f"{name}s"
    units = words(number)
    cents = int(rng.choice([20, 40, 50, 50, 75, 80, 90, 99])) if number < 60 and rng.random() < 0.6 else 0
    if not cents:
        said = f"{units} {plural}"
        return Value.of(said, pick(rng, (f"{sign}{number}", said)), _money(sign, f"{number}", plural))
    small = words(cents)
    forms = [f"{units} {plural} {small}", f"{units} {small}"]
    if country in ("uk", "us"):
        forms.append(f"{units} {plural} and {small} {'pence' if country == 'uk' else 'cents'}")
    written = f"{sign}{number}.{cents}"
    said = pick(rng, forms)
    return Value.of(
        said, pick(rng, (written, written, said)), [*_money(sign, f"{number}.{cents}", plural), *forms]
    )


def _money(sign: str, number: str, plural: str) -> list[str]:
    return [f"{sign}{number}", number, f"{number} {plural}", f"{number}{sign}"]


def phone(rng: np.random.Generator, country: str) -> Value:
    """A phone number, digit by digit in groups."""
    shape = pick(rng, PHONES[country])
    written = "".join(str(rng.integers(10)) if x == "#" else x for x in shape)
    zero = pick(rng, ("oh", "zero"))
    doubles = country in ("uk", "ie", "au") and bool(rng.random() < 0.5)
    return Value.of(_digits(written, zero, doubles), written, _grouped(written))


def extension(rng: np.random.Generator) -> Value:
    """A short number within a house."""
    number = str(rng.integers(112, 989))
    said = f"extension {' '.join(ONES[int(x)] for x in number)}"
    return Value.of(said, f"extension {number}", [number, f"ext. {number}", f"ext {number}"])


def _digits(written: str, zero: str, doubles: bool) -> str:
    groups = []
    for group in written.split():
        names, place = [], 0
        while place < len(group):
            name = zero if group[place] == "0" else ONES[int(group[place])]
            double = doubles and group[place : place + 2] == group[place] * 2
            names.append(f"double {name}" if double else name)
            place += 2 if double else 1
        groups.append(" ".join(names))
    return ", ".join(groups)


def _grouped(written: str) -> list[str]:
    return [written.replace(" ", ""), written.replace(" ", "-"), " ".join(written.replace(" ", ""))]


def make(fill: str, rng: np.random.Generator, country: str) -> Value:
    """A value of a kind that is made, not listed: "hour", "hour 9 12", "price 2 6", "count 3 40", "phone" ..."""
    name, *numbers = fill.split()
    limits = [int(x) for x in numbers]
    if name == "hour":
        return hour(rng, country, *limits)
    if name == "price":
        return price(rng, country, *limits)
    if name == "count":
        return count(rng, *limits)
    makers = {
        "day": lambda: day(rng),
        "date": lambda: date(rng, country),
        "extension": lambda: extension(rng),
    }
    makers["phone"] = lambda: phone(rng, country)
    return makers[name]()


MADE = ("hour", "price", "count", "day", "date", "phone", "extension")
