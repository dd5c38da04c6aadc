"""Tiles: a row of them is the recording that they make, and what is on disk is whole."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from echo_agent.errors import DataError
from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.scenes.augment import RATE
from echo_agent.finetune.nano import tiles as module
from echo_agent.finetune.nano.scenes import make_scene
from echo_agent.finetune.nano.tiles import (
    Tile,
    build_shards,
    crop_spans,
    encode_listens,
    has_detail,
    load_shard,
    make_shard,
    save_shard,
)
from echo_agent.finetune.nano.train import tiles_in
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.processing import listen_inputs
from tests.finetune.conftest import TILES
from tests.finetune.small_bank import make_bank
from tests.test_disk import small_files


def same(first: list[Tile], second: list[Tile]) -> bool:
    """Whether two lists of tiles are equal bit by bit."""
    return len(first) == len(second) and all(
        a.seconds == b.seconds
        and a.events == b.events
        and torch.equal(a.frames, b.frames)
        and [(c.start, c.end, c.event) for c in a.crops] == [(c.start, c.end, c.event) for c in b.crops]
        and all(torch.equal(c.frames, d.frames) for c, d in zip(a.crops, b.crops, strict=True))
        for a, b in zip(first, second, strict=True)
    )


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of three tiles."""
    monkeypatch.setattr(module, "SHARD", {5: 2, 10: 1})


def test_a_row_of_tiles_is_the_recording_that_it_makes(tiny_nano: NanoForConditionalGeneration) -> None:
    """Features of scenes one after another are those of the waveforms one after another."""
    bank = make_bank()
    scenes = [make_scene(bank, np.random.default_rng(n), seconds) for n, seconds in enumerate((5, 10, 5))]
    parts = encode_listens(tiny_nano.model, [scene.samples for scene in scenes])
    wave = np.concatenate([scene.samples for scene in scenes])
    (whole,) = encode_listens(tiny_nano.model, [wave])
    row = torch.cat(parts)
    assert row.shape == whole.shape == (500, 64) and row.dtype == torch.float16
    torch.testing.assert_close(row, whole, atol=2e-3, rtol=2e-3)  # the last bit of float16
    inputs = listen_inputs([torch.from_numpy(wave)], tiny_nano.config)
    with torch.no_grad():
        (heard,) = tiny_nano.model.frames(inputs.mels, inputs.mel_lengths, inputs.listen_windows)
    torch.testing.assert_close(heard[:, :64], row.float(), atol=2e-3, rtol=2e-3)
    shifted = encode_listens(tiny_nano.model, [wave[RATE:]])[0]
    assert (shifted[:125] - row[25:150]).abs().max() > 0.05, "features that know no place prove nothing"


def test_listens_of_any_length_are_encoded_as_if_alone(tiny_nano: NanoForConditionalGeneration) -> None:
    bank = make_bank()
    samples = make_scene(bank, np.random.default_rng(0), 12.0).samples
    listens = [samples[:RATE], samples, samples[: 7 * RATE], samples[2 * RATE : 4 * RATE], samples[:9000]]
    together = encode_listens(tiny_nano.model, listens, batch=3)
    for one, frames in zip(listens, together, strict=True):
        (alone,) = encode_listens(tiny_nano.model, [one])
        torch.testing.assert_close(frames, alone, atol=2e-3, rtol=2e-3)


def test_a_shard_holds_what_it_promises(shard: list[Tile], tiny_nano: NanoForConditionalGeneration) -> None:
    assert [tile.seconds for tile in shard] == [n for n, count in TILES.items() for _ in range(count)]
    crops = 0
    for tile in shard:
        assert tile.frames.shape == (25 * tile.seconds, 64)
        assert all(0 < event.onset < event.offset < tile.seconds for event in tile.events)
        about = {crop.event for crop in tile.crops}
        assert about == {i for i, event in enumerate(tile.events) if has_detail(event)}
        for crop in tile.crops:
            event = tile.events[crop.event]
            assert 0 <= crop.start <= event.onset and event.offset <= crop.end <= tile.seconds
            assert crop.frames.shape == (25 * (crop.end - crop.start), 64)
            crops += 1
    assert crops > 8


