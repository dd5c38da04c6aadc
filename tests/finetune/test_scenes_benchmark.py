"""The benchmark of scenes runs anywhere, and says what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scenes.py"


@pytest.mark.slow
def test_it_makes_its_own_bank_and_prints_one_line() -> None:
    command = [sys.executable, str(SCRIPT), "--few", "1", "--many", "3"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    line = json.loads(done.stdout)
    assert (line["benchmark"], line["goal"], line["bank"]) == ("scenes", 100, "generated")
    assert line["ratio"] > 0 and set(line["memory_mb"]) == {"1", "3"}
    assert line["memory_ratio"] > 0
