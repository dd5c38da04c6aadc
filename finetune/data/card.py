"""The dataset card: what a dataset holds, drawn from its own samples and records.

``README.md`` begins with the header that tells ``datasets`` the splits and their files. What follows is counted, not
claimed: samples, categories, answers, durations, sources and licences. Only what the data cannot know is given by the
caller: what it is for, the command, the seed, what to beware of. Durations are seconds where nothing else is said.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pydantic import BaseModel, ConfigDict

from echo_agent.answers import match_choice
from echo_agent.finetune.data.charts import draw_charts
from echo_agent.finetune.data.records import Record, Sample
from echo_agent.terminal import printable

Splits = Mapping[str, Sequence[Sample]]

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
LISTED = 25
"""Most sources that are listed."""

COLUMNS = {
    "id": "name of the sample, unique",
    "audio": "the recording: path relative to this folder",
    "duration": "its length in seconds",
    "question": "what is asked",
    "choices": "what the answer is chosen from; null for an open question",
    "answer": "the right choice, or the one right answer",
    "answers": "all right answers of an open question that has several",
    "gold_spans": "where the answer can be heard: start and end in seconds",
    "family, difficulty": "kind of question; `detail` where one listen to the whole is not enough",
    "record, corpus, group": "what it is about, where that comes from, and what stays in one split",
    "split, use": "`train`, `validation` or `test`; `sft` with reasoning, `rl` without",
    "reasoning": "a thought that listens again: `<seg>3, 6</seg>` stands before what is heard there",
    "phrasing, composer": "which wording was taken, and who worded it",
    "licence": "of the recording",
}


class About(BaseModel):
    """What a card says that the data cannot know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    """One paragraph."""
    command: str
    """The command that built it."""
    seed: int
    history: str = ""
    """What became of the questions that were composed, a sentence or two."""
    versions: Mapping[str, str] = {}
    """Versions of what it was built with, by name."""
    caveats: tuple[str, ...] = ()
    """What to beware of, a sentence or two each."""
    licence: str = "other"
    """Of the dataset as a whole, as the hub names it."""


def write_card(
    folder: Path,
    splits: Splits,
    records: Iterable[Record],
    about: About,
    files: Mapping[str, Sequence[str]],
    *,
    embedded: bool = False,
    digest: str = "",
) -> Path:
    """Write ``README.md`` and its pictures, ``card/*.png``; returns the path of the former.

    Args:
        folder: Of the dataset.
        splits: Samples by name of the split, none of them empty.
        records: What is known of the recordings; those that nothing is asked about do not count.
        about: What the caller knows.
        files: The files of each split, relative to the folder.
        embedded: Whether the recordings are in these files.
        digest: A hash of all rows, which the header holds: ``datasets`` caches what it has read by the header, and by
            nothing in the files.
    """
    (folder / "card").mkdir(parents=True, exist_ok=True)
    draw_charts(folder / "card", splits)
    asked = {sample.record for rows in splits.values() for sample in rows}
    known = [record for record in records if record.id in asked]
    parts = [
        _header(splits, about, files, digest),
        f"# {_line(about.name)}\n\n{_line(about.description)}",
        _loading(splits, embedded),
        _contents(splits),
        _categories(splits),
        _balance(splits),
        _sources(known),
        _examples(splits),
        "## Columns\n\n" + _table(("column", "holds"), [(f"`{k}`", v) for k, v in COLUMNS.items()]),
        "## Beware\n\n" + "\n".join(f"- {_line(caveat)}" for caveat in about.caveats)
        if about.caveats
        else "",
        _making(about),
    ]
    path = folder / "README.md"
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")
    return path


def place_of(sample: Sample) -> int | None:
    """Which of the choices is right, from 0; None where there are none."""
    return None if sample.choices is None else match_choice(sample.answer, sample.choices)