def test_a_crop_is_the_sound_of_its_span(tiny_nano: NanoForConditionalGeneration, few: None) -> None:
    """Mixed again from the same seed, the scene's samples between start and end give the crop's frames."""
    bank = make_bank()
    made = make_shard(tiny_nano.model, bank, 4)
    rng = np.random.default_rng([7, 4])
    seconds = (5, 5, 10)
    scenes = [make_scene(bank, rng, n, density=0.21, speech=0.38) for n in seconds]
    assert [scene.events for scene in scenes] == [tile.events for tile in made]
    checked = 0
    for scene, tile in zip(scenes, made, strict=True):
        for crop in tile.crops:
            (frames,) = encode_listens(tiny_nano.model, [scene.samples[crop.start * RATE : crop.end * RATE]])
            torch.testing.assert_close(crop.frames, frames, atol=2e-3, rtol=2e-3)
            checked += 1
    assert checked, "choose another seed"


def test_crop_spans_hold_the_event() -> None:
    rng = np.random.default_rng(0)
    margins = set()
    for _ in range(200):
        start = float(rng.uniform(0.15, 17.0))
        event = Event("voice", "digits", start, start + float(rng.uniform(0.3, 2.8)))
        spans = crop_spans(event, 20, rng)
        for first, last in spans:
            assert 0 <= first <= event.onset and event.offset <= last <= 20
        near, wide, loose = spans
        assert wide[0] <= near[0] and near[1] <= wide[1]
        for (first, last), margin in ((near, 0.5), (wide, 1.5)):
            assert first == 0 or margin <= event.onset - first < margin + 1
            assert last == 20 or margin <= last - event.offset < margin + 1
        margins.add((math.floor(event.onset) - loose[0], loose[1] - math.ceil(event.offset)))
    assert len(margins) > 10


def test_round_trip(shard: list[Tile], tmp_path: Path) -> None:
    save_shard(tmp_path / "a" / "0000.safetensors", shard)
    again = load_shard(tmp_path / "a" / "0000.safetensors")
    assert same(again, shard)
    assert not same(again, [replace(tile, frames=tile.frames + 1) for tile in shard])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["0000.safetensors"]


def test_same_seed_same_shard(tiny_nano: NanoForConditionalGeneration, few: None) -> None:
    first, again, other = (make_shard(tiny_nano.model, make_bank(), seed) for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_every_thirtieth_shard_is_quiet(tiny_nano: NanoForConditionalGeneration, few: None) -> None:
    quiet = make_shard(tiny_nano.model, make_bank(), module.QUIET_EVERY - 1)
    assert [tile.events for tile in quiet] == [(), (), ()]
    assert any(tile.events for tile in make_shard(tiny_nano.model, make_bank(), module.QUIET_EVERY))


def test_a_shard_that_is_there_is_not_made_again(
    tiny_nano: NanoForConditionalGeneration, few: None, tmp_path: Path
) -> None:
    kept = tmp_path / "0000.safetensors"
    kept.write_bytes(b"kept as it is")
    build_shards(tiny_nano.model, make_bank(), tmp_path, [0, 1])
    assert kept.read_bytes() == b"kept as it is"
    assert same(load_shard(tmp_path / "0001.safetensors"), make_shard(tiny_nano.model, make_bank(), 1))


def test_a_partial_file_is_not_taken_for_whole(
    tiny_nano: NanoForConditionalGeneration, few: None, tmp_path: Path
) -> None:
    (tmp_path / ".0000.safetensors.12-34").write_bytes(b"half of a sha")  # of a process that was killed
    assert list(tiles_in(tmp_path)) == []
    build_shards(tiny_nano.model, make_bank(), tmp_path, [0])
    assert same(list(tiles_in(tmp_path)), make_shard(tiny_nano.model, make_bank(), 0))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_one_sentence(
    tiny_nano: NanoForConditionalGeneration, few: None, tmp_path: Path
) -> None:
    with (
        small_files(2000),
        pytest.raises(DataError, match=r"^cannot write .*0000\.safetensors: .*to resume$"),
    ):
        build_shards(tiny_nano.model, make_bank(), tmp_path, [0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["half", "empty", "other"])
def test_a_damaged_shard_is_named(shard: list[Tile], tmp_path: Path, how: str) -> None:
    path = tmp_path / "0007.safetensors"
    save_shard(path, shard[:2])
    if how == "other":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, path)
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if how == "half" else b"")
    with pytest.raises(DataError, match=r"0007\.safetensors"):
        list(tiles_in(tmp_path))
