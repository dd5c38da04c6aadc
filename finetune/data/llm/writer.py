"""The writer: a language model that asks about recordings it does not hear.

It is given what is known of a record (events with times, captions, a listener's notes) and writes questions with four
choices, the answer, the spans where it is heard, and reasoning that names a span before it speaks about it. What it
writes is a claim, so it is held to rules before it is a sample; a question that breaks one goes back with the reason.
The right choice is put in a place of our own drawing, since models have favourite places.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echo_agent.answers import ANSWER, ANSWER_END, match_choice, normalise
from echo_agent.dialects import SEG, THINK, THINK_END, InlineDialect
from echo_agent.finetune.data.corpora.sourced import reasons
from echo_agent.finetune.data.llm.completions import Completions
from echo_agent.finetune.data.llm.prompts import load_prompt, record_text
from echo_agent.finetune.data.llm.usage import Price, Usage
from echo_agent.finetune.data.questions.checks import called_span, choice_fault, reasoning_fault, span_fault
from echo_agent.finetune.data.records import Record, Sample, Split
from echo_agent.finetune.data.stages import Progress, Rows, content_hash, read_rows, run_stage

CHOICES = 4
TOLD = 5
"""Most faults that are reported to the model at once."""

Seconds = Annotated[float, Field(allow_inf_nan=False)]


class WrittenSpan(BaseModel):
    """A part of the recording."""

    start: Seconds
    end: Seconds


class WrittenQuestion(BaseModel):
    """One question about the recording."""

    question: str
    choices: list[str]
    answer: str
    spans: list[WrittenSpan]
    reasoning: str


class WrittenQuestions(BaseModel):
    """Questions about the recording."""

    questions: list[WrittenQuestion]


class WriterSettings(BaseModel):
    """How a set of questions is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    questions: Annotated[int, Field(ge=1, le=20)] = 4
    """Questions per record."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the places of right choices."""


@dataclass(frozen=True)
class Composition:
    """What a language model wrote about a set of records."""

    samples: tuple[Sample, ...]
    skipped: dict[str, str]
    """Records that gave no question, and why."""
    short: dict[str, str]
    """Records that gave fewer questions than were asked for, and what was wrong with the rest."""
    usage: Usage

    def report(self, price: Price | None = None) -> str:
        """What there is, what is missing and why, and what it has cost."""
        lines = [f"{len(self.samples)} questions written"]
        for name, found in (("skipped", self.skipped), ("with fewer questions than asked for", self.short)):
            if found:
                first, why = next(iter(found.items()))
                lines.append(f"  {len(found)} records {name} (first: {first}: {why})")
        return "\n".join([*lines, f"  {self.usage.report(price)}"])


def write_questions(
    records: Sequence[Record],
    folder: Path,
    completions: Completions,
    settings: WriterSettings | None = None,
    *,
    notes: Mapping[str, Mapping[str, str]] | None = None,
    split: Callable[[Record], Split] | None = None,
    prompts: Path | None = None,
    workers: int = 8,
    progress: Progress | None = None,
) -> Composition:
    """Let a language model ask about records; resumes where it was stopped.

    Args:
        records: What is asked about.
        folder: Of the build; gets ``written.parquet``, one row per record.
        completions: The model.
        settings: How.
        notes: A listener's notes by record (:class:`~echo_agent.finetune.data.llm.captions.Descriptions`).
        split: Which split a record belongs to; the record's own where None, else training.
        prompts: Folder of the caller's own ``compose.txt``, with ``$questions`` in it.
        workers: Records at once.
        progress: Told how many records are done.

    Raises:
        DataError: The prompt cannot be used, the stage was begun with other settings, or the disk is full.
        ModelError: The model cannot be asked; what was answered is kept.
    """
    settings = settings or WriterSettings()
    notes = notes or {}
    prompt = load_prompt("compose", ("questions",), prompts)
    system = prompt.fill(questions=str(settings.questions))
    parts = {f"{number:07d}": record for number, record in enumerate(records)}

    def work(part: str) -> Rows:
        record = parts[part]
        where = (split(record) if split else record.split) or "train"
        taken = _QuestionsTaken(record, where, settings, completions.name, prompt.version)
        reply = completions.ask(
            system, record_text(record, notes.get(record.id)), WrittenQuestions, taken.check
        )
        samples = [sample.model_dump(mode="json") for sample in taken.samples]
        return [{"record": record.id, "samples": samples, "problem": reply.problem, **asdict(reply.usage)}]

    path = run_stage(
        folder,
        "written",
        list(parts),
        work,
        settings={
            "model": completions.settings,
            "prompt": prompt.version,
            "settings": settings.model_dump(mode="json"),
            **_content(records, notes, split),
        },
        workers=workers,
        pool="thread",
        progress=progress,
    )
    return read_composition(path)


