"""Reinforcement learning: puts together what GRPO needs, and lets it run.

What a step is, sample, reward, advantage and loss, is on one page: :mod:`echo_agent.finetune.grpo`. Here stand the
parts that it is given: the policy with its data, an engine that samples from the same weights, runs of the graph
(:mod:`echo_agent.finetune.rollouts`), and what is rehearsed. Everything is a function of the seed and the step;
checkpoints are taken between generations, so a stopped run ends with the weights of one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine, VLLMEngine
from echo_agent.errors import DataError
from echo_agent.finetune.audio_inputs import AudioLoader
from echo_agent.finetune.batching import Example, sampler_order
from echo_agent.finetune.callbacks import CollapseStop, Journal
from echo_agent.finetune.config import RLRecipe
from echo_agent.finetune.evaluation import compared, evaluated
from echo_agent.finetune.examples import Report, make_examples
from echo_agent.finetune.grpo import ListeningGRPOTrainer
from echo_agent.finetune.memory import free_bytes
from echo_agent.finetune.policy import adapter_config
from echo_agent.finetune.rehearsal import Rehearsal
from echo_agent.finetune.rewards import REWARDS, total
from echo_agent.finetune.rollouts import Rollout, Rollouts
from echo_agent.finetune.run.run_dir import RunDir
from echo_agent.finetune.run.training import train
from echo_agent.finetune.served_policy import ServedPolicy
from echo_agent.finetune.training_setup import TrainingSetup, trainer_settings

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from trl.trainer.grpo_config import GRPOConfig

    from echo_agent.families.base import Family
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
        out: Folder of the run; one that was begun is resumed.
        features: Where features of the frozen encoder are kept; ``<dataset>/features`` by default.
        report: Told what happens, a line at a time.

    Raises:
        DataError: The data, the recipe or the folder is unusable.
        ModelError: The model cannot be loaded.
    """
    setup = TrainingSetup.prepare(recipe, dataset, out, report)
    try:
        return _train(recipe, setup, features)
    finally:
        setup.folder.leave()


