"""The command that something was made by, for cards and records."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def given_command() -> str:
    """The command as it was given, with the paths' last parts only: where it ran is nobody's business."""
    return shlex.join(["echo-agent", *map(_word, sys.argv[1:])])


def _word(word: str) -> str:
    """A word of the command; of ``key=path/to/value`` the key stays."""
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if "/" in value else word
