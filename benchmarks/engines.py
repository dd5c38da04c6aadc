"""What listening again costs on each engine, and 32 graphs at once: TorchEngine beside ``vllm serve`` on this CPU.

The models are a Qwen2-Audio and a Qwen2.5-Omni of 64 million random weights in float32, which follow a script (think,
listen again, say ten words, answer). The context is 30 or 300 seconds of sound: one recording, or as many of 30 s where
the model hears no more at once. A turn is what follows ``</seg>``: a crop of 3 s is read, encoded and put into the
context, and the model writes on to the end of its answer. Four sides run the same turns:

- *torch cached*: TorchEngine as it runs: the context up to the call is in its cache;
- *torch resend*: the same with stores of size 0: all audio is encoded, the whole context computed again;
- *vllm cached*: VLLMEngine and a server with its prefix cache, which knows the audio of the context by name;
- *vllm resend*: a server without prefix cache and without a cache of audio; every listen has a new name and is sent.

All write the same tokens. The sides run in turns in one process, servers beside it; every turn hears another crop.
Both engines compute eagerly (``--enforce-eager``, and no compiled functions). Times are seconds of a turn by the clock
around it, medians.

Then 32 graphs at once, each with one call, about eight recordings of 30 s that neither engine has seen: the clock
around all of them, medians over passes.

    python benchmarks/engines.py [--vllm build/vllm-venv/bin/vllm] [--model qwen2-audio] [--turns 4] [--passes 2]

Prints one JSON line; how far it has come goes to the standard error. ``ratio`` is resend over cached at 300 s, the
smaller of engines and models (goal: at least 3); ``torch_over_vllm`` is TorchEngine's re-listen over vLLM's, both
cached, at 300 s, and ``at_once`` TorchEngine's seconds over vLLM's for the 32 graphs, the larger of the models each
(goals: at most 1). Without a vLLM (``make vllm`` builds one) TorchEngine is measured alone, and ``left_out`` says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from echo_agent import (
    ChatLALM,
    Recording,
    RecordingStore,
    SamplingParams,
    TorchEngine,
    VLLMEngine,
    load_family,
)
from echo_agent.audio.recording import AudioRef
from echo_agent.conformance.sounds import lively
from echo_agent.engine import Generation
from echo_agent.engine.engine import Engine
from echo_agent.engine.served_audio import ServedAudio
from echo_agent.families import Family, Piece
from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # its models and its server are those of the tests

from tests.scripted import HEARD, START, scripted  # noqa: E402
from tests.vllm_serve import PATIENCE, PROGRAM, Serve, family_of, write  # noqa: E402

KINDS = ("qwen2-audio", "qwen2.5-omni")
TEXT = {
    **{"hidden_size": 640, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 10},
    **{"num_key_value_heads": 2, "head_dim": 64, "max_position_embeddings": 16384},
}
TOWER = {"d_model": 384, "encoder_layers": 6, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SCRIPT = {
    START: "<think>",
    "<think>": "<seg>2.0, 5.0</seg>",
    **dict(zip((HEARD, *WORDS), (*WORDS, "</think>"), strict=True)),
    "</think>": "<answer>",
    "<answer>": "a dog",
    "a dog": "</answer>",
}
QUESTION, CHOICES = "Which sound comes first?", ["a dog", "a bell"]
CROP = 3.0
"""Seconds of a crop."""
DURATIONS = (30, 300)
"""Seconds of sound in the context."""
SIDES = ("torch cached", "torch resend", "vllm cached", "vllm resend")
ROUNDS = 2
RUNS, RECORDINGS = 32, 8
NO_CACHES = ("--no-enable-prefix-caching", "--mm-processor-cache-gb=0")
TURN = SamplingParams(max_new_tokens=32, stop=("</answer>",))

Context = tuple[list[int], list[AudioRef]]


def heard(family: Family, store: RecordingStore, seconds: int) -> list[AudioRef]:
    """So much sound, in as few recordings as the model allows."""
    each = min(seconds, round(family.limits.longest_recording))
    return [store.add(Recording.from_array(lively(each, seed), 16000)) for seed in range(-(-seconds // each))]


def contexts(family: Family, wholes: Sequence[AudioRef], start: float) -> tuple[Context, Context]:
    """The context up to the call's end, and up to where the model goes on."""
    called = [
        *family.question_pieces(wholes, QUESTION, CHOICES),
        Piece(text=f"<think><seg>{start:.1f}, {start + CROP:.1f}</seg>"),
    ]
    crop = Piece(audio=wholes[-1].span(start, start + CROP))
    return family.render(called), family.render([*called, crop])


