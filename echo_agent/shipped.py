"""The models that come with the package: their names, their folders, and which of them is asked where none is named.

A module of its own, for the command line reads it before anything heavy is imported.
"""

from __future__ import annotations

from pathlib import Path

NANO = "echo-nano"
"""The smaller one, which knows a short list of words: for tests, the demo, and the teaching of RL."""
SMALL = "echo-small"
"""The larger one, which understands plain English."""
DEFAULT = SMALL
"""The model that is asked where none is named."""
_PACKAGE = Path(__file__).parent
SHIPPED = {NANO: _PACKAGE / "nano" / "weights", SMALL: _PACKAGE / "small" / "weights"}
"""The models by name, and the folders that hold them."""
