"""What a server allows: who may ask, how much at once, and how large a request may be. Times are seconds."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from echo_agent.errors import QuestionError

KEY = "ECHO_AGENT_KEY"
"""Environment variable that holds the key; an argument would stand in the list of processes."""


@dataclass(frozen=True)
class Settings:
    """Limits of a server."""

    name: str
    """What clients call the model."""
    key: str | None = None
    """What clients must bring as ``Authorization: Bearer ...``; None asks for nothing."""
    hosts: frozenset[str] = frozenset()
    """Hosts from which recordings may be fetched; none by default."""
    max_bytes: int = 32 << 20
    """Of one request."""
    max_seconds: float = 600.0
    """Of one recording."""
    max_recordings: int = 8
    """In one conversation."""
    max_characters: int = 16_000
    """Of all text in one conversation."""
    max_relistens: int = 16
    """Most that a client may ask for."""
    max_new_tokens: int = 4096
    """Most that a client may ask for."""
    running: int = 32
    """Runs at once; they are decoded together."""
    waiting: int = 64
    """Requests that wait for their turn; what comes then is refused with 429."""
    timeout: float = 120.0
    """Of one request, from its first byte to its last."""
    grace: float = 30.0
    """How long runs may go on once the server is told to stop."""


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, and can be reached from nowhere else."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_key(host: str, key: str | None) -> None:
    """Refuse to be open to a network without a key; raises QuestionError."""
    if key is None and not is_loopback(host):
        raise QuestionError(
            f"--host {host} can be reached from other machines, and there is no key: set {KEY} to one that clients "
            "must send, or bind to 127.0.0.1"
        )
    if key is not None and (not key.isascii() or not key.isprintable() or " " in key or len(key) < 8):
        raise QuestionError(f"{KEY} must be 8 or more printable characters of ASCII, without spaces")