def say(text: str) -> None:
    """Tell how far it has come: it takes a while."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def new_names() -> Iterator[None]:
    """Every listen has another name each time: no server has heard it before."""
    numbers = count()
    with mock.patch.object(ServedAudio, "name", lambda self, ref: f"{time.time_ns()}-{next(numbers)}"):
        yield


def turns(family: Family, engines: dict[str, Engine], store: RecordingStore, each: int) -> dict[str, Any]:
    """Median seconds of a turn, by duration and side, and how many tokens the contexts have."""
    spent: dict[tuple[int, str], list[float]] = {}
    tokens: dict[str, int] = {}
    for seconds in DURATIONS:
        wholes = heard(family, store, seconds)
        step = (wholes[-1].seconds - CROP) / (ROUNDS * each + 1)
        said: dict[float, set[str]] = {}
        for part, side in ((part, side) for part in range(ROUNDS) for side in engines):
            warm = part == 0 and seconds == DURATIONS[0]  # the first turn of a side is not counted
            for place in range(part * each + (not warm), (part + 1) * each + 1):
                start = round(place * step, 1)
                before, (ids, audio) = contexts(family, wholes, start)
                with new_names() if side == "vllm resend" else nullcontext():
                    if side.endswith("cached"):
                        engines[side].generate(*before, SamplingParams(max_new_tokens=1))  # the run so far
                    began = time.perf_counter()
                    made = engines[side].generate(ids, audio, TURN)
                    if place:
                        spent.setdefault((seconds, side), []).append(time.perf_counter() - began)
                check_cached(side, made, len(before[0]))
                said.setdefault(start, set()).add(made.text)
                tokens[f"{seconds} s"] = len(ids)
            median = statistics.median(spent[seconds, side])
            say(f"{family.kind}, {seconds} s, round {part + 1}, {side}: {median:.3f} s")
        if any(len(texts) > 1 for texts in said.values()):
            raise SystemExit(f"the engines wrote different tokens: {said}")
    medians = {
        f"{seconds} s": {side: round(statistics.median(spent[seconds, side]), 4) for side in engines}
        for seconds in DURATIONS
    }
    return {"seconds": medians, "tokens": tokens}


def check_cached(side: str, made: Generation, known: int) -> None:
    """A side that keeps the context found it, one that does not found nothing."""
    if side.endswith("cached") and made.cached_tokens < 0.7 * known:
        raise SystemExit(f"{side}: {made.cached_tokens} tokens were cached, of {known} before the crop")
    if side.endswith("resend") and made.cached_tokens:
        raise SystemExit(f"{side}: {made.cached_tokens} tokens were cached where nothing should be")


def at_once(engine: Engine, number: int) -> tuple[float, list[str]]:
    """Seconds of the 32 graphs, and what they wrote; another ``number`` gives recordings that nobody has heard."""
    store = engine.recordings
    refs = []
    for seed in range(RECORDINGS):
        samples = lively(30.0, 100 + seed)
        samples[0] = number / 2**15
        refs.append(store.add(Recording.from_array(samples, 16000)))
    graph = build_listening_graph()
    context = ListeningContext(ChatLALM(engine), store, Budget(max_relistens=2), stream_tokens=False)
    states = [initial_state(f"Sound {run}?", [refs[run % RECORDINGS]], CHOICES) for run in range(RUNS)]

    async def run_all() -> list[Any]:
        return await asyncio.gather(*(graph.ainvoke(state, context=context) for state in states))

    began = time.perf_counter()
    done = asyncio.run(run_all())
    seconds = time.perf_counter() - began
    return seconds, ["".join(message.text for message in state["messages"][1:]) for state in done]


def graphs(engines: dict[str, Engine], passes: int) -> dict[str, float]:
    """Median seconds of 32 graphs at once on each engine that keeps what it knows."""
    spent: dict[str, list[float]] = {side: [] for side in engines if side.endswith("cached")}
    for number in range(passes + 1):
        wrote = []
        for side, times in spent.items():
            seconds, texts = at_once(engines[side], 1 + number)
            wrote.append(texts)
            say(f"{RUNS} graphs, pass {number}, {side}: {seconds:.2f} s")
            if number:  # the first pass warms
                times.append(seconds)
        if any(texts != wrote[0] for texts in wrote) or "ten" not in wrote[0][0]:
            raise SystemExit(f"the engines wrote different tokens, or called for no crop: {wrote}")
    return {side: round(statistics.median(times), 3) for side, times in spent.items()}


def measure(kind: str, vllm: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """All of one model."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "model"
        family = scripted(SCRIPT, family_of(kind, folder, TEXT, TOWER, 0.02), kind)
        write(family, folder)
        store = RecordingStore()
        engines: dict[str, Engine] = {
            "torch cached": stack.enter_context(TorchEngine(family, store)),
            "torch resend": stack.enter_context(TorchEngine(family, store, kv_bytes=0, feature_bytes=0)),
        }
        if vllm is not None:
            served = {"vllm cached": ("--enable-prefix-caching",), "vllm resend": NO_CACHES}
            for side, flags in served.items():
                limits = (
                    '--limit-mm-per-prompt={"audio": 16}',
                    "--max-model-len=10000",
                    "--max-num-batched-tokens=10000",
                )
                server = Serve(folder, folder.parent / f"{side}.log", (*limits, *flags), program=vllm)
                server.start()
                stack.callback(server.kill)
                server.wait()
                client = scripted(SCRIPT, load_family(str(folder), weights=False), kind)
                engines[side] = stack.enter_context(VLLMEngine(client, store, server.url, timeout=PATIENCE))
                say(f"{kind}: {side} is served")
        found = turns(family, engines, store, options.turns)
        weights = sum(weight.numel() for weight in family.model.parameters())
        return {"weights": weights, **found, "graphs_at_once": graphs(engines, options.passes)}