def _train(recipe: RLRecipe, setup: TrainingSetup, features: Path | None) -> Path:
    """What :func:`train_rl` does in a folder that was begun."""
    family, store, folder, report = setup.family, setup.store, setup.folder, setup.report
    samples, recordings = setup.samples(recipe.data.train, reasoned=False)
    if len(samples) < recipe.rollout.questions:
        raise DataError(
            f"{setup.dataset}: {recipe.data.train!r} has {len(samples)} samples, and rollout.questions is "
            f"{recipe.rollout.questions}"
        )
    report(f"{recipe.data.train}: {len(samples)} questions on {len(recordings)} recordings")
    practised = _practised(recipe, setup)
    before = evaluated(setup, "before", features)
    journal, collapse = Journal(folder.path, recipe.optimiser.steps, report), CollapseStop(recipe.collapse)
    with (
        TorchEngine(family, store, files=setup.files(features), **_room(family)) as engine,
        _servers(recipe, setup) or nullcontext() as servers,
        closing(_rollouts(recipe, setup, servers or engine)) as rollouts,
    ):
        served = _served(recipe, servers, setup) if servers else None
        load = AudioLoader(family, store, engine.features)
        trainer = ListeningGRPOTrainer(
            family,
            recipe,
            rollouts,
            {sample.id: (sample, recordings[sample.audio]) for sample in samples},
            load,
            Rehearsal(practised, load, recipe, family.pad_id) if practised else None,
            served.publish if served else None,
            args=_settings(recipe, folder, family.device),
            train_dataset=_order(recipe, samples),
            processing_class=family.tokenizer,
            peft_config=adapter_config(family, recipe.lora) if recipe.lora else None,
            callbacks=[journal, collapse],
        )
        if recipe.watch.sample_every:
            trainer.add_callback(_Samples(folder.path / "samples", trainer))

        def facts() -> dict[str, Any]:
            generations = -(-trainer.state.global_step // recipe.rollout.updates)
            made = generations * recipe.rollout.questions * recipe.rollout.group
            ended = {"questions": len(samples), "rollouts": made, "stopped": collapse.reason}
            return ended | compared(before, evaluated(setup, "after", features), report)

        try:
            train(setup, trainer, facts)
        finally:
            trainer.unhook()
    if collapse.reason:
        report(f"stopped: {collapse.reason}")
    return folder.model


def _room(family: Family) -> dict[str, int]:
    """How much of a GPU's free memory the engine may take; the defaults elsewhere."""
    if family.device.type != "cuda":
        return {}
    free = free_bytes(family.device)
    return {} if free is None else {"kv_bytes": free // 8, "live_bytes": free // 4}


def _servers(recipe: RLRecipe, setup: TrainingSetup) -> VLLMEngine | None:
    """The engine over the servers that sample, if the recipe names any."""
    named = recipe.rollout.engine
    if named is None:
        return None
    setup.report(f"rollouts are sampled by {', '.join(named.vllm)}")
    return VLLMEngine(setup.family, setup.store, named.vllm, served_as=named.served_as)


def _served(recipe: RLRecipe, servers: VLLMEngine, setup: TrainingSetup) -> ServedPolicy:
    """What brings the policy there: adapters of the decoder alone, or everything."""
    adapters = recipe.lora is not None and not recipe.lora.train_projector
    return ServedPolicy(servers, setup.family, setup.folder.path, adapters=adapters)


def _rollouts(recipe: RLRecipe, setup: TrainingSetup, engine: TorchEngine | VLLMEngine) -> Rollouts:
    """Runs of the graph with the policy as it is."""
    model = ChatLALM(engine, dialect=setup.dialect)
    return Rollouts(model, setup.store, recipe.rollout, bool(recipe.rewards.counterfactual))


def _order(recipe: RLRecipe, samples: Sequence[Sample]) -> Dataset:
    """The questions of all generations, in order, as rows for the trainer."""
    from datasets import Dataset

    generations = -(-recipe.optimiser.steps // recipe.rollout.updates)
    asked = sampler_order(len(samples), generations * recipe.rollout.questions, recipe.seed)
    return Dataset.from_dict({"prompt": [samples[place].id for place in asked]})


def _practised(recipe: RLRecipe, setup: TrainingSetup) -> list[Example]:
    """What the recipe rehearses: trajectories of the form that the policy is run in, if any."""
    if not recipe.loss.rehearsal:
        return []
    samples, recordings = setup.samples(recipe.data.train, reasoned=True)
    listens = "heard" if recipe.rollout.listen else "never"
    examples = make_examples(samples, recordings, setup.family, setup.dialect, listens, setup.report)
    setup.report(f"practised beside: {len(examples)} trajectories")
    return examples


def _settings(recipe: RLRecipe, folder: RunDir, device: torch.device) -> GRPOConfig:
    """TRL's configuration: what its part of the work needs."""
    from trl.trainer.grpo_config import GRPOConfig

    rollout, optimiser = recipe.rollout, recipe.optimiser
    return GRPOConfig(
        **trainer_settings(recipe, folder, device),
        num_generations=rollout.group,
        steps_per_generation=optimiser.accumulation * rollout.updates,
        max_completion_length=rollout.max_new_tokens + rollout.answer_tokens,
        temperature=rollout.temperature,
        beta=0.0,  # the reference policy is ours: it has to hear
        shuffle_dataset=False,  # the order of all steps is fixed
        disable_dropout=True,
        log_completions=False,
    )


class _Samples(TrainerCallback):
    """Writes some of the last rollouts as text, every few steps."""

    def __init__(self, folder: Path, trainer: ListeningGRPOTrainer) -> None:
        self._folder, self._trainer = folder, trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write, on the main process."""
        if not state.is_world_process_zero or state.global_step % self._trainer.recipe.watch.sample_every:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        recipe = self._trainer.recipe
        shown = self._trainer.last_rollouts[: SHOWN * recipe.rollout.group]
        text = "\n\n".join(_readable(one, recipe.rewards.weights) for one in shown)
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
