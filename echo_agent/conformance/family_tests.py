"""All that a family must do."""

from __future__ import annotations

from echo_agent.conformance.cache_tests import CacheTests
from echo_agent.conformance.engine_tests import EngineTests
from echo_agent.conformance.token_tests import TokenTests
from echo_agent.conformance.training_tests import TrainingTests


class FamilyTests(CacheTests, TokenTests, EngineTests, TrainingTests):
    """A family passes, or it cannot be used."""
