"""Recipes: everything that decides about a training, as YAML with checks, and overrides from the command line.

A recipe names its stage, ``sft`` or ``rl``; the package's own stand in ``recipes/``. Keys that are unknown or
contradict each other are refused before anything is loaded. The recipe that a run was begun with is kept in its folder,
and a run is resumed only with the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from echo_agent.errors import DataError
from echo_agent.finetune.recipes.recipe_faults import faults_of
from echo_agent.finetune.recipes.recipe_files import (
    RECIPES,
    read_values,
    recipe_names,
    set_value,
    with_todays_keys,
)

__all__ = ["RECIPES", "RLRecipe", "SFTRecipe", "parse_recipe", "read_recipe", "recipe_names", "write_recipe"]

LARGEST = 10**9
"""No number of a recipe is larger."""
MOST_SEQUENCES = 20_000_000
"""The order of all sequences of a run is laid down before its first step, in memory."""
MOST_AT_ONCE = 100_000
"""All sequences of a step are held in memory at once, and all rollouts of a generation."""

LARGEST_BATCH = 10_000
"""Sequences of a forward pass, which are padded to one block."""

Positive = Annotated[int, Field(ge=1, le=LARGEST)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(_Strict):
    """What is trained."""

    name: str = Field(default="echo-nano", min_length=1)
    """A name as for ``ask --model``: ``echo-nano``, a hub id, or a folder, such as the output of an earlier run."""
    dialect: Literal["", "inline", "turns", "crop-audio"] = ""
    """How calls are written; the family's own where empty."""
    device: str = "auto"
    dtype: str = "auto"
    """``auto`` is float32 where all weights are trained, else bfloat16 on a GPU and float32 on the CPU."""
    train_encoder: bool = False
    """Train the audio encoder too: its features are then computed at every step and not kept."""
    listen_tokens: Positive | None = None
    """Most audio tokens of one listen (echo-nano only); the model's own by default."""
    tokens_per_second: Above | None = None
    """Most audio tokens per second of a listen (echo-nano only); the model's own by default."""


class LoRAConfig(_Strict):
    """Low-rank adapters on the decoder, in place of all of its weights."""

    rank: Positive = 16
    alpha: Positive = 32
    dropout: Share = 0.0
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers of the decoder that get an adapter, by the end of their names."""
    train_projector: bool = True
    """Train the projector from audio features to the decoder in full."""


class DataConfig(_Strict):
    """What is trained on, out of a dataset folder."""

    train: str = "train"
    """Split that is trained on."""
    validation: str = "validation"
    """Split that is watched; none where empty."""
    categories: tuple[str, ...] = ()
    """Categories of questions; all of them where empty."""
    limit: Positive | None = None
    """Most questions, drawn with the seed; None takes all."""
    longest: Above | None = None
    """Seconds: longer recordings are left out. What the model cannot hear is left out in any case, and counted."""


class OptimiserConfig(_Strict):
    """AdamW with a warm-up, then a cosine or a constant rate."""

    steps: Positive
    """Optimiser steps of the whole run."""
    batch: Annotated[int, Field(ge=1, le=LARGEST_BATCH)] = 16
    """Sequences per forward pass and process."""
    accumulation: Positive = 1
    """Forward passes per step."""
    learning_rate: Above = 1e-4
    """The highest it gets."""
    warmup: Count = 0
    """Steps to reach it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: NotNegative = 0.0
    clip: Above = 1.0
    """Largest norm of a gradient."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products (autocast): bfloat16 is for GPUs and CPUs that compute in it. In RL it sets the trainer apart
    from an engine that samples in float32."""
    gradient_checkpointing: bool = False
    """Compute activations a second time instead of keeping them: less memory, a third more time."""