def main() -> None:
    """Measure both models, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--vllm", type=Path, default=PROGRAM, help="the program of a vLLM for this CPU")
    parser.add_argument("--model", choices=KINDS, action="append", help="one of them; both by default")
    parser.add_argument("--turns", type=int, default=4, help="measured turns per side and round")
    parser.add_argument("--passes", type=int, default=2, help="measured passes of the graphs")
    options = parser.parse_args()
    vllm = options.vllm.resolve() if options.vllm.exists() else None
    models = {kind: measure(kind, vllm, options) for kind in options.model or KINDS}
    long = [found["seconds"][f"{DURATIONS[-1]} s"] for found in models.values()]
    engines = ("torch", "vllm") if vllm else ("torch",)
    ratios = {
        engine: round(min(times[f"{engine} resend"] / times[f"{engine} cached"] for times in long), 2)
        for engine in engines
    }
    line: dict[str, Any] = {
        "benchmark": "engines",
        "ratio": min(ratios.values()),
        "goal": 3.0,
        "ratios": ratios,
    }
    if vllm:
        together = [found["graphs_at_once"] for found in models.values()]
        line["torch_over_vllm"] = round(max(each["torch cached"] / each["vllm cached"] for each in long), 3)
        line["at_once"] = round(max(each["torch cached"] / each["vllm cached"] for each in together), 3)
    else:
        line["left_out"] = f"vLLM: there is no {options.vllm} (make vllm builds it)"
    print(json.dumps({**line, "models": models, "runs": RUNS, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
