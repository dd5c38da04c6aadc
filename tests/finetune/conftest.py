"""What several tests of finetuning need: a tiny echo-nano, one shard of tiles that it encoded, a small dataset."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from echo_agent.finetune import callbacks
from echo_agent.finetune.data import card
from echo_agent.finetune.nano import tiles
from echo_agent.finetune.nano.lessons import Teacher, with_branch
from echo_agent.finetune.nano.tiles import Tile
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.processing import load_tokenizer
from echo_agent.nano.weights import WEIGHTS
from tests.finetune.plain_bench import write_plain_dataset
from tests.finetune.small_bank import make_bank
from tests.finetune.small_dataset import write_small_dataset
from tests.tiny import tiny_family

TILES = {5: 12, 10: 6, 20: 2}
"""Tiles by their seconds."""


@pytest.fixture(scope="session")
def tiny_nano() -> NanoForConditionalGeneration:
    """Do not train this one: it is shared."""
    model = tiny_family("echo-nano").model
    assert isinstance(model, NanoForConditionalGeneration)
    return model.eval()


@pytest.fixture
def learner(tiny_nano: NanoForConditionalGeneration) -> NanoForConditionalGeneration:
    """A copy to train."""
    return copy.deepcopy(tiny_nano)


@pytest.fixture(scope="session")
def shard(tiny_nano: NanoForConditionalGeneration) -> list[Tile]:
    """A shard of the small bank, of as many tiles as `TILES` says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "SHARD", TILES)
        return tiles.make_shard(tiny_nano.model, make_bank(), 0)


@pytest.fixture(scope="session")
def teacher(tiny_nano: NanoForConditionalGeneration, shard: list[Tile]) -> Teacher:
    wide = [with_branch(tile, tiny_nano.model.adapter.branch) for tile in shard]
    return Teacher(wide, tiny_nano.config, load_tokenizer(WEIGHTS))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset to train on; features that are kept in it serve all tests of one encoder."""
    return write_small_dataset(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture
def uncharted(monkeypatch: pytest.MonkeyPatch) -> None:
    """For datasets whose card nobody looks at: to draw its charts takes longer than to write the rest."""
    monkeypatch.setattr(card, "draw_charts", lambda folder, splits: None)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For trainings whose curves nobody looks at: to draw them takes longer than to train."""
    monkeypatch.setattr(callbacks, "draw_curves", lambda rows, path, title: None)


@pytest.fixture(scope="session")
def plain_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions in plain English about a few scenes."""
    return write_plain_dataset(tmp_path_factory.mktemp("plain"))
