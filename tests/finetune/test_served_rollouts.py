"""RL whose rollouts servers sample: the trainer scores what they sampled, with the adapters of the step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from echo_agent.errors import DataError, ServerError
from echo_agent.families.loading import load_family
from echo_agent.finetune.callbacks import read_log
from echo_agent.finetune.rl import train_rl
from tests.finetune.small_dataset import saved
from tests.finetune.training import rl_recipe
from tests.scripted import UNSURE, scripted_family
from tests.tiny import tiny_family
from tests.token_server import TokenServer, token_server
from tests.token_weights import ServedWeights

pytestmark = pytest.mark.usefixtures("undrawn")

SAME = 1e-3
"""Largest difference of log-probabilities between a server and the trainer (float32)."""
KIND = "qwen2.5-omni"
LORA = {"rank": 4, "alpha": 32, "train_projector": False}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(scripted_family(UNSURE, KIND), tmp_path_factory.mktemp("policy") / "unsure")


@pytest.fixture
def server(policy: str) -> Iterator[TokenServer]:
    with token_server(load_family(policy, "cpu"), name=policy) as server:
        yield server


def run(
    policy: str,
    server: TokenServer,
    dataset: Path,
    out: Path,
    steps: int = 2,
    lora: dict[str, Any] | None = LORA,
) -> list[dict[str, float]]:
    """The logged steps."""
    made = rl_recipe(
        policy,
        lora=lora,
        optimiser={"steps": steps, "learning_rate": 3e-2},
        rollout={"engine": {"vllm": [server.url]}},
    )
    train_rl(made, dataset, out, report=lambda _: None)
    return [row for row in read_log(out) if "rollout/mixed" in row]


def test_the_trainer_scores_what_a_server_sampled(
    policy: str, server: TokenServer, dataset: Path, tmp_path: Path
) -> None:
    """The adapters that the first step changed are those that the second one's rollouts are sampled with."""
    log = run(policy, server, dataset, tmp_path / "run")
    assert [row["step"] for row in log] == [1, 2]
    for row in log:
        assert row["sampling/logp_gap_max"] < SAME and row["rollout/mixed"] == 0
        assert row["rollout/listened"] > 0 and row["rollout/failed"] == 0
    names = list(dict.fromkeys(body["model"] for body in server.requests))
    assert [name.rpartition("-")[0] for name in names] == ["step-000000", "step-000001"]
    assert list(server.weights.adapters) == names[1:], "those of the first step are let go of"
    assert {path.name for path in (tmp_path / "run" / "adapters").iterdir()} == {"step-000000", "step-000001"}


@pytest.mark.slow
def test_twin_with_the_adapters_of_the_first_step_is_apart(
    policy: str, server: TokenServer, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(self: ServedWeights, name: str, folder: Path) -> None:
        self.adapters[name] = self.whole

    monkeypatch.setattr(ServedWeights, "load", stale)
    first, second = run(policy, server, dataset, tmp_path / "run")
    assert first["sampling/logp_gap_max"] < SAME, "adapters begin as nothing"
    assert second["sampling/logp_gap_max"] > 10 * SAME


def test_rollouts_of_several_weights_are_dropped_and_counted(
    policy: str, server: TokenServer, dataset: Path, tmp_path: Path
) -> None:
    server.faults.versions = ("1", "2")
    (row,) = run(policy, server, dataset, tmp_path / "run", steps=1)
    assert row["rollout/mixed"] == row["rollout/failed"] == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rollout": {"engine": {"vllm": []}}}, "rollout.engine.vllm"),
        ({"rollout": {"engine": {"ray": ["http://a"]}}}, "rollout.engine"),
    ],
)
def test_recipes_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    values = {"lora": LORA, "rollout": {"engine": {"vllm": ["http://a"]}}, **changes}
    with pytest.raises(DataError, match=said):
        rl_recipe("Qwen/Qwen2.5-Omni-3B", **values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "lora"),
    [
        pytest.param("qwen2-audio", None, id="all weights"),
        pytest.param("qwen2-audio", LORA, id="adapters of which vLLM loads none"),
        pytest.param(KIND, {**LORA, "train_projector": True}, id="adapters and the projector"),
    ],
)
def test_what_cannot_be_brought_as_adapters_is_brought_whole(
    kind: str, lora: dict[str, Any] | None, dataset: Path, tmp_path: Path
) -> None:
    policy = saved(scripted_family(UNSURE, kind), tmp_path / "policy")
    with token_server(load_family(policy, "cpu"), name=policy) as server:
        log = run(policy, server, dataset, tmp_path / "run", lora=lora)
        assert server.weights.reloads == 2 and server.weights.version.startswith("step-000001-")
    for row in log:
        assert row["sampling/logp_gap_max"] < SAME and row["rollout/mixed"] == 0
        assert row["rollout/listened"] > 0 and row["rollout/failed"] == 0
    kept = {path.name for path in (tmp_path / "run" / "weights").iterdir()}
    assert kept == {"step-000000", "step-000001"}


@pytest.mark.slow
def test_twin_with_the_weights_of_the_first_step_is_apart(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = saved(scripted_family(UNSURE, "qwen2-audio"), tmp_path / "policy")
    monkeypatch.setattr(ServedWeights, "read", lambda self, folder: self.whole)
    with token_server(load_family(policy, "cpu"), name=policy) as server:
        first, second = run(policy, server, dataset, tmp_path / "run", lora=None)
    assert first["sampling/logp_gap_max"] < SAME, "they are those that it was started with"
    assert second["sampling/logp_gap_max"] > 10 * SAME


def test_a_family_whose_weights_cannot_be_brought_is_refused(dataset: Path, tmp_path: Path) -> None:
    policy = saved(tiny_family("echo-nano"), tmp_path / "policy")
    with token_server(load_family(policy, "cpu"), name=policy) as server:
        with pytest.raises(
            DataError, match="cannot be brought to vLLM; those of qwen2-audio, qwen2.5-omni can"
        ):
            run(policy, server, dataset, tmp_path / "run", lora=None)


def test_a_server_that_is_not_there_is_said_before_training(
    policy: str, dataset: Path, tmp_path: Path
) -> None:
    made = rl_recipe(policy, lora=LORA, rollout={"engine": {"vllm": ["http://127.0.0.1:9"]}})
    with pytest.raises(ServerError, match="no server answers"):
        train_rl(made, dataset, tmp_path / "run", report=lambda _: None)
