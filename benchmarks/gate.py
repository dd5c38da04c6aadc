"""The gate: which questions need a closer listen, by duration, before any decoder is trained.

For each category of questions about detail, a small recurrent probe is trained to read the answer from the audio tokens
of an event, once as they are in the first listen to a recording of a given duration, once as they are in a re-listen to
the event alone. Both are told where the event is, so the difference is what the *budget* of the first listen loses and
not what is hard to find. Trained on the training tiles, scored on tiles of held-out clips and a held-out voice. Where
the gap is at least 25 points, the category counts as *detail*; ``detail_from`` says from how many seconds on.

    python benchmarks/gate.py RUN --out benchmarks/results/gate.json

RUN is a folder of ``echo-agent finetune nano``. Prints one JSON line; ``ratio`` is the number of categories that pass
at 60 s over the three that are wanted.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from echo_agent.finetune.data.vocabulary import DIGITS, WORDS
from echo_agent.finetune.nano.lessons import Teacher, with_branch
from echo_agent.finetune.nano.train import load_branch, new_model, tiles_in
from echo_agent.nano.adapter import pool
from echo_agent.nano.processing import load_tokenizer
from echo_agent.nano.weights import WEIGHTS

DURATIONS = (10, 20, 30, 60, 120)
GAP = 25.0
PARTS = 4
"""Parts that the probe lays a token out in."""
KINDS = {"digits": DIGITS, "words": WORDS, "burst": ("hit",)}
"""Kinds of events and what can be read in each: in a burst, the number of hits."""


@dataclass(frozen=True)
class Sample:
    """The audio tokens of one event and what is in it."""

    tokens: Tensor
    content: tuple[int, ...]


class Probe(nn.Module):
    """Reads what is in a listen, in order: each token is split into parts, and each part says one thing or nothing.

    Trained by connectionist temporal classification (Graves et al. 2006), which needs no alignment. With parts, several
    words can come from one token, as they must if a first listen is coarse.
    """

    def __init__(self, width: int, classes: int) -> None:
        """Build with random weights."""
        super().__init__()
        self.enter = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.2), nn.Linear(width, PARTS * 128))
        self.read = nn.GRU(128, 128, batch_first=True, bidirectional=True)
        self.leave = nn.Linear(256, 1 + classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Log-probabilities ``[batch, PARTS * n, 1 + classes]`` of padded tokens ``[batch, n, width]``.

        Class 0 is nothing.
        """
        laid_out = nn.functional.gelu(self.enter(tokens)).view(len(tokens), -1, 128)
        packed = nn.utils.rnn.pack_padded_sequence(
            laid_out, PARTS * lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.read(packed)[0], batch_first=True)
        return self.leave(states).log_softmax(-1)


def read(scores: Tensor) -> tuple[int, ...]:
    """The best path of a CTC: repeats are one, nothing is left out."""
    best = scores.argmax(-1).tolist()
    return tuple(b - 1 for a, b in pairwise([0, *best]) if b not in (0, a))


def samples(teacher: Teacher, kind: str, duration: int | None, count: int, seed: int) -> list[Sample]:
    """Events of a kind, as heard in a first listen to ``duration`` seconds, or (None) in a re-listen."""
    rng = np.random.default_rng(seed)
    names = KINDS[kind]
    found: list[Sample] = []
    while len(found) < count:
        row, events = teacher.row(rng, duration or 10)
        frames = torch.cat([tile.frames for _, tile in row])
        seconds = sum(tile.seconds for _, tile in row)
        size = teacher.config.listen_size(seconds)
        listen = pool(frames.float(), size) if duration else None
        place = 0
        for _, tile in row:
            for number in range(len(tile.events)):
                event = events[place]
                place += 1
                if event.kind != kind:
                    continue
                said = ("hit",) * event.hits if kind == "burst" else event.content
                content = tuple(names.index(word) for word in said)
                if listen is not None:
                    first = max(0, math.floor(event.onset / seconds * size - 0.25))
                    last = min(size, math.ceil(event.offset / seconds * size + 0.25))
                    found.append(Sample(listen[first:last], content))
                else:
                    crop = next(c for c in tile.crops if c.event == number)
                    heard = teacher.config.listen_size(float(crop.end - crop.start))
                    found.append(Sample(pool(crop.frames.float(), heard), content))
    return found[:count]


