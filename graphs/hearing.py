"""A plain word where a model of another maker cannot hear.

Most chat models take text only. Where its profile says so, a model is refused before it is called; where its server or
its client refuses the audio, the error says what that means.
"""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any

from langchain_core.language_models import BaseChatModel

from echo_agent.errors import EchoAgentError, ModelError

WAY_OUT = (
    "name a model that takes audio as input, or use one of echo-agent's own in ListeningContext(model=...) "
    "(`echo-agent models` lists them)"
)


def check_hears(model: BaseChatModel) -> None:
    """Refuse a model whose profile says that it takes no audio; raises ModelError."""
    if (model.profile or {}).get("audio_inputs") is False:
        raise ModelError(
            f"{_name(model)} cannot hear: its profile says that it takes no audio. It would be asked about a recording "
            f"that it never gets: {WAY_OUT}. If the profile is wrong, give the model another "
            "(profile={'audio_inputs': True})"
        )


class AudioRefusals:
    """Around a call of another maker's model: an error that refuses audio becomes a ModelError that says so."""

    def __init__(self, model: BaseChatModel) -> None:
        """Watch the calls of ``model``."""
        self._model = model

    def __enter__(self) -> None:
        """Nothing is done before the call."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say what a refusal means; other errors pass."""
        if error is not None and refuses_audio(error, _name(self._model)):
            said = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{_name(self._model)} refused the audio it was given ({said}): {WAY_OUT}"
            ) from error


def refuses_audio(error: BaseException, model: str) -> bool:
    """Whether a client or a server refused a message because of the audio in it; ``model`` is the name of the model."""
    if isinstance(error, EchoAgentError):
        return False
    status: Any = getattr(error, "status_code", None)
    if isinstance(status, int):  # a server's answer; who may ask, and how often, is another matter
        refused = status in (400, 404, 405, 415, 422, 500, 501)
    else:
        refused = isinstance(error, (ValueError, NotImplementedError))
    return refused and bool(_REFUSAL.search(str(error).replace(model, "")))


_REFUSAL = re.compile(
    r"audio|modalit|multi-?modal|content must be a string|content (block|part)s? type|message content type|"
    r"should be a valid string|expected (a )?string",
    re.IGNORECASE,
)
"""How servers and clients say that a message may hold text only."""


def _name(model: BaseChatModel) -> str:
    """What a model is called in an error."""
    return str(getattr(model, "model_name", None) or getattr(model, "model", None) or model._llm_type)
