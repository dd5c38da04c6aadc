"""RL: the trainer scores what the engine sampled, whatever the batch; what breaks off is counted and never crashes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from echo_agent import EchoAgent
from echo_agent.errors import DataError, PlaceholderError
from echo_agent.families.loading import load_family
from echo_agent.finetune import audio_inputs, grpo
from echo_agent.finetune.audio_inputs import AudioInput
from echo_agent.finetune.callbacks import read_log
from echo_agent.finetune.config import RLRecipe
from echo_agent.finetune.rl import train_rl
from tests.finetune.small_dataset import saved, write_small_dataset
from tests.finetune.training import apart, weights
from tests.finetune.training import rl_recipe as recipe
from tests.scripted import ASK_FOREVER, UNSURE, scripted_family
from tests.tiny import KINDS

pytestmark = pytest.mark.usefixtures("undrawn")

SAME = 1e-4
"""Largest difference of log-probabilities that counts as equal (float32)."""


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Policies that listen or not, here or there, and answer this or that."""
    folder = tmp_path_factory.mktemp("policies")
    made = {kind: saved(scripted_family(UNSURE, kind), folder / kind) for kind in KINDS}
    return made | {"forever": saved(scripted_family(ASK_FOREVER, "echo-nano"), folder / "forever")}


def run(made: RLRecipe, dataset: Path, out: Path) -> list[dict[str, float]]:
    """The logged steps of a run."""
    train_rl(made, dataset, out, report=lambda _: None)
    return [row for row in read_log(out) if "reward" in row]


# --- the central test and its twins -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}], ids=["full", "lora"])
def test_the_trainer_scores_what_the_engine_sampled(
    kind: str, lora: Any, dataset: Path, policies: dict[str, str], tmp_path: Path
) -> None:
    """Over two steps: the weights that the first one changed are those that the second one rolls out."""
    made = recipe(policies[kind], lora=lora, optimiser={"steps": 2}, rollout={"temperature": 0.8})
    log = run(made, dataset, tmp_path / "run")
    assert [row["step"] for row in log] == [1, 2]
    for row in log:
        assert row["sampling/logp_gap_max"] < SAME
        assert 0 < row["rollout/listened"] <= 1 and row["rollout/seconds_heard"] > 0
        assert row["entropy"] > 0
    before, after = weights(Path(policies[kind])), weights(tmp_path / "run" / "model")
    assert apart(before, after) > 1e-4, "nothing was learned"
    with EchoAgent.from_pretrained(str(tmp_path / "run" / "model"), device="cpu") as agent:
        agent.ask(str(dataset / "audio/0.flac"), "What barks?", ["a dog", "a cat"], max_new_tokens=8)


