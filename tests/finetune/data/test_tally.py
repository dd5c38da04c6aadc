"""The numbers that a build says are those of its card and of its files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent.errors import DataError
from echo_agent.finetune.data.build import BuildOptions, build
from echo_agent.finetune.data.dataset import read_samples, split_names
from echo_agent.finetune.data.sources import Form
from echo_agent.finetune.data.tally import Tally
from tests.finetune.data.test_cli import annotated


def test_what_is_left_out_and_written_is_what_was_composed() -> None:
    tally = Tally()
    tally.compose(1200)
    tally.leave_out("dropped by the checks", 150)
    tally.leave_out("more than were asked for", 0)
    tally.leave_out("dropped by the checks", 50)
    assert tally.sentence({"train": [], "core": []}) == (
        "1,200 questions were composed, and 0 are written (). Left out: 200 dropped by the checks."
    )


def test_a_build_says_what_its_card_and_files_say(tmp_path: Path) -> None:
    told: list[str] = []
    options = BuildOptions(form=Form.JSONL)
    for _ in range(2):  # the second time from stages that are done
        build(
            annotated(tmp_path, 12), tmp_path / "out", options, report=told.append, progress=lambda _: silent
        )
        said = told[-1].removeprefix(f"{tmp_path / 'out'}: ")
        card = " ".join((tmp_path / "out" / "README.md").read_text().split())
        assert said in card
        composed, written = map(
            int, re.findall(r"(\d+) questions were composed, and (\d+) are written", said)[0]
        )
        assert written == len(read_samples(tmp_path / "out"))
        for name in split_names(tmp_path / "out"):
            assert f"{name} {len(read_samples(tmp_path / 'out', name))}" in said
        left = sum(int(count) for count in re.findall(r"(\d+) (?:dropped|more|answered)", said))
        assert composed == written + left


def silent(done: int, total: int) -> None:
    """Nobody is told."""


def test_other_annotations_are_never_answered_from_an_older_build(tmp_path: Path) -> None:
    """The recordings and their names are the same, what is in them is not."""
    path = annotated(tmp_path)
    options = BuildOptions(form=Form.JSONL, categories=("presence",))
    build(path, tmp_path / "out", options, report=print, progress=lambda _: silent)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["events"] = row["events"][:2]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=r"records\.parquet was made .*of other data"):
        build(path, tmp_path / "out", options, report=print, progress=lambda _: silent)


def test_a_build_of_other_clips_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("bell", "dog", "car", "saw", "door", "owl"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / label / "1.wav", 0.5 * rng.uniform(-1, 1, 8000), 16000)
    options = BuildOptions(form=Form.CLIPS, questions=5)
    build(tmp_path / "clips", tmp_path / "out", options, report=print, progress=lambda _: silent)
    soundfile.write(tmp_path / "clips" / "owl" / "1.wav", 0.5 * rng.uniform(-1, 1, 8000), 16000)
    with pytest.raises(DataError, match="bank was made of other clips than .*clips holds now"):
        build(tmp_path / "clips", tmp_path / "out", options, report=print, progress=lambda _: silent)
