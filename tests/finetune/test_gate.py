"""The gate's probe reads what can be read, and nothing where there is nothing to read."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from echo_agent.finetune.data.vocabulary import DIGITS
from echo_agent.finetune.nano.lessons import Teacher


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "gate.py"
    spec = importlib.util.spec_from_file_location("gate", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A probe's operations are so small that threads only wait for each other, for minutes on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_best_path_is_read(gate: ModuleType) -> None:
    best = torch.tensor([0, 3, 3, 0, 3, 1, 1, 2, 0])
    assert gate.read(torch.nn.functional.one_hot(best, 4).float()) == (2, 2, 0, 1)
    assert gate.read(torch.nn.functional.one_hot(torch.tensor([0, 0]), 4).float()) == ()


def test_the_probe_reads_what_is_there(gate: ModuleType) -> None:
    """Three words in two tokens, each with a direction of its own in noise; then only noise."""
    torch.manual_seed(1)
    directions = torch.randn(2, 3, 4, 24)

    def made(count: int, loud: float) -> list[object]:
        samples = []
        for _ in range(count):
            said = torch.randint(4, (3,)).tolist()
            tokens = torch.randn(2, 24)
            for place, word in enumerate(said):
                tokens[place // 2] += loud * directions[place // 2, place, word]
            samples.append(gate.Sample(tokens, tuple(said)))
        return samples

    each, whole = gate.accuracy(made(600, 3.0), made(60, 3.0), 4, epochs=10)
    assert each > 80 and whole > 50, (each, whole)
    each, whole = gate.accuracy(made(600, 0.0), made(60, 0.0), 4, epochs=2)
    assert each < 45 and whole < 15, (each, whole)


def test_samples_are_what_the_teacher_heard(gate: ModuleType, teacher: Teacher) -> None:
    config = teacher.config
    for kind, names in gate.KINDS.items():
        for duration in (None, 40):
            for sample in gate.samples(teacher, kind, duration, 12, 0):
                assert sample.tokens.shape[1] == config.feature_dim
                assert set(sample.content) <= set(range(len(names)))
                assert len(sample.content) == 3 or kind != "words"
                if duration == 40:  # one token for 0.83 s, and no event is longer than eight
                    assert 1 <= len(sample.tokens) <= 12
    said = {DIGITS[word] for s in gate.samples(teacher, "digits", None, 30, 0) for word in s.content}
    assert len(said) > 5


def test_detail_begins_where_the_gap_is_wide_enough(gate: ModuleType) -> None:
    def row(*heard: float) -> dict[str, float]:
        listens = {f"first listen, {s} s": score for s, score in zip(gate.DURATIONS, heard, strict=True)}
        return {"crop": 90.0} | listens

    assert gate.detail_from(row(90, 90, 80, 50, 20)) == 45, "half way from 30 s (10 points) to 60 s (40)"
    assert gate.detail_from(row(90, 90, 65, 50, 20)) == 30
    assert gate.detail_from(row(20, 20, 20, 20, 20)) == 10
    assert gate.detail_from(row(90, 90, 90, 90, 66)) is None
