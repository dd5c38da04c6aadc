"""Pretraining of echo-nano: next-token loss on what the policy writes in lessons, with the audio of crops in place.

Lessons are drawn from tiles (:mod:`echo_agent.finetune.nano.lessons`). Over the first half of the steps recordings grow
from some seconds to two minutes: reading questions, sounds and speech is learned on short ones, where everything can be
heard at once, and pointing on longer ones. At the same time lists of all sounds, which teach hearing, become rarer.
In the last quarter more calls are refused and more mistakes given, so that the policy learns to answer regardless. The
learning rate warms up and falls along a cosine. Everything is a function of the seed and the step, and checkpoints are
written, so a run that was stopped resumes and ends with exactly the weights of one that was not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from echo_agent.disk import GO_ON, writing
from echo_agent.finetune.nano.lessons import Lesson, Teacher, collate
from echo_agent.finetune.nano.steps import cut_log, log_step, save_checkpoint, warmed_cosine
from echo_agent.nano.modeling import NanoForConditionalGeneration


@dataclass(frozen=True)
class PretrainingConfig:
    """Settings of a run."""

    steps: int
    """Optimiser steps."""
    batch: int = 16
    """Sequences per step."""
    rate: float = 1.5e-3
    """The highest it gets."""
    warmup: int = 150
    """Steps to reach it."""
    weight_decay: float = 0.05
    seed: int = 0
    listing_weight: float = 0.5
    """Weight in the loss of a token of a list of events: a list is long, and would outweigh everything else."""
    spoken_weight: float = 0.3
    """Weight of the CTC loss of audio tokens against the words that are spoken in them."""
    pointing_weight: float = 0.3
    """Weight of the loss that teaches one attention head where a named sound is heard."""
    noise: float = 0.1
    """Share of pooled feature values that are dropped."""
    save_every: int = 300
    """Steps between checkpoints."""


def duration_at(step: int, config: PretrainingConfig, rng: np.random.Generator) -> float:
    """Seconds of a lesson's recording: the longest grows from 15 to 120 over half of the run."""
    longest = 15 + 105 * min(1.0, step / (0.5 * config.steps))
    return float(5 + (longest - 5) * rng.beta(1.1, 1.6))


def lists_at(step: int, config: PretrainingConfig) -> float:
    """Share of lessons that ask for all events: from 0.6 to 0.15 over half of the run."""
    return 0.6 - 0.45 * min(1.0, step / (0.5 * config.steps))


def hardship_at(step: int, config: PretrainingConfig) -> dict[str, float]:
    """Shares of calls that are refused and of mistakes that are given: larger in the last quarter.

    By then most is found and read right, and what is left to learn is to answer with one of the choices in any case.
    """
    last = step >= 0.75 * config.steps
    return {"refused": 0.4, "mistakes": 0.6} if last else {"refused": 0.15, "mistakes": 0.35}


def rate_at(step: int, config: PretrainingConfig) -> float:
    """Learning rate: linear warm-up, cosine to zero."""
    return warmed_cosine(step, config.rate, config.warmup, config.steps)


def batches(teacher: Teacher, step: int, config: PretrainingConfig, group: int = 4) -> list[list[Lesson]]:
    """``group`` batches of similar length, starting at ``step``."""
    rng = np.random.default_rng([config.seed, step])
    shares = {"lists": lists_at(step, config)} | hardship_at(step, config)
    lessons = [
        teacher.lesson(rng, duration_at(step, config, rng), **shares) for _ in range(group * config.batch)
    ]
    lessons.sort(key=lambda lesson: len(lesson.ids))
    cut = [lessons[i : i + config.batch] for i in range(0, len(lessons), config.batch)]
    return [cut[int(i)] for i in rng.permutation(len(cut))]


def train(
    model: NanoForConditionalGeneration, teacher: Teacher, config: PretrainingConfig, folder: Path
) -> None:
    """Train the decoder and the projector in place; writes ``checkpoint.pt`` and ``log.jsonl`` into ``folder``."""
    with writing(folder, GO_ON):
        folder.mkdir(parents=True, exist_ok=True)
    model.model.encoder.requires_grad_(False)
    model.model.adapter.branch.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    flat = [p for p in trained if p.ndim < 2]
    deep = [p for p in trained if p.ndim >= 2]
    optimiser = torch.optim.AdamW(
        [{"params": deep, "weight_decay": config.weight_decay}, {"params": flat, "weight_decay": 0.0}],
        lr=config.rate,
        betas=(0.9, 0.98),
    )
    checkpoint = folder / "checkpoint.pt"
    step, seconds = 0, 0.0
    losses: list[float] = []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"], strict=False)
        optimiser.load_state_dict(state["optimiser"])
        step, seconds, losses = state["step"], state["seconds"], state.get("losses", [])
    cut_log(folder, step)
    pad: Any = teacher.tokenizer.pad_token_id
    model.train()
    begun = time.monotonic() - seconds
    while step < config.steps:
        for lessons in batches(teacher, step, config)[: config.steps - step]:
            inputs = collate(lessons, pad, config.listing_weight)
            inputs["audio_features"] = noisy(
                inputs["audio_features"], model.config.branch_labels, step, config
            )
            for group in optimiser.param_groups:
                group["lr"] = rate_at(step, config)
            loss = config.spoken_weight * spoken_loss(model, inputs, lessons)
            loss = loss + config.pointing_weight * pointing_loss(model, inputs, lessons)
            loss = loss + written_loss(model, inputs)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            losses.append(loss.item())
            step += 1
        if step % 20 < 4:
            log_step(folder, step, config.steps, losses, time.monotonic() - begun)
            losses.clear()
        if step % config.save_every < 4 or step >= config.steps:
            state = {
                "model": {
                    name: value for name, value in model.state_dict().items() if ".encoder." not in name
                },
                "optimiser": optimiser.state_dict(),
                "step": step,
                "seconds": time.monotonic() - begun,
                "losses": losses,
            }
            save_checkpoint(checkpoint, state)
    model.eval()


