"""What every family must do, as tests that anyone can run on a family of their own.

    from echo_agent.conformance import FamilyTests

    class TestMine(FamilyTests):
        @classmethod
        def make(cls) -> Family:
            return MineFamily("tiny-mine", tiny_model(), tiny_tokenizer(), tiny_extractor())

pytest does the rest. The models are tiny and random: what is tested is that one way to compute a thing equals another,
which random weights show better than trained ones. Draw them with :func:`randomise`. Each claim of equality has a twin
that breaks one thing and must differ.

``python -m echo_agent.conformance FILE`` runs such tests and prints a table, families by claims.

It needs pytest (``pip install "echo-agent[conformance]"``).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from echo_agent.errors import MissingExtraError

if TYPE_CHECKING:
    from echo_agent.conformance.cache_tests import CacheTests
    from echo_agent.conformance.claims import claim
    from echo_agent.conformance.engine_tests import EngineTests
    from echo_agent.conformance.family_tests import FamilyTests
    from echo_agent.conformance.sounds import lively, randomise
    from echo_agent.conformance.token_tests import TokenTests
    from echo_agent.conformance.training_tests import TrainingTests

__all__ = [
    "CacheTests",
    "EngineTests",
    "FamilyTests",
    "TokenTests",
    "TrainingTests",
    "claim",
    "lively",
    "randomise",
]

try:
    import pytest
except ImportError:
    raise MissingExtraError(
        'the conformance tests need pytest: pip install "echo-agent[conformance]"'
    ) from None

_PLACES = {
    "CacheTests": "cache_tests",
    "EngineTests": "engine_tests",
    "FamilyTests": "family_tests",
    "TokenTests": "token_tests",
    "TrainingTests": "training_tests",
    "claim": "claims",
    "lively": "sounds",
    "randomise": "sounds",
}

for _part in (*_PLACES.values(), "story"):
    pytest.register_assert_rewrite(f"{__name__}.{_part}")  # so that a failure shows its values


def __getattr__(name: str) -> Any:
    """What is public, imported when it is asked for: pytest wants to begin before torch is there."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
