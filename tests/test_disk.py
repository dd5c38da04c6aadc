"""What is written is whole or not there; what the disk has against it is one sentence."""

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models

from echo_agent.disk import write_whole, writing
from echo_agent.errors import DataError


def test_a_full_disk_is_said_in_one_line() -> None:
    with pytest.raises(DataError, match="^cannot write results: No space left on device; make room[^\n]*$"):
        with writing("results"), open("/dev/full", "wb", buffering=0) as file:
            file.write(b"x")


def test_a_file_takes_the_place_of_the_former_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.json"
    write_whole(path, b"one")
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_what_cannot_be_written_leaves_the_former_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(DataError, match=rf"^cannot write {re.escape(str(path))}: .*; go away$"):
        write_whole(path, b"data", "go away")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken"]
    with pytest.raises(DataError, match="cannot write"):
        write_whole(tmp_path / ("x" * 300), b"data")


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file grows larger, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def by_safetensors(path: Path) -> None:
    save_file({"a": torch.zeros(10_000)}, path)


def by_torch(path: Path) -> None:
    torch.save({"a": torch.zeros(10_000)}, path)


def by_soundfile(path: Path) -> None:
    soundfile.write(path, np.random.default_rng(0).uniform(-1, 1, 50_000), 16000, format="WAV")


def by_tokenizers(path: Path) -> None:
    Tokenizer(models.WordLevel({f"{n:09d}": n for n in range(2000)}, "0")).save(str(path))


def by_arrow(path: Path) -> None:
    parquet.write_table(arrow.table({"a": np.random.default_rng(0).uniform(0, 1, 10_000)}), path)


@pytest.mark.parametrize("write", [by_safetensors, by_torch, by_soundfile, by_tokenizers, by_arrow])
def test_whoever_writes_a_full_disk_is_one_sentence(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    with (
        small_files(2000),
        pytest.raises(DataError, match=rf"^cannot write {path}: [^\n]+; make room, or name"),
    ):
        with writing(path):
            write(path)


def test_other_errors_are_left_as_they_are(tmp_path: Path) -> None:
    for error in (
        RuntimeError("a mistake"),
        ValueError("of ours"),
        DataError("a sentence"),
        KeyboardInterrupt("x"),
    ):
        with pytest.raises(type(error), match=str(error)), writing(tmp_path):
            raise error


def test_a_loop_of_links_is_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(DataError, match="a: Too many levels of symbolic links"):
        write_whole(tmp_path / "a", b"x")
    assert (tmp_path / "a").is_symlink()
    (tmp_path / "link").symlink_to("new")
    write_whole(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "new").read_bytes() == b"x"
