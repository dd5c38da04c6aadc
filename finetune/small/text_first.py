"""Text first: SmolLM2 learns to answer from what is heard, written as text, before it hears anything.

Everything that can go wrong between a question in plain English and its answer is learned here, where a lesson costs no
audio: wordings, names of sounds, choices, order, counting, times, honest words for what is not there, and when to
listen again (:mod:`echo_agent.finetune.small.listens`). Lessons are drawn from the seed and the step; a run that was
stopped resumes from its checkpoint and ends with the same weights::

    python -m echo_agent.finetune.small.text_first SMOLLM2 RUN --steps 1500

With ``--layers-of MODEL`` the layers of another echo-small are gone on with ("echo-small" is the embedded one). With
``--heard LESSONS`` half of the recordings are scenes that real ears have heard
(:mod:`echo_agent.finetune.small.heard_lessons`).

The token embeddings stay as they are: what audio tokens will be made of must not move.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from echo_agent.errors import DataError
from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.finetune.data.natural.asking import Asked, ask, ask_about
from echo_agent.finetune.data.natural.kinds import MAKERS
from echo_agent.finetune.data.natural.timelines import as_text, simulate, talk_text
from echo_agent.finetune.nano.steps import cut_log, log_step, save_checkpoint, warmed_cosine
from echo_agent.finetune.small import heard_lessons, listens
from echo_agent.finetune.small.listens import Listener
from echo_agent.finetune.small.packing import IGNORED, Pack, Row, pack, row_of
from echo_agent.finetune.small.tree_attention import TREES
from echo_agent.locks import locked_folder
from echo_agent.small.processing import AUDIO

LONGEST_TALK = 24
"""Lines of the longest talk: what a listen cannot hold is not read at once either."""
TALK_QUESTIONS = 2
"""Questions about a talk that is heard in listens: each brings listens of its own."""
BLANKS = 2
"""Empty places of a listen that are read, of all that stand in a row."""
WHOLE = 0.15
"""Share of recordings whose empty places are all read, as they are when a model is asked."""
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
    talks: float = 0.5
    """Share of recordings that are speech; the others are sounds."""
    mixed: float = 0.3
    """Share of the others that are heard, in which somebody speaks among the sounds."""
    heard: float = 0.7
    """Share of recordings that are heard in listens, as the ears write them; the others are told as a whole."""
    learning_rate: float = 3e-4
    warmup: int = 40
    weight_decay: float = 0.01
    frozen: int = 8
    """Layers, from below, that stay as they are: they know English, and cost a third."""
    seed: int = 0
    save_every: int = 100
    layers_of: str = ""
    """A model whose layers are gone on with; empty for those of the source."""
    heard_by_ears: str = ""
    """Folder of lessons about scenes that real ears have heard; empty for none."""
    heard_digest: str = ""
    """Of those lessons: a run does not go on with others."""
    by_ears: float = 0.5
    """Share of recordings that are taken from there, where there are any."""
    precision: Literal["bfloat16", "float32"] = "bfloat16"
    """What the model computes in; a CPU without instructions for bfloat16 is several times faster in float32."""


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
    talk = listens.draw_talk(rng, LONGEST_TALK)
    questions = ask_about(talk, rng)
    drawn = [questions[int(i)] for i in rng.permutation(len(questions))[:size]]
    return pack(tokenizer, talk_text(talk.lines), drawn)


def lessons(tokenizer: Any, step: int, config: TextConfig, kept: Sequence[Pack] = ()) -> Row:
    """The recordings of a step with their questions: a function of the seed, the step and the ``kept`` lessons."""
    rng = np.random.default_rng([config.seed, step])
    blank = tokenizer.convert_tokens_to_ids(AUDIO)
    listener = Listener(tokenizer, blank)
    packs: list[Pack] = []
    while not packs or sum(len(p.ids) for p in packs) < 0.85 * config.tokens:
        if kept and rng.random() < config.by_ears:
            one = kept[int(rng.integers(len(kept)))]
            packs.append(one if rng.random() < WHOLE else one.with_fewer(blank, BLANKS))
            continue
        is_talk, is_heard = rng.random() < config.talks, rng.random() < config.heard
        if is_heard:
            one = heard_lesson(listener, rng, config, is_talk)
            packs.append(one if rng.random() < WHOLE else one.with_fewer(blank, BLANKS))
        else:
            packs.append((talk_lesson if is_talk else lesson)(tokenizer, rng, config.questions))
    return row_of(packs, tokenizer.pad_token_id)


def heard_lesson(listener: Listener, rng: np.random.Generator, config: TextConfig, is_talk: bool) -> Pack:
    """A recording that is heard in listens: speech, sounds, or both."""
    if is_talk:
        return listens.talk_lesson(listener, rng, TALK_QUESTIONS)
    if rng.random() < config.mixed:
        return listens.mixed_lesson(listener, rng, TALK_QUESTIONS)
    return listens.sound_lesson(listener, rng, config.questions)


def rate_at(step: int, config: TextConfig) -> float:
    """Learning rate: linear warm-up, cosine to a twentieth."""
    return warmed_cosine(step, config.learning_rate, config.warmup, config.steps, 0.05)


def loss_of(model: Any, row: Row) -> torch.Tensor:
    """Mean cross-entropy of what is written; logits are computed for these tokens alone."""
    device = model.device
    hidden = model.model(
        input_ids=row.ids.to(device), position_ids=row.positions.to(device), use_cache=False, trees=row.trees
    ).last_hidden_state
    labels = row.labels.to(device)
    logits = model.lm_head(hidden[labels != IGNORED])
    return nn.functional.cross_entropy(logits.float(), labels[labels != IGNORED])


class Masters:
    """The trained weights in float32, of which the model computes with copies in the precision of the run."""

    def __init__(self, model: Any, config: TextConfig) -> None:
        """Take the weights that require gradients, and begin an optimiser for them."""
        self._used = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights = {name: p.detach().float().clone() for name, p in self._used.items()}
        self.optimiser = torch.optim.AdamW(
            self.weights.values(),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            fused=True,
        )

    def step(self, rate: float) -> None:
        """Take the model's gradients and move the weights."""
        for name, used in self._used.items():
            assert used.grad is not None
            self.weights[name].grad, used.grad = used.grad.float(), None
        nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()

    @torch.no_grad()
    def copy(self) -> None:
        """Have the model compute with the weights as they are."""
        for name, used in self._used.items():
            used.copy_(self.weights[name])