def batch_of(chosen: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Padded tokens and lengths."""
    lengths = torch.tensor([len(s.tokens) for s in chosen])
    return nn.utils.rnn.pad_sequence([s.tokens for s in chosen], batch_first=True), lengths


def accuracy(
    train: Sequence[Sample], test: Sequence[Sample], classes: int, epochs: int = 12
) -> tuple[float, float]:
    """Train a probe; percent right per place, and percent of events with every place right."""
    torch.manual_seed(0)
    probe = Probe(train[0].tokens.shape[1], classes)
    optimiser = torch.optim.AdamW(probe.parameters(), 2e-3, weight_decay=0.05)
    steps = epochs * math.ceil(len(train) / 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    order = np.random.default_rng(0)
    for _ in range(epochs):
        shuffled = [train[int(i)] for i in order.permutation(len(train))]
        for first in range(0, len(shuffled), 32):
            chosen = shuffled[first : first + 32]
            tokens, lengths = batch_of(chosen)
            targets = torch.tensor([1 + word for sample in chosen for word in sample.content])
            sizes = torch.tensor([len(sample.content) for sample in chosen])
            loss = nn.functional.ctc_loss(
                probe(tokens, lengths).transpose(0, 1), targets, PARTS * lengths, sizes, zero_infinity=True
            )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    probe.eval()
    places, right, whole = 0, 0, 0
    with torch.no_grad():
        tokens, lengths = batch_of(test)
        for scores, length, sample in zip(probe(tokens, lengths), lengths, test, strict=True):
            said = read(scores[: PARTS * int(length)])
            places += len(sample.content)
            right += sum(a == b for a, b in zip(said, sample.content, strict=False))
            whole += said == sample.content
    return round(100 * right / places, 1), round(100 * whole / len(test), 1)


def detail_from(row: Mapping[str, float]) -> int | None:
    """Whole seconds from which a category counts as detail, interpolated between durations; None where never."""
    gaps = [row["crop"] - row[f"first listen, {seconds} s"] for seconds in DURATIONS]
    for i, seconds in enumerate(DURATIONS):
        if gaps[i] >= GAP:
            if i == 0:
                return seconds
            before = DURATIONS[i - 1]
            return math.ceil(before + (seconds - before) * (GAP - gaps[i - 1]) / (gaps[i] - gaps[i - 1]))
    return None


def main() -> None:
    """Probe every category and duration, print the line, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--test", type=int, default=600)
    options = parser.parse_args()
    model = new_model()
    load_branch(model, options.run / "branch.safetensors")
    teachers = []
    for split in ("train", "val"):
        branch = model.model.adapter.branch
        tiles = [with_branch(tile, branch) for tile in tiles_in(options.run / "tiles" / split)]
        teachers.append(Teacher(tiles, model.config, load_tokenizer(WEIGHTS)))
    table: dict[str, dict[str, float]] = {
        category: {} for category in ("digit", "digit_sequence", "word", "count")
    }
    for kind, names in KINDS.items():
        for duration in (None, *DURATIONS):
            parts = [
                samples(teacher, kind, duration, count, seed)
                for teacher, count, seed in zip(teachers, (options.train, options.test), (1, 2), strict=True)
            ]
            each, whole = accuracy(parts[0], parts[1], len(names))
            column = "crop" if duration is None else f"first listen, {duration} s"
            if kind == "digits":
                table["digit"][column], table["digit_sequence"][column] = each, whole
            elif kind == "words":
                table["word"][column] = each
            else:
                table["count"][column] = whole
            print(kind, column, each, whole, file=sys.stderr, flush=True)
    detail = {category: detail_from(row) for category, row in table.items()}
    passed = sum(seconds is not None and seconds <= 60 for seconds in detail.values())
    line = {
        "benchmark": "gate",
        "ratio": round(passed / 3, 2),
        "accuracy": table,
        "detail_from": detail,
    }
    text = json.dumps(line)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(line, indent=2) + "\n")


if __name__ == "__main__":
    main()
