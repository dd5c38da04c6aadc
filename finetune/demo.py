"""The whole way in some minutes: data, SFT, RL, evaluation, on a task that can only be done by listening again.

Three minutes on two cores that do nothing else, nine where they are shared.

Recordings of 24 s hold eight sounds, one every three seconds, out of four kinds that are made here. Asked is what is
heard at a second. The policy is echo-nano with a first listen of two tokens for the whole recording, four sounds in
each of them, which nobody can tell apart; a listen to three seconds can.

In the reasoning that SFT learns from, every other sample listens and the others just answer, so SFT ends with a policy
of which some runs listen. RL is only told whether the answer was right, and finds out that listening pays.
Fresh recordings then say whether that is so: with listening, without, with a wrong crop, with silence.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_agent.controls import Control
from echo_agent.disk import GO_ON, whole, write_whole, writing
from echo_agent.finetune.config import RLRecipe, SFTRecipe, read_recipe
from echo_agent.finetune.data.bank.clips import write_sound
from echo_agent.finetune.data.card import About
from echo_agent.finetune.data.dataset import write_dataset
from echo_agent.finetune.data.records import Event, Record, Sample, Split, Use
from echo_agent.finetune.examples import Report
from echo_agent.locks import locked_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RATE = 16000
SLOT = 3
"""Seconds of a sound with the pause after it."""
SLOTS = 8
KINDS = ("low", "high", "rising", "noise")
CONTROLS: tuple[Control, ...] = ("on", "off", "wrong-crop", "silence")


@dataclass(frozen=True)
class DemoSize:
    """How much of everything."""

    recordings: int = 240
    test_recordings: int = 40
    questions: int = 4
    """Per recording, each about another sound."""
    sft_steps: int = 300
    rl_steps: int = 30


def run_demo(out: Path, size: DemoSize | None = None, *, seed: int = 0, report: Report = print) -> Path:
    """Make data, train, evaluate, draw; returns the folder of the model. What is there already is not made again.

    Raises:
        DataError: The folder holds something else, is in use by another process, or cannot be written to.
        KeyboardInterrupt: It was stopped; what was trained is saved.
    """
    with locked_folder(out):
        return _run(out, size or DemoSize(), seed, report)


def _run(out: Path, size: DemoSize, seed: int, report: Report) -> Path:
    from echo_agent.finetune.rl import train_rl
    from echo_agent.finetune.sft import train_sft

    began = time.monotonic()
    dataset = out / "data"
    report(f"1 of 4, data: {size.recordings} recordings to train on, {size.test_recordings} to test on")
    if not (dataset / "README.md").exists():
        make_dataset(dataset, size, seed)
    report(f"2 of 4, SFT: {size.sft_steps} steps")
    sft = read_recipe("demo-sft", [f"optimiser.steps={size.sft_steps}", f"seed={seed}"])
    assert isinstance(sft, SFTRecipe)
    first = out / "sft"
    if not (first / "run.json").exists():
        train_sft(sft, dataset, first, report=report)
    rl = read_recipe(
        "demo-rl", [f"model.name={first / 'model'}", f"optimiser.steps={size.rl_steps}", f"seed={seed}"]
    )
    assert isinstance(rl, RLRecipe)
    second = out / "rl"
    report(f"3 of 4, RL: {size.rl_steps} steps")
    if not (second / "run.json").exists():
        train_rl(rl, dataset, second, report=report)
    report(
        f"4 of 4, evaluation: {size.test_recordings * size.questions} questions under {len(CONTROLS)} conditions"
    )
    scores = {
        stage: score(folder / "model", dataset / "test.jsonl", out / f"{stage}.jsonl", seed)
        for stage, folder in (("sft", first), ("rl", second))
    }
    write_whole(out / "scores.json", (json.dumps(scores, indent=2) + "\n").encode(), GO_ON)
    draw_demo(out / "demo.png", scores, {"sft": first, "rl": second})
    for stage, found in scores.items():
        shares = ", ".join(f"{control} {found[control]['accuracy']:.0%}" for control in CONTROLS)
        report(f"after {stage}: {shares}; listened in {found['on']['listened']:.0%} of the runs")
    report(f"{out / 'demo.png'} shows it; {(time.monotonic() - began) / 60:.1f} min")
    return second / "model"


def make_sound(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Two seconds of a kind, float32 at 16 kHz: no two are alike."""
    time_axis = np.arange(2 * RATE) / RATE
    if kind == "noise":
        wave = rng.uniform(-1, 1, len(time_axis))
    else:
        start = {"low": 200, "high": 1600, "rising": 300}[kind] * rng.uniform(0.85, 1.15)
        pitch = start * (6 ** (time_axis / 2) if kind == "rising" else np.ones_like(time_axis))
        wave = np.sin(2 * np.pi * np.cumsum(pitch) / RATE)
    fade = np.minimum(1, 20 * np.minimum(time_axis, time_axis[::-1]))
    return (0.3 * rng.uniform(0.6, 1.0) * fade * wave).astype(np.float32)


