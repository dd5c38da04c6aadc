"""Recipes: everything that decides about a training, as YAML with checks, and overrides from the command line.

A recipe names its stage, ``sft`` or ``rl``; the package's own stand in ``recipes/``. Keys that are unknown or
contradict each other are refused before anything is loaded. The recipe that a run was begun with is kept in its folder,
and a run goes on only with the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from echo_agent.errors import DataError

RECIPES = Path(__file__).parent / "recipes"
"""Folder of the recipes that ship with the package."""

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelPart(_Strict):
    """What is trained."""

    name: str = Field(default="echo-nano", min_length=1)
    """A name as for ``ask --model``: ``echo-nano``, a hub id, or a folder, such as the output of an earlier run."""
    dialect: Literal["", "inline", "turns"] = ""
    """How calls are written; the family's own where empty."""
    device: str = "auto"
    dtype: str = "auto"
    """``auto`` is float32 where all weights are trained, else bfloat16 on a GPU and float32 on the CPU."""
    train_encoder: bool = False
    """Train the audio encoder too: its features are then computed anew at every step and kept nowhere."""
    listen_tokens: Positive | None = None
    """Most audio tokens of one listen (echo-nano only); the model's own by default."""
    tokens_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Most audio tokens per second of a listen (echo-nano only); the model's own by default."""


class LoRAPart(_Strict):
    """Low-rank adapters on the decoder, in place of all of its weights."""

    rank: Positive = 16
    alpha: Positive = 32
    dropout: Share = 0.0
    modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers of the decoder that get an adapter, by the end of their names."""
    train_projector: bool = True
    """Train the projector from audio features to the decoder in full."""


class DataPart(_Strict):
    """What is trained on, out of a dataset folder."""

    train: str = "train"
    """Split that is trained on."""
    validation: str = "validation"
    """Split that is watched; none where empty."""
    families: tuple[str, ...] = ()
    """Families of questions; all of them where empty."""
    limit: Positive | None = None
    """Most questions, drawn with the seed; None takes all."""
    longest: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Seconds: longer recordings are left out. What the model cannot hear is left out in any case, and counted."""


class OptimiserPart(_Strict):
    """AdamW with a warm-up, then a cosine or a constant rate."""

    steps: Positive
    """Optimiser steps of the whole run."""
    batch: Positive = 16
    """Sequences per forward pass and process."""
    accumulation: Positive = 1
    """Forward passes per step."""
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    """Highest learning rate."""
    warmup: Annotated[int, Field(ge=0)] = 0
    """Steps to reach it."""
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: NotNegative = 0.0
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Largest norm of a gradient."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products (autocast): bfloat16 is for GPUs and CPUs that compute in it. In RL it sets the trainer apart
    from an engine that samples in float32."""
    gradient_checkpointing: bool = False
    """Compute activations twice and keep them not at all: less memory, a third more time."""


class WatchPart(_Strict):
    """What a person sees of a run, and when it stops by itself."""

    log_every: Positive = 10
    """Steps between lines of the log."""
    save_every: Positive = 100
    """Steps between checkpoints."""
    keep: Positive = 1
    """Checkpoints that are kept."""
    sample_every: Annotated[int, Field(ge=0)] = 0
    """Steps between samples of runs as text; 0 writes none."""
    validate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between passes over the validation split (SFT); 0 makes none."""
    report_to: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Where curves are sent besides the folder; each needs its package."""


class _Recipe(_Strict):
    model: ModelPart = ModelPart()
    data: DataPart = DataPart()
    lora: LoRAPart | None = None
    """None trains all weights of decoder and projector."""
    optimiser: OptimiserPart
    watch: WatchPart = WatchPart()
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
        if self.optimiser.warmup >= self.optimiser.steps:
            raise ValueError(
                f"optimiser.warmup ({self.optimiser.warmup}) must be less than optimiser.steps ({self.optimiser.steps})"
            )
        return self


class SFTRecipe(_Recipe):
    """Supervised fine-tuning on the reasoning of samples."""

    stage: Literal["sft"] = "sft"
    listens: Literal["heard", "text", "never"] = "heard"
    """After a call: ``heard`` puts the crop's audio there; ``text`` goes on without (the paper's first stage);
    ``never`` leaves the calls out of the reasoning, for a policy that hears once."""
    group_by_length: bool = True
    """Batches of sequences of similar length."""


class RolloutPart(_Strict):
    """How the policy is run in RL."""

    questions: Positive = 8
    """Questions per generation, over all processes."""
    group: Annotated[int, Field(ge=2)] = 8
    """Rollouts per question."""
    updates: Positive = 1
    """Optimiser steps per generation; with more than one, later ones are off-policy and corrected for."""
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Below 1, what is sampled is a little off the policy whose probabilities are recorded: those of all tokens."""
    max_relistens: Annotated[int, Field(ge=0)] = 4
    max_seconds: NotNegative | None = None
    max_new_tokens: Positive = 256
    answer_tokens: Positive = 32
    listen: bool = True
    """False answers every call with the request for the answer: RL of a policy that hears once."""
    broken: Literal["train", "mask"] = "mask"
    """What becomes of rollouts that break off (budget, no answer, too long): trained on, or left out of the loss.
    Either way they are counted, and they stay in the baseline of their group."""


