"""What came of a question: a typed result, read from the state in which a run ended. Times are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from echo_agent.chat import FINISH_KEY, TIMINGS_KEY, TOKENS_KEY
from echo_agent.errors import EchoAgentError
from echo_agent.graphs.calls import replies_of
from echo_agent.graphs.state import Status, current
from echo_agent.messages import trajectory_of, transcript
from echo_agent.tools import Reply
from echo_agent.trajectory import Trajectory

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


class WrongCrop(BaseModel):
    """What was delivered in the place of what was asked for (the wrong-crop control)."""

    model_config = ConfigDict(frozen=True)

    start: float
    end: float
    overlap: float
    """Seconds that lie on a gold span or on what was asked for; 0 unless there was no other place."""


class RelistenRecord(BaseModel):
    """One re-listen: what was asked for, as it was mended, and how much was heard."""

    model_config = ConfigDict(frozen=True)

    start: float
    end: float
    speed: float
    low_hz: float | None
    high_hz: float | None
    gain_db: float
    seconds: float
    """Seconds of audio heard: the span's length over the speed."""
    observation: str
    """What the policy was told besides; empty where it got exactly what it asked for."""
    instead: WrongCrop | None = Field(default=None, exclude_if=lambda value: value is None)


class EchoResult(BaseModel):
    """What came of a question."""

    answer: str | None
    """The answer (with choices: the choice, as it was given); None where none could be read."""
    status: Status
    """``answered``, or ``unparsed``: nothing was written that is an answer. It is never guessed."""
    budget_exhausted: bool
    """The policy was asked for its answer because calls, seconds or tokens were used up."""
    choice_index: int | None
    relistens: list[RelistenRecord]
    seconds_heard: float
    """Seconds of all re-listens; the first listen is not among them."""
    tokens: dict[str, int]
    """``prompt`` (the question and the first listen), ``sampled``, and ``audio`` (placeholders of all listens)."""
    timings: dict[str, float]
    """Seconds of work: ``load`` (the model), ``encode``, ``prefill``, ``decode``."""
    model: str
    text: str
    """The assistant's whole turn, with its calls and without the audio."""

    _messages: list[BaseMessage] = PrivateAttr(default_factory=list)

    @property
    def messages(self) -> list[BaseMessage]:
        """The messages of the run: the question, what the model wrote, and the replies to its calls."""
        return self._messages

    @cached_property
    def trajectory(self) -> Trajectory:
        """The run token by token."""
        return trajectory_of(self._messages)

    @property
    def failed_calls(self) -> int:
        """Calls for which nothing was heard: they could not be read or mended."""
        return sum(reply.outcome in ("refused", "malformed") for reply in replies_of(self._messages))


def result_of(state: Mapping[str, Any] | None, model: str, load_seconds: float = 0.0) -> EchoResult:
    """The result of a run of the listening graph with a ``ChatLALM``.

    Args:
        state: The state in which it ended.
        model: Name of the model.
        load_seconds: How long loading it took.

    Raises:
        EchoAgentError: The run has not ended.
    """
    if state is None or state.get("status") is None:
        raise EchoAgentError("the run has not ended: resume it first")
    messages = current(state["messages"])
    steps = [message.response_metadata for message in messages if FINISH_KEY in message.response_metadata]
    records = [record for record in map(_record, replies_of(messages)) if record is not None]
    result = EchoResult(
        answer=state["answer"],
        status=state["status"],
        budget_exhausted=state["budget_exhausted"],
        choice_index=state["choice_index"],
        relistens=records,
        seconds_heard=sum(record.seconds for record in records),
        tokens={
            "prompt": steps[0][TOKENS_KEY]["prompt"],
            "sampled": sum(step[TOKENS_KEY]["sampled"] for step in steps),
            "audio": steps[-1][TOKENS_KEY]["audio"],
        },
        timings={"load": load_seconds}
        | {key: sum(step[TIMINGS_KEY][key] for step in steps) for key in ("encode", "prefill", "decode")},
        model=model,
        text=transcript(messages),
    )
    result._messages = messages
    return result


def _record(reply: Reply) -> RelistenRecord | None:
    """The record of one reply; None where nothing was heard."""
    asked = reply.asked or reply.ref
    if asked is None or reply.ref is None:
        return None
    instead = None
    if reply.asked is not None:
        instead = WrongCrop(start=reply.ref.start, end=reply.ref.end, overlap=reply.overlap)
    return RelistenRecord(
        start=asked.start,
        end=asked.end,
        **asked.transform.model_dump(),
        seconds=reply.ref.seconds,
        observation=reply.observation,
        instead=instead,
    )
