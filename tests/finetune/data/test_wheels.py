"""Pinned wheels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.wheels import check_wheel


def test_another_hash_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "meeting.whl"
    wheel.write_bytes(b"not what was pinned")
    digest = hashlib.sha256(b"not what was pinned").hexdigest()
    with pytest.raises(DataError, match=f"meeting.whl has sha256 {digest}, not the pinned {'0' * 64}"):
        check_wheel(wheel, "0" * 64)
    check_wheel(wheel, digest)
