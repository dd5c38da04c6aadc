"""Reinforcement learning: the policy is rewarded for runs of the listening graph (GRPO).

A step: the weights as they are answer a batch of questions, a group of sampled runs each
(:mod:`echo_agent.finetune.rollouts`); rewards are computed (:mod:`echo_agent.finetune.rewards`); TRL's trainer updates
the weights on exactly the tokens that were sampled, the crops' audio in its forward pass
(:mod:`echo_agent.finetune.grpo`). Everything is a function of the seed and the step; checkpoints are taken between
generations, so a stopped run ends with the weights of one that was never stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine
from echo_agent.errors import DataError
from echo_agent.finetune.collate import Example
from echo_agent.finetune.config import RLRecipe
from echo_agent.finetune.examples import Report, make_examples
from echo_agent.finetune.groundwork import Groundwork
from echo_agent.finetune.grpo import ListeningGRPOTrainer
from echo_agent.finetune.hearing import Listener
from echo_agent.finetune.memory import free_bytes
from echo_agent.finetune.order import passes
from echo_agent.finetune.policy import adapter_config
from echo_agent.finetune.rehearsal import Rehearsal
from echo_agent.finetune.rewards import REWARDS, Judged, total
from echo_agent.finetune.rollouts import Rollout, Rollouts, Task
from echo_agent.finetune.run_folder import RunFolder
from echo_agent.finetune.trainer_settings import trainer_settings
from echo_agent.finetune.watch import CollapseStop, Journal
from echo_agent.recording import AudioRef

if TYPE_CHECKING:
    from echo_agent.finetune.data.records import Sample

SHOWN = 2
"""Groups of rollouts that a file of samples shows."""


def train_rl(
    recipe: RLRecipe, dataset: Path, out: Path, *, features: Path | None = None, report: Report = print
) -> Path:
    """Run a recipe; returns the folder of the model.

    Args:
        recipe: What to do.
        dataset: Folder of samples (``echo-agent finetune data``).
        out: Folder of the run; one that was begun is gone on with.
        features: Where features of the frozen encoder are kept; ``<dataset>/features`` by default.
        report: Told what happens, a line at a time.

    Raises:
        DataError: The data, the recipe or the folder is unusable.
        ModelError: The model cannot be loaded.
    """
    from datasets import Dataset

    ground = Groundwork.lay(recipe, dataset, out, report)
    family, store, folder, report = ground.family, ground.store, ground.folder, ground.report
    samples, recordings = ground.samples(recipe.data.train, reasoned=False)
    if len(samples) < recipe.rollout.questions:
        raise DataError(
            f"{dataset}: {recipe.data.train!r} has {len(samples)} samples, and rollout.questions is "
            f"{recipe.rollout.questions}"
        )
    report(f"{recipe.data.train}: {len(samples)} questions on {len(recordings)} recordings")
    practised = _practised(recipe, ground)
    free = free_bytes(family.device) if family.device.type == "cuda" else None
    room = {} if free is None else {"kv_bytes": free // 8, "live_bytes": free // 4}
    made = recipe.rollout.questions * recipe.rollout.group
    generations = -(-recipe.optimiser.steps // recipe.rollout.updates)
    asked = passes(len(samples), generations * recipe.rollout.questions, recipe.seed)
    journal, collapse = Journal(out, recipe.optimiser.steps, report), CollapseStop(recipe.collapse)
    with (
        TorchEngine(family, store, files=ground.files(features), **room) as engine,
        closing(
            Rollouts(
                ChatLALM(engine, dialect=ground.dialect),
                store,
                recipe.rollout,
                bool(recipe.rewards.counterfactual),
            )
        ) as rollouts,
    ):
        listen = Listener(family, store, engine.features)
        rehearsal = Rehearsal(
            practised,
            listen,
            family.pad_id,
            group=recipe.rollout.group,
            weight=recipe.loss.rehearsal,
            seed=recipe.seed,
        )
        trainer = ListeningGRPOTrainer(
            family,
            roll=_roller(
                engine, rollouts, {sample.id: sample for sample in samples}, recordings, recipe.seed
            ),
            listen=listen,
            rehearsal=rehearsal if practised else None,
            kl=recipe.loss.kl,
            mask_broken=recipe.rollout.broken == "mask",
            updates=recipe.rollout.updates,
            args=_settings(recipe, folder, family.device),
            reward_funcs=[_reward(name) for name in recipe.rewards.weights],
            train_dataset=Dataset.from_dict({"prompt": [samples[place].id for place in asked]}),
            processing_class=family.tokenizer,
            peft_config=adapter_config(family, recipe.lora) if recipe.lora else None,
            callbacks=[journal, collapse],
        )
        if recipe.watch.sample_every:
            trainer.add_callback(
                _Samples(out / "samples", recipe.watch.sample_every, trainer, recipe.rewards.weights)
            )
        try:
            folder.train(
                recipe,
                family,
                trainer,
                ground.checkpoint,
                lambda: {
                    "questions": len(samples),
                    "rollouts": -(-trainer.state.global_step // recipe.rollout.updates) * made,
                    "stopped": collapse.reason,
                },
            )
        finally:
            trainer.unhook()
    if collapse.reason:
        report(f"stopped: {collapse.reason}")
    return folder.model


def _practised(recipe: RLRecipe, ground: Groundwork) -> list[Example]:
    """What the recipe practises beside: trajectories of the form that the policy is run in, if any."""
    if not recipe.loss.rehearsal:
        return []
    samples, recordings = ground.samples(recipe.data.train, reasoned=True)
    listens = "heard" if recipe.rollout.listen else "never"
    examples = make_examples(samples, recordings, ground.family, ground.dialect, listens, ground.report)
    ground.report(f"practised beside: {len(examples)} trajectories")
    return examples


def _settings(recipe: RLRecipe, folder: RunFolder, device: Any) -> Any:
    """TRL's configuration."""
    from trl import GRPOConfig

    os.environ.setdefault(
        "TRL_EXPERIMENTAL_SILENCE", "1"
    )  # rollout_func is new; the version of TRL is pinned
    rollout, loss, optimiser = recipe.rollout, recipe.loss, recipe.optimiser
    return GRPOConfig(
        **trainer_settings(recipe, folder, device),
        num_generations=rollout.group,
        steps_per_generation=optimiser.accumulation * rollout.updates,
        max_completion_length=rollout.max_new_tokens + rollout.answer_tokens,
        temperature=rollout.temperature,
        beta=0.0,
        epsilon=loss.clip_low,
        epsilon_high=loss.clip_high,
        loss_type=loss.kind,
        scale_rewards=loss.scale,
        entropy_coef=loss.entropy,
        reward_weights=list(recipe.rewards.weights.values()),
        shuffle_dataset=False,  # the order of all steps is laid down
        disable_dropout=True,
        log_completions=False,
    )


