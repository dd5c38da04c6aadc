"""What becomes of the questions of a build: how many were composed, dropped at each step, and written.

Every step says its numbers here once, so that what the command reports, what the card says and what the files hold are
the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from echo_agent.finetune.data.records import Sample

ANSWERED_BLIND = "answered without the audio"


class Tally:
    """Counts of one build. Invariant: what was composed less what was left out is what is written."""

    def __init__(self) -> None:
        self.composed = 0
        self.left_out: dict[str, int] = {}
        """Questions by the reason for which they are not in the dataset, in the order of the steps."""

    def compose(self, count: int) -> None:
        """Questions came in."""
        self.composed += count

    def leave_out(self, reason: str, count: int) -> None:
        """Questions were left out; the reason reads on after a number: ``dropped by the checks``."""
        if count:
            self.left_out[reason] = self.left_out.get(reason, 0) + count

    def sentence(self, splits: Mapping[str, Sequence[Sample]]) -> str:
        """Everything in one or two sentences, with what is written by split."""
        sizes = {name: len(rows) for name, rows in splits.items() if rows}
        listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        out = "; ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        lost = f" Left out: {out}." if out else ""
        return f"{self.composed:,} questions were composed, and {sum(sizes.values()):,} are written ({listed}).{lost}"
