"""The engine against a real ``vllm serve`` on this machine's CPU, with a tiny random model: ``make vllm``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

from echo_agent.audio.recording import Recording
from echo_agent.chat import ChatLALM
from echo_agent.engine import Generation, SamplingParams, TorchEngine, VLLMEngine
from echo_agent.families.loading import load_family
from echo_agent.families.qwen2_audio import Qwen2AudioFamily
from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state
from echo_agent.stores import RecordingStore
from tests.engine.conftest import World
from tests.tiny import _audio_config, randomise, sounds, tiny_extractor, tiny_processor, tiny_tokenizer

pytestmark = pytest.mark.vllm

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "build" / "vllm-venv" / "bin" / "vllm"
KIND = "qwen2-audio"
GREEDY = SamplingParams(max_new_tokens=24)
FLAGS = [
    "--dtype=float32",
    "--max-model-len=4096",
    "--enforce-eager",
    "--enable-scale-out",
    "--enable-prefix-caching",
    "--enable-prompt-tokens-details",
    '--limit-mm-per-prompt={"audio": 9}',
]


def write_model(folder: Path) -> Qwen2AudioFamily:
    """A tiny model whose sizes vLLM can compute with, written so that its older transformers can read it."""
    sizes = _audio_config().to_dict()
    sizes["text_config"] |= {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 2}
    sizes["text_config"] |= {"num_key_value_heads": 2, "head_dim": 64, "num_hidden_layers": 2}
    model = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig.from_dict(sizes))
    randomise(model, 0)
    family = Qwen2AudioFamily(str(folder), model, tiny_tokenizer(KIND), tiny_extractor(KIND))
    family.save(folder)
    tiny_processor(KIND).save_pretrained(folder)
    path = folder / "model.safetensors"
    weights = load_file(path)
    renamed = {
        name.replace("language_model.model.model.", "language_model.model."): w for name, w in weights.items()
    }
    save_file(renamed, path, {"format": "pt"})
    return family


@dataclass
class Serve:
    """A ``vllm serve`` of a folder."""

    folder: Path
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {
            **os.environ,
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        command = [str(PROGRAM), "serve", str(self.folder), f"--port={self.port}", "--host=127.0.0.1", *FLAGS]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.folder, start_new_session=True
            )

    def wait(self, seconds: float = 900.0) -> None:
        """Until it answers."""
        assert self.process is not None
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(1)
        self.kill()
        pytest.fail(f"vllm serve did not start: {self.log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Qwen2AudioFamily:
    return write_model(tmp_path_factory.mktemp("served") / "tiny")


@pytest.fixture(scope="module")
def serve(family: Qwen2AudioFamily, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    if not PROGRAM.exists():
        pytest.skip("there is no vLLM in build/vllm-venv: make vllm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Serve(Path(family.name), port, tmp_path_factory.mktemp("log") / "vllm.log")
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture
def world(family: Qwen2AudioFamily) -> Iterator[World]:
    made = World(family)
    yield made
    made.close()


@pytest.fixture
def engine(serve: Serve, world: World) -> Iterator[VLLMEngine]:
    family = load_family(str(serve.folder), weights=False)
    with VLLMEngine(family, world.store, serve.url, patience=900.0) as engine:
        yield engine


def equal(said: Generation, expected: Generation) -> None:
    """Tokens are equal, and log-probabilities to float32; after a near tie the two may part."""
    apart = [i for i, (a, b) in enumerate(zip(said.ids, expected.ids, strict=False)) if a != b]
    until = apart[0] if apart else len(said.ids)
    assert not apart or expected.near_ties or said.near_ties, (said.ids, expected.ids)
    assert said.logprobs[:until] == pytest.approx(expected.logprobs[:until], abs=1e-3)


def test_greedy_tokens_are_those_of_the_torch_engine_and_prefixes_are_found_again(
    engine: VLLMEngine, world: World
) -> None:
    """A recording of 30 s, then crops inside the assistant's turn."""
    whole = world.store.add(Recording.from_array(sounds(30.0, seed=5), 16000))
    here = world.engine()
    ids, audio = world.prompt(0, whole)
    for start in (3.0, 11.0, 20.0):
        said, expected = engine.generate(ids, audio, GREEDY), here.generate(ids, audio, GREEDY)
        assert said.ids == expected.ids
        equal(said, expected)
        crop = whole.span(start, start + 3)
        ids, audio = [*ids, *said.ids, *world.family.audio_ids(crop)], [*audio, crop]
    stats = engine.stats()
    print(json.dumps(stats))
    assert stats["audio_sent"] == 3 and stats["audio_by_name"] == 3
    assert stats["cached_tokens"] > 1200, "most of the second and third context were known"


