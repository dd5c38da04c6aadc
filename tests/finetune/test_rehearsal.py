"""Rehearsal: examples are the same for any number of processes, and what was taught is not forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from echo_agent.engine.frozen_features import FrozenFeatures
from echo_agent.finetune import rl
from echo_agent.finetune.audio_inputs import AudioHook, AudioLoader
from echo_agent.finetune.batching import IGNORED, Collator, Example
from echo_agent.finetune.callbacks import read_log
from echo_agent.finetune.config import DataConfig, ModelConfig, RLRecipe
from echo_agent.finetune.examples import choose_samples, make_examples, nobody, open_recordings
from echo_agent.finetune.policy import load_policy
from echo_agent.finetune.rehearsal import Rehearsal
from echo_agent.finetune.training_setup import TrainingSetup
from echo_agent.stores import RecordingStore
from tests.finetune.small_dataset import saved
from tests.finetune.training import rl_recipe
from tests.scripted import UNSURE, scripted_family

pytestmark = pytest.mark.usefixtures("undrawn")


def practice(group: int, seed: int = 0) -> RLRecipe:
    """A recipe with a rehearsal of weight 1, for groups of a size."""
    return rl_recipe(
        "echo-nano", rollout={"group": group}, optimiser={"batch": group}, loss={"rehearsal": 1.0}, seed=seed
    )


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(scripted_family(UNSURE, "echo-nano"), tmp_path_factory.mktemp("policy") / "model")


def test_draws_are_a_function_of_seed_step_and_row() -> None:
    examples = [Example((), (), ())] * 1000

    def draw(step: int, rows: range, seed: int = 0) -> list[int | None]:
        return Rehearsal(examples, lambda _: [], practice(4, seed), 0).draw(step, rows)

    whole = draw(3, range(16))
    assert draw(3, range(6)) + draw(3, range(6, 16)) == whole, "two processes draw what one does"
    assert draw(4, range(16)) != whole and draw(3, range(16), seed=1) != whole
    assert [row for row, place in enumerate(whole) if place is not None] == [0, 4, 8, 12]
    assert len(set(whole)) > 2 and all(0 <= place < 1000 for place in whole if place is not None)


def test_the_loss_is_the_mean_over_examples_of_what_the_policy_writes(policy: str, dataset: Path) -> None:
    """Against the model's own loss, one example at a time; the calls' audio is heard."""
    part = ModelConfig(name=policy, device="cpu")
    (family, dialect), store = load_policy(part, None), RecordingStore()
    chosen = choose_samples(dataset, "train", DataConfig(), seed=0, reasoned=True)
    samples, recordings = open_recordings(dataset, chosen, family, store, nobody)
    examples = make_examples(samples, recordings, family, dialect, "heard", nobody)
    assert any(len(example.audio) > 1 for example in examples)
    listen = AudioLoader(family, store, FrozenFeatures(family, store, 1 << 20).get)
    rehearsal = Rehearsal(examples, listen, practice(3), family.pad_id)
    hearing, collate = AudioHook(family), Collator(examples, listen, family.pad_id)
    places = list(range(min(4, len(examples))))
    with torch.no_grad():
        single = [family.model(**collate([{"example": place}])).loss for place in places]
        rollouts = [place for one in places for place in (one, None, None)]
        found = rehearsal.loss(family.model, rollouts)
        parts = [rehearsal.loss(family.model, rollouts[first : first + 2]) for first in range(0, 12, 2)]
    hearing.remove()
    assert torch.stack(parts).mean().item() == pytest.approx(found.item(), rel=1e-5)
    assert 0.0 in [part.item() for part in parts]
    assert len({int((collate([{"example": p}])["labels"] != IGNORED).sum()) for p in places}) > 1
    assert found.item() == pytest.approx(torch.stack(single).mean().item(), rel=1e-5)


@pytest.mark.slow
def test_what_is_practised_gets_better_while_rl_goes_on(policy: str, dataset: Path, tmp_path: Path) -> None:
    losses = {}
    for weight in (1e-9, 10.0):
        out = tmp_path / str(weight)
        made = rl_recipe(policy, optimiser={"steps": 4}, loss={"rehearsal": weight})
        rl.train_rl(made, dataset, out, report=nobody)
        losses[weight] = [row["rehearsal"] for row in read_log(out) if "reward" in row]
    assert losses[10.0][0] == pytest.approx(losses[1e-9][0], rel=1e-5), "both begin alike"
    assert losses[10.0][-1] < losses[1e-9][-1] - 0.1


def test_what_is_practised_has_the_form_that_the_policy_is_run_in(
    policy: str, dataset: Path, tmp_path: Path
) -> None:
    found = {}
    for listen in (True, False):
        made = rl_recipe(policy, rollout={"listen": listen}, loss={"rehearsal": 0.5})
        setup = TrainingSetup.prepare(made, dataset, tmp_path / str(listen), nobody)
        found[listen] = max(len(example.audio) for example in rl._practised(made, setup))
        setup.folder.leave()
    assert found == {True: 3, False: 1}
