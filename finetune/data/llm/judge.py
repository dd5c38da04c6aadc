"""Verdicts: a language model's judgement on questions and on their reasoning.

It reads what is known of the recording and says, each with a reason, whether the question is valid and whether the
reasoning is. Both: the sample teaches by example (``sft``). The question alone: the sample is left to reinforcement
learning (``rl``), without its reasoning. Neither: it is dropped. Of samples that come without reasoning, such as those
that a corpus brings along (:func:`asked_samples`), one thing is asked: can the question be answered by listening, by
nothing else, and in one way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.sourced import reasons
from echo_agent.finetune.data.llm.completions import Completions
from echo_agent.finetune.data.llm.prompts import load_prompt, record_text
from echo_agent.finetune.data.llm.usage import Price, Usage
from echo_agent.finetune.data.records import Record, Sample, Split
from echo_agent.finetune.data.stages import Progress, Rows, content_hash, read_rows, run_stage


class Verdict(BaseModel):
    """Whether a question and its reasoning are valid, each with the reason."""

    question_reason: str
    question_valid: bool
    reasoning_reason: str
    reasoning_valid: bool


class QuestionVerdict(BaseModel):
    """Whether a question is valid, with the reason."""

    reason: str
    valid: bool


@dataclass(frozen=True)
class Review:
    """What became of the samples that were judged."""

    kept: tuple[Sample, ...]
    """With their use: ``sft`` or ``rl``; test samples have none."""
    dropped: tuple[tuple[Sample, str], ...]
    """With the model's reason."""
    unjudged: tuple[tuple[Sample, str], ...]
    """The model said nothing that could be read, and why; they are not kept."""
    usage: Usage

    def report(self, price: Price | None = None) -> str:
        """Counts, the first of those that were lost with its reason, and what it has cost."""
        uses = [sample.use for sample in self.kept]
        lines = [f"{len(self.kept)} kept ({uses.count('sft')} sft, {uses.count('rl')} rl)"]
        for name, lost in (("dropped", self.dropped), ("not judged", self.unjudged)):
            if lost:
                lines.append(f"  {len(lost)} {name} (first: {lost[0][0].id}: {lost[0][1]})")
        return "\n".join([*lines, f"  {self.usage.report(price)}"])


def review(
    samples: Sequence[Sample],
    records: Mapping[str, Record],
    folder: Path,
    completions: Completions,
    *,
    stage: str = "verdicts",
    notes: Mapping[str, Mapping[str, str]] | None = None,
    prompts: Path | None = None,
    workers: int = 8,
    progress: Progress | None = None,
) -> Review:
    """Let a language model judge samples; resumes where it was stopped.

    Args:
        samples: What is judged; ids are unique.
        records: What they are about, by id.
        folder: Of the build; gets ``<stage>.parquet``, one row per sample.
        completions: The model.
        stage: Name of the stage.
        notes: A listener's notes by record.
        prompts: Folder of the caller's own ``verdict.txt`` and ``verdict-question.txt``.
        workers: Samples at once.
        progress: Told how many samples are done.

    Raises:
        DataError: A sample has no record, a prompt cannot be used, the stage was begun with other settings, or the disk
            is full.
        ModelError: The model cannot be asked; what was answered is kept.
    """
    lost = next((sample for sample in samples if sample.record not in records), None)
    if lost:
        raise DataError(f"the sample {lost.id!r} is about {lost.record!r}, and there is no such record")
    notes = notes or {}
    both, single = load_prompt("verdict", folder=prompts), load_prompt("verdict-question", folder=prompts)
    parts = {f"{number:07d}": sample for number, sample in enumerate(samples)}

    def work(part: str) -> Rows:
        sample = parts[part]
        text = f"{record_text(records[sample.record], notes.get(sample.record))}\n\n{_asked_text(sample)}"
        return [_verdict(sample, text, completions, (both if sample.reasoning else single).fill())]

    about_ids = sorted({sample.record for sample in samples})
    about = {
        "model": completions.settings,
        "prompts": [both.version, single.version],
        "samples": content_hash(sample.model_dump_json() for sample in samples),
        "records": content_hash(records[name].model_dump_json() for name in about_ids),
        "notes": content_hash(json.dumps(dict(notes.get(name, {})), sort_keys=True) for name in about_ids),
    }
    path = run_stage(
        folder, stage, list(parts), work, settings=about, workers=workers, pool="thread", progress=progress
    )
    return apply_verdicts(samples, path)