def _roller(
    engine: TorchEngine,
    rollouts: Rollouts,
    samples: dict[str, Sample],
    recordings: dict[str, AudioRef],
    seed: int,
) -> Callable[[Sequence[str], int, int], list[Rollout]]:
    def roll(ids: Sequence[str], first: int, step: int) -> list[Rollout]:
        engine.weights_changed()
        chosen = [samples[name] for name in ids]
        tasks = [Task(sample, recordings[sample.audio], first + i) for i, sample in enumerate(chosen)]
        return rollouts.run(tasks, seed=(seed << 32) + step)

    return roll


def _reward(name: str) -> Callable[..., list[float | None]]:
    """A reward as TRL calls it, on what the rollout function handed on."""

    def reward(judged: Sequence[Judged | None], **_: Any) -> list[float | None]:
        return [None if one is None else REWARDS[name](one) for one in judged]

    reward.__name__ = name
    return reward


class _Samples(TrainerCallback):
    """Writes some of the last rollouts as text, every so many steps."""

    def __init__(
        self, folder: Path, every: int, trainer: ListeningGRPOTrainer, weights: Mapping[str, float]
    ) -> None:
        self._folder, self._every, self._trainer, self._weights = folder, every, trainer, weights

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write, on the main process."""
        if not state.is_world_process_zero or state.global_step % self._every:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        group = self._trainer.num_generations
        text = "\n\n".join(_readable(one, self._weights) for one in self._trainer.rollouts[: SHOWN * group])
        (self._folder / f"step-{state.global_step:06d}.txt").write_text(text + "\n", encoding="utf-8")


def _readable(rollout: Rollout, weights: Mapping[str, float]) -> str:
    """A rollout for a person."""
    sample, judged = rollout.task.sample, rollout.judged
    choices = f" ({' | '.join(sample.choices)})" if sample.choices else ""
    head = f"{sample.id}, run {rollout.task.run}: {sample.question}{choices}"
    if judged is None:
        return f"{head}\n  failed: {rollout.broken}"
    parts = ", ".join(f"{name} {REWARDS[name](judged):.2f}" for name in weights)
    rewards = f"reward {total(judged, weights):.2f} ({parts})"
    verdict = "right" if judged.correct else f"wrong, right is {sample.right[0]}"
    broken = f"; broke off: {rollout.broken}" if rollout.broken else ""
    return f"{head}\n  {judged.text}\n  {verdict}{broken}; heard {judged.seconds_heard:.1f} s; {rewards}"
