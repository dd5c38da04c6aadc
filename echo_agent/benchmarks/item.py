"""One row of a benchmark: a question, what counts as right, and the row that it was made from. Times are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from echo_agent.answers import match_choice, normalise
from echo_agent.benchmarks.grounding import iou, read_span
from echo_agent.benchmarks.instructions import follows
from echo_agent.rows import Question

Kind = Literal["choice", "open", "grounding", "instruction"]
FOUND = 0.5
"""IoU from which a span counts as right."""


class Item(Question):
    """A question of a benchmark."""

    kind: Kind = "choice"
    """One of the choices; an open answer; a span of time; or a text that must keep to a rule."""
    answer: str | None = None
    """What is right, None where the benchmark withholds it. A grounding item has a gold span instead."""
    modality: str = ""
    """What the recording holds, such as speech or music."""
    sub_category: str = ""
    listed: tuple[str, ...] = Field(default=(), exclude=True)
    """The choices as the benchmark lists them, where some are empty or there twice; ``choices`` holds each once."""
    source: Mapping[str, Any] = Field(default_factory=dict, exclude=True)
    """The row as the benchmark has it, which predictions are written into."""

    @model_validator(mode="after")
    def _answer_is_a_choice(self) -> Self:
        if self.kind == "choice" and self.choices is None:
            raise ValueError("there are no choices")
        if self.choices and self.answer is not None and match_choice(self.answer, self.choices) is None:
            raise ValueError(f"the answer {self.answer!r} is none of the choices {list(self.choices)}")
        return self

    @property
    def scored(self) -> bool:
        """Whether it is known what is right."""
        if self.kind == "grounding":
            return bool(self.gold_spans)
        return self.kind == "instruction" or self.answer is not None

    @property
    def groups(self) -> dict[str, str]:
        """By what scores are reported."""
        return {
            "category": self.category,
            "sub_category": self.sub_category,
            "modality": self.modality,
            **{name: group for name, group in super().groups.items() if name != "category"},
        }

    @property
    def letter(self) -> str:
        """Letter of the right choice, A for the first; empty where there is none."""
        return self.letter_of(self.answer)

    def letter_of(self, answer: str | None) -> str:
        """Letter of the choice that an answer is, in the benchmark's own list; empty where it is none."""
        choices = self.choices or ()
        found = match_choice(answer, choices)
        return "" if found is None else chr(ord("A") + (self.listed or choices).index(choices[found]))

    def is_right(self, answer: str | None) -> bool:
        """Whether an answer is right by the strict rule; an open answer must equal the right one, letter for letter."""
        if answer is None or not self.scored:
            return False
        if self.kind == "grounding":
            return iou(read_span(answer), self.gold_spans[0]) >= FOUND
        if self.kind == "instruction":
            return follows(answer, self.source)
        if self.kind == "open":
            return normalise(answer) == normalise(self.answer or "")
        return self.letter_of(answer) == self.letter