class WatchConfig(_Strict):
    """What a person sees of a run, and when it stops by itself."""

    log_every: Positive | None = None
    """Steps between lines of the log; a hundredth of the run where none is given."""
    save_every: Positive | None = None
    """Steps between checkpoints; a tenth of the run where none is given."""
    keep: Positive = 2
    """Checkpoints that are kept: where the last one is damaged, the run is resumed from the one before."""
    evaluate: Count = 40
    """Questions of the validation split that the policy is asked before and after; 0 asks none."""
    sample_every: Count = 0
    """Steps between samples of runs as text; 0 writes none."""
    validate_every: Count = 0
    """Steps between passes over the validation split (SFT); 0 makes none."""
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where curves are sent besides the folder; each needs its package."""


class _Recipe(_Strict):
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    lora: LoRAConfig | None = None
    """None trains all weights of decoder and projector."""
    optimiser: OptimiserConfig
    watch: WatchConfig = WatchConfig()
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0

    @model_validator(mode="after")
    def _agree(self) -> _Recipe:
        if self.model.dtype == "float16":
            raise ValueError(
                "model.dtype: float16 cannot be trained in (no loss is scaled): use bfloat16 or float32"
            )
        if self.lora is None and self.model.dtype == "bfloat16":
            raise ValueError(
                "model.dtype: bfloat16 loses updates that are small beside a weight: train all weights in float32, "
                "with optimiser.precision: bfloat16 for the matrix products, or give lora"
            )
        if self.model.train_encoder and self.lora is not None:
            raise ValueError(
                "model.train_encoder and lora contradict each other: adapters leave the encoder alone"
            )
        if self.lora is not None and (self.model.listen_tokens or self.model.tokens_per_second):
            raise ValueError(
                "lora contradicts model.listen_tokens and model.tokens_per_second: adapters hold no budget of a listen"
            )
        if self.watch.validate_every and self.data.validation in ("", self.data.train):
            raise ValueError("watch.validate_every needs a split in data.validation that is not data.train")
        optimiser = self.optimiser
        if (total := optimiser.steps * optimiser.batch * optimiser.accumulation) > MOST_SEQUENCES:
            raise ValueError(
                f"optimiser.steps x optimiser.batch x optimiser.accumulation ({total}) must be at most {MOST_SEQUENCES}"
            )
        if (step := optimiser.batch * optimiser.accumulation) > MOST_AT_ONCE:
            raise ValueError(
                f"optimiser.batch x optimiser.accumulation ({step}) must be at most {MOST_AT_ONCE}"
            )
        if self.optimiser.warmup >= self.optimiser.steps:
            raise ValueError(
                f"optimiser.warmup ({self.optimiser.warmup}) must be less than optimiser.steps ({self.optimiser.steps})"
            )
        return self

    @property
    def log_every(self) -> int:
        """Steps between lines of the log."""
        return self.watch.log_every or max(1, self.optimiser.steps // 100)

    @property
    def save_every(self) -> int:
        """Steps between checkpoints."""
        return self.watch.save_every or -(-self.optimiser.steps // 10)


class SFTRecipe(_Recipe):
    """Supervised fine-tuning on the reasoning of samples."""

    stage: Literal["sft"] = "sft"
    listens: Literal["heard", "text", "never"] = "heard"
    """After a call: ``heard`` puts the crop's audio there; ``text`` leaves it out (the paper's first stage);
    ``never`` leaves the calls out of the reasoning, for a policy that hears once."""
    group_by_length: bool = True
    """Batches of sequences of similar length."""


class ServersConfig(_Strict):
    """Servers that sample the rollouts (``vllm serve``), in place of the process that trains."""

    vllm: Annotated[tuple[str, ...], Field(min_length=1)]
    """Their addresses. They load the policy of each step from the run's folder, under the same path as here."""
    served_as: str | None = None
    """The model's name there, if it is another."""


class RolloutConfig(_Strict):
    """How the policy is run in RL."""

    engine: ServersConfig | None = None
    """Servers; None samples in the process that trains."""

    questions: Positive = 8
    """Questions per generation, over all processes."""
    group: Annotated[int, Field(ge=2, le=LARGEST)] = 8
    """Rollouts per question."""
    updates: Positive = 1
    """Optimiser steps per generation; with more than one, later ones are off-policy and corrected for."""
    temperature: Above = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Below 1, what is sampled is a little off the policy whose probabilities are recorded: those of all tokens."""
    max_relistens: Count = 4
    max_seconds: NotNegative | None = None
    max_new_tokens: Positive = 256
    answer_tokens: Positive = 32
    listen: bool = True
    """False answers every call with the request for the answer: RL of a policy that hears once."""
    broken: Literal["train", "mask"] = "mask"
    """What becomes of rollouts that break off (budget, no answer, too long): trained on, or left out of the loss.
    Either way they are counted, and they stay in the baseline of their group."""


class RewardConfig(_Strict):
    """Weights of the rewards; 0 leaves one out. See :mod:`echo_agent.finetune.rewards`."""

    format: NotNegative = 0.0
    accuracy: NotNegative = 0.0
    confidence: NotNegative = 0.0
    """Accuracy weighted by confidence, as the paper's code has it; takes the place of ``accuracy``."""
    relisten: NotNegative = 0.0
    consistency: NotNegative = 0.0
    overlap: NotNegative = 0.0
    price: NotNegative = 0.0
    """Per second heard again."""
    counterfactual: NotNegative = 0.0
    """Needs a second run, without the crop, of each that listened and was right."""

    @model_validator(mode="after")
    def _agree(self) -> RewardConfig:
        if self.accuracy and self.confidence:
            raise ValueError(
                "rewards.accuracy and rewards.confidence contradict each other: both pay for being right"
            )
        if not (self.accuracy or self.confidence):
            raise ValueError("rewards: give accuracy or confidence a weight, or being right is not rewarded")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Weights that are not 0, by name."""
        return {name: value for name, value in self.model_dump().items() if value}


class LossConfig(_Strict):
    """GRPO."""

    kl: NotNegative = 0.0
    """Weight of the divergence from the policy that RL began with."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    clip_high: Above = 0.2
    kind: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    """How tokens are averaged (TRL's ``loss_type``)."""
    scale: Literal["group", "batch", "none"] = "group"
    """By what the advantage is divided: the deviation in the group, in the batch, or nothing."""
    entropy: NotNegative = 0.0
    """Bonus for entropy."""
    rehearsal: NotNegative = 0.0
    """Weight of a rehearsal of SFT: cross-entropy of reasoning from the training split, one example per question."""


