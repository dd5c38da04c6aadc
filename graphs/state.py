"""What a listening run is made of: its state, which is checkpointed, and its context, which is not.

State is plain JSON and messages: audio is in it only as references. Samples, features, tensors and models live in the
context, which is given to every call of the graph. Times are seconds.

:class:`ListeningInput` is what goes in, :class:`ListeningOutput` what comes out, and :class:`ListeningState` all of it,
which is what a node sees and a checkpoint holds. What goes in does not come out again, so that several runs side by
side (``Send``) do not write to the same keys of a larger graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NotRequired

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, BaseMessage
from langgraph.graph.message import add_messages
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict  # the one of typing has no JSON schema before Python 3.12

from echo_agent.answers import check_question
from echo_agent.audio.recording import AudioRef
from echo_agent.chat import ChatLALM
from echo_agent.controls import Control, Status
from echo_agent.errors import QuestionError, RecordingError
from echo_agent.families.base import Limits
from echo_agent.folder import Folder
from echo_agent.messages import QUESTION_KEY
from echo_agent.stores import RecordingStore
from echo_agent.tools.relisten import DEFAULT_LIMITS


class Budget(BaseModel):
    """What a run may spend before it is asked for its answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_relistens: int = Field(default=8, ge=0)
    """Calls that are answered, those included that nothing is heard for."""
    max_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds of audio heard again, as it is heard (after a change of speed); None is no limit."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Sampled tokens of the whole run, the asked-for answer apart."""
    answer_tokens: int = Field(default=64, ge=1)
    """Sampled tokens of the answer that is asked for at the end of the budget."""


class Spent(TypedDict):
    """What a run has spent so far."""

    relistens: int
    seconds: float
    tokens: int


class ListeningInput(TypedDict):
    """What goes into a run; :func:`initial_state` makes it. In a thread, a user's message alone is a question too."""

    messages: NotRequired[Annotated[list[AnyMessage], add_messages]]
    """What was said before; see :func:`~echo_agent.graphs.question.next_question` for when it is the question."""
    question: NotRequired[str]
    choices: NotRequired[list[str] | None]
    recordings: NotRequired[list[dict[str, Any] | str]]
    """References (``AudioRef`` as JSON) to whole recordings, or names of files in the context's folder."""
    run: NotRequired[int]
    """Number of this run among those of one seed: runs of the same question with the same number are the same."""


class ListeningOutput(TypedDict):
    """What comes out of a run."""

    messages: Annotated[list[AnyMessage], add_messages]
    settings: dict[str, Any]
    """With what the run was started: model, seed, temperature, budget, control."""
    spent: Spent
    budget_exhausted: bool
    answer: str | None
    status: Status | None
    choice_index: int | None
    search: dict[str, Any] | None
    """How a recording was searched that is longer than the model can be asked about (``SearchRecord`` as JSON)."""


class ListeningState(ListeningOutput):
    """All that a run knows: what a node of the graph sees, and what a checkpoint holds."""

    question: str
    choices: list[str] | None
    recordings: list[dict[str, Any] | str]
    run: int


@dataclass
class ListeningContext:
    """What a run needs and no checkpoint holds."""

    model: BaseChatModel
    """A :class:`~echo_agent.chat.ChatLALM`, or any chat model that hears audio and calls tools."""
    recordings: RecordingStore
    budget: Budget = Budget()
    limits: Limits | None = None
    """Shortest and longest crop; the model's own by default."""
    control: Control = "on"
    """``off`` answers the first call with the request for the answer; ``wrong-crop`` delivers another place,
    ``silence`` as many seconds of nothing, and ``oracle`` the place where the answer is."""
    gold_spans: tuple[tuple[float, float], ...] = ()
    """Where the answer is, in seconds on the first recording; only the controls wrong-crop and oracle look at it."""
    seed: int = 0
    """Seed of sampling and of the wrong-crop control."""
    temperature: float | None = None
    """The model's own by default."""
    top_p: float | None = None
    """The model's own by default."""
    guided: bool = True
    """Where there are choices, nothing else may be written as the answer (by a ChatLALM; other models are asked to).
    False leaves the policy free, to reward or to score what it writes by itself."""
    implied: bool = False
    """An open question is asked with the choices that follow from it, where the model's family knows of any: echo-nano
    is held to yes or no, or to a whole second."""
    stream_tokens: bool = True
    """Send each piece of text to the custom stream; without it, batches are faster."""
    deliver: Literal["auto", "reference", "audio"] = "auto"
    """How the model gets audio: as references (ChatLALM), or as base64 made for each call and kept nowhere."""
    rate: int = 16000
    """Samples per second of delivered audio, in Hz."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further call options for the model."""
    folder: Folder | None = None
    """Where recordings may be named by their files, and beyond which no file is opened; None takes references only."""

    @property
    def ours(self) -> bool:
        """The model is a ChatLALM."""
        return isinstance(self.model, ChatLALM)

    @property
    def by_reference(self) -> bool:
        """Audio is delivered as references."""
        return self.ours if self.deliver == "auto" else self.deliver == "reference"

    @property
    def hearing(self) -> Limits:
        """The limits that hold."""
        if self.limits is not None:
            return self.limits
        return self.model.family.limits if isinstance(self.model, ChatLALM) else DEFAULT_LIMITS

    def settings(self) -> dict[str, Any]:
        """With what a run is started, as plain JSON."""
        model = self.model
        own: dict[str, Any] = (
            {"model": model.family.name, "dialect": model.dialect.name} if isinstance(model, ChatLALM) else {}
        )
        sampling = {
            "seed": self.seed,
            "temperature": getattr(model, "temperature", None)
            if self.temperature is None
            else self.temperature,
            "top_p": getattr(model, "top_p", None) if self.top_p is None else self.top_p,
        }
        return {
            "model": model._llm_type,
            **own,
            **sampling,
            "control": self.control,
            "guided": self.guided,
            "budget": self.budget.model_dump(mode="json"),
        }


def initial_state(
    question: str, recordings: Sequence[AudioRef], choices: Sequence[str] | None = None, *, run: int = 0
) -> ListeningInput:
    """What goes into the graph for one question.

    Raises:
        QuestionError: The question or its choices are unusable.
        RecordingError: There is no recording.
    """
    check_question(question, choices)
    if not recordings:
        raise RecordingError("no recording was given to ask about")
    return {
        "question": question,
        "choices": None if choices is None else list(choices),
        "recordings": [ref.model_dump(mode="json") for ref in recordings],
        "run": run,
    }


def recordings_of(state: ListeningState) -> list[AudioRef]:
    """The recordings of a run."""
    try:
        refs = [AudioRef.model_validate(data) for data in state["recordings"]]
    except (KeyError, ValidationError) as error:
        raise RecordingError(
            f"state['recordings'] must be a list of AudioRef as JSON (names of files need a folder): {error}"
        ) from error
    if not refs:
        raise RecordingError("no recording was given to ask about")
    return refs


def current(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages of this run: from the last question on. A larger graph may have put others before it."""
    asked = [i for i, message in enumerate(messages) if QUESTION_KEY in message.additional_kwargs]
    if not asked:
        raise QuestionError("the messages hold no question of this graph: begin at its first node")
    return list(messages[asked[-1] :])
