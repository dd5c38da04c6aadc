"""GRPO on rollouts that hear, on one page: sample, reward, advantage, loss.

A step of training (Shao et al., arXiv 2402.03300), in the order in which this file reads:

1. *sample*: a group of runs of the listening graph per question, with the weights as they are;
2. *reward*: what each run earned, a weighted sum of :data:`~echo_agent.finetune.rewards.REWARDS`;
3. *advantage*: how much more that is than the others of its group earned;
4. *loss*: the tokens that the policy sampled become likelier where the advantage is positive, and less so where not.

TRL's trainer does the rest: it shuffles and splits a generation, adds up gradients, steps, logs, saves and resumes.

*Token in, token out.* A row is a trajectory: the very ids that were sampled, masked by origin, and references to what
was heard, which are in the batch with the ids and reach the model's forward pass with them
(:mod:`echo_agent.finetune.audio_inputs`). The denominator of the policy ratio is the log-probability that the engine
recorded while sampling, so whatever the trainer's policy differs by from the one that sampled (later updates on one
generation, another precision) is in the ratio, and clipped with it (Schulman et al., 2017). How far the two are apart
before the first update is logged; in float32 on one machine it is rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model, nanstd

from echo_agent.finetune.audio_inputs import AudioHook, LoadAudio
from echo_agent.finetune.batching import IGNORED
from echo_agent.finetune.config import RLRecipe
from echo_agent.finetune.rehearsal import Rehearsal
from echo_agent.finetune.rewards import REWARDS, repeats
from echo_agent.finetune.rollouts import Rollout, Rollouts, Task
from echo_agent.finetune.run.sums import KeptSums
from echo_agent.scores import overlap

if TYPE_CHECKING:
    from echo_agent.audio.recording import AudioRef
    from echo_agent.families.base import Family
    from echo_agent.finetune.data.records import Sample

LARGEST_GAP = "sampling/logp_gap_max"
NO_SPREAD = 1e-4
"""Added to the deviation that advantages are divided by, so that a group of equals has none."""


class ListeningGRPOTrainer(KeptSums, GRPOTrainer):
    """GRPO whose rollouts are runs of the listening graph; see the module."""

    def __init__(
        self,
        family: Family,
        recipe: RLRecipe,
        rollouts: Rollouts,
        questions: Mapping[str, tuple[Sample, AudioRef]],
        load_audio: LoadAudio,
        rehearsal: Rehearsal | None = None,
        publish: Callable[[Any, int], None] | None = None,
        **arguments: Any,
    ) -> None:
        """Wrap a policy.

        Args:
            family: Whose model is trained.
            recipe: What rollouts, rewards and loss are like.
            rollouts: Runs the graph; its engine samples from the same model.
            questions: By id, with the recording that each is about; rows of the dataset name them.
            load_audio: Fetches what listens are made of.
            rehearsal: What is rehearsed; nothing if None.
            publish: Given the policy and the step before each generation, where it is sampled elsewhere.
            **arguments: Of ``GRPOTrainer``; ``args.beta`` must be 0, since the reference is kept here.
        """
        reference = copy.copy(family)
        kl = recipe.loss.kl
        if kl and arguments.get("peft_config") is None:
            reference.model = copy.deepcopy(family.model).requires_grad_(False).eval()
        self.recipe, self.rollouts, self.last_rollouts = recipe, rollouts, list[Rollout]()
        self._questions, self._load_audio, self._rehearsal = questions, load_audio, rehearsal
        self._pad, self._hooks, self._publish = family.pad_id, [AudioHook(family)], publish
        # TRL asks for a reward function, and never calls it: `reward` below is what pays.
        super().__init__(model=family.model, reward_funcs=lambda **_: [], **arguments)
        if kl and reference.model is not family.model:
            disable_dropout_in_model(reference.model)
            add_fused_lm_head(reference.model, temperature=self.temperature)
            self._hooks.append(AudioHook(reference))
            self.ref_model = self.accelerator.prepare_model(reference.model, evaluation_mode=True)

    def unhook(self) -> None:
        """Leave the model as it was, but for its weights."""
        for hook in self._hooks:
            hook.remove()

    # --- a generation: sample, reward, advantage ------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        rollouts = self.sample([row["prompt"] for row in inputs])
        rewards = self.reward(rollouts)
        scale, group = self.recipe.loss.scale, self.recipe.rollout.group
        gains = advantages(rewards, group, scale)  # of all processes, whose groups may be shared out
        first = self.accelerator.process_index * len(inputs)
        self._log_rewards(rewards, group)
        return self._batch(rollouts, gains[first : first + len(inputs)], first)

    def sample(self, names: Sequence[str]) -> list[Rollout]:
        """One rollout per name of a question, in order; those of one question follow each other as a group."""
        if self._publish is not None:
            self._publish(self.accelerator.unwrap_model(self.model), self.state.global_step)
        self.rollouts.weights_changed()
        first = self.accelerator.process_index * len(names)
        tasks = [Task(*self._questions[name], first + i) for i, name in enumerate(names)]
        made = self.rollouts.run(tasks, seed=(self.recipe.seed << 32) + self.state.global_step)
        self.last_rollouts = made
        self._log_rollouts(made)
        return made

    def reward(self, rollouts: Sequence[Rollout]) -> Tensor:
        """What the rollouts of all processes earned, ``[rollouts]``; NaN for a run that failed."""
        weights = self.recipe.rewards.weights
        paid = [
            [torch.nan if one.judged is None else REWARDS[name](one.judged) for name in weights]
            for one in rollouts
        ]
        every = self._gathered(torch.tensor(paid, device=self.accelerator.device))
        for column, name in enumerate(weights):
            self._metrics["train"][f"rewards/{name}/mean"].append(every[:, column].nanmean().item())
            self._metrics["train"][f"rewards/{name}/std"].append(nanstd(every[:, column]).item())
        return every @ torch.tensor(list(weights.values()), device=every.device)

    def _batch(self, rollouts: Sequence[Rollout], gains: Tensor, first: int) -> dict[str, Any]:
        """Rows as TRL shuffles and splits them: tensors ``[rollouts, n]`` padded on the right, and lists."""
        rows = [rollout.trajectory for rollout in _without_failures(rollouts)]
        device = self.accelerator.device

        def padded(values: Sequence[Sequence[float]], pad: int = 0) -> Tensor:
            return pad_sequence([torch.tensor(row) for row in values], True, pad).to(device)

        masks = [
            row.mask if self._trained(one) else [0] * len(row.ids)
            for row, one in zip(rows, rollouts, strict=True)
        ]
        batch: dict[str, Any] = {
            "ids": padded([row.ids for row in rows], self._pad),
            "real": padded([[1] * len(row.ids) for row in rows]),
            "mask": padded(masks),
            "sampled_logps": padded([row.logprobs for row in rows]),
            "advantages": gains,
            "audio": [row.audio for row in rows],
        }
        batch["trained_tokens"] = self._summed(batch["mask"].sum())
        if self.recipe.loss.kl:
            batch["reference_logps"] = self._reference_logps(batch)
        if self._rehearsal:
            step = self.state.global_step
            batch["practised"] = self._rehearsal.draw(step, range(first, first + len(rollouts)))
        return batch

    def _trained(self, rollout: Rollout) -> bool:
        """Whether a rollout is trained on: not what was rendered again, nor (if the recipe masks it) what broke off."""
        masked = bool(rollout.broken) and self.recipe.rollout.broken == "mask"
        return rollout.judged is not None and rollout.broken != "edited" and not masked

    # --- the loss -------------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss_config, mask = self.recipe.loss, inputs["mask"][:, 1:]
        logps, entropies = self.score(model, inputs)
        sampled = inputs["sampled_logps"][:, 1:]
        if self._first_update():
            self._log_gap(logps.detach(), sampled, mask)
        gains = inputs["advantages"][:, None]
        low, high = 1 - loss_config.clip_low, 1 + loss_config.clip_high
        ratio = torch.exp(logps - sampled)
        losses = -torch.min(ratio * gains, ratio.clamp(low, high) * gains)
        if loss_config.kl:  # k3 (Schulman, 2020) times the ratio: its gradient is unbiased (arXiv 2512.02556)
            apart = inputs["reference_logps"] - logps
            divergence = (torch.exp(apart) - apart - 1) * ratio
            losses = losses + loss_config.kl * divergence
            self._log_mean("kl", divergence, mask)
        self._log_mean("entropy", entropies, mask)
        clipped = ((ratio < low) & (gains < 0)) | ((ratio > high) & (gains > 0))
        self._log_mean("clip_ratio/region_mean", clipped.float(), mask)
        passes = self.current_gradient_accumulation_steps
        loss = self._mean(losses * mask, mask, inputs["trained_tokens"], passes)
        if loss_config.entropy:
            bonus = (entropies * mask).sum() / mask.sum().clamp(min=1)
            loss = loss - loss_config.entropy * bonus / passes
        if self._rehearsal:
            loss = loss + self._rehearse(self._rehearsal, model, inputs["practised"])
        return loss

    def _mean(self, losses: Tensor, mask: Tensor, tokens: Tensor, passes: int) -> Tensor:
        """This pass's share of the mean over tokens, by ``loss.kind``.

        - ``dapo``: over all tokens of the step, of all processes (Yu et al., arXiv 2503.14476);
        - ``grpo``: over the tokens of a rollout, then over rollouts (DeepSeekMath, arXiv 2402.03300);
        - ``bnpo``: over the tokens of this pass;
        - ``dr_grpo``: over the longest completion that there may be (Liu et al., arXiv 2503.20783).
        """
        kind, optimiser = self.recipe.loss.kind, self.recipe.optimiser
        if kind == "dapo":
            steps_per_generation = optimiser.accumulation * self.recipe.rollout.updates
            share = passes / steps_per_generation / self.accelerator.num_processes
            return losses.sum() / (tokens.clamp(min=1) * share)
        if kind == "grpo":
            return (losses.sum(1) / mask.sum(1).clamp(min=1)).mean() / passes
        if kind == "bnpo":
            return losses.sum() / mask.sum().clamp(min=1) / passes
        rollout = self.recipe.rollout
        return losses.sum() / (len(losses) * (rollout.max_new_tokens + rollout.answer_tokens)) / passes

    def score(self, model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies ``[rows, n - 1]`` of all ids but the first; 0 where nothing is trained."""
        with self.accelerator.autocast():
            outputs = model(
                input_ids=inputs["ids"],
                attention_mask=inputs["real"],
                labels=inputs["ids"].masked_fill(inputs["mask"] == 0, IGNORED),
                fused_lm_head=True,
                audio=self._heard(inputs["audio"]),
            )
        return outputs.log_probs, outputs.entropy

    def _heard(self, rows: Sequence[Sequence[AudioRef]]) -> list[list[Any]]:
        heard = iter(self._load_audio([ref for row in rows for ref in row]))
        return [[next(heard) for _ in row] for row in rows]

    @torch.no_grad()
    def _reference_logps(self, batch: dict[str, Any]) -> Tensor:
        """Log-probabilities by the policy that RL began with: a copy, or the model without its adapters."""
        model = self.ref_model or self.model
        bare: Any = self.accelerator.unwrap_model(model)
        size = self.args.per_device_train_batch_size
        parts: list[Tensor] = []
        with nullcontext() if self.ref_model else bare.disable_adapter():
            for first in range(0, len(batch["ids"]), size):
                rows = slice(first, first + size)
                part = {name: batch[name][rows] for name in ("ids", "real", "mask", "audio")}
                parts.append(self.score(model, part)[0])
        return torch.cat(parts)

    def _rehearse(self, rehearsal: Rehearsal, model: Any, places: Sequence[int | None]) -> Tensor:
        """This pass's share of the loss of the rehearsal, weighted.

        The model is taken out of its wrapper, whose forward pass would wait for those of all processes: not all have
        examples in this pass. Gradients are gathered with those of the rollouts in any case.
        """
        with self.accelerator.autocast():
            loss = rehearsal.loss(self.accelerator.unwrap_model(model), places)
        mean = self._summed(loss.detach()) / self.accelerator.num_processes
        self._metrics["train"]["rehearsal"].append(mean.item())
        return rehearsal.weight * loss / self.current_gradient_accumulation_steps

    # --- what is logged -------------------------------------------------------------------------------------------

    def _gathered(self, values: Tensor) -> Tensor:
        """The values of all processes, one after the other."""
        gathered: Any = self.accelerator.gather(values)
        return gathered

    def _summed(self, values: Tensor) -> Tensor:
        """The sum over all processes."""
        summed: Any = self.accelerator.reduce(values, "sum")
        return summed

    def _first_update(self) -> bool:
        """Whether this pass belongs to the first optimiser step on its generation."""
        passes = self.recipe.optimiser.accumulation
        return self._step % (passes * self.recipe.rollout.updates) < passes

    def _log_rewards(self, rewards: Tensor, group: int) -> None:
        found = self._metrics["train"]
        found["reward"].append(rewards.nanmean().item())
        found["reward_std"].append(nanstd(rewards).item())
        spread = nanstd(rewards.view(-1, group), dim=1)
        found["frac_reward_zero_std"].append(
            torch.isclose(spread, torch.zeros_like(spread)).float().mean().item()
        )

    def _log_rollouts(self, rollouts: Sequence[Rollout]) -> None:
        """Shares and means over the rollouts of all processes."""
        judged = [rollout.judged for rollout in rollouts if rollout.judged is not None]
        met = [overlap(one.asked, one.gold_spans)[1] for one in judged if one.asked and one.gold_spans]
        sums = {
            "rollouts": len(rollouts),
            "judged": len(judged),
            "meetings": len(met),
            "overlap": sum(met),
            "right": sum(one.correct for one in judged),
            "listened": sum(bool(one.asked) for one in judged),
            "seconds_heard": sum(one.seconds_heard for one in judged),
            "repeats": sum(repeats(one.asked) for one in judged),
            "broken": sum(bool(rollout.broken) for rollout in rollouts),
            "unparsed": sum(rollout.broken == "unparsed" for rollout in rollouts),
            "mixed": sum(rollout.broken == "mixed" for rollout in rollouts),
            "failed_calls": sum(rollout.failed_calls for rollout in rollouts),
            "tokens": sum(len(one.trajectory.ids) for one in rollouts),
            "sampled": sum(sum(one.trajectory.mask) for one in rollouts),
        }
        device = self.accelerator.device
        totals = self._summed(torch.tensor(list(sums.values()), dtype=torch.float32, device=device))
        of = dict(zip(sums, totals.tolist(), strict=True))
        count, scored = of["rollouts"], max(1.0, of["judged"])
        listened = torch.tensor([float(bool(r.judged and r.judged.asked)) for r in rollouts], device=device)
        groups = self._gathered(listened).view(-1, self.recipe.rollout.group).mean(1)
        found = {name: of[name] / scored for name in ("right", "listened", "seconds_heard", "repeats")}
        found |= {name: of[name] / count for name in ("broken", "unparsed", "mixed", "failed_calls")}
        found |= {
            "overlap": of["overlap"] / max(1.0, of["meetings"]),
            "failed": 1 - of["judged"] / count,
            "always": (groups == 1).float().mean().item(),
            "never": (groups == 0).float().mean().item(),
        }
        for name, value in found.items():
            self._metrics["train"][f"rollout/{name}"].append(value)
        self._metrics["train"]["completions/mean_length"].append(of["sampled"] / count)
        self.state.num_input_tokens_seen += int(of["tokens"])
        self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]

    def _log_mean(self, name: str, values: Tensor, mask: Tensor) -> None:
        """The mean over trained tokens of all processes."""
        sums = torch.stack([(values.detach() * mask).sum(), mask.sum().float()])
        total, count = self._summed(sums).tolist()
        self._metrics["train"][name].append(total / max(1.0, count))

    def _log_gap(self, logps: Tensor, sampled: Tensor, mask: Tensor) -> None:
        """How far the trainer's log-probabilities are from the engine's, over what is trained on."""
        gap = (logps - sampled).abs() * mask
        self._log_mean("sampling/logp_gap_mean", gap, mask)
        self._metrics["train"][LARGEST_GAP].append(self._gathered(gap.max()).max().item())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; of the largest gaps the largest, where TRL would log the mean."""
        if gaps := self._metrics["train"].get(LARGEST_GAP):
            self._metrics["train"][LARGEST_GAP] = [max(gaps)]
        super().log(logs, start_time)


def advantages(rewards: Tensor, group: int, scale: str) -> Tensor:
    """How much more each rollout earned than its group did on average, ``[rollouts]``.

    Args:
        rewards: ``[rollouts]``, group by group; NaN where there is nothing to reward: it counts in no mean and no
            deviation, and its advantage is 0.
        group: Rollouts per question.
        scale: By what it is divided: the deviation in the ``group``, in the ``batch``, or ``none``.
    """
    grouped = rewards.view(-1, group)
    gains = grouped - grouped.nanmean(1, keepdim=True)
    if scale == "group":
        gains = gains / (nanstd(grouped, dim=1, keepdim=True) + NO_SPREAD)
    elif scale == "batch":
        gains = gains / (nanstd(rewards) + NO_SPREAD)
    return gains.nan_to_num(nan=0.0).flatten()


def _without_failures(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The same, with the trajectory of another in the place of those that failed, as far as one did not.

    Nothing of them is trained on; but without audio in a pass the projector would have no gradient, and other processes
    would wait for it.
    """
    whole = next((rollout for rollout in rollouts if rollout.judged is not None), None)
    if whole is None:
        return list(rollouts)
    return [
        replace(rollout, trajectory=whole.trajectory) if rollout.judged is None else rollout
        for rollout in rollouts
    ]
