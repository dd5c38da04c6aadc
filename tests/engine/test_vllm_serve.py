"""The engine against real ``vllm serve`` on this machine's CPU, with tiny random models: ``make vllm``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import save_file

from echo_agent.audio.recording import Recording
from echo_agent.chat import ChatLALM
from echo_agent.engine import Generation, SamplingParams, TorchEngine, VLLMEngine
from echo_agent.families.base import Family
from echo_agent.families.loading import load_family
from echo_agent.finetune.callbacks import read_log
from echo_agent.finetune.rl import train_rl
from echo_agent.finetune.served_policy import published, whole_weights
from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state
from echo_agent.stores import RecordingStore
from tests.engine.conftest import World
from tests.finetune.small_dataset import write_small_dataset
from tests.finetune.training import rl_recipe
from tests.scripted import UNSURE, scripted
from tests.tiny import sounds
from tests.vllm_serve import PATIENCE, PROGRAM, Serve, family_of, write

pytestmark = pytest.mark.vllm

KIND, OMNI = "qwen2-audio", "qwen2.5-omni"
SIZES = {
    **{"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2},
    **{"num_key_value_heads": 2, "head_dim": 64},
}
"""Of a decoder that vLLM can compute with."""
GREEDY = SamplingParams(max_new_tokens=24)
FLAGS = ("--max-model-len=4096", "--enable-prefix-caching")
OMNI_FLAGS = (
    '--limit-mm-per-prompt={"audio": 9, "image": 0, "video": 0}',
    "--enable-lora",
    "--max-lora-rank=8",
)
OMNI_ENVIRONMENT = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1"}
LORA = {"rank": 4, "alpha": 32, "train_projector": False}
SAME = 1e-3
"""Largest difference of log-probabilities between the server and what is computed here (float32)."""


def started(folder: Path, *flags: str, **environment: str) -> Iterator[Serve]:
    """A server for as long as the tests want it."""
    if not PROGRAM.exists():
        pytest.skip("there is no vLLM in build/vllm-venv: make vllm")
    server = Serve(folder, folder.with_suffix(".log"), (*FLAGS, *flags), environment)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp("served") / "tiny"
    family = family_of(KIND, folder, SIZES, {}, 0.1)
    write(family, folder)
    return family


@pytest.fixture(scope="module")
def serve(family: Family) -> Iterator[Serve]:
    yield from started(Path(family.name), '--limit-mm-per-prompt={"audio": 9}', VLLM_SERVER_DEV_MODE="1")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """A policy by script of the family that vLLM loads adapters for."""
    folder = tmp_path_factory.mktemp("policy") / "unsure"
    family = scripted(UNSURE, family_of(OMNI, folder, SIZES, {}, 0.1), OMNI)
    write(family, folder)
    return family


@pytest.fixture(scope="module")
def omni(policy: Family) -> Iterator[Serve]:
    yield from started(Path(policy.name), *OMNI_FLAGS, **OMNI_ENVIRONMENT)


@pytest.fixture
def world(family: Family) -> Iterator[World]:
    made = World(family)
    yield made
    made.close()


@pytest.fixture
def engine(serve: Serve, world: World) -> Iterator[VLLMEngine]:
    family = load_family(str(serve.folder), weights=False)
    with VLLMEngine(family, world.store, serve.url, timeout=PATIENCE, patience=PATIENCE) as engine:
        yield engine


def equal(said: Generation, expected: Generation) -> None:
    """Tokens are equal, and log-probabilities to float32; after a near tie the two may part."""
    apart = [i for i, (a, b) in enumerate(zip(said.ids, expected.ids, strict=False)) if a != b]
    until = apart[0] if apart else len(said.ids)
    assert not apart or expected.near_ties or said.near_ties, (said.ids, expected.ids)
    assert said.logprobs[:until] == pytest.approx(expected.logprobs[:until], abs=SAME)


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
        assert said.logprobs == pytest.approx(world.forward(*prompt, said.ids), abs=SAME)
        assert world.family.audio_id not in said.ids


def test_stops_and_choices(engine: VLLMEngine, world: World) -> None:
    here = world.engine()
    ids, audio = world.prompt()
    free = engine.generate(ids, audio, GREEDY)
    stop = free.text[len(free.text) // 2 :][:2]
    until = SamplingParams(max_new_tokens=24, stop=(stop,))
    said, expected = (each.generate(ids, audio, until) for each in (engine, here))
    equal(said, expected)
    assert said.finish == "stop" and said.cached_tokens > 0, "the server saw the stop, and said what it knew"
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


def test_greedy_tokens_of_another_family_around_a_crop(omni: Serve, policy: Family) -> None:
    world = World(policy)
    ids, audio = world.prompt()
    crop = world.whole.span(0.5, 2.0)
    client = load_family(policy.name, weights=False)
    with VLLMEngine(client, world.store, omni.url, timeout=PATIENCE) as engine:
        here = world.engine()
        for _ in range(2):
            said = engine.generate(ids, audio, GREEDY)
            equal(said, here.generate(ids, audio, GREEDY))
            ids, audio = [*ids, *said.ids, *policy.audio_ids(crop)], [*audio, crop]
    world.close()


def rl_steps(
    server: Serve, policy: Family, folder: Path, lora: dict[str, Any] | None, learning_rate: float
) -> list[dict[str, float]]:
    """What two steps logged: the trainer scores what the server sampled."""
    recipe = rl_recipe(
        policy.name,
        lora=lora,
        optimiser={"steps": 2, "learning_rate": learning_rate},
        rollout={"engine": {"vllm": [server.url]}},
    )
    train_rl(recipe, write_small_dataset(folder / "data"), folder / "run", report=lambda _: None)
    log = [row for row in read_log(folder / "run") if "rollout/mixed" in row]
    assert [row["step"] for row in log] == [1, 2]
    for row in log:
        assert row["sampling/logp_gap_max"] < SAME and row["rollout/mixed"] == row["rollout/failed"] == 0
    return log


def test_rl_steps_on_rollouts_of_the_server(omni: Serve, policy: Family, tmp_path: Path) -> None:
    """With the adapters of each step under a name of their own."""
    log = rl_steps(omni, policy, tmp_path, lora=LORA, learning_rate=3e-2)
    assert all(row["rollout/listened"] > 0 for row in log)
    cards = httpx.get(f"{omni.url}/v1/models", timeout=60).json()["data"]
    names = [card["id"] for card in cards if card.get("parent")]
    assert len(names) == 1 and names[0].startswith("step-000001-"), "those of the first step are let go of"


def test_rl_steps_whose_weights_are_brought_whole(omni: Serve, policy: Family, tmp_path: Path) -> None:
    """All weights are trained, and the server exchanges its own for them before each step."""
    log = rl_steps(omni, policy, tmp_path, lora=None, learning_rate=3e-3)
    assert all(row["rollout/listened"] > 0 for row in log)
    said = httpx.get(f"{omni.url}/weight_info", timeout=60).json()
    assert said["weight_version"].startswith("step-000001-")


def test_other_weights_of_another_family(serve: Serve, family: Family, tmp_path: Path) -> None:
    """Last, since the server keeps them."""
    world = World(family_of(KIND, Path(family.name), SIZES, {}, 0.2))
    save_file(published(world.family, whole_weights(world.family.model)), tmp_path / "model.safetensors")
    prompt = world.prompt()
    with VLLMEngine(
        load_family(family.name, weights=False), world.store, serve.url, timeout=PATIENCE
    ) as engine:
        first = engine.generate(*prompt, GREEDY)
        engine.use_weights("second", str(tmp_path))
        said = engine.generate(*prompt, GREEDY)
    equal(said, world.alone(*prompt, GREEDY))
    assert said.ids != first.ids and said.versions == ("second",)
    assert said.cached_tokens == 0, "what was computed with the first weights is not found again"
    world.close()
