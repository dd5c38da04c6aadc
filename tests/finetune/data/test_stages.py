"""Stages: resumed, never half, the same however many work on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.stages import Rows, read_rows, run_stage

PARTS = [f"p{n}" for n in range(7)]


def work(part: str) -> Rows:
    return [{"part": part, "n": k, "nested": {"a": [k]}, "maybe": None if k else 1} for k in range(3)]


@pytest.mark.parametrize(("workers", "pool"), [(1, "process"), (3, "process"), (3, "thread")])
def test_rows_come_in_the_order_of_the_parts(tmp_path: Path, workers: int, pool: str) -> None:
    told: list[tuple[int, int]] = []
    path = run_stage(
        tmp_path, "s", PARTS, work, settings={"a": 1}, workers=workers, pool=pool,  # pyright: ignore
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert read_rows(path) == [row for part in PARTS for row in work(part)]
    assert told == [(n, 7) for n in range(8)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.parquet"]
    assert parquet.read_table(path).column_names == ["maybe", "n", "part", "json"]


def test_what_broke_off_is_gone_on_with(tmp_path: Path) -> None:
    done: list[str] = []

    def breaking(part: str) -> Rows:
        if part == "p4" and "p4" not in done:
            done.append(part)
            raise ValueError("a bad clip")
        done.append(part)
        return work(part)

    with pytest.raises(ValueError, match="a bad clip"):
        run_stage(tmp_path, "s", PARTS, breaking, settings={})
    assert not (tmp_path / "s.parquet").exists()
    path = run_stage(tmp_path, "s", PARTS, breaking, settings={})
    assert done == ["p0", "p1", "p2", "p3", "p4", "p4", "p5", "p6"]
    assert read_rows(path) == [row for part in PARTS for row in work(part)]


def test_parts_that_a_killed_process_left_behind_its_file_go(tmp_path: Path) -> None:
    run_stage(tmp_path, "s", ["a", "b"], work, settings={})
    (tmp_path / ".s").mkdir()
    (tmp_path / ".s/a.parquet").write_text("of a process that ended here")
    run_stage(tmp_path, "s", ["a", "b"], work, settings={})
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.parquet"]


def test_a_finished_stage_is_not_done_again_and_other_settings_are_refused(tmp_path: Path) -> None:
    path = run_stage(tmp_path, "s", PARTS, work, settings={"a": 1})

    def never(part: str) -> Rows:
        raise AssertionError(part)

    assert run_stage(tmp_path, "s", PARTS, never, settings={"a": 1}) == path
    with pytest.raises(DataError, match="other settings"):
        run_stage(tmp_path, "s", PARTS, never, settings={"a": 2})
    with pytest.raises(DataError, match="other settings"):
        run_stage(tmp_path, "s", PARTS[:3], never, settings={"a": 1})


def test_a_stage_that_was_begun_with_other_settings_is_refused(tmp_path: Path) -> None:
    def breaking(part: str) -> Rows:
        if part == "p1":
            raise ValueError
        return work(part)

    with pytest.raises(ValueError):
        run_stage(tmp_path, "s", PARTS, breaking, settings={"a": 1})
    with pytest.raises(DataError, match="begun with other settings"):
        run_stage(tmp_path, "s", PARTS, work, settings={"a": 2})


def test_a_killed_stage_is_gone_on_with(tmp_path: Path) -> None:
    """Killed in the middle of a part, by the signal that nothing can catch."""
    code = f"""
        import time
        from pathlib import Path
        from echo_agent.finetune.data.stages import run_stage
        def slow(part):
            while part == {PARTS[3]!r}:
                time.sleep(60)
            return [{{"part": part}}]
        run_stage(Path({str(tmp_path)!r}), "s", {PARTS!r}, slow, settings={{}})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    begun = tmp_path / ".s"
    while len(list(begun.glob("p*.parquet"))) < 3 and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ready = {path.stem for path in begun.glob("p*.parquet")}
    assert ready == set(PARTS[:3])
    done: list[str] = []

    def rest(part: str) -> Rows:
        done.append(part)
        return [{"part": part}]

    path = run_stage(tmp_path, "s", PARTS, rest, settings={})
    assert set(done) == set(PARTS) - ready
    assert read_rows(path) == [{"part": part} for part in PARTS]


def note_and_wait(part: str) -> Rows:
    """Leaves the number of its process in the folder that the environment names, and takes its time."""
    folder = Path(os.environ["TEST_WORKERS"])
    folder.joinpath(f"{part}.begun").write_text(str(os.getpid()))
    folder.joinpath(f"{part}.begun").rename(folder / part)
    if part in PARTS[2:]:
        time.sleep(600)
    return work(part)


def _is_there(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(tmp_path: Path, number: int) -> None:
    """It is killed while they are at work, and while one waits for more."""
    code = f"""
        from pathlib import Path
        from echo_agent.finetune.data.stages import run_stage
        from tests.finetune.data.test_stages import PARTS, note_and_wait
        if __name__ == "__main__":
            run_stage(Path({str(tmp_path)!r}), "s", PARTS[:3], note_and_wait, settings={{}}, workers=2)
    """
    (tmp_path / "main.py").write_text(textwrap.dedent(code))
    workers = tmp_path / "workers"
    workers.mkdir()
    paths = os.pathsep.join([str(Path(__file__).parents[3]), *sys.path])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")],
        env=os.environ | {"PYTHONPATH": paths, "TEST_WORKERS": str(workers)},
    )
    while not (workers / PARTS[2]).exists() and process.poll() is None:
        time.sleep(0.02)
    begun = {int((workers / part).read_text()) for part in PARTS[:3]}
    os.kill(process.pid, number)
    assert process.wait() == -number
    deadline = time.monotonic() + 60
    while left := [worker for worker in begun if _is_there(worker)]:
        assert time.monotonic() < deadline, f"they go on: {left}"
        time.sleep(0.02)


def test_a_full_disk_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parquet, "write_table", full)
    with pytest.raises(DataError, match=r"No space left on device; what is done is kept"):
        run_stage(tmp_path, "s", PARTS, work, settings={})


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "s.parquet"
    bad.write_text("no parquet")
    with pytest.raises(DataError, match=r"s\.parquet cannot be read"):
        read_rows(bad)
    with pytest.raises(DataError, match=r"s\.parquet cannot be read"):
        run_stage(tmp_path, "s", PARTS, work, settings={})
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(tmp_path / "missing.parquet")


@pytest.mark.parametrize(
    "column", [[1], [None], ["[1]"], ['"x"'], ["{"], [b"\xff"], [{"a": 1}], ["[" * 5000]]
)
def test_a_column_of_the_wrong_type_is_one_sentence(tmp_path: Path, column: list[object]) -> None:
    parquet.write_table(arrow.table({"json": arrow.array(column)}), tmp_path / "s.parquet")
    with pytest.raises(DataError, match=r"^[^\n]*s\.parquet cannot be read; remove it[^\n]*$"):
        read_rows(tmp_path / "s.parquet")


def test_another_version_of_the_program_is_another_maker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(tmp_path, "s", PARTS, work, settings={})
    monkeypatch.setattr("echo_agent.finetune.data.stages.version", lambda _: "99")
    with pytest.raises(DataError, match="by another version; remove it, or name another folder"):
        run_stage(tmp_path, "s", PARTS, work, settings={})