def make_recording(kinds: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """A recording with one sound per slot, over faint noise."""
    samples = rng.normal(0, 0.003, SLOT * len(kinds) * RATE).astype(np.float32)
    for slot, kind in enumerate(kinds):
        begin = slot * SLOT * RATE + RATE // 2
        samples[begin : begin + 2 * RATE] += make_sound(kind, rng)
    return samples


def make_dataset(folder: Path, size: DemoSize, seed: int = 0) -> Path:
    """Write the dataset: ``train`` and ``test``, on recordings of their own."""
    rng = np.random.default_rng([seed, 5])
    splits: dict[str, list[Sample]] = {"train": [], "test": []}
    records: list[Record] = []
    for number in range(size.recordings + size.test_recordings):
        split: Split = "train" if number < size.recordings else "test"
        kinds = [KINDS[int(i)] for i in rng.integers(len(KINDS), size=SLOTS)]
        record = _record(f"{split}-{number:04d}", kinds, split)
        write_sound(folder / record.audio, make_recording(kinds, rng), "FLAC", GO_ON)
        records.append(record)
        for slot in rng.permutation(SLOTS)[: size.questions]:
            use: Use = "sft" if split == "train" else ""
            splits[split].append(_sample(record, int(slot), kinds, len(splits[split]), use, rng))
    about = About(
        name="Listening demo",
        description="Which of four sounds is heard at a second: only a closer listen can tell.",
        command="echo-agent finetune demo",
        seed=seed,
    )
    return write_dataset(folder, splits, records, about)


def _record(name: str, kinds: Sequence[str], split: Split) -> Record:
    events = tuple(
        Event(kind, "sound", SLOT * slot + 0.5, SLOT * slot + 2.5) for slot, kind in enumerate(kinds)
    )
    return Record(
        id=name,
        audio=f"audio/{name}.flac",
        duration=float(SLOT * SLOTS),
        events=events,
        labels=KINDS,
        split=split,
        corpus="demo",
        licence="CC0-1.0",
    )


def _sample(
    record: Record, slot: int, kinds: Sequence[str], number: int, use: Use, rng: np.random.Generator
) -> Sample:
    start = SLOT * slot
    call = f"<seg>{start}, {start + SLOT}</seg> " if number % 2 == 0 else ""
    return Sample(
        id=f"{record.id}-{slot}",
        audio=record.audio,
        duration=record.duration,
        question=f"What is heard at second {start + 1}?",
        choices=tuple(str(kind) for kind in rng.permutation(KINDS)),
        answer=kinds[slot],
        gold_spans=((start + 0.5, start + 2.5),),
        category="at",
        record=record.id,
        corpus="demo",
        split=record.split or "train",
        use=use,
        reasoning=f"At second {start + 1} {call}it is {kinds[slot]}." if use else "",
        licence=record.licence,
        composer="demo",
    )


def score(model: Path, rows: Path, results: Path, seed: int) -> dict[str, Any]:
    """Scores by control, as ``echo-agent eval`` has them."""
    from echo_agent.agent import EchoAgent
    from echo_agent.evaluation import evaluate
    from echo_agent.results_file import Results
    from echo_agent.rows import read_rows
    from echo_agent.scores import summarise

    questions = read_rows(rows)
    kept = Results(results)
    try:
        with EchoAgent.from_pretrained(str(model), device="cpu") as agent:
            asyncio.run(evaluate(agent, questions, kept, controls=CONTROLS, seed=seed))
    finally:
        kept.close()
    return summarise(questions, (one for one in kept.outcomes.values() if one.seed == seed))


def draw_demo(path: Path, scores: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Path]) -> None:
    """Draw a page: accuracy by stage and control, what RL did to listening, and the losses."""
    with writing(path, GO_ON), whole(path) as partial:
        demo_page(scores, runs).savefig(partial, dpi=110, format="png")


def demo_page(scores: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Path]) -> Figure:
    """The page of :func:`draw_demo`."""
    from matplotlib.figure import Figure

    from echo_agent.finetune.callbacks import read_log

    figure = Figure(figsize=(11, 7), layout="constrained")
    ((bars, listened), (loss, right)) = figure.subplots(2, 2)
    width = 0.8 / len(CONTROLS)
    for place, control in enumerate(CONTROLS):
        at = [stage + (place - 1.5) * width for stage in range(len(scores))]
        shares = [100 * found[control]["accuracy"] for found in scores.values()]
        drawn = bars.bar(at, shares, width, label=control)
        bars.bar_label(drawn, fmt="%.0f", fontsize=8)
    bars.axhline(100 / len(KINDS), color="0.5", linewidth=0.8, linestyle=":")
    bars.set(title="Right on recordings never trained on (%)", ylim=(0, 128))
    bars.set_yticks(range(0, 101, 20))
    bars.set_xticks(range(len(scores)), [f"after {stage.upper()}" for stage in scores])
    bars.legend(title="the crop", ncols=4, fontsize=8, loc="upper center")
    log = read_log(runs["rl"])
    for axes, key, title in (
        (listened, "rollout/listened", "RL: rollouts that listened again (%)"),
        (right, "rollout/right", "RL: rollouts that were right (%)"),
    ):
        rows = [(row["step"], 100 * row[key]) for row in log if key in row]
        axes.plot(*zip(*rows, strict=True), marker=".")
        axes.set(title=title, ylim=(0, 103), xlabel="step")
    rows = [(row["step"], row["loss"]) for row in read_log(runs["sft"]) if "loss" in row]
    loss.plot(*zip(*rows, strict=True))
    loss.set(title="SFT: loss per token", xlabel="step", yscale="log")
    return figure
