"""Tiles: short encoded scenes that are joined in rows to make any number of training scenes.

Encoding is most of the cost of training a small audio model. echo-nano encodes in windows of five seconds, each on its
own; so the features of a recording that consists of whole windows are exactly the features of its windows, one after
another. A *tile* is a scene of one to four windows, mixed and encoded once, together with the crops that a question may
want to hear again; a row of tiles is a recording of any length with exact events, at no further encoding cost.

Tiles are kept in shards (safetensors with JSON metadata). A shard is a function of its seed and the sound bank; shards
that exist are not made again, so a stopped build is resumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from echo_agent.disk import GO_ON, whole, writing
from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.data.records import Event
from echo_agent.finetune.data.scenes.augment import RATE
from echo_agent.finetune.nano.scenes import make_scene
from echo_agent.nano.encoder import window_mels

if TYPE_CHECKING:
    from echo_agent.nano.modeling import NanoModel

SHARD = {5: 16, 10: 12, 20: 6}
"""Tiles in a shard, by their seconds: short ones make rows varied, in long ones events cross windows."""
QUIET_EVERY = 30
"""One shard in this many has background only, so that recordings can have long pauses."""


Span = tuple[int, int]
"""Whole seconds, start and end."""


@dataclass(frozen=True)
class Crop:
    """A stretch of a tile, encoded on its own as a re-listen is."""

    start: int
    end: int
    """Whole seconds from the start of the tile."""
    event: int
    """Index of the event that it is about."""
    frames: Tensor
    """``[steps, 2 * encoder_dim]``, float16."""


@dataclass(frozen=True)
class Tile:
    """An encoded scene of whole windows."""

    seconds: int
    events: tuple[Event, ...]
    frames: Tensor
    """``[25 * seconds, 2 * encoder_dim]``, float16."""
    crops: tuple[Crop, ...]


@torch.no_grad()
def encode_listens(model: NanoModel, listens: Sequence[np.ndarray], batch: int = 8) -> list[Tensor]:
    """Encoder frames (float16) of waveforms, windows of equal length encoded together."""
    window = model.config.window_seconds
    mels = [
        (i, mel)
        for i, samples in enumerate(listens)
        for mel in window_mels(torch.from_numpy(samples), window)
    ]
    order = sorted(range(len(mels)), key=lambda k: mels[k][1].shape[-1])
    encoded: list[Tensor | None] = [None] * len(mels)
    for first in range(0, len(order), batch):
        chosen = order[first : first + batch]
        lengths = torch.tensor([mels[k][1].shape[-1] for k in chosen])
        stack = torch.zeros(len(chosen), model.config.mel_bins, int(lengths.max()))
        for row, k in enumerate(chosen):
            stack[row, :, : lengths[row]] = mels[k][1]
        frames, steps = model.encoder(stack, lengths)
        for row, k in enumerate(chosen):
            encoded[k] = frames[row, : steps[row]].half()
    parts: list[list[Tensor]] = [[] for _ in listens]
    for (i, _), frames in zip(mels, encoded, strict=True):
        assert frames is not None
        parts[i].append(frames)
    return [torch.cat(part) for part in parts]


def crop_spans(event: Event, seconds: int, rng: np.random.Generator) -> tuple[Span, Span, Span]:
    """Whole-second spans in which to hear an event again: near, wide, and with random margins.

    The margins of the first two, 0.5 s and 1.5 s, are about the uncertainty of an event's place in a first listen to
    half a minute and to two minutes.
    """
    chance = rng.integers(0, 4, size=2)
    margins = ((0.5, 0.5), (1.5, 1.5), (float(chance[0]), float(chance[1])))
    near, wide, loose = (
        (max(0, math.floor(event.onset - before)), min(seconds, math.ceil(event.offset + after)))
        for before, after in margins
    )
    return near, wide, loose


def has_detail(event: Event) -> bool:
    """Whether the event has content that may need a closer listen."""
    return event.kind in ("digits", "words", "burst")


def make_shard(model: NanoModel, bank: SoundBank, seed: int) -> list[Tile]:
    """Mix and encode the tiles of one shard."""
    rng = np.random.default_rng([7, seed])
    density = 0.0 if seed % QUIET_EVERY == QUIET_EVERY - 1 else 0.21
    scenes = [
        make_scene(bank, rng, seconds, density=density, speech=0.38)
        for seconds, count in SHARD.items()
        for _ in range(count)
    ]
    spans = [
        (i, j, span)
        for i, scene in enumerate(scenes)
        for j, event in enumerate(scene.events)
        if has_detail(event)
        for span in crop_spans(event, int(scene.duration), rng)
    ]
    wholes = encode_listens(model, [scene.samples for scene in scenes])
    heard = encode_listens(model, [scenes[i].samples[s * RATE : e * RATE] for i, _, (s, e) in spans])
    crops: dict[int, list[Crop]] = {}
    for (i, j, (start, end)), frames in zip(spans, heard, strict=True):
        crops.setdefault(i, []).append(Crop(start, end, j, frames))
    return [
        Tile(int(scene.duration), scene.events, whole, tuple(crops.get(i, ())))
        for i, (scene, whole) in enumerate(zip(scenes, wholes, strict=True))
    ]


def save_shard(path: Path, tiles: Sequence[Tile]) -> None:
    """Write a shard; under its name there is only ever a whole one."""
    from safetensors.torch import save_file

    tensors, rows = {}, []
    for i, tile in enumerate(tiles):
        tensors[f"{i}"] = tile.frames
        crops = []
        for k, crop in enumerate(tile.crops):
            tensors[f"{i}.{k}"] = crop.frames
            crops.append([crop.start, crop.end, crop.event])
        rows.append(
            {"seconds": tile.seconds, "events": [asdict(event) for event in tile.events], "crops": crops}
        )
    with writing(path, GO_ON), whole(path) as partial:
        save_file(tensors, partial, metadata={"tiles": json.dumps(rows)})


def load_shard(path: Path) -> list[Tile]:
    """Read what :func:`save_shard` wrote; raises DataError for another file."""
    from safetensors import SafetensorError

    try:
        return _load_shard(path)
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise DataError(f"{path} is no shard of tiles, or a damaged one; remove it: {error}") from error


def _load_shard(path: Path) -> list[Tile]:
    from safetensors import safe_open

    tiles = []
    with safe_open(path, "pt") as file:
        for i, row in enumerate(json.loads(file.metadata()["tiles"])):
            events = tuple(
                replace(Event(**event), content=tuple(event["content"]), sources=tuple(event["sources"]))
                for event in row["events"]
            )
            crops = tuple(
                Crop(start, end, event, file.get_tensor(f"{i}.{k}"))
                for k, (start, end, event) in enumerate(row["crops"])
            )
            tiles.append(Tile(row["seconds"], events, file.get_tensor(f"{i}"), crops))
    return tiles


def build_shards(model: NanoModel, bank: SoundBank, folder: Path, numbers: Sequence[int]) -> None:
    """Make the shards of the given numbers that are not there yet."""
    for number in numbers:
        path = folder / f"{number:04d}.safetensors"
        if not path.exists():
            save_shard(path, make_shard(model, bank, number))