def noisy(features: Tensor, labels: int, step: int, config: PretrainingConfig) -> Tensor:
    """Dropout on features, the same at the same step; the last ``labels`` values, scores of sounds, are left alone."""
    generator = torch.Generator().manual_seed((config.seed << 32) + step)
    kept = torch.rand(features.shape, generator=generator) >= config.noise
    dropped = features * kept.to(features.device) / (1 - config.noise)
    return torch.cat([dropped[:, :-labels], features[:, -labels:]], dim=1)


def written_loss(model: NanoForConditionalGeneration, inputs: dict[str, Tensor]) -> Tensor:
    """Weighted mean cross-entropy of the tokens that the policy writes; logits are computed for these alone."""
    labels, weights = inputs.pop("labels")[:, 1:], inputs.pop("weights")[:, 1:]
    hidden = model.model(**inputs).last_hidden_state[:, :-1]
    written = labels != -100
    losses = nn.functional.cross_entropy(model.lm_head(hidden[written]), labels[written], reduction="none")
    return (losses * weights[written]).sum() / weights[written].sum()


def spoken_loss(
    model: NanoForConditionalGeneration, inputs: dict[str, Tensor], lessons: Sequence[Lesson]
) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006) of spoken words on the audio tokens themselves.

    The projected part of an audio token is scored against the embeddings of all spoken words, and of the placeholder
    for none. So an audio token becomes similar to the word that is spoken in it, and reading a word is copying it.
    Listens that are too coarse for their words are left out.
    """
    heard = model.model.speech(inputs["audio_features"])
    heard = math.sqrt(heard.shape[-1]) * heard
    words = sorted({word for lesson in lessons for listen in lesson.spoken for word in listen.words})
    ids = torch.tensor([model.config.audio_token_id, *words], device=heard.device)
    scores = nn.functional.log_softmax(heard @ model.get_input_embeddings()(ids).T, dim=-1)
    pieces, targets, first = [], [], 0
    for lesson in lessons:
        for listen in lesson.spoken:
            repeats = sum(a == b for a, b in pairwise(listen.words))
            if len(listen.words) + repeats <= listen.count:
                start = first + listen.first
                pieces.append(scores[start : start + listen.count])
                targets.append(
                    torch.tensor([1 + words.index(word) for word in listen.words], dtype=torch.long)
                )
        first += len(lesson.times)
    if not pieces:
        return scores.new_zeros(())
    return nn.functional.ctc_loss(
        nn.utils.rnn.pad_sequence(pieces),
        torch.cat(targets).to(scores.device),
        torch.tensor([len(piece) for piece in pieces]),
        torch.tensor([len(target) for target in targets]),
    )


def pointing_loss(
    model: NanoForConditionalGeneration, inputs: dict[str, Tensor], lessons: Sequence[Lesson]
) -> Tensor:
    """Guided attention: the first head of the first layer looks from a sound's name to the audio tokens that hold it.

    The loss is the negative logarithm of the attention on them. What the head finds, the second included, is then
    known to all layers above.
    """
    decoder: Any = model.model.language_model
    attention = decoder.layers[0].self_attn
    x = model.model.embed(inputs["input_ids"], inputs["audio_features"], inputs["audio_times"])
    x = decoder.layers[0].input_layernorm(x)
    size = attention.head_dim
    positions = torch.arange(x.shape[1], device=x.device)[None]
    query, key = (
        nn.functional.linear(x, projection.weight[:size])[:, None]
        for projection in (attention.q_proj, attention.k_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, *decoder.rotary_emb(x, positions))
    losses = []
    for row, lesson in enumerate(lessons):
        audio = lesson.ids.index(model.config.audio_token_id)
        for point in lesson.pointings:
            scores = key[row, 0, : point.place + 1] @ query[row, 0, point.place] * attention.scaling
            there = scores[audio + point.first : audio + point.last + 1]
            losses.append(scores.logsumexp(0) - there.logsumexp(0))
    return torch.stack(losses).mean() if losses else x.new_zeros(())
