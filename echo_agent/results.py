"""What came of a question: a typed result, read from the state in which a run ended. Times are seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from echo_agent.chat import FINISH_KEY, TIMINGS_KEY, TOKENS_KEY, WEIGHTS_KEY
from echo_agent.controls import Status
from echo_agent.errors import EchoAgentError
from echo_agent.graphs.calls import replies_of
from echo_agent.graphs.search_record import SearchRecord
from echo_agent.graphs.state import current
from echo_agent.graphs.usage import confidence_of, sampled_tokens
from echo_agent.messages import trajectory_of, transcript
from echo_agent.tools import Reply
from echo_agent.trajectory import Trajectory

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from echo_agent.families.base import Family


class WrongCrop(BaseModel):
    """What was delivered in the place of what was asked for (the controls wrong-crop, silence and oracle)."""

    model_config = ConfigDict(frozen=True)

    start: float
    end: float
    overlap: float
    """Seconds that lie on a gold span, or under wrong-crop on what was asked for; there 0 unless there was no other
    place."""


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
    recording: int = Field(default=1, exclude_if=lambda value: value == 1)
    """Which recording, counted from 1, where there are several."""


class EchoResult(BaseModel):
    """What came of a question."""

    answer: str | None
    """The answer (with choices: the choice, as it was given); None where none could be read."""
    status: Status
    """``answered``, or ``unparsed``: nothing was written that is an answer. It is never guessed. Or ``not_understood``:
    the model was not asked, since it does not know the words, or the language (``notes``)."""
    confidence: float | None
    """Probability, 0 to 1, that the policy gives to the answer as it is written, its closing tag included: the product
    of its tokens' recorded probabilities (all tokens allowed, at the sampling temperature; 1 where greedy). A choice
    that the policy would not have written by itself has a low one. None without an answer."""
    forced: bool
    """The answer is not the policy's own doing: it was asked for (``budget_exhausted``), or the choices held it to
    words where more than half of its probability lay elsewhere."""
    budget_exhausted: bool
    """The policy was asked for its answer: calls, seconds or tokens were used up, or it went round in a loop."""
    choice_index: int | None
    """Place of the answer among the choices, from 0; None for an open question."""
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
    notes: tuple[str, ...] = Field(default=(), exclude_if=lambda value: not value)
    """What the model may not understand of the question; what was found about the recording, such as that it is silent,
    or cut off; and how it was searched, where it is longer than the model can be asked about."""
    search: SearchRecord | None = Field(default=None, exclude_if=lambda value: value is None)
    """How a recording was searched that is longer than the model can be asked about, and what of it was never heard."""

    _messages: list[BaseMessage] = PrivateAttr(default_factory=list)

    @property
    def outcome(self) -> str:
        """The answer; where there is none, that there is none."""
        if self.answer is not None:
            return self.answer
        unasked = self.status == "not_understood"
        return "the question was not understood" if unasked else "no answer could be read"

    @property
    def messages(self) -> list[BaseMessage]:
        """The messages of the run: the question, what the model wrote, and the replies to its calls."""
        return self._messages

    @cached_property
    def trajectory(self) -> Trajectory:
        """The run token by token."""
        return trajectory_of(self._messages)

    @property
    def mixed(self) -> bool:
        """Whether the weights were exchanged in the course of the run, on the servers that sampled it."""
        said = [message.response_metadata.get(WEIGHTS_KEY, {}) for message in self._messages]
        return any(
            len({name for one in said for name in one.get(kind, ())}) > 1 for kind in ("models", "versions")
        )

    @property
    def failed_calls(self) -> int:
        """Calls for which nothing was heard: they could not be read or mended."""
        return sum(reply.outcome in ("refused", "malformed") for reply in replies_of(self._messages))


def result_of(
    state: Mapping[str, Any] | None, family: Family | None, load_seconds: float = 0.0, *, name: str = ""
) -> EchoResult:
    """The result of a run of the listening graph with a ``ChatLALM``, or a ``TurnsChat``.

    Args:
        state: The state in which it ended.
        family: The model; None of a chat server, whose tokens are not seen.
        load_seconds: How long loading it took.
        name: What the model is called, where that is not the family's name.

    Raises:
        EchoAgentError: The run has not ended.
    """
    if state is None or state.get("status") is None:
        raise EchoAgentError("the run has not ended: resume it first")
    messages = current(state["messages"])
    spoken = [
        message
        for message in messages
        if isinstance(message, AIMessage) and FINISH_KEY in message.response_metadata
    ]
    steps = [message.response_metadata for message in spoken]
    heard = _first_listens(messages)
    records = [record for reply in replies_of(messages) if (record := _record(reply, heard)) is not None]
    answered = state["answer"] is not None
    result = EchoResult(
        answer=state["answer"],
        status=state["status"],
        confidence=confidence_of(messages, family) if answered and family is not None else None,
        forced=answered and bool(state["budget_exhausted"] or steps[-1][TOKENS_KEY].get("steered")),
        budget_exhausted=state["budget_exhausted"],
        choice_index=state["choice_index"],
        relistens=records,
        seconds_heard=sum(record.seconds for record in records),
        tokens={
            "prompt": steps[0][TOKENS_KEY]["prompt"],
            "sampled": sum(map(sampled_tokens, spoken)),
            "audio": steps[-1][TOKENS_KEY]["audio"],
        },
        timings={"load": load_seconds}
        | {key: sum(step[TIMINGS_KEY][key] for step in steps) for key in ("encode", "prefill", "decode")},
        model=name if family is None else family.name,
        text=transcript(messages),
        search=SearchRecord.of(state),
    )
    result._messages = messages
    return result


def not_understood(model: str, note: str) -> EchoResult:
    """What comes of a question that a model does not understand: nothing, and a note that says why."""
    return EchoResult(
        answer=None,
        status="not_understood",
        confidence=None,
        forced=False,
        budget_exhausted=False,
        choice_index=None,
        relistens=[],
        seconds_heard=0.0,
        tokens={"prompt": 0, "sampled": 0, "audio": 0},
        timings={"load": 0.0, "encode": 0.0, "prefill": 0.0, "decode": 0.0},
        model=model,
        text="",
        notes=(note,),
    )


def _first_listens(messages: Sequence[BaseMessage]) -> list[str]:
    """Hashes of the recordings of a run, in the order in which they were heard first."""
    content = messages[0].content
    blocks = content if isinstance(content, list) else []
    return [
        block["extras"]["echo"]["sha256"] for block in blocks if isinstance(block, dict) and "extras" in block
    ]


def _record(reply: Reply, heard: Sequence[str]) -> RelistenRecord | None:
    """The record of one reply in a run about some recordings; None where nothing was heard."""
    asked = reply.asked or reply.ref
    if asked is None or reply.ref is None:
        return None
    instead = None
    if reply.asked is not None:
        start, end = reply.ref.on_file
        instead = WrongCrop(start=start, end=end, overlap=reply.overlap)
    start, end = asked.on_file
    return RelistenRecord(
        start=start,
        end=end,
        **asked.transform.model_dump(),
        seconds=reply.ref.seconds,
        observation=reply.observation,
        instead=instead,
        recording=heard.index(asked.sha256) + 1 if asked.sha256 in heard else 1,
    )