@pytest.mark.parametrize("kind", KINDS)
def test_twin_with_crops_silenced_is_apart(
    kind: str, dataset: Path, policies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(self: Any, rows: Sequence[Sequence[Any]]) -> list[list[AudioInput]]:
        heard = iter(self._load_audio([ref for row in rows for ref in row]))
        return [[_silenced(next(heard)) for _ in row] for row in rows]

    monkeypatch.setattr(grpo.ListeningGRPOTrainer, "_heard", deaf)
    (row,) = run(recipe(policies[kind]), dataset, tmp_path / "run")
    assert row["sampling/logp_gap_max"] > 10 * SAME


def _silenced(heard: AudioInput) -> AudioInput:
    assert heard.features is not None
    return AudioInput(
        heard.ref, {k: v * 0 if v.is_floating_point() else v for k, v in heard.features.items()}
    )


def test_twin_with_a_crop_left_out_is_refused(
    dataset: Path, policies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def first_only(self: Any, rows: Sequence[Sequence[Any]]) -> list[list[AudioInput]]:
        return [self._load_audio(row[:1]) for row in rows]

    monkeypatch.setattr(grpo.ListeningGRPOTrainer, "_heard", first_only)
    with pytest.raises(PlaceholderError, match=r"\d+ audio placeholders.*give \d+"):
        run(recipe(policies["qwen2.5-omni"]), dataset, tmp_path / "run")


@pytest.mark.parametrize("kind", KINDS)
def test_twin_with_positions_off_by_one_after_the_padding_is_apart(
    kind: str, dataset: Path, policies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that count padding and change half way: a constant shift alone would not show in rotary models."""
    hear = audio_inputs.AudioHook._hear

    def shifted(self: Any, module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        found = hear(self, module, args, kwargs)
        if found is not None:
            positions = found[1]["position_ids"].clone()
            positions[..., positions.shape[-1] // 2 :] += 1
            found[1]["position_ids"] = positions
        return found

    monkeypatch.setattr(audio_inputs.AudioHook, "_hear", shifted)
    (row,) = run(recipe(policies[kind]), dataset, tmp_path / "run")
    assert row["sampling/logp_gap_max"] > 10 * SAME


# --- batches, processes, updates --------------------------------------------------------------------------------


@pytest.mark.slow
def test_batch_and_accumulation_give_the_same(
    dataset: Path, policies: dict[str, str], tmp_path: Path
) -> None:
    """The rollouts, and what is rehearsed, are a function of the seed, so both are of the same ones."""
    found = {}
    for name, sizes in {
        "whole": {},
        "single": {"batch": 1, "accumulation": 8},
        "twin": {"learning_rate": 2e-3},
    }.items():
        made = recipe(policies["echo-nano"], optimiser=sizes, loss={"rehearsal": 0.5})
        log = run(made, dataset, tmp_path / name)
        found[name] = log[0], weights(tmp_path / name / "model")
    whole, single = found["whole"][0], found["single"][0]
    assert whole["reward"] == single["reward"] and whole["num_tokens"] == single["num_tokens"]
    assert whole["loss"] == pytest.approx(single["loss"], abs=1e-5)
    assert whole["rehearsal"] == pytest.approx(single["rehearsal"], abs=1e-5)
    assert whole["grad_norm"] == pytest.approx(single["grad_norm"], rel=1e-3)
    assert apart(found["whole"][1], found["single"][1]) < 1e-4
    assert apart(found["whole"][1], found["twin"][1]) > 5e-4


def test_later_updates_are_corrected_for(
    dataset: Path, policies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two updates on one generation: in the second one the ratio to the recorded log-probabilities is not 1.

    Nothing is scored but for a loss: the denominator is what the engine recorded.
    """
    ratios: list[float] = []
    passes: list[int] = []
    heard = grpo.ListeningGRPOTrainer._heard

    def counted(self: Any, rows: Sequence[Sequence[Any]]) -> list[list[AudioInput]]:
        passes.append(len(rows))
        return heard(self, rows)

    monkeypatch.setattr(grpo.ListeningGRPOTrainer, "_heard", counted)
    score = grpo.ListeningGRPOTrainer.score

    def seen(self: Any, model: Any, inputs: Any) -> Any:
        logps, entropies = score(self, model, inputs)
        apart = (logps.detach() - inputs["sampled_logps"][:, 1:])[inputs["mask"][:, 1:].bool()]
        ratios.append(apart.abs().max().item())
        return logps, entropies

    monkeypatch.setattr(grpo.ListeningGRPOTrainer, "score", seen)
    made = recipe(
        policies["echo-nano"], optimiser={"steps": 3, "batch": 4, "learning_rate": 1e-2}, rollout={"updates": 2},
        watch={"save_every": 2},
    )  # fmt: skip
    run(made, dataset, tmp_path / "run")
    log = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert passes == [4, 4, 4]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["rollouts"] == 16
    assert ratios[0] < SAME and ratios[1] > 10 * SAME
    assert "sampling/logp_gap_max" in log[0] and "sampling/logp_gap_max" not in log[1]


@pytest.mark.parametrize("kind", ["dapo", "grpo", "bnpo", "dr_grpo"])
def test_the_loss_is_that_of_trl(
    kind: str, dataset: Path, policies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a ratio that is not 1, clipping on both sides, a reference and a bonus for entropy."""
    losses: list[tuple[float, float]] = []
    ratios: list[float] = []
    compute = grpo.ListeningGRPOTrainer._compute_loss

    def both(self: Any, model: Any, inputs: Any) -> Any:
        mine = compute(self, model, inputs)
        scored = *self.score(model, inputs), None
        monkeypatch.setattr(self, "_get_per_token_logps_and_entropies", lambda *_, **__: scored)
        ids, real, mask = inputs["ids"], inputs["real"], inputs["mask"]
        theirs = GRPOTrainer._compute_loss(
            self,
            model,
            {
                "prompt_ids": ids[:, :1], "prompt_mask": real[:, :1],
                "completion_ids": ids[:, 1:], "completion_mask": real[:, 1:], "tool_mask": mask[:, 1:],
                "advantages": inputs["advantages"], "num_items_in_batch": inputs["trained_tokens"],
                "old_per_token_logps": inputs["sampled_logps"][:, 1:],
                "ref_per_token_logps": inputs["reference_logps"],
            },
        )  # fmt: skip
        losses.append((mine.item(), theirs.item()))
        ratios.append((scored[0] - inputs["sampled_logps"][:, 1:])[mask[:, 1:].bool()].abs().max().item())
        return mine

    monkeypatch.setattr(grpo.ListeningGRPOTrainer, "_compute_loss", both)
    init = grpo.ListeningGRPOTrainer.__init__

    def theirs_alike(self: Any, *arguments: Any, **named: Any) -> None:
        init(self, *arguments, **named)
        self.loss_type, self.epsilon_low, self.epsilon_high, self.beta = kind, 0.01, 0.02, 0.3
        self.entropy_coef, self._entropy_bonus_enabled = 0.1, True

    monkeypatch.setattr(grpo.ListeningGRPOTrainer, "__init__", theirs_alike)
    made = recipe(
        policies["echo-nano"], optimiser={"steps": 2, "batch": 2, "accumulation": 2, "learning_rate": 1e-2},
        rollout={"updates": 2}, watch={"save_every": 2},
        loss={"kind": kind, "clip_low": 0.01, "clip_high": 0.02, "kl": 0.3, "entropy": 0.1},
    )  # fmt: skip
    run(made, dataset, tmp_path / "run")
    assert len(losses) == 4 and max(ratios[:2]) < SAME and min(ratios[2:]) > 0.02
    for mine, theirs in losses:
        assert mine == pytest.approx(theirs, rel=1e-5)


def test_advantages_are_within_groups_and_failures_count_in_none() -> None:
    rewards = torch.tensor([1.0, 0.0, math.nan, 0.5, 2.0, 2.0, 2.0, 2.0])
    plain = grpo.advantages(rewards, 4, "none")
    assert plain.tolist() == [0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert torch.allclose(grpo.advantages(rewards, 4, "group"), plain / (0.5 + 1e-4))
    spread = rewards[~rewards.isnan()].std()
    assert torch.allclose(grpo.advantages(rewards, 4, "batch"), plain / (spread + 1e-4))
    assert grpo.advantages(torch.full((4,), math.nan), 2, "group").tolist() == [0.0] * 4


def test_the_divergence_is_from_the_policy_at_the_start(
    dataset: Path, policies: dict[str, str], tmp_path: Path
) -> None:
    made = recipe(policies["echo-nano"], optimiser={"steps": 2, "learning_rate": 1e-2}, loss={"kl": 0.1})
    first, second = run(made, dataset, tmp_path / "run")
    assert first["kl"] == pytest.approx(0, abs=1e-6) and second["kl"] > 1e-4


def test_another_number_of_processes_is_refused(
    dataset: Path, policies: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="the recipe is for 2 processes.*there are 1.*--num_processes 2"):
        train_rl(recipe(policies["echo-nano"], optimiser={"batch": 4}), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing was begun"


# --- what breaks off --------------------------------------------------------------------------------------------


@pytest.fixture
def trained_tokens(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Tokens that each loss was computed on."""
    counts: list[int] = []
    compute = grpo.ListeningGRPOTrainer._compute_loss

    def seen(self: Any, model: Any, inputs: Any) -> Any:
        counts.append(int(inputs["mask"].sum()))
        return compute(self, model, inputs)

    monkeypatch.setattr(grpo.ListeningGRPOTrainer, "_compute_loss", seen)
    yield counts


@pytest.mark.parametrize("broken", ["train", "mask"])
def test_what_breaks_off_is_trained_on_or_masked(
    broken: str, dataset: Path, policies: dict[str, str], tmp_path: Path, trained_tokens: list[int]
) -> None:
    """A policy that never stops asking is asked for its answer when its budget is used up."""
    made = recipe(policies["forever"], rollout={"broken": broken})
    (row,) = run(made, dataset, tmp_path / "run")
    assert row["rollout/broken"] == 1.0
    assert trained_tokens == [0] if broken == "mask" else trained_tokens[0] > 0
    assert torch.isfinite(torch.tensor([row["loss"], row["grad_norm"]])).all()


def test_a_run_that_fails_is_counted_and_the_others_are_trained_on(
    dataset: Path, policies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from echo_agent.errors import ContextError
    from echo_agent.finetune import rollouts

    result = rollouts.Rollouts._result

    async def failing(self: Any, task: Any, *rest: Any) -> Any:
        if task.run == 1:
            raise ContextError("the context is too long")
        return await result(self, task, *rest)

    monkeypatch.setattr(rollouts.Rollouts, "_result", failing)
    made = recipe(policies["echo-nano"], watch={"sample_every": 1})
    (row,) = run(made, dataset, tmp_path / "run")
    assert row["rollout/failed"] == pytest.approx(1 / 8)
    assert "failed: the context is too long" in (tmp_path / "run/samples/step-000001.txt").read_text()


def test_a_recording_that_turns_out_damaged_is_counted(
    policies: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header is whole, so it is found out when it is heard; and there is nothing that would go on behind it."""
    monkeypatch.setattr("echo_agent.audio.containers.find_ffmpegs", lambda: iter(()))
    monkeypatch.setattr("echo_agent.audio.containers.find_frames", lambda path: None)
    data = write_small_dataset(tmp_path / "data", recordings=2)
    path = data / "audio" / "0.flac"
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(20000) + whole[middle + 20000 :])
    made = recipe(policies["echo-nano"], optimiser={"steps": 4}, watch={"sample_every": 1})
    run(made, data, tmp_path / "run")
    log = [row for row in read_log(tmp_path / "run") if "loss" in row]
    assert sum(row["rollout/failed"] for row in log) == pytest.approx(4 * 0.5), "four of eight questions"
    assert all(math.isfinite(row["loss"]) for row in log)
    assert all(row["grad_norm"] > 0 for row in log if row["rollout/failed"] < 1)
    shown = "".join(path.read_text() for path in (tmp_path / "run" / "samples").glob("*.txt"))
    assert "failed: " in shown and "cannot be decoded" in shown


def test_collapse_stops_the_run_and_says_why(dataset: Path, policies: dict[str, str], tmp_path: Path) -> None:
    said: list[str] = []
    made = recipe(
        policies["forever"], optimiser={"steps": 5}, collapse={"patience": 2, "listened_above": 0.9}
    )
    train_rl(made, dataset, tmp_path / "run", report=said.append)
    assert [row["step"] for row in read_log(tmp_path / "run") if "reward" in row] == [1, 2]
    assert said[-1].startswith("stopped: ") and "listened" in said[-1]
    assert load_family(str(tmp_path / "run" / "model"), "cpu").kind == "echo-nano"


def test_rl_asks_the_policy_before_and_after(policies: dict[str, str], tmp_path: Path) -> None:
    data = write_small_dataset(tmp_path / "data", recordings=2)
    made = recipe(policies["echo-nano"], watch={"evaluate": 2})
    said: list[str] = []
    train_rl(made, data, tmp_path / "run", report=said.append)
    record = json.loads((tmp_path / "run" / "run.json").read_text())["validation"]
    assert record["before"]["questions"] == record["after"]["questions"] == 2
    assert any(line.startswith("validation: ") for line in said)