def _header(splits: Splits, about: About, files: Mapping[str, Sequence[str]], digest: str) -> str:
    """The YAML header; values are JSON, which YAML takes."""
    total = sum(map(len, splits.values()))
    size = next((name for limit, name in SIZES if total < limit), "n>1M")
    lines = [
        "---",
        f"pretty_name: {json.dumps(_line(about.name))}",
        "language: [en]",
        f"license: {json.dumps(about.licence)}",
        "task_categories: [question-answering, multiple-choice, audio-text-to-text]",
        "tags: [audio, audio-question-answering, listening-again]",
        f"size_categories: [{json.dumps(size)}]",
        "configs:",
        "- config_name: default",
        *([f"  description: {json.dumps(f'rows sha256 {digest}')}"] if digest else []),
        "  data_files:",
    ]
    for name in splits:
        lines += [f"  - split: {name}", f"    path: {json.dumps(list(files[name]))}"]
    return "\n".join([*lines, "---"])


def _loading(splits: Splits, embedded: bool) -> str:
    tests = [name for name in splits if name not in ("train", "validation")]
    where = (
        "The recordings are in the files (`audio`: bytes and path)."
        if embedded
        else "The recordings lie beside the files; `audio` is a path relative to this folder."
    )
    listed = ", ".join(f"`{name}.jsonl`" for name in tests)
    evaluate = f" The tests are also rows for `echo-agent eval`: {listed}." if tests else ""
    first = next(iter(splits))
    code = (
        f'from datasets import load_dataset\n\nsamples = load_dataset("path/to/this/folder", split="{first}")'
    )
    return f"```python\n{code}\n```\n\n{where}{evaluate}"


def _contents(splits: Splits) -> str:
    rows: list[tuple[object, ...]] = []
    for name, samples in splits.items():
        seconds = sorted({s.audio: s.duration for s in samples if s.duration is not None}.values())
        lengths = f"{seconds[0]:.0f} – {median(seconds):.0f} – {seconds[-1]:.0f}" if seconds else ""
        thought = [s for s in samples if s.reasoning]
        listens = _share(sum(s.listens for s in thought), len(thought)) if thought else "–"
        recordings, hours = len({s.audio for s in samples}), f"{sum(seconds) / 3600:.1f}"
        closed = sum(s.choices is not None for s in samples)
        uses = Counter(s.use for s in samples)
        counts = (
            len(samples),
            recordings,
            hours,
            lengths,
            closed,
            len(samples) - closed,
            uses["sft"],
            uses["rl"],
        )
        rows.append((name, *counts, listens))
    heads = (
        "split",
        "samples",
        "recordings",
        "hours",
        "shortest – median – longest, s",
        "with choices",
        "open",
        "sft",
        "rl",
    )
    text = (
        "`sft` samples have reasoning, `rl` samples are questions alone; *listens* is the share of the reasonings that "
        "listen again."
    )
    pictures = "![Durations of the recordings](card/durations.png)\n\n![Gold spans](card/spans.png)"
    return f"## What is in it\n\n{_table((*heads, 'listens'), rows)}\n\n{text}\n\n{pictures}"


def _categories(splits: Splits) -> str:
    samples = [sample for rows in splits.values() for sample in rows]
    counts = Counter(sample.category for sample in samples)
    rows: list[tuple[object, ...]] = []
    for category in sorted(counts, key=lambda f: (-counts[f], f)):
        mine = [sample for sample in samples if sample.category == category]
        per = (sum(s.category == category for s in part) for part in splits.values())
        thought = [s for s in mine if s.reasoning]
        rows.append((
            _line(category) or "–", *per, _share(sum(s.difficulty == "detail" for s in mine), len(mine)),
            _share(sum(s.choices is None for s in mine), len(mine)),
            _share(sum(s.listens for s in thought), len(thought)),
        ))  # fmt: skip
    text = "*Detail* is the share of questions that a listen to the whole recording is not enough for."
    heads = ("category", *splits, "detail", "open", "listens")
    return f"## Categories\n\n{_table(heads, rows)}\n\n{text}\n\n![Categories by split](card/categories.png)"


