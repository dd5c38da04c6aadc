from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from echo_agent.audio.files import FileStamp, local_file, sha256_of
from echo_agent.errors import RecordingError


def _aged(path: Path, seconds: float = 10.0) -> FileStamp:
    """A stamp of the file as it would be `seconds` later: old enough to be remembered."""
    stamp = FileStamp.of(path)
    shift = round(seconds * 1e9)
    return FileStamp(stamp.path, stamp.size, stamp.modified_ns - shift, stamp.changed_ns - shift, stamp.inode)


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(bytes(range(256)) * 10_000)  # more than one block
    assert sha256_of(FileStamp.of(file)) == hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_hash_is_remembered_by_path_size_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"first")
    settled = _aged(file)
    assert settled.is_settled
    monkeypatch.setattr(FileStamp, "of", classmethod(lambda cls, path: settled))
    first = sha256_of(settled)
    file.write_bytes(b"other")  # same length; a stamp that stays the same means that nobody reads it again
    assert sha256_of(settled) == first
    changed = FileStamp(
        settled.path, settled.size, settled.modified_ns + 1, settled.changed_ns, settled.inode
    )
    monkeypatch.setattr(FileStamp, "of", classmethod(lambda cls, path: changed))
    assert sha256_of(changed) == hashlib.sha256(b"other").hexdigest()


def test_a_file_that_has_just_been_written_is_not_remembered(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"first")
    future = FileStamp.of(file)
    os.utime(file, ns=(future.modified_ns + 10**12, future.modified_ns + 10**12))
    stamp = FileStamp.of(file)
    assert not stamp.is_settled
    first = sha256_of(stamp)
    file.write_bytes(b"other")
    os.utime(file, ns=(stamp.modified_ns, stamp.modified_ns))
    assert sha256_of(FileStamp.of(file)) != first


def test_a_file_that_changes_while_it_is_hashed_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(b"first")
    stamp = FileStamp.of(file)
    file.write_bytes(b"longer than it was")
    with pytest.raises(RecordingError, match="being written to"):
        sha256_of(stamp)


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.wav").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert local_file("a.wav") == tmp_path / "a.wav"
    assert local_file(Path("a.wav")) == tmp_path / "a.wav"


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/a.wav",
        "https://example.org/a.wav",
        "HTTPS://example.org/a.wav",
        "s3://bucket/a.wav",
        "gs://bucket/a.wav",
        "ftp://example.org/a.wav",
        "file:///etc/hostname",
        "file:/etc/hostname",
        "data:audio/wav;base64,UklGRg==",
    ],
)
def test_urls_are_refused(url: str) -> None:
    with pytest.raises(RecordingError, match="is a URL; recordings are opened from local files only"):
        local_file(url)


def test_a_name_with_a_colon_is_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "talk 12:30.wav").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert local_file("talk 12:30.wav").name == "talk 12:30.wav"


@pytest.mark.parametrize("name", ["", "a\0b.wav"])
def test_no_path_at_all(name: str) -> None:
    with pytest.raises(RecordingError, match="is not the path of a recording"):
        local_file(name)


def test_something_that_is_no_path() -> None:
    with pytest.raises(RecordingError, match="from_array"):
        local_file(b"RIFF")  # pyright: ignore[reportArgumentType]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are a matter of POSIX")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(RecordingError, match="not a regular file"):
        local_file(tmp_path / "pipe.wav")
