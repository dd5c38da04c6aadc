"""The typed tools that a policy may call."""

from echo_agent.tools.audible import hearable
from echo_agent.tools.bound import make_relisten
from echo_agent.tools.relisten import (
    DEFAULT_LIMITS,
    Heard,
    RelistenArgs,
    Reply,
    audio_message,
    check_call,
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
    "hearable",
    "make_relisten",
    "not_heard",
    "resolve_span",
]
