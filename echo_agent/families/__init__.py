"""Model families: one module per architecture, and loading by name."""

from echo_agent.families.base import Family, Limits, Piece
from echo_agent.families.loading import KnownModel, known_models, load_family, resolve_device

__all__ = [
    "Family",
    "KnownModel",
    "Limits",
    "Piece",
    "known_models",
    "load_family",
    "resolve_device",
]