def take_layers(model: Any, source: str, first: int) -> None:
    """Take the layers from the ``first`` on, which were trained, from an echo-small."""
    family = load_family(source, "cpu")
    assert isinstance(family, SmallFamily)
    trained = family.model.model.language_model
    for own, theirs in zip(model.model.layers[first:], trained.layers[first:], strict=True):
        own.load_state_dict(theirs.state_dict())
    model.model.norm.load_state_dict(trained.norm.state_dict())


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
    model: Any = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32, attn_implementation=TREES)
    model.get_input_embeddings().requires_grad_(False)
    checkpoint = folder / "checkpoint.pt"
    if config.layers_of and not checkpoint.exists():
        take_layers(model, config.layers_of, config.frozen)
    model.model.layers[: config.frozen].requires_grad_(False)
    model.to(device).train()
    masters = Masters(model, config)
    step, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True, map_location=device)
        for name, weight in masters.weights.items():
            weight.copy_(state["model"][name])
        masters.optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["seconds"]
        print(f"resuming at step {step}", flush=True)
    model.to(getattr(torch, config.precision))
    cut_log(folder, step)
    kept = heard_lessons.read(Path(config.heard_by_ears)) if config.heard_by_ears else []
    begun, losses = time.monotonic() - spent, list[float]()
    while step < config.steps:
        masters.copy()
        loss = loss_of(model, lessons(tokenizer, step, config, kept))
        loss.backward()
        masters.step(rate_at(step, config))
        losses.append(loss.item())
        step += 1
        if step % 10 == 0 or step == config.steps:
            log_step(folder, step, config.steps, losses, time.monotonic() - begun)
            losses.clear()
        if step % config.save_every == 0 or step == config.steps:
            state = {"model": masters.weights, "optimiser": masters.optimiser.state_dict(), "step": step}
            save_checkpoint(checkpoint, {**state, "seconds": time.monotonic() - begun})
    # What was not trained is as exact as it came, not rounded to bfloat16.
    whole: Any = LlamaForCausalLM.from_pretrained(source, dtype=torch.float32)
    whole.load_state_dict(masters.weights, strict=False)
    whole.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="a folder of convert_smollm2")
    parser.add_argument("folder", type=Path, help="where the run is kept")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--layers-of", help='an echo-small to go on from: a folder, or "echo-small"')
    parser.add_argument("--heard", help="a folder of heard_lessons: half of the recordings are from there")
    parser.add_argument("--precision", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    chosen = TextConfig(
        args.steps,
        args.tokens,
        learning_rate=args.learning_rate,
        layers_of=args.layers_of or "",
        heard_by_ears=str(Path(args.heard).resolve()) if args.heard else "",
        heard_digest=heard_lessons.digest(Path(args.heard)) if args.heard else "",
        precision=args.precision,
    )
    train(args.source, args.folder, chosen)