class RewardPart(_Strict):
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
    def _agree(self) -> RewardPart:
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


class LossPart(_Strict):
    """GRPO."""

    kl: NotNegative = 0.0
    """Weight of the divergence from the policy that RL began with."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    clip_high: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2
    kind: Literal["dapo", "grpo", "dr_grpo", "bnpo"] = "dapo"
    """How tokens are averaged (TRL's ``loss_type``)."""
    scale: Literal["group", "batch", "none"] = "group"
    """By what the advantage is divided: the deviation in the group, in the batch, or nothing."""
    entropy: NotNegative = 0.0
    """Bonus for entropy."""
    rehearsal: NotNegative = 0.0
    """Weight of the cross-entropy of reasoning from the training split, practised beside: an example per question."""


class CollapsePart(_Strict):
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
    rollout: RolloutPart = RolloutPart()
    rewards: RewardPart
    loss: LossPart = LossPart()
    collapse: CollapsePart = CollapsePart()

    @model_validator(mode="after")
    def _no_dropout(self) -> RLRecipe:
        if self.lora is not None and self.lora.dropout:
            raise ValueError("lora.dropout must be 0 in RL: the trainer scores what was sampled without it")
        return self

    @model_validator(mode="after")
    def _divides(self) -> RLRecipe:
        generation, optimiser = self.rollout.questions * self.rollout.group, self.optimiser
        step = optimiser.batch * optimiser.accumulation * self.rollout.updates
        if generation % step:
            raise ValueError(
                f"rollout.questions x rollout.group ({generation}) must be a multiple of optimiser.batch x "
                f"optimiser.accumulation x rollout.updates ({step}): the quotient is the number of processes"
            )
        if self.watch.save_every % self.rollout.updates:
            raise ValueError(
                "watch.save_every must be a multiple of rollout.updates: runs resume between generations"
            )
        return self

    @property
    def processes(self) -> int:
        """Processes that the recipe is for."""
        return (self.rollout.questions * self.rollout.group) // (
            self.optimiser.batch * self.optimiser.accumulation * self.rollout.updates
        )


Recipe = Annotated[SFTRecipe | RLRecipe, Field(discriminator="stage")]


def recipe_names() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def read_recipe(name: str | Path, overrides: Sequence[str] = ()) -> SFTRecipe | RLRecipe:
    """Read a recipe.

    Args:
        name: One of :func:`recipe_names`, or the path of a YAML file.
        overrides: ``optimiser.steps=100``, ``model.name=echo-nano``, ``lora=null``; values are YAML.

    Raises:
        DataError: There is no such recipe, or it holds what cannot be.
    """
    path = RECIPES / f"{name}.yaml" if str(name) in recipe_names() else Path(name)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(
            f"there is no recipe {name} ({reason}); name a YAML file or one of {', '.join(recipe_names())}"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # a ValueError is of a date such as 2024-02-30
        raise DataError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise DataError(f"{path} is no recipe: a mapping with a key 'stage' is expected")
    for text in overrides:
        _override(data, text)
    return parse_recipe(data, str(path))


def parse_recipe(data: Mapping[str, Any], name: str) -> SFTRecipe | RLRecipe:
    """A recipe from plain values; raises DataError that names the keys at fault."""
    try:
        return TypeAdapter(Recipe).validate_python(data)
    except ValidationError as error:
        faults = [_fault(problem["loc"], problem["msg"]) for problem in error.errors()[:5]]
        raise DataError(f"{name}: " + "; ".join(faults)) from None


def write_recipe(recipe: SFTRecipe | RLRecipe, path: Path) -> None:
    """Write a recipe so that :func:`read_recipe` gives it again."""
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")


def _fault(place: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in place[1:])  # the first is the stage
    message = message.removeprefix("Value error, ")
    if message == "Extra inputs are not permitted":
        message = "there is no such key"
    return f"{where}: {message}" if where else message


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise DataError(f"--set {text}: write key=value, such as optimiser.steps=100")
    *parents, last = key.split(".")
    for parent in parents:
        inner = data.get(parent)
        if inner is None:
            inner = data[parent] = {}
        if not isinstance(inner, dict):
            raise DataError(f"--set {text}: {parent} holds a value, and no keys")
        data = inner
    try:
        data[last] = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        raise DataError(f"--set {text}: {value!r} is not YAML") from None
