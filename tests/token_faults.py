"""What can go wrong with a server of tokens (``tests/token_server.py``); each fault is switched on by itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Faults:
    """What goes wrong; numbers count down."""

    deaf: bool = False
    """Content parts are passed over, and a placeholder without audio is accepted."""
    shifted: bool = False
    """Audio is said to stand one token later."""
    other_ids: bool = False
    """The last token of the context is read as another."""
    silent_ids: bool = False
    """It does not say what it read."""
    bans_ignored: bool = False
    """``logit_bias`` is left aside, and the placeholder is the likeliest of all."""
    processed: bool = False
    """Log-probabilities are those after temperature, bans and choices."""
    scores: bool = False
    """Scores are given in place of log-probabilities."""
    no_logprobs: bool = False
    no_endpoint: bool = False
    key: str = ""
    """Which key is asked for."""
    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Statuses and headers of the next answers."""
    drop_after: list[int] = field(default_factory=list)
    """After how many tokens the next streams break off."""
    error_after: list[int] = field(default_factory=list)
    """After how many tokens the next streams hold an error."""
    garbage: int = 0
    """So many answers are no JSON."""
    hang: float = 0.0
    """Seconds that it is silent before each answer."""
    idle: int = 0
    """So many requests come just as the connection, which served before, is closed for having been idle."""
    versions: tuple[str, ...] = ()
    """What it says of the weights that it samples with; the truth if empty."""
    no_reload: bool = False
    """It has no routes by which weights are exchanged."""
    reload_fails: int = 0
    """So many exchanges of weights fail."""
