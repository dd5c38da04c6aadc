"""Trains an echo-nano from a sound bank: tiles, sound branch, fine-tuning; one folder that can be resumed.

The folder is filled in this order, and what exists is not made again::

    tiles/train/*.safetensors, tiles/val/*.safetensors    encoded training scenes
    branch.safetensors                                    the sound branch
    sft/checkpoint.pt, sft/log.jsonl                      the decoder while it is trained
    model/                                                what EchoAgent.from_pretrained loads
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from echo_agent.disk import GO_ON, whole, writing
from echo_agent.finetune.data.bank.reader import SoundBank
from echo_agent.finetune.nano.lessons import Teacher, with_branch
from echo_agent.finetune.nano.pretraining import PretrainingConfig, train
from echo_agent.finetune.nano.sound_branch import LABELS, score_branch, train_branch
from echo_agent.finetune.nano.testset import taught
from echo_agent.finetune.nano.tiles import Tile, build_shards, load_shard
from echo_agent.locks import locked_folder
from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.processing import AUDIO, load_tokenizer, time_token_ids
from echo_agent.nano.weights import ENCODER_FILE, WEIGHTS, load_encoder, save_embedded

VAL_SHARDS = 100_000
"""Number of the first validation shard, so that no seed is used twice."""


@dataclass(frozen=True)
class NanoRecipe:
    """How an echo-nano is trained."""

    shards: int = 160
    """Training shards of 34 tiles (320 s of audio, and nearly twice as much in crops) each."""
    val_shards: int = 6
    branch_epochs: int = 15
    steps: int = 12000
    """Steps of supervised fine-tuning, 16 lessons each."""
    seed: int = 0


def new_model(seed: int = 0) -> NanoForConditionalGeneration:
    """An echo-nano with the real encoder and everything else random."""
    tokenizer = load_tokenizer(WEIGHTS)
    text = dict(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    torch.manual_seed(seed)
    audio_id: Any = tokenizer.convert_tokens_to_ids(AUDIO)
    model = NanoForConditionalGeneration(
        NanoConfig(
            text_config=text,
            audio_token_id=audio_id,
            time_token_ids=time_token_ids(tokenizer),
            label_token_ids=label_token_ids(tokenizer),
        )
    )
    load_encoder(model)
    _make_ready_to_copy(model)
    return model


@torch.no_grad()
def _make_ready_to_copy(model: NanoForConditionalGeneration) -> None:
    """An initialisation from which copying is easy to learn: answers are mostly copied from questions and audio tokens.

    Attention starts near the identity, so that a token attends to tokens like itself and passes on what it finds
    (mimetic initialisation: Trockman and Kolter, ICML 2023); weights have a larger deviation than a large model's; and
    an audio token is at first little more than its names and its second.
    """
    decoder: Any = model.model.language_model
    project: Any = model.model.adapter.project
    for weight in (*decoder.parameters(), project[1].weight):
        if weight.ndim == 2:
            weight *= 3.0
    project[-1].weight *= 0.1
    identity = torch.eye(model.config.text_config.hidden_size)
    for layer in decoder.layers:
        for matrix in (layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight):
            matrix += 0.5 * identity
        for matrix in (layer.self_attn.v_proj.weight, layer.self_attn.o_proj.weight):
            matrix.mul_(0.5).add_(0.7 * identity)


def label_token_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Ids of the names that the sound branch gives, as they are tokenised after a space."""
    ids = [tokenizer.encode(f" {label}", add_special_tokens=False) for label in LABELS]
    assert all(len(tokens) == 1 for tokens in ids), "the vocabulary is learned so that a name is one token"
    return [token for (token,) in ids]


def train_nano(
    bank: Path, out: Path, recipe: NanoRecipe | None = None, report: Callable[[str], None] = print
) -> Path:
    """Train and export; returns the folder of the model.

    Raises:
        DataError: There is no bank, or ``out`` is no folder.
    """
    with locked_folder(out):
        return _trained(bank, out, recipe or NanoRecipe(), report)


def _trained(bank: Path, out: Path, recipe: NanoRecipe, report: Callable[[str], None]) -> Path:
    """Train in a folder that is kept from others."""
    model = new_model(recipe.seed)
    for split, first, count in (("train", 0, recipe.shards), ("val", VAL_SHARDS, recipe.val_shards)):
        clips: SoundBank | None = None
        for number in range(first, first + count):
            path = out / "tiles" / split / f"{number:04d}.safetensors"
            if not path.exists():
                clips = clips or taught(SoundBank.load(bank, [split], [split]))
                build_shards(model.model, clips, path.parent, [number])
                report(f"{split} tiles: shard {number - first + 1} of {count}")
    branch_file = out / "branch.safetensors"
    if not branch_file.exists():
        _train_branch(model, out / "tiles", recipe, branch_file, report)
    load_branch(model, branch_file)
    branch = model.model.adapter.branch
    tiles = [with_branch(tile, branch) for tile in tiles_in(out / "tiles" / "train")]
    teacher = Teacher(tiles, model.config, load_tokenizer(WEIGHTS))
    train(model, teacher, PretrainingConfig(steps=recipe.steps, seed=recipe.seed), out / "sft")
    return export(model, out / "model")


def tiles_in(folder: Path) -> Iterator[Tile]:
    """All tiles of a folder of shards, read shard by shard."""
    for path in sorted(folder.glob("*.safetensors")):
        yield from load_shard(path)


def load_branch(model: NanoForConditionalGeneration, path: Path) -> None:
    """Read a trained sound branch into a model and freeze it."""
    from safetensors.torch import load_file

    branch = model.model.adapter.branch
    branch.load_state_dict(load_file(path))
    branch.eval().requires_grad_(False)


def export(model: NanoForConditionalGeneration, folder: Path) -> Path:
    """Write a folder that ``EchoAgent.from_pretrained`` loads: encoder, policy, configuration, tokenizer."""
    with writing(folder, GO_ON):
        save_embedded(model, folder)
        for name in (ENCODER_FILE, "tokenizer.json"):
            shutil.copyfile(WEIGHTS / name, folder / name)
    return folder


def _train_branch(
    model: NanoForConditionalGeneration,
    tiles: Path,
    recipe: NanoRecipe,
    path: Path,
    report: Callable[[str], None],
) -> None:
    from safetensors.torch import save_file

    branch = model.model.adapter.branch
    losses = train_branch(
        branch, list(tiles_in(tiles / "train")), epochs=recipe.branch_epochs, seed=recipe.seed
    )
    for epoch, loss in enumerate(losses, start=1):
        report(f"sound branch: epoch {epoch} of {recipe.branch_epochs}, loss {loss:.3f}")
    score = score_branch(branch, list(tiles_in(tiles / "val")))
    report(f"sound branch: names {score.top1:.0%} of held-out events, {score.classes:.0%} as class mean")
    with writing(path, GO_ON), whole(path) as partial:
        save_file({name: value.contiguous() for name, value in branch.state_dict().items()}, partial)
