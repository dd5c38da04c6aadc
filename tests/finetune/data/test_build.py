"""Building a dataset: every split is asked its share."""

from __future__ import annotations

from echo_agent.finetune.data.build import _parts
from echo_agent.finetune.data.records import Record


def test_records_are_asked_by_split() -> None:
    """Together, validation would be asked only once training had nothing left to be asked."""
    records = [
        Record(id=f"r{i}", audio=f"{i}.flac", duration=10.0, events=(), split=split)
        for i, split in enumerate(("train", "train", "validation", "test", "train"))
    ]
    parts = _parts(records)
    assert {name: [record.id for record in some] for name, some in parts.items()} == {
        "train": ["r0", "r1", "r4"], "validation": ["r2"], "test": ["r3"],
    }  # fmt: skip