def test_sampled_log_probabilities_are_those_of_the_full_softmax(engine: VLLMEngine, world: World) -> None:
    prompt = world.prompt()
    for run in range(3):
        said = engine.generate(*prompt, SamplingParams(temperature=1.0, seed=1, run=run, max_new_tokens=16))
        assert said.logprobs == pytest.approx(world.forward(*prompt, said.ids), abs=1e-3)
        assert world.family.audio_id not in said.ids


def test_stops_and_choices(engine: VLLMEngine, world: World) -> None:
    here = world.engine()
    ids, audio = world.prompt()
    free = engine.generate(ids, audio, GREEDY)
    stop = free.text[len(free.text) // 2 :][:2]
    equal(
        *(
            each.generate(ids, audio, SamplingParams(max_new_tokens=24, stop=(stop,)))
            for each in (engine, here)
        )
    )
    opened = [*ids, *world.family.tokenize("<answer>")]
    guided = SamplingParams(max_new_tokens=24, stop=("</answer>",), choices=("the dog", "the bell"))
    said, expected = (each.generate(opened, audio, guided) for each in (engine, here))
    assert said.ids == expected.ids and said.finish == "stop"
    equal(said, expected)


def graphs(model: ChatLALM, store: RecordingStore, runs: int) -> list[str]:
    """The transcripts of so many graphs at once."""
    refs = [store.add(Recording.from_array(sounds(4.0, seed=seed), 16000)) for seed in range(4)]
    graph = build_listening_graph()
    context = ListeningContext(model, store, Budget(max_relistens=2, max_new_tokens=24), stream_tokens=False)

    async def all_of_them() -> list[dict[str, object]]:
        states = [initial_state(f"What rings, {n}?", [refs[n % 4]], ["a bell", "a dog"]) for n in range(runs)]
        return await asyncio.gather(*(graph.ainvoke(state, context=context) for state in states))

    return [
        "".join(message.text for message in state["messages"][1:]) for state in asyncio.run(all_of_them())
    ]  # pyright: ignore


def test_32_graphs_at_once(engine: VLLMEngine, world: World) -> None:
    with TorchEngine(world.family, world.store) as here:
        expected = graphs(ChatLALM(here), world.store, 32)
    found = graphs(ChatLALM(engine), world.store, 32)
    same = sum(a == b for a, b in zip(found, expected, strict=True))
    assert same >= 30, "near ties apart, they are the same"


def test_a_restart_in_the_middle_of_a_run_is_survived(engine: VLLMEngine, serve: Serve, world: World) -> None:
    prompt, params = world.prompt(), SamplingParams(max_new_tokens=200)
    expected = world.engine().generate(*prompt, params)
    pieces: list[int] = []

    def restart(ids: list[int], text: str) -> None:
        if not pieces:
            serve.kill()
            serve.start()
        pieces.extend(ids)

    said = engine.generate(*prompt, params, restart)
    equal(said, expected)
    assert pieces == list(said.ids) and len(said.ids) == len(expected.ids)
    assert engine.stats()["attempts_lost"] > 0 and engine.stats()["audio_sent"] >= 2