def _verdict(sample: Sample, text: str, completions: Completions, system: str) -> dict[str, Any]:
    """One row of the stage: what the model says about a sample, or why it says nothing that can be read."""
    said: dict[str, Any] = {
        "question_valid": False,
        "question_reason": "",
        "reasoning_valid": False,
        "reasoning_reason": "",
    }
    if sample.reasoning:
        both = completions.ask(system, text, Verdict)
        said |= both.value.model_dump() if both.value else {}
        problem, usage = both.problem, both.usage
    else:
        single = completions.ask(system, text, QuestionVerdict)
        if single.value:
            said |= {"question_valid": single.value.valid, "question_reason": single.value.reason}
        problem, usage = single.problem, single.usage
    return {"sample": sample.id, **said, "problem": problem, **asdict(usage)}


def apply_verdicts(samples: Sequence[Sample], path: Path) -> Review:
    """Samples with the verdicts of a finished stage, one row each in the same order.

    Raises:
        DataError: The file cannot be read, or is about other samples.
    """
    rows = read_rows(path)
    if [row["sample"] for row in rows] != [sample.id for sample in samples]:
        raise DataError(f"{path} holds verdicts on other samples; remove it to judge these")
    kept: list[Sample] = []
    dropped: list[tuple[Sample, str]] = []
    unjudged: list[tuple[Sample, str]] = []
    for sample, row in zip(samples, rows, strict=True):
        if row["problem"]:
            unjudged.append((sample, row["problem"]))
        elif not row["question_valid"]:
            dropped.append((sample, row["question_reason"]))
        else:
            kept.append(_with_use(sample, bool(row["reasoning_valid"])))
    usage = sum((Usage.of(row) for row in rows), Usage())
    return Review(tuple(kept), tuple(dropped), tuple(unjudged), usage)


def asked_samples(
    records: Sequence[Record], split: Callable[[Record], Split] | None = None
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """The questions that a corpus brings along, as samples without reasoning.

    Args:
        records: With what is asked about them.
        split: Which split a record belongs to; the record's own where None, else training.

    Returns:
        Samples, and what gave none: the record's id and the reason.
    """
    samples: list[Sample] = []
    skipped: list[tuple[str, str]] = []
    for record in records:
        where = (split(record) if split else record.split) or "train"
        for number, asked in enumerate(record.asked, start=1):
            fields: dict[str, Any] = asked.model_dump() | {
                "id": f"{record.id}-a{number}",
                "audio": record.audio,
                "duration": record.duration,
                "family": "asked",
                "record": record.id,
                "corpus": record.corpus,
                "group": record.group or record.id,
                "split": where,
                "use": "" if where == "test" else "rl",
                "phrasing": "asked",
                "licence": record.licence,
                "composer": record.corpus,
            }
            try:
                samples.append(Sample.model_validate(fields))
            except ValidationError as error:
                skipped.append((record.id, reasons(error)))
    return samples, skipped


def _with_use(sample: Sample, reasoned: bool) -> Sample:
    """A valid question, with its reasoning where that is valid too."""
    use = "" if sample.split == "test" else "sft" if reasoned else "rl"
    return sample.model_copy(update={"use": use, "reasoning": sample.reasoning if reasoned else ""})


def _asked_text(sample: Sample) -> str:
    """A sample as the model reads it."""
    shown: dict[str, Any] = {"question": sample.question}
    if sample.choices is not None:
        shown["choices"] = list(sample.choices)
    shown["answer"] = sample.answer if sample.answer is not None else list(sample.right)
    if sample.reasoning:
        shown["spans"] = [list(span) for span in sample.gold_spans]
        shown["reasoning"] = sample.reasoning
    return json.dumps(shown, ensure_ascii=False, indent=1)
