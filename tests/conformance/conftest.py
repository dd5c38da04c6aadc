"""Which conformance tests are quick: all of them for one family of each kind, the central ones for the others."""

from __future__ import annotations

import pytest

from echo_agent.conformance.claims import Made

WHOLE = {"echo-nano", "qwen2.5-omni", "granite-speech", "qwen2-audio, served", "qwen2.5-omni, served"}
"""A budget, a crop at its own length, clips one by one. The others' tests are many seconds of windows of 30 s."""
CENTRAL = {
    "test_steps_with_a_crop_in_the_cache_equal_one_full_pass",
    "test_rows_of_a_padded_batch_are_scored_as_by_one_full_pass",
    "test_what_is_saved_comes_back",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the rest as slow."""
    for item in items:
        owner = getattr(item, "cls", None)
        if owner is None or not issubclass(owner, Made) or getattr(owner, "kind", "") in WHOLE:
            continue
        if item.name.partition("[")[0] not in CENTRAL:
            item.add_marker(pytest.mark.slow)
