"""Samples as trajectories: what the policy's context would be if it had written a sample's reasoning itself.

The question is rendered as the chat model renders it. The reasoning is cut after each call, and each stretch is
tokenised on its own: these tokens are *sampled*, and learned. After each call the tool's reply and the crop's audio are
inserted as by the listening graph, with the tool's own checks: these are *tool* tokens, and not learned. So a run of
the graph whose policy writes the same text has the same ids, origins and audio; only the end of turn is added, which a
run does not need after ``</answer>``.

A call that the tool refuses is an error here, not an example to learn from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from echo_agent.answers import ANSWER, ANSWER_END, extract_answer
from echo_agent.audio.recording import AudioRef, Transform
from echo_agent.dialects import SEG, THINK, THINK_END, Call, Dialect, InlineDialect, Parsed
from echo_agent.errors import ContextError, DataError
from echo_agent.families.base import Family, Piece
from echo_agent.finetune.data.records import Sample
from echo_agent.tools.relisten import check_call
from echo_agent.trajectory import Origin, Segment, Trajectory

_WRITTEN = InlineDialect()
"""How calls are written in the reasoning of samples."""
_NUMBER = re.compile(r"[-+.\d]+")


Listens = Literal["heard", "text", "never"]
"""What becomes of the calls in the reasoning; see :func:`to_trajectory`."""


def to_trajectory(
    sample: Sample, family: Family, dialect: Dialect, recording: AudioRef, listens: Listens = "heard"
) -> Trajectory:
    """The trajectory in which the policy answers a sample with its reasoning and its (first) right answer.

    Args:
        sample: A sample with reasoning.
        family: Tokenises it.
        dialect: How calls and replies are written.
        recording: The whole of the sample's recording: ``store.add(Recording.open(path))``.
        listens: ``heard`` puts the tool's reply and the crop's audio after each call. ``text`` leaves them out, so
            that a span is named and nothing is heard (the first stage of Echo, arXiv 2602.11909). ``never`` leaves
            the calls out too.

    Raises:
        DataError: The reasoning is missing, or has an answer, control tokens, or a call that the tool refuses.
        ContextError: The family cannot write the dialect, or the trajectory is longer than its context.
        RecordingTooLongError: The family cannot hear the recording.
    """
    answer = next(text for text in sample.right if text.strip())
    if not sample.reasoning.strip():
        raise _unfit(sample, "it has no reasoning to learn from")
    *calls, last = _stretches(sample)
    if extract_answer(f"{ANSWER}{answer}{ANSWER_END}") != answer:
        raise _unfit(sample, f"the answer {answer!r} cannot be written between {ANSWER} and {ANSWER_END}")
    segments = [_given(family, "prompt", dialect.head(family, [recording], sample.question, sample.choices))]
    heard: list[AudioRef] = []
    opening = THINK
    for before, call in calls:
        assert call is not None  # the last stretch alone has none
        reply = check_call(call.arguments, [recording], family.limits, heard)
        if reply.ref is None:
            raise _unfit(sample, f"the call {call.text} is refused ({reply.observation})")
        heard.append(reply.ref)
        if listens == "never":
            opening += before.rstrip()
            continue
        opening += f"{before}{_call(dialect, call)}"
        if listens == "heard":
            segments.append(_sampled(sample, family, opening))
            segments.append(_given(family, "tool", dialect.tool_reply(family, reply.observation, reply.ref)))
            opening = ""
    end = _sampled(sample, family, f"{opening}{last[0]}{THINK_END}{ANSWER}{answer}{ANSWER_END}")
    segments.append(Segment(origin="sampled", ids=(*end.ids, family.eos_ids[0])))
    trajectory = Trajectory().append(*segments)
    if len(trajectory.ids) > family.context_length:
        raise ContextError(
            f"the sample {sample.id!r} takes {len(trajectory.ids)} tokens, but {family.name} holds "
            f"{family.context_length}: leave it out, or let its reasoning listen less"
        )
    return trajectory


def _stretches(sample: Sample) -> list[tuple[str, Call | None]]:
    """The reasoning cut after its calls: the text before each call with the call, and the rest."""
    parsed = _WRITTEN.parse(sample.reasoning)
    if wrong := _fault(sample.reasoning, parsed):
        raise _unfit(sample, wrong)
    stretches: list[tuple[str, Call | None]] = []
    rest = sample.reasoning
    for call in parsed.calls:
        before, _, rest = rest.partition(call.text)
        stretches.append((before, call))
    return [*stretches, (rest, None)]


def _fault(reasoning: str, parsed: Parsed) -> str:
    """What is wrong with the reasoning, in words; empty if nothing is."""
    if parsed.invalid:
        return f"its reasoning holds a call that cannot be read: {parsed.invalid[0].text[:60]!r}"
    tag = next((tag for tag in (ANSWER, ANSWER_END, THINK, THINK_END) if tag in reasoning), None)
    return f"its reasoning holds {tag}, which is written around it" if tag else ""


def _call(dialect: Dialect, call: Call) -> str:
    """A call as a dialect writes it; unchanged if it is written that way already."""
    if call.text.startswith(dialect.call_open):
        return call.text
    arguments = dict(call.arguments)
    start, end = arguments.pop("start"), arguments.pop("end")
    if call.text.startswith(SEG):  # read as floats; seconds without a point stay whole
        start, end = (int(text) if text.isdigit() else float(text) for text in _NUMBER.findall(call.text)[:2])
    recording = arguments.pop("recording", 1)
    return dialect.format_call(start, end, Transform(**arguments), recording)


def _given(family: Family, origin: Origin, pieces: Sequence[Piece]) -> Segment:
    ids, audio = family.render(pieces)
    return Segment(origin=origin, ids=tuple(ids), audio=tuple(audio))


def _sampled(sample: Sample, family: Family, text: str) -> Segment:
    """One stretch as the policy samples it; raises DataError if a policy cannot sample it."""
    ids = family.tokenize(family.written(text))
    for token in {*family.banned_ids, *family.eos_ids}.intersection(ids):
        raise _unfit(sample, f"its text holds the control token {family.detokenize([token])!r}")
    return Segment(origin="sampled", ids=tuple(ids))


def _unfit(sample: Sample, why: str) -> DataError:
    return DataError(f"the sample {sample.id!r} cannot be learned from: {why}; mend it, or leave it out")