def _balance(splits: Splits) -> str:
    """Where the right choice stands."""
    places: dict[int, Counter[int]] = {}
    for rows in splits.values():
        for sample in rows:
            place = place_of(sample)
            if place is not None:
                places.setdefault(len(sample.choices or ()), Counter())[place] += 1
    if not places:
        return ""
    most = max(places)
    table = [
        (
            size,
            sum(found.values()),
            *(_share(found[i], sum(found.values())) if i < size else "" for i in range(most)),
        )
        for size, found in sorted(places.items())
    ]
    heads = ("choices", "questions", *(f"right: no. {i + 1}" for i in range(most)))
    return f"## Where the right choice stands\n\n{_table(heads, table)}\n\n![Places of the answers](card/answers.png)"


def _sources(records: Sequence[Record]) -> str:
    if not records:
        return ""
    corpora = _counted(records, lambda record: [record.corpus])
    licences = _counted(records, lambda record: record.licence.split("; "))
    sources = _counted(records, lambda r: [s.partition(":")[0] for event in r.events for s in event.sources])
    parts = [
        f"## Sources and licences\n\n{len(records)} recordings. One that is mixed of several sources counts for each.",
        _table(("corpus", "recordings"), corpora),
        _table(("licence", "recordings"), licences),
        _table(("source of sounds", "recordings"), sources[:LISTED]) if sources else "",
        f"and {len(sources) - LISTED} more sources" if len(sources) > LISTED else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _counted(records: Sequence[Record], names: Callable[[Record], Iterable[str]]) -> list[tuple[str, int]]:
    """How many records have each name, the most frequent first."""
    counts = Counter(_line(name) or "not stated" for record in records for name in set(names(record)))
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def _examples(splits: Splits) -> str:
    """One sample of each category: one that listens where there is one, from the first split that has the category."""
    best: dict[str, Sample] = {}
    for rows in splits.values():
        for sample in rows:
            known = best.get(sample.category)
            if known is None or (sample.listens and not known.listens):
                best[sample.category] = sample
    return "## Examples\n\n" + "\n\n".join(_example(best[category]) for category in sorted(best))


def _example(sample: Sample) -> str:
    right = place_of(sample)
    choices = " · ".join(
        f"**{_line(choice)}**" if i == right else _line(choice)
        for i, choice in enumerate(sample.choices or ())
    )
    spans = ", ".join(f"{start:g} – {end:g} s" for start, end in sample.gold_spans)
    lines = [f"**{_line(sample.category) or 'question'}**: {_line(sample.question)}"]
    lines.append(choices or f"Answer: **{_line(sample.right[0])}**")
    lines += [f"Heard at {spans}."] * bool(spans)
    lines += [f"> {_line(sample.reasoning)}"] * bool(sample.reasoning)
    return "\n\n".join(lines)


def _making(about: About) -> str:
    versions = "".join(
        f"- {_line(name)} {_line(version)}\n" for name, version in sorted(about.versions.items())
    )
    built = f"## How it was made\n\n```\n{about.command.strip()}\n```\n\nSeed {about.seed}."
    if about.history:
        built += f" {_line(about.history)}"
    return f"{built} With:\n\n{versions}".rstrip() if versions else built


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = list(rows)
    right = [all(_numeric(row[i]) for row in body) for i in range(len(heads))]
    lines = [heads, ["---:" if numbers else "---" for numbers in right], *body]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _numeric(cell: Any) -> bool:
    return isinstance(cell, int) or all(letter in "0123456789.,–% " for letter in cell)


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def _line(text: str) -> str:
    """A text from outside on one line, in which nothing is markup of a page or a command to a terminal."""
    return printable(" ".join(text.split())).replace("<", "&lt;").replace(">", "&gt;")
