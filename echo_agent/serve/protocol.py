"""What a client sends: OpenAI's chat completions as far as they apply to a model that hears, and our own options.

What the server cannot do is refused by name, never ignored; what makes no difference to an answer is ignored.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echo_agent.errors import QuestionError
from echo_agent.text import parse_json


class TextPart(BaseModel):
    """Text of a message."""

    type: Literal["text"]
    text: str


class InputAudio(BaseModel):
    """A recording inside the request."""

    data: str
    """The bytes of a sound file as base64."""
    format: str = "wav"
    """What the client calls the format; the data itself is looked at."""


class InputAudioPart(BaseModel):
    """A recording of a message."""

    type: Literal["input_audio"]
    input_audio: InputAudio


class AudioURL(BaseModel):
    """Where a recording is."""

    url: str
    """A ``data:`` URL, or one of a host that the server was told to fetch from."""


class AudioURLPart(BaseModel):
    """A recording that the server is asked to fetch."""

    type: Literal["audio_url"]
    audio_url: AudioURL


Part = Annotated[TextPart | InputAudioPart | AudioURLPart, Field(discriminator="type")]


class Message(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        """All of its text."""
        if not isinstance(self.content, list):
            return self.content or ""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def audio(self) -> list[InputAudioPart | AudioURLPart]:
        """Its recordings, in order."""
        parts = self.content if isinstance(self.content, list) else []
        return [part for part in parts if not isinstance(part, TextPart)]


class StreamOptions(BaseModel):
    """What a stream holds besides."""

    model_config = ConfigDict(extra="ignore")

    include_usage: bool | None = False


class EchoOptions(BaseModel):
    """Options of a question that OpenAI's interface has no word for."""

    model_config = ConfigDict(extra="forbid")

    choices: list[str] | None = Field(default=None, max_length=1000)
    """What to choose the answer from."""
    max_relistens: int | None = Field(default=None, ge=0)
    """How often the model may listen again."""
    max_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Seconds that it may hear again."""
    relisten: bool = True
    """False answers from the first listen."""
    guided: bool = True
    """With choices, nothing else is written as the answer."""


class ChatRequest(BaseModel):
    """A request for an answer."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=1 << 63)
    echo: EchoOptions = EchoOptions()

    def options(self, max_relistens: int, max_new_tokens: int) -> dict[str, Any]:
        """Options of :meth:`EchoAgent.ask <echo_agent.agent.EchoAgent.ask>`, within what the server allows.

        Raises:
            QuestionError: More is asked for than is allowed.
        """
        chosen: dict[str, Any] = {"relisten": self.echo.relisten, "guided": self.echo.guided}
        tokens = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        wanted = {
            "max_relistens": self.echo.max_relistens,
            "max_new_tokens": tokens,
            "max_seconds": self.echo.max_seconds,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
        }
        chosen |= {name: value for name, value in wanted.items() if value is not None}
        for name, most in (("max_relistens", max_relistens), ("max_new_tokens", max_new_tokens)):
            if chosen.get(name, 0) > most:
                word = "max_tokens" if name == "max_new_tokens" else f"echo.{name}"
                raise QuestionError(f"{word} is at most {most} on this server, not {chosen[name]}")
        if self.temperature and self.seed is None:
            chosen["seed"] = secrets.randbits(32)  # who gives no seed wants another sample each time
        chosen.setdefault("max_relistens", min(8, max_relistens))
        chosen.setdefault("max_new_tokens", min(1024, max_new_tokens))
        return chosen


CANNOT: dict[str, tuple[tuple[Any, ...], str]] = {
    "n": ((1,), "there is one answer"),
    "tools": (([],), "the model listens again by a tool of its own, and calls no other"),
    "functions": (([],), "the model listens again by a tool of its own, and calls no other"),
    "tool_choice": (("none", "auto"), "the model decides when to listen again"),
    "function_call": (("none", "auto"), "the model decides when to listen again"),
    "response_format": (({"type": "text"},), "answers are text; give echo.choices for a closed set"),
    "modalities": ((["text"],), "answers are text"),
    "audio": ((), "answers are text"),
    "logprobs": ((False,), "log-probabilities are not sent"),
    "top_logprobs": ((0,), "log-probabilities are not sent"),
    "logit_bias": (({},), "scores cannot be shifted"),
    "frequency_penalty": ((0,), "scores cannot be shifted"),
    "presence_penalty": ((0,), "scores cannot be shifted"),
    "stop": (([],), "an answer ends by itself"),
    "prediction": ((), "nothing is predicted"),
    "web_search_options": ((), "nothing is looked up"),
}
"""What the server cannot do: values that ask for nothing, and why there is no more."""
IGNORED = {
    "user", "metadata", "store", "service_tier", "parallel_tool_calls", "reasoning_effort", "verbosity",
    "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "moderation",
}  # fmt: skip
"""What makes no difference to an answer."""


def read_request(data: bytes) -> ChatRequest:
    """Read a request.

    Raises:
        QuestionError: It is no request, or asks for what the server cannot do; the message says what, and never
            repeats what was sent beyond names.
    """
    try:
        request = ChatRequest.model_validate(parse_json(data.decode("utf-8")))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        first = max(
            errors, key=lambda one: len(one["loc"])
        )  # where text or parts may stand, what is meant goes deeper
        where = ".".join(f"{part}" for part in first["loc"] if isinstance(part, int) or part.isidentifier())
        raise QuestionError(f"{where or 'the request'}: {first['msg']}") from None
    except ValueError as error:
        raise QuestionError(f"the request is no JSON of UTF-8: {error}") from None
    for name, value in (request.model_extra or {}).items():
        if value is None or name in IGNORED:
            continue
        if name not in CANNOT:
            raise QuestionError(f"there is no option {name[:40]!r}")
        harmless, why = CANNOT[name]
        if value not in harmless:
            raise QuestionError(f"{name} cannot be given: {why}")
    return request
