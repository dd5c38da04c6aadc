"""Text first: SmolLM2 learns to answer from what is heard, written as text, before it hears anything.

Everything that can go wrong between a question in plain English and its answer is learned here, where a lesson costs no
audio: wordings, names of sounds, choices, order, counting, times, honest words for what is not there, and when to
listen again (:mod:`echo_agent.finetune.small.listens`). Lessons are drawn from the seed and the step; a run that was
stopped resumes from its checkpoint and ends with the same weights::

    python -m echo_agent.finetune.small.text_first SMOLLM2 RUN --steps 1500

The token embeddings stay as they are: what audio tokens will be made of must not move.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from echo_agent.errors import DataError
from echo_agent.finetune.data.natural.asking import Asked, ask, ask_about
from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.talk import make_talk
from echo_agent.finetune.data.natural.timelines import as_text, simulate, talk_text
from echo_agent.finetune.nano.steps import cut_log, log_step, save_checkpoint, warmed_cosine
from echo_agent.finetune.small import listens
from echo_agent.finetune.small.listens import Listener
from echo_agent.finetune.small.packing import IGNORED, Batch, Pack, batch, pack
from echo_agent.locks import locked_folder
from echo_agent.small.processing import AUDIO

LONGEST_TALK = 24
"""Lines of the longest talk: what a listen cannot hold is not read at once either."""
TALK_QUESTIONS = 2
"""Questions about a talk that is heard in listens: each brings listens of its own."""
HARD = {"order/sequence": 3.0, "order/nth": 2.0, "count/different": 2.0, "when/half": 2.0, "when/part": 2.0}
HARD |= {"duration/longer": 2.0, "loudness/louder": 2.0, "order/last": 2.0, "order/before": 2.0}
"""Kinds that are learned last, and how much oftener they are asked."""


@dataclass(frozen=True)
class TextConfig:
    """Settings of a run."""

    steps: int
    tokens: int = 2048
    """Tokens of a step, about."""
    questions: int = 10
    """Questions about one recording."""
    talks: float = 0.35
    """Share of recordings that are speech; the others are sounds."""
    heard: float = 0.6
    """Share of recordings that are heard in listens, as the ears write them; the others are told as a whole."""
    learning_rate: float = 3e-4
    warmup: int = 40
    weight_decay: float = 0.01
    seed: int = 0
    save_every: int = 100


def lesson(tokenizer: Any, rng: np.random.Generator, size: int) -> Pack:
    """A simulated recording with up to ``size`` questions of different kinds."""
    record = simulate(rng)
    kinds = list(MAKERS)
    shares = np.array([HARD.get(kind, 1.0) for kind in kinds])
    questions: list[Asked] = []
    for i in rng.choice(len(kinds), len(kinds), replace=False, p=shares / shares.sum()):
        asked = ask(record, kinds[int(i)], "train", rng)
        if asked is not None:
            questions.append(asked)
        if len(questions) == size:
            break
    return pack(tokenizer, as_text(record), questions)


def talk_lesson(tokenizer: Any, rng: np.random.Generator, size: int) -> Pack:
    """A recording of speech, not a long one, with up to ``size`` questions."""
    talk = make_talk(rng)
    while len(talk.lines) > LONGEST_TALK:
        talk = make_talk(rng)
    questions = ask_about(talk, rng)
    drawn = [questions[int(i)] for i in rng.permutation(len(questions))[:size]]
    return pack(tokenizer, talk_text(talk.lines), drawn)


def lessons(tokenizer: Any, step: int, config: TextConfig) -> list[Batch]:
    """The recordings of a step, one by one, with their questions: a function of the seed and the step."""
    rng = np.random.default_rng([config.seed, step])
    listener = Listener(tokenizer, tokenizer.convert_tokens_to_ids(AUDIO))
    packs: list[Pack] = []
    while not packs or sum(len(p.ids) for p in packs) < 0.85 * config.tokens:
        is_talk, is_heard = rng.random() < config.talks, rng.random() < config.heard
        if is_heard:
            size = TALK_QUESTIONS if is_talk else config.questions
            packs.append((listens.talk_lesson if is_talk else listens.sound_lesson)(listener, rng, size))
        else:
            packs.append((talk_lesson if is_talk else lesson)(tokenizer, rng, config.questions))
    return [batch([one], tokenizer.pad_token_id) for one in packs]


def rate_at(step: int, config: TextConfig) -> float:
    """Learning rate: linear warm-up, cosine to a twentieth."""
    return warmed_cosine(step, config.learning_rate, config.warmup, config.steps, 0.05)


def learn(model: Any, parts: Sequence[Batch]) -> float:
    """Add the gradients of a step; its mean cross-entropy.

    Recordings go through one by one: none is padded to another's length, and little memory is held at once.
    """
    written = sum(int((part.labels != IGNORED).sum()) for part in parts)
    total = 0.0
    for part in parts:
        loss = loss_of(model, part) * (int((part.labels != IGNORED).sum()) / written)
        loss.backward()
        total += loss.item()
    return total


def loss_of(model: Any, part: Batch) -> torch.Tensor:
    """Mean cross-entropy of what is written; logits are computed for these tokens alone."""
    device = model.device
    with torch.autocast(device.type, torch.bfloat16):
        hidden = model.model(
            input_ids=part.ids.to(device),
            attention_mask=_additive(part.mask.to(device)),
            position_ids=part.positions.to(device),
            use_cache=False,
        ).last_hidden_state
        labels = part.labels.to(device)
        logits = model.lm_head(hidden[labels != IGNORED])
    return nn.functional.cross_entropy(logits.float(), labels[labels != IGNORED])


def _additive(mask: torch.Tensor) -> torch.Tensor:
    """Minus infinity where nothing may be seen; padding sees itself, or its softmax would have nothing."""
    seen = mask | torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    return torch.zeros(seen.shape, dtype=torch.bfloat16, device=mask.device).masked_fill(~seen, -math.inf)


def train(source: Path, folder: Path, config: TextConfig) -> None:
    """Train the decoder's layers; writes ``checkpoint.pt``, ``log.jsonl`` and, at the end, a model folder.

    Raises:
        DataError: The folder holds a run with other settings, or is in use.
    """
    with locked_folder(folder):
        _train(source, folder, config)


def _train(source: Path, folder: Path, config: TextConfig) -> None:
    from transformers import AutoTokenizer, LlamaForCausalLM

    settings = folder / "config.json"
    if settings.exists() and json.loads(settings.read_text()) != asdict(config):
        raise DataError(f"{folder} holds a run with other settings (config.json): give another folder")
    settings.write_text(json.dumps(asdict(config), indent=1))
    tokenizer: Any = AutoTokenizer.from_pretrained(source)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # On a CPU the fused kernel's backward pass with a mask takes five times as long as plain products.
    attention = "sdpa" if device == "cuda" else "eager"
    model: Any = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation=attention)
    model.to(device).train()
    model.get_input_embeddings().requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        trained, lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=config.weight_decay, fused=True
    )
    step, spent = 0, 0.0
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        model.load_state_dict(state["model"], strict=False)
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["seconds"]
        print(f"resuming at step {step}", flush=True)
    cut_log(folder, step)
    begun, losses = time.monotonic() - spent, list[float]()
    while step < config.steps:
        parts = lessons(tokenizer, step, config)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, config)
        optimiser.zero_grad(set_to_none=True)
        losses.append(learn(model, parts))
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        step += 1
        if step % 10 == 0 or step == config.steps:
            log_step(folder, step, config.steps, losses, time.monotonic() - begun)
            losses.clear()
        if step % config.save_every == 0 or step == config.steps:
            weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
            state = {"model": weights, "optimiser": optimiser.state_dict(), "step": step}
            save_checkpoint(checkpoint, {**state, "seconds": time.monotonic() - begun})
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder of convert_smollm2")
    parser.add_argument("folder", type=Path, help="where the run is kept")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    args = parser.parse_args()
    train(args.source, args.folder, TextConfig(args.steps, args.tokens, learning_rate=args.learning_rate))