def _content(
    records: Sequence[Record],
    notes: Mapping[str, Mapping[str, str]],
    split: Callable[[Record], Split] | None,
) -> dict[str, str]:
    """Hashes of what is asked about."""
    return {
        "records": content_hash(record.model_dump_json() for record in records),
        "notes": content_hash(json.dumps(dict(notes.get(r.id, {})), sort_keys=True) for r in records),
        "splits": content_hash(split(record) for record in records) if split else "",
    }


def read_composition(path: Path) -> Composition:
    """What a finished stage wrote; raises DataError where the file cannot be read."""
    rows = read_rows(path)
    return Composition(
        tuple(Sample.model_validate(sample) for row in rows for sample in row["samples"]),
        {row["record"]: row["problem"] for row in rows if not row["samples"]},
        {row["record"]: row["problem"] for row in rows if row["samples"] and row["problem"]},
        sum((Usage.of(row) for row in rows), Usage()),
    )


@dataclass
class _QuestionsTaken:
    """Where one record's questions are gathered, over all tries of the model."""

    record: Record
    split: Split
    settings: WriterSettings
    composer: str
    phrasing: str

    def __post_init__(self) -> None:
        self.samples: list[Sample] = []
        self._asked: set[str] = set()

    def check(self, written: WrittenQuestions) -> str:
        """Take the questions that hold; say what is wrong with the others, if some are still missing."""
        wrong: list[str] = []
        for number, question in enumerate(written.questions, start=1):
            if len(self.samples) == self.settings.questions:
                break
            if normalise(question.question) in self._asked:
                continue
            try:
                sample = self._sample(question)
            except ValidationError as error:
                wrong.append(f"question {number}: {reasons(error)}")
                continue
            if fault := written_fault(sample, self.record):
                wrong.append(f"question {number}: {fault}")
                continue
            self._asked.add(normalise(question.question))
            self.samples.append(sample)
        missing = self.settings.questions - len(self.samples)
        if not missing:
            return ""
        taken = f" ({len(self.samples)} were taken: do not repeat them)" if self.samples else ""
        return ". ".join([*wrong[:TOLD], f"Write {missing} more that can be used{taken}"])

    def _sample(self, question: WrittenQuestion) -> Sample:
        """A question as a sample; raises ValidationError where it cannot be one."""
        name = f"{self.record.id}-w{len(self.samples) + 1}"
        order = np.random.default_rng([self.settings.seed, *name.encode()]).permutation(len(question.choices))
        index = match_choice(question.answer, question.choices)
        duration = self.record.duration
        spans = [
            (s.start, min(s.end, duration) if s.end <= duration + 0.05 else s.end) for s in question.spans
        ]
        return Sample(
            id=name,
            audio=self.record.audio,
            duration=duration,
            question=question.question.strip(),
            choices=tuple(question.choices[int(i)].strip() for i in order),
            answer=(question.answer if index is None else question.choices[index]).strip(),
            gold_spans=tuple(spans),
            category="written",
            record=self.record.id,
            corpus=self.record.corpus,
            group=self.record.group or self.record.id,
            split=self.split,
            use="" if self.split == "test" else "sft",
            reasoning=question.reasoning.strip(),
            phrasing=self.phrasing,
            licence=self.record.licence,
            composer=self.composer,
        )


def written_fault(sample: Sample, record: Record) -> str:
    """What is wrong with a question that a model wrote; empty where nothing is found."""
    if sample.choices is None or len(sample.choices) != CHOICES:
        return f"{CHOICES} choices are needed, not {len(sample.choices or ())}"
    if not sample.gold_spans:
        return "no span says where the answer is heard"
    return choice_fault(sample) or span_fault(sample, record) or _thought_fault(sample) or ""


def _thought_fault(sample: Sample) -> str | None:
    """What is wrong with the reasoning."""
    text = sample.reasoning
    if not text:
        return "there is no reasoning"
    tag = next((tag for tag in (ANSWER, ANSWER_END, THINK, THINK_END) if tag in text), None)
    if tag:
        return f"the reasoning holds the tag {tag}"
    spans = [called_span(call) for call in InlineDialect().parse(text).calls]
    if not any(start < e and s < end for start, end in spans for s, e in sample.gold_spans):
        return reasoning_fault(sample) or (
            "the reasoning names no part as <seg>start, end</seg> that overlaps the spans of the answer"
        )
    before = text.partition(SEG)[0]
    stated = [_says(before, choice) for choice in sample.choices or ()]
    index = match_choice(sample.answer, sample.choices or ())
    if index is not None and stated[index] and not all(stated):
        return "the reasoning states the answer before the first part is named"
    return reasoning_fault(sample)


def _says(text: str, choice: str) -> bool:
    """Whether a text holds a choice, as words of its own."""
    plain = normalise(choice)
    return re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", " ".join(text.casefold().split())) is not None
