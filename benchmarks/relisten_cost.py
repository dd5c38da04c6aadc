"""What it costs to listen again: on the live cache, against sending everything again.

A turn is what follows ``</seg>``: the crop (3 s) is read and encoded, put into the context, and the model writes on to
the end of its answer. Two engines run the same turns on the same weights:

- *cached*: as echo-agent runs. The context up to the call is in the KV cache, and only the crop is new;
- *resend*: nothing is cached (both stores have size 0). The recording and the crop are encoded, and the whole context
  is computed again, as the released inference code of the Echo paper does it.

The recordings are the examples of this repository, one after another, as FLAC files. Every turn hears another crop, so
none is found in a store. Both engines are warm, and they run one after the other, twice: two at once would slow each
other, since each has worker threads of its own. Both must write the same tokens. Times are seconds of one turn,
medians; ``turn`` is the wall clock around it, and the ratios are of that, decoding included.

    python benchmarks/relisten_cost.py [--model echo-nano] [--turns 6]

Prints one JSON line. ``ratio`` is resend over cached at 30 s (goal: at least 5); ``growth`` is cached at 300 s over
cached at 30 s (goal: at most 1.5); ``hearing_ratio`` is ``ratio`` without decoding, which costs both sides the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
import torch

from echo_agent import Recording, RecordingStore, SamplingParams, TorchEngine, load_family
from echo_agent.audio.recording import AudioRef
from echo_agent.engine import Generation
from echo_agent.families import Family, Piece

EXAMPLES = Path(__file__).parents[1] / "examples"
QUESTION = "Which digits are spoken after the drum?"
THOUGHT = "<think> drum 6, 9 voice."
CROP = 3
"""Seconds of a crop."""
DURATIONS = (30, 300)
"""Seconds of the recordings."""
PARTS = ("turn", "encode", "prefill", "decode")
SIDES: dict[str, dict[str, int]] = {"cached": {}, "resend": {"kv_bytes": 0, "feature_bytes": 0}}
"""What each side keeps: all that there is room for, or nothing."""
ROUNDS = 2
"""How often either side has its turns."""


def recording(seconds: int, folder: Path) -> Recording:
    """The first ``seconds`` of all examples, one after another."""
    parts = [soundfile.read(path, dtype="float32") for path in sorted(EXAMPLES.glob("*.flac"))]
    rate = parts[0][1]
    samples = np.concatenate([samples for samples, _ in parts])
    path = folder / f"{seconds}.flac"
    soundfile.write(path, np.resize(samples, seconds * rate), rate)
    return Recording.open(path)


def contexts(family: Family, whole: AudioRef, start: int) -> tuple[list[int], list[int], list[AudioRef]]:
    """Ids up to the call's end, ids up to where the model goes on, and the audio of the latter."""
    called = [
        *family.question_pieces([whole], QUESTION, None),
        Piece(text=f"{THOUGHT}<seg>{start}, {start + CROP}</seg>"),
    ]
    heard = Piece(audio=whole.span(start, start + CROP))
    return family.render(called)[0], *family.render([*called, heard])


def turn(
    engine: TorchEngine, ids: list[int], audio: list[AudioRef], params: SamplingParams
) -> tuple[dict[str, float], Generation]:
    """Run one turn and time it."""
    began = time.perf_counter()
    made = engine.generate(ids, audio, params)
    seconds = time.perf_counter() - began
    spent = made.timings
    return {"turn": seconds, "encode": spent.encode, "prefill": spent.prefill, "decode": spent.decode}, made


def measure(
    family: Family, turns: int, warm: int, folder: Path
) -> tuple[dict[str, dict[str, dict[str, float]]], dict[str, dict[str, float]]]:
    """Median seconds by duration, side and part, and how many tokens a turn has, by duration."""
    store = RecordingStore()
    wholes = {seconds: store.add(recording(seconds, folder)) for seconds in DURATIONS}
    params = SamplingParams(max_new_tokens=16, stop=("</answer>",))
    spent: dict[tuple[int, str], list[dict[str, float]]] = {}
    counts: dict[int, list[tuple[int, int, int]]] = {}
    for part in range(ROUNDS):
        made: dict[str, dict[tuple[int, int], Generation]] = {}
        for side, stores in SIDES.items():
            with TorchEngine(family, store, **stores) as engine:
                for i, (seconds, whole) in product(range(-warm, turns), wholes.items()):
                    place = i if i < 0 else part * turns + i
                    start = (place + warm) * (seconds - CROP) // (ROUNDS * turns + warm - 1)
                    before, ids, audio = contexts(family, whole, start)
                    if side == "cached":
                        engine.generate(before, audio[:1], SamplingParams(max_new_tokens=1))  # the run so far
                    times, new = turn(engine, ids, audio, params)
                    made.setdefault(side, {})[seconds, start] = new
                    if i >= 0:
                        spent.setdefault((seconds, side), []).append(times)
                    if side == "cached":
                        computed = len(ids) - new.cached_tokens
                        if computed > len(ids) - len(before) + 1:
                            raise SystemExit(
                                f"{computed} tokens were computed, with {len(before)} before the crop"
                            )
                        counts.setdefault(seconds, []).append((len(ids), computed, len(new.ids)))
                    elif new.cached_tokens:
                        raise SystemExit(f"{new.cached_tokens} tokens were cached where nothing should be")
        for key, one in made["cached"].items():
            other = made["resend"][key]
            if one.ids != other.ids and not one.near_ties + other.near_ties:
                raise SystemExit(f"the two sides wrote different tokens: {one.text!r} and {other.text!r}")
    medians: dict[str, dict[str, dict[str, float]]] = {f"{seconds} s": {} for seconds in DURATIONS}
    for (seconds, side), rows in spent.items():
        medians[f"{seconds} s"][side] = {
            part: round(statistics.median(times[part] for times in rows), 5) for part in PARTS
        }
    names = ("context", "computed_when_cached", "sampled")
    tokens = {
        f"{seconds} s": dict(zip(names, map(statistics.median, zip(*rows, strict=True)), strict=True))
        for seconds, rows in counts.items()
    }
    return medians, tokens


def hearing(times: dict[str, float]) -> float:
    """Seconds until the model goes on: encoding and prefill."""
    return times["encode"] + times["prefill"]


def main() -> None:
    """Measure at both durations, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="echo-nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=6, help="measured turns per duration and round")
    parser.add_argument("--warm", type=int, default=3, help="turns before them, not measured")
    options = parser.parse_args()
    if ROUNDS * options.turns + options.warm > DURATIONS[0] - CROP + 1:
        parser.error(f"{DURATIONS[0]} s hold no {ROUNDS * options.turns + options.warm} different crops")
    family = load_family(options.model, options.device)
    with tempfile.TemporaryDirectory() as folder:
        times, tokens = measure(family, options.turns, options.warm, Path(folder))
    short, long = times.values()
    line = {
        "benchmark": "relisten_cost",
        "ratio": round(short["resend"]["turn"] / short["cached"]["turn"], 2),
        "goal": 5.0,
        "growth": round(long["cached"]["turn"] / short["cached"]["turn"], 2),
        "growth_goal": 1.5,
        "ratio_300_s": round(long["resend"]["turn"] / long["cached"]["turn"], 2),
        "hearing_ratio": round(hearing(short["resend"]) / hearing(short["cached"]), 2),
        "seconds": times,
        "tokens": tokens,
        "model": options.model,
        "device": str(family.device),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
