"""How something was made, for dataset cards and records of runs: the command and the versions of packages."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path


def given_command() -> str:
    """The command, of paths only the last part: where it ran is private."""
    return shlex.join(["echo-agent", *map(_word, sys.argv[1:])])


def _word(word: str) -> str:
    """A word of the command; of ``key=path/to/value`` the key is kept."""
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{Path(value).name}" if "/" in value else word


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
