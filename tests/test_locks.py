"""Locks of outputs: kept from other processes, given back at the end of the process, however that comes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from echo_agent import locks
from echo_agent.disk import LOCK
from echo_agent.errors import DataError
from echo_agent.locks import lock_entry, lock_folder, lock_output, locked_folder, locked_output, unlock_folder

TRY = """
import sys
from pathlib import Path
from echo_agent.disk import LOCK
from echo_agent.errors import DataError
from echo_agent.locks import lock_folder, lock_output
try:
    path = Path(sys.argv[1])
    held = lock_output(path, str(path)) if path.suffix else lock_folder(path)
except DataError as error:
    sys.exit(str(error))
print("locked", flush=True)
sys.stdin.read()
"""


def other(path: Path) -> subprocess.Popen[str]:
    """Another process that takes the lock of a folder, or of a file (with a suffix), until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", TRY, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_another_process_is_kept_out_until_the_lock_is_given_back(tmp_path: Path) -> None:
    lock_folder(tmp_path)
    lock_folder(tmp_path)  # one's own
    unlock_folder(tmp_path)
    process = other(tmp_path)
    _, said = process.communicate()
    assert process.returncode == 1
    assert (
        said.startswith(f"{tmp_path} is in use by process {os.getpid()} on ")
        and "name another folder" in said
    )
    unlock_folder(tmp_path)
    unlock_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []
    process = other(tmp_path)
    assert process.communicate() == ("locked\n", "")


KILLED = """
import os, signal, sys
from pathlib import Path
from echo_agent.disk import whole
with whole(Path(sys.argv[1])) as one, whole(Path(sys.argv[2])) as other:
    one.write_bytes(b"half")
    other.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "deep" / "a.wav", inner / "b.wav"], check=False, timeout=60
    )
    for name in (".a.wav.part", "a.12-3.part"):
        (tmp_path / name).touch()  # a user's
    assert len([*tmp_path.rglob("*.part")]) == 4
    another = other(inner)
    assert another.stdout is not None and another.stdout.readline() == "locked\n"
    (inner / ".c.wav.1-2.part").touch()
    with locked_folder(tmp_path):
        left = {path.name for path in tmp_path.rglob("*.part")}
        assert left == {".a.wav.part", "a.12-3.part", ".c.wav.1-2.part"}  # the other process is writing
    another.communicate()
    with locked_folder(inner):
        assert list(inner.iterdir()) == [inner / LOCK]


@pytest.mark.parametrize("name", ["", "results.jsonl"])
def test_the_lock_dies_with_its_process(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    process = other(path)
    assert process.stdout is not None and process.stdout.readline() == "locked\n"
    for _ in range(2):  # who was refused has taken nothing away
        with pytest.raises(DataError, match=rf"in use by process {process.pid} on "):
            lock_output(path, str(path)) if name else lock_folder(path)
    process.kill()
    process.communicate()
    with locked_output(path, str(path)) if name else locked_folder(path):
        assert [entry.name for entry in tmp_path.iterdir()] == [f".{name}.lock" if name else ".lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_and_what_stayed_empty_goes_again(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "a"):
        assert (tmp_path / "a").is_dir()
    with locked_folder(tmp_path / "b"):
        (tmp_path / "b" / "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "file"]


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file: name a folder"):
        lock_folder(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be made: Not a directory"):
        lock_folder(tmp_path / "file" / "below")
    (tmp_path / ".lock").mkdir()
    with pytest.raises(DataError, match="cannot be written to: Is a directory"):
        lock_folder(tmp_path)


def test_a_file_has_one_lock_under_all_its_names(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    with locked_output(tmp_path / "file", "the file"):
        with pytest.raises(DataError, match="^the file is in use by another run in this process: wait"):
            lock_output(tmp_path / "link", "the file")
        with locked_output(tmp_path / "other", "the other"):
            pass
    for path in (Path("/dev/null"), tmp_path):
        assert lock_output(path, "no file") is None
    with locked_output(tmp_path / ("é" * 120), "a long name"):
        pass


def test_a_file_in_a_folder_that_takes_no_new_files_is_locked_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("results")

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")  # root is refused nothing

    monkeypatch.setattr(locks, "_opened", refuse)
    with locked_output(file, "the file"):
        with pytest.raises(DataError, match="^the file is in use by another process"):
            lock_output(file, "the file")
    assert file.read_text() == "results"
    with pytest.raises(PermissionError):
        lock_output(tmp_path / "new", "the file")


def test_a_loop_of_links_is_said_and_left(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(DataError, match="a cannot be made: Too many levels of symbolic links"):
        lock_folder(tmp_path / "a")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        lock_output(tmp_path / "a", "the file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """A folder of somebody else's could have it lead to any file."""
    (tmp_path / "run").mkdir()
    (tmp_path / "dear").write_text("content")
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "dear")
    with pytest.raises(DataError, match="cannot be written to"):
        lock_folder(tmp_path / "run")
    assert (tmp_path / "dear").read_text() == "content"


def test_entries_of_a_file_are_locked_one_by_one(tmp_path: Path) -> None:
    first = lock_entry(tmp_path / "db", "a", "the thread a", "another thread")
    second = lock_entry(tmp_path / "db", "b/\n\udce9", "the thread b", "another thread")
    with pytest.raises(DataError, match="^the thread a is in use .* name another thread$"):
        lock_entry(tmp_path / "db", "a", "the thread a", "another thread")
    first.release()
    lock_entry(tmp_path / "db", "a", "the thread a", "another thread").release()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_file_that_was_removed_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, the holder has ended and taken its file with it."""
    first = lock_output(tmp_path / "file", "the file")
    assert first is not None
    lock, calls = locks._lock, []

    def late(file: object) -> None:
        calls.append(file)
        if len(calls) == 1:
            first.release()
        lock(file)  # type: ignore[arg-type]

    monkeypatch.setattr(locks, "_lock", late)
    with locked_output(tmp_path / "file", "the file"):
        assert len(calls) == 2
        monkeypatch.undo()
        with pytest.raises(DataError, match="in use"):
            lock_output(tmp_path / "file", "the file")


def test_a_disk_without_locks_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks, "_lock", refuse)
    with locked_folder(tmp_path), locked_output(tmp_path / "file", "the file"):
        pass
    assert list(tmp_path.iterdir()) == []
