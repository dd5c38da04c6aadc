"""Whole weights that a training brings to servers: what answers is what was brought, also after a server's end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from echo_agent.conformance.sounds import randomise
from echo_agent.engine import SamplingParams, VLLMEngine
from echo_agent.engine import replicas as replicas_module
from echo_agent.errors import ServerError
from echo_agent.families.loading import load_family
from echo_agent.finetune.served_policy import published, whole_weights
from tests.engine.conftest import World, same
from tests.tiny import QWEN_KINDS, tiny_family
from tests.token_server import TokenServer, token_server
from tests.token_weights import STARTED

GREEDY = SamplingParams(max_new_tokens=8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "REST", (0.001, 0.03))


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "qwen2.5-omni")


@pytest.fixture
def world(kind: str) -> Iterator[World]:
    """With the model as it was trained on."""
    family = tiny_family(kind)
    randomise(family.model, 1)
    made = World(family)
    yield made
    made.close()


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[TokenServer]:
    """With the model as it was before."""
    family = tiny_family(kind)
    family.save(tmp_path / "model")
    with token_server(family, name=str(tmp_path / "model")) as server:
        yield server


@pytest.fixture
def weights(world: World, tmp_path: Path) -> str:
    folder = tmp_path / "weights"
    folder.mkdir()
    save_file(published(world.family, whole_weights(world.family.model)), folder / "model.safetensors")
    return str(folder)


@pytest.fixture
def engine(world: World, server: TokenServer) -> Iterator[VLLMEngine]:
    with VLLMEngine(load_family(server.name, weights=False), world.store, server.url, patience=0.5) as engine:
        yield engine


@pytest.mark.parametrize("kind", QWEN_KINDS, indirect=True)
def test_what_answers_is_what_was_brought(
    engine: VLLMEngine, server: TokenServer, world: World, weights: str
) -> None:
    prompt, before = world.prompt(), engine.fingerprint
    first = engine.generate(*prompt, GREEDY)
    engine.use_weights("second", weights)
    said = engine.generate(*prompt, GREEDY)
    same(said, world.alone(*prompt, GREEDY))
    assert first.ids != said.ids or first.logprobs != said.logprobs
    assert first.versions == (STARTED,) and said.versions == ("second",)
    assert engine.fingerprint != before and said.cached_tokens == 0, (
        "nothing of the old weights is found again"
    )
    assert server.open.is_set()


def test_weights_that_a_server_has_are_not_brought_again(
    engine: VLLMEngine, server: TokenServer, world: World, weights: str
) -> None:
    engine.use_weights("second", weights)
    with VLLMEngine(load_family(server.name, weights=False), world.store, server.url) as other:
        other.use_weights("second", weights)
    assert server.weights.reloads == 1


@pytest.mark.parametrize("runs", [1, 8])
def test_a_server_that_was_started_anew_is_brought_them_again_once(
    engine: VLLMEngine, server: TokenServer, world: World, weights: str, runs: int
) -> None:
    engine.use_weights("second", weights)
    server.stop()
    with pytest.raises(ServerError, match="no server"):
        engine.generate(*world.prompt(), GREEDY)
    server.start_again()
    waiting = [engine.submit(*world.prompt(run % 4), GREEDY) for run in range(runs)]
    said = [each.result() for each in waiting]
    same(said[0], world.alone(*world.prompt(), GREEDY))
    assert all(each.versions == ("second",) for each in said) and server.weights.reloads == 2


def test_a_run_by_the_wrong_weights_says_so_and_the_next_is_by_the_right_ones(
    engine: VLLMEngine, server: TokenServer, world: World, weights: str
) -> None:
    """A server can be started anew between two requests, without that either fails."""
    engine.use_weights("second", weights)
    server.forget()
    assert set(engine.generate(*world.prompt(), GREEDY).versions) == {STARTED, "second"}
    said = engine.generate(*world.prompt(), GREEDY)
    same(said, world.alone(*world.prompt(), GREEDY))
    assert said.versions == ("second",)


def test_a_server_without_the_routes_is_told_which_flag(
    engine: VLLMEngine, server: TokenServer, weights: str
) -> None:
    server.faults.no_reload = True
    with pytest.raises(ServerError, match="no /weight_info: start it with VLLM_SERVER_DEV_MODE=1"):
        engine.use_weights("second", weights)


def test_a_server_that_cannot_load_them_is_an_error_and_goes_on_for_others(
    engine: VLLMEngine, server: TokenServer, weights: str
) -> None:
    server.faults.reload_fails = 1
    with pytest.raises(ServerError, match=r"no server has loaded the weights second .*the disk is gone"):
        engine.use_weights("second", weights)
    assert server.open.is_set() and server.weights.version == STARTED
