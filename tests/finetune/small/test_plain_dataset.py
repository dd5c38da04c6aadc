"""The dataset in plain English: its samples are the lessons of echo-small, as the graph would run them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from echo_agent.audio.recording import Recording
from echo_agent.dialects import InlineDialect
from echo_agent.errors import DataError
from echo_agent.finetune.data.dataset import read_samples
from echo_agent.finetune.data.natural.timelines import simulate
from echo_agent.finetune.small import plain_dataset
from echo_agent.finetune.small.listens import Listener, Scene, asked_about
from echo_agent.finetune.small.named_sounds import NamedSounds
from echo_agent.finetune.small.plain_dataset import build, sample
from echo_agent.finetune.trajectories import to_trajectory
from echo_agent.small.processing import AUDIO_END, AUDIO_START
from echo_agent.stores import RecordingStore
from tests.finetune.plain_bench import SCENES, write_bench
from tests.small.tiny_small import tiny_small


def outside_of_listens(ids: list[int], start: int, end: int) -> list[int]:
    """Ids without what stands in listens, but with its length behind each opening."""
    kept: list[int] = []
    opened = None
    for place, token in enumerate(ids):
        if token == end and opened is not None:
            kept.append(-(place - opened))
            opened = None
        if opened is None:
            kept.append(token)
        if token == start:
            opened = place
    return kept


def test_a_sample_is_the_lesson_that_it_is_made_of() -> None:
    family = tiny_small()
    listener = Listener(family.tokenizer, family.config.blank_token_id)
    start, end = (listener.ids(tag)[0] for tag in (AUDIO_START, AUDIO_END))
    store, listened, asked_in_all = RecordingStore(), 0, 0
    for n in range(12):
        record = simulate(np.random.default_rng([3, n]))
        record = record.model_copy(update={"duration": math.ceil(record.duration) + 2.0})
        about = NamedSounds.of(record)
        scene = Scene(record.duration, about.events)
        recording = store.add(
            Recording.from_array(np.zeros(round(record.duration * 16000), np.float32), 16000)
        )
        rng = np.random.default_rng(n)
        for asked, branch in asked_about(listener, rng, 30, about.record, scene, about.without):
            row = sample(listener, about, asked, branch, "s", "train")
            assert all(row.is_right(answer) for answer in row.right)
            assert bool(row.reasoning) == (row.use == "sft")
            if not asked.steps and len(branch) == 2:  # a dataset's thoughts are not empty
                continue
            made = to_trajectory(row, family, InlineDialect(), recording)
            lesson = listener.opened(scene.listen(listener, 0.0, record.duration))
            lesson = lesson + [token for stretch in branch for token in stretch.ids]
            assert outside_of_listens(list(made.ids), start, end) == outside_of_listens(lesson, start, end)
            listened += row.listens
            asked_in_all += 1
    assert listened > 20 and asked_in_all > 100


def test_a_call_over_the_end_is_answered_as_the_graph_does() -> None:
    family, store, clamped = tiny_small(), RecordingStore(), 0
    listener = Listener(family.tokenizer, family.config.blank_token_id)
    for n in range(25):
        about = NamedSounds.of(simulate(np.random.default_rng([3, n])))
        duration = about.record.duration
        recording = store.add(Recording.from_array(np.zeros(round(duration * 16000), np.float32), 16000))
        scene, rng = Scene(duration, about.events), np.random.default_rng(n)
        for asked, branch in asked_about(listener, rng, 30, about.record, scene, about.without):
            row = sample(listener, about, asked, branch, "s", "train")
            if row.listens:
                made = to_trajectory(row, family, InlineDialect(), recording)
                assert len(made.audio) == 1 + row.reasoning.count("<seg>")
                clamped += "clamped" in family.detokenize([i for i in made.ids if i != family.audio_id])
    assert clamped > 2


def test_a_thought_without_steps_says_what_is_heard() -> None:
    listener = plain_dataset.embedded_listener()
    record = simulate(np.random.default_rng(5))
    about = NamedSounds.of(record)
    scene = Scene(record.duration, about.events)
    asked = asked_about(listener, np.random.default_rng(0), 40, record, scene, about.without)
    rows = {one.kind: sample(listener, about, one, branch, "s", "train") for one, branch in asked}
    thought = rows["unknowable/sounds"].reasoning
    assert thought.startswith(f"{about.events[0].name} ") and thought.endswith(".") and "<" not in thought
    assert thought.count(",") == len(about.events) - 1


def test_a_bench_becomes_a_dataset(tmp_path: Path) -> None:
    bench = write_bench(tmp_path / "bench")
    counts = build(bench, tmp_path / "dataset", 0, "a command")
    samples = read_samples(tmp_path / "dataset")
    assert counts == {name: sum(one.split == name for one in samples) for name in SCENES}
    assert {one.split: len({s.record for s in samples if s.split == one.split}) for one in samples} == SCENES
    assert all((tmp_path / "dataset" / one.audio).exists() for one in samples)
    assert len({one.id for one in samples}) == len(samples)
    build(bench, tmp_path / "again", 0, "a command")
    assert read_samples(tmp_path / "again") == samples
    build(bench, tmp_path / "other", 1, "a command")
    assert read_samples(tmp_path / "other") != samples


def test_a_folder_that_is_no_bench_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no train.parquet: give a folder of `echo-agent finetune data bench`"
    ):
        build(tmp_path, tmp_path / "out", 0, "a command")