class CollapseConfig(_Strict):
    """When RL stops because nothing is left to learn from."""

    patience: Positive = 20
    """Lines of the log in a row."""
    listened_below: Share = 0.0
    """Share of rollouts that listened."""
    listened_above: Share = 1.0
    entropy_below: NotNegative = 0.0
    """Nats per token. The defaults stop nothing."""


class RLRecipe(_Recipe):
    """Reinforcement learning whose rollouts are runs of the listening graph."""

    stage: Literal["rl"] = "rl"
    rollout: RolloutConfig = RolloutConfig()
    rewards: RewardConfig
    loss: LossConfig = LossConfig()
    collapse: CollapseConfig = CollapseConfig()

    @model_validator(mode="after")
    def _no_dropout(self) -> RLRecipe:
        if self.lora is not None and self.lora.dropout:
            raise ValueError("lora.dropout must be 0 in RL: the trainer scores what was sampled without it")
        return self

    @model_validator(mode="after")
    def _divides(self) -> RLRecipe:
        generation, optimiser = self.rollout.questions * self.rollout.group, self.optimiser
        if generation > MOST_AT_ONCE:
            raise ValueError(
                f"rollout.questions x rollout.group ({generation}) must be at most {MOST_AT_ONCE}"
            )
        step = optimiser.batch * optimiser.accumulation * self.rollout.updates
        if generation % step:
            raise ValueError(
                f"rollout.questions x rollout.group ({generation}) must be a multiple of optimiser.batch x "
                f"optimiser.accumulation x rollout.updates ({step}): the quotient is the number of processes"
            )
        if (self.watch.save_every or 0) % self.rollout.updates:
            raise ValueError(
                "watch.save_every must be a multiple of rollout.updates: runs resume between generations"
            )
        return self

    @property
    def save_every(self) -> int:
        """Steps between checkpoints: whole generations."""
        updates = self.rollout.updates
        return self.watch.save_every or -(-super().save_every // updates) * updates

    @property
    def processes(self) -> int:
        """Processes that the recipe is for."""
        return (self.rollout.questions * self.rollout.group) // (
            self.optimiser.batch * self.optimiser.accumulation * self.rollout.updates
        )


Recipe = Annotated[SFTRecipe | RLRecipe, Field(discriminator="stage")]


def read_recipe(name: str | Path, overrides: Sequence[str] = ()) -> SFTRecipe | RLRecipe:
    """Read a recipe.

    Args:
        name: One of :func:`recipe_names`, or the path of a YAML file.
        overrides: ``optimiser.steps=100``, ``model.name=echo-nano``, ``lora=null``; values are YAML.

    Raises:
        DataError: There is no such recipe, or it holds what cannot be.
    """
    data = read_values(name)
    for text in overrides:
        set_value(data, text)
    return parse_recipe(data, str(name), overrides)


def parse_recipe(data: Mapping[str, Any], name: str, overrides: Sequence[str] = ()) -> SFTRecipe | RLRecipe:
    """A recipe from plain values, of which ``overrides`` were set on the command line.

    Raises:
        DataError: It holds what cannot be; the message names the keys at fault.
    """
    try:
        return TypeAdapter(Recipe).validate_python(with_todays_keys(data))
    except ValidationError as error:
        raise DataError(faults_of(error, name, overrides, {"sft": SFTRecipe, "rl": RLRecipe})) from None


def write_recipe(recipe: SFTRecipe | RLRecipe, path: Path) -> None:
    """Write a recipe so that :func:`read_recipe` gives it again."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    partial.replace(path)
