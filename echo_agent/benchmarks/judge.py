"""A chat model as the judge of open answers: asked once for each answer, kept on disk, counted.

The prompts are ours, so a figure is comparable with a published one only as far as any other judge's is. What the judge
leaves out stays out here: it is None, and each score decides what that counts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from echo_agent.benchmarks.item import Item
    from echo_agent.finetune.data.llm.completions import Completions

CRITERIA = ("correctness", "relevance", "completeness", "clarity", "overall")
MOST = 5
"""Best mark of a criterion."""
MOST_BESIDE = 10
"""Best mark of an answer beside another."""

RATE = (
    "You mark answers to questions about a recording. You get the question, a reference answer that is right, and the "
    "answer to mark. Give whole or half marks from 1 (bad) to 5 (as good as the reference) for correctness, "
    "relevance, completeness, clarity, and overall. Judge what is said, not how long it is. Reply with one JSON "
    "object with these five keys."
)
BESIDE = (
    "You compare two answers to a question about a recording that you cannot hear; you get a description of it. Mark "
    "each answer from 1 to 10 for how helpful, relevant, accurate and complete it is, whatever their order. Reply with "
    "one JSON object with the keys first and second."
)


class Rating(BaseModel):
    """The judge's marks of one answer."""

    correctness: float | None = Field(default=None, ge=1, le=MOST)
    relevance: float | None = Field(default=None, ge=1, le=MOST)
    completeness: float | None = Field(default=None, ge=1, le=MOST)
    clarity: float | None = Field(default=None, ge=1, le=MOST)
    overall: float | None = Field(default=None, ge=1, le=MOST)


class Beside(BaseModel):
    """The judge's marks of two answers."""

    first: float = Field(ge=1, le=MOST_BESIDE)
    second: float = Field(ge=1, le=MOST_BESIDE)


class Judge:
    """Asks a chat model for marks."""

    def __init__(self, completions: Completions) -> None:
        """Ask by ``completions``, which keeps and counts what it is asked."""
        self.completions = completions

    def rate(self, question: str, reference: str, answer: str) -> dict[str, float | None]:
        """Marks of an answer by criterion, 1 to 5; None where the judge gave none."""
        shown = {"question": question, "reference answer": reference, "answer": answer}
        value = self.completions.ask(RATE, _shown(shown), Rating).value or Rating()
        return {name: getattr(value, name) for name in CRITERIA}

    def beside(self, item: Item, answer: str) -> tuple[float | None, float | None]:
        """Marks of an answer, 1 to 10, shown after and before the reference; None where the judge gave none."""
        reference = item.answer or ""
        return (
            self._beside(item, reference, answer, "second"),
            self._beside(item, answer, reference, "first"),
        )

    def strict(self, item: Item, answer: str, *, beside: bool) -> float:
        """The mark as a share of the best one, 0 to 1; where the judge gave none, 0."""
        if not beside:
            return (self.rate(item.question, item.answer or "", answer)["overall"] or 0.0) / MOST
        return sum(score or 0.0 for score in self.beside(item, answer)) / (2 * MOST_BESIDE)

    def report(self) -> dict[str, Any]:
        """Which model it is, and what it was asked."""
        spent = self.completions.spent
        return {
            "model": self.completions.name,
            "calls": spent.calls,
            "from_disk": self.completions.cached,
            "prompt_tokens": spent.prompt_tokens,
            "completion_tokens": spent.completion_tokens,
        }

    def _beside(self, item: Item, first: str, second: str, ours: str) -> float | None:
        shown = {
            "description of the recording": str(item.source.get("meta_info") or ""),
            "question": item.question,
            "first answer": first,
            "second answer": second,
        }
        value = self.completions.ask(BESIDE, _shown(shown), Beside).value
        return None if value is None else float(getattr(value, ours))


def _shown(parts: dict[str, Any]) -> str:
    """What is judged, as JSON: nothing in an answer can look like another part."""
    return json.dumps(parts, ensure_ascii=False, indent=1)
