"""What goes wrong for a client, as a status and in the words that OpenAI's clients read."""

from __future__ import annotations

from typing import Any

from echo_agent.errors import (
    ContextError,
    EchoAgentError,
    QuestionError,
    RecordingError,
    RecordingTooLongError,
)


class Refused(Exception):
    """A request that is not answered."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        """Refuse with an HTTP status."""
        super().__init__(message)
        self.status, self.message, self.code = status, message, code

    @property
    def headers(self) -> dict[str, str]:
        """What a client is told besides: whether, and when, to try again."""
        if self.status == 429:
            return {"Retry-After": "1"}
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {"x-should-retry": "false"} if self.status == 504 else {}

    def body(self) -> dict[str, Any]:
        """The error as JSON."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": None, "code": self.code}}


_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 504: "timeout_error"}


def refused(error: EchoAgentError) -> Refused:
    """An error of ours as what it means to the client: a mistake of the client's, or the end of the server."""
    if isinstance(error, RecordingTooLongError):
        return Refused(400, str(error), "audio_too_long")
    if isinstance(error, RecordingError):
        return Refused(400, str(error), "invalid_audio")
    if isinstance(error, QuestionError | ContextError):
        return Refused(400, str(error), "invalid_request")
    return Refused(503, str(error), "unavailable")
