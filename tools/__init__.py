"""The typed tools that a policy may call."""

from echo_agent.tools.relisten import (
    DEFAULT_LIMITS,
    Heard,
    RelistenArgs,
    Reply,
    audio_message,
    check_call,
    make_relisten,
    not_heard,
    resolve_span,
)

__all__ = [
    "DEFAULT_LIMITS",
    "Heard",
    "RelistenArgs",
    "Reply",
    "audio_message",
    "check_call",
    "make_relisten",
    "not_heard",
    "resolve_span",
]
