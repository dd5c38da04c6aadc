"""What asking a language model costs: calls, retries, tokens, and money where the price is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Price:
    """Money per million tokens."""

    prompt: float
    completion: float


@dataclass(frozen=True)
class Usage:
    """What calls have cost."""

    calls: int = 0
    """Replies that came back, whether or not they could be used."""
    retries: int = 0
    """Requests that had to be sent again, since the server was busy, slow or broken."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted: int = 0
    """Calls for which the server told no tokens."""

    def __add__(self, other: Usage) -> Usage:
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Usage:
        """From a stage's row."""
        return cls(**{f.name: int(row[f.name]) for f in fields(cls)})

    def money(self, price: Price) -> float:
        """The price of it all, in the currency of ``price``."""
        return (self.prompt_tokens * price.prompt + self.completion_tokens * price.completion) / 1e6

    def report(self, price: Price | None = None) -> str:
        """One line."""
        text = (
            f"{self.calls} calls, {self.retries} retries, {self.prompt_tokens} prompt tokens, "
            f"{self.completion_tokens} completion tokens"
        )
        text += f" (not told for {self.uncounted} calls)" if self.uncounted else ""
        return text + (f", cost {self.money(price):.4f}" if price else "")
