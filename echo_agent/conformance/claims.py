"""What a test claims, and what it is about: the columns and rows of the table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from echo_agent.families.base import Family

CLAIM = "claim"
"""Attribute of a test that holds its claim."""

Test = TypeVar("Test", bound=Callable[..., None])


def claim(text: str) -> Callable[[Test], Test]:
    """Say what a test stands for, in the words of the table; several tests may stand for one claim."""

    def mark(test: Test) -> Test:
        setattr(test, CLAIM, text)
        return test

    return mark


class Made(ABC):
    """Tests of one family."""

    @classmethod
    @abstractmethod
    def make(cls) -> Family:
        """A family around a tiny random model on the CPU in float32; equal at every call."""

    @pytest.fixture(scope="class")
    @classmethod
    def family(cls) -> Family:
        """One for all tests that leave its weights alone."""
        return cls.make()
