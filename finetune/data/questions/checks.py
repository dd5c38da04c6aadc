"""Judging by rules: what keeps a sample out of a dataset, each with its reason.

For questions of the grammar there is proof: :mod:`echo_agent.finetune.data.questions.solver` finds the answer again
from the event list. Questions that a model or a corpus wrote are held to what can be known of any question: one right
choice, nothing said twice, spans inside the recording and on an event, an answer that the question does not give away,
and reasoning that names a span before it speaks about what is in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from echo_agent.answers import ANSWER, match_choice, normalise
from echo_agent.dialects import Call, InlineDialect
from echo_agent.finetune.data.questions.solver import faults
from echo_agent.finetune.data.records import Record, Sample

SLACK = 0.25
"""Seconds by which a span may miss an event and still count as on it."""


@dataclass
class CheckedSamples:
    """What was kept, and why the rest was not."""

    kept: list[Sample] = field(default_factory=list)
    dropped: list[tuple[Sample, str]] = field(default_factory=list)

    def report(self) -> str:
        """One line per reason, the most frequent first."""
        reasons = Counter(reason.partition(":")[0] for _, reason in self.dropped)
        lines = [f"{len(self.kept)} samples kept, {len(self.dropped)} dropped"]
        return "\n".join(lines + [f"  {count} {reason}" for reason, count in reasons.most_common()])


def check_samples(samples: Iterable[Sample], records: Mapping[str, Record]) -> CheckedSamples:
    """Keep the samples that no rule speaks against; ``records`` by their ids."""
    checked = CheckedSamples()
    asked: set[tuple[str, str]] = set()
    for sample in samples:
        reason = _against(sample, records.get(sample.record))
        key = (sample.record, normalise(sample.question))
        if reason is None and key in asked:
            reason = "the same question is asked twice of one recording"
        if reason is None:
            asked.add(key)
            checked.kept.append(sample)
        else:
            checked.dropped.append((sample, reason))
    return checked


def _against(sample: Sample, record: Record | None) -> str | None:
    """The first rule that speaks against a sample."""
    if record is None:
        return f"no record of that name: {sample.record!r}"
    if sample.composer == "grammar":
        wrong = faults(sample, record)
        return f"the events do not bear the answer out: {wrong[0]}" if wrong else reasoning_fault(sample)
    return choice_fault(sample) or span_fault(sample, record) or reasoning_fault(sample)


def choice_fault(sample: Sample) -> str | None:
    """What is wrong with the choices, or gives the answer away."""
    question = normalise(sample.question)
    if sample.choices is None:
        leaked = [text for text in sample.right if _within(text, question)]
        return f"the question holds its answer: {leaked[0]!r}" if leaked else None
    index = match_choice(sample.answer, sample.choices)
    if index is None:
        return f"the answer is not one of the choices: {sample.answer!r}"
    named = [_within(choice, question) for choice in sample.choices]
    if named[index] and not all(named):
        return f"the question names its answer and not the other choices: {sample.answer!r}"
    return None


def _within(text: str, question: str) -> bool:
    """Whether the question has a text in it, as words of its own."""
    return f" {normalise(text)} " in f" {' '.join(word.strip('.,;:!?') for word in question.split())} "


def span_fault(sample: Sample, record: Record) -> str | None:
    """Whether a gold span lies outside of the recording, or where no event is."""
    for start, end in sample.gold_spans:
        if end > record.duration + SLACK:
            return f"a gold span lies outside of the recording: {start}, {end}"
        near = any(e.onset - SLACK < end and start < e.offset + SLACK for e in record.events)
        if record.events and not near:
            return f"a gold span is where no event is: {start}, {end}"
    return None


def reasoning_fault(sample: Sample) -> str | None:
    """What is wrong with the reasoning: calls that cannot be read, or lead nowhere; an answer tag."""
    if not sample.reasoning:
        return None
    if ANSWER in sample.reasoning:
        return "the reasoning holds an answer tag"
    parsed = InlineDialect().parse(sample.reasoning)
    if parsed.invalid:
        return f"the reasoning has a call that cannot be read: {parsed.invalid[0].error}"
    spans = [called_span(call) for call in parsed.calls]
    for start, end in spans:
        if not 0 <= start < end or (sample.duration is not None and start >= sample.duration):
            return f"the reasoning listens outside of the recording: {start}, {end}"
    on_gold = any(start < e and s < end for start, end in spans for s, e in sample.gold_spans)
    if spans and sample.gold_spans and not on_gold:
        return "the reasoning listens nowhere where the answer can be heard"
    return None


def called_span(call: Call) -> tuple[float, float]:
    """Start and end of a call, in seconds."""
    return float(call.arguments["start"]), float(call.arguments["end"])


def places(samples: Sequence[Sample]) -> dict[int, list[int]]:
    """How often the right choice stands at each place, by the number of choices that are not always in one order."""
    counts: dict[int, list[int]] = {}
    for sample in samples:
        if sample.choices is None:
            continue
        row = counts.setdefault(len(sample.choices), [0] * len(sample.choices))
        index = match_choice(sample.answer, sample.choices)
        if index is not None:
            row[index] += 1
    return counts
