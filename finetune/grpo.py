"""GRPO on rollouts that hear: TRL's trainer with the audio of every listen in its forward pass.

TRL's ``GRPOTrainer`` takes rollouts from a function, but has no way for audio to reach the loss. Four places are
overridden, each as little as can be: where a batch of rollouts is made (references to what was heard are put beside the
ids, per sample, so that shuffling and splitting carry them along), where the loss is computed (they are handed on, and
the loss of a :mod:`~echo_agent.finetune.rehearsal` is added), where log-probabilities are (they reach the model, which
hears by :mod:`echo_agent.finetune.hearing`), and the log.

*Token in, token out.* Ids are trained on as they were sampled, masked by origin. The denominator of the policy ratio is
the log-probability that the engine recorded while sampling, so whatever the trainer's policy differs by from the one
that sampled (later updates on one generation, another precision) is in the ratio, and clipped with it (Schulman et al.,
2017). How far the two are apart before the first update is logged; in float32 on one machine it is rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from echo_agent.finetune.collate import IGNORED
from echo_agent.finetune.hearing import Heard, Hearing, Listen
from echo_agent.finetune.rehearsal import Rehearsal
from echo_agent.finetune.rewards import repeats
from echo_agent.finetune.rollouts import Rollout
from echo_agent.scores import overlap

if TYPE_CHECKING:
    from echo_agent.families.base import Family

Roll = Callable[[Sequence[str], int, int], list[Rollout]]
"""Makes rollouts: ids of questions, the number of the first run, the optimiser step."""
LARGEST_GAP = "sampling/logp_gap_max"
_MEANINGLESS = ("completions/clipped_ratio", "completions/mean_terminated_length", "completions/min_terminated_length",
                "completions/max_terminated_length")  # fmt: skip
"""TRL tells a cut completion by its last token; a run of the graph ends with its answer, and says itself if it was."""


class ListeningGRPOTrainer(GRPOTrainer):
    """GRPO whose rollouts are runs of the listening graph; see the module."""

    def __init__(
        self,
        family: Family,
        *,
        roll: Roll,
        listen: Listen,
        kl: float,
        mask_broken: bool,
        updates: int,
        rehearsal: Rehearsal | None = None,
        **arguments: Any,
    ) -> None:
        """Wrap a policy.

        Args:
            family: Whose model is trained.
            roll: Makes rollouts with the weights as they are.
            listen: Fetches what listens are made of.
            kl: Weight of the divergence from the policy as it is now; 0 keeps no copy.
            mask_broken: Leave rollouts that broke off out of the loss.
            updates: Optimiser steps per generation.
            rehearsal: What is practised beside; nothing if None.
            **arguments: Of ``GRPOTrainer``; ``args.beta`` must be 0, since the copy is made here.
        """
        reference = copy.copy(family)
        if kl and arguments.get("peft_config") is None:
            reference.model = copy.deepcopy(family.model).requires_grad_(False).eval()
        self._family, self._roll, self._listen = family, roll, listen
        self._mask_broken, self._updates, self._rehearsal = mask_broken, updates, rehearsal
        self._scored = False
        """Whether TRL is about to score what the engine has scored already."""
        self._audio: list[Sequence[Any]] = []
        """References to what is heard in the rows that are being computed."""
        self._logps = torch.zeros(0)
        self.rollouts: list[Rollout] = []
        """The last batch of this process."""
        self._hearings = [Hearing(family)]
        super().__init__(model=family.model, rollout_func=self._roll_out, **arguments)
        if kl and reference.model is not family.model:
            disable_dropout_in_model(reference.model)
            add_fused_lm_head(reference.model, temperature=self.temperature)
            self._hearings.append(Hearing(reference))
            self.ref_model = self.accelerator.prepare_model(reference.model, evaluation_mode=True)
        self.beta = kl

    def unhook(self) -> None:
        """Leave the model as it was, but for its weights."""
        for hearing in self._hearings:
            hearing.remove()

    def _roll_out(self, prompts: list[str], _: GRPOTrainer) -> dict[str, Any]:
        """One rollout per prompt, with the policy as it is."""
        first = self.accelerator.process_index * len(prompts)
        made = self.rollouts = self._roll(prompts, first, self.state.global_step)
        self._log_rollouts(made)
        rollouts = _without_failures(made)
        self._audio = [rollout.trajectory.audio for rollout in rollouts]
        return {
            "prompt_ids": [rollout.prompt_ids for rollout in rollouts],
            "completion_ids": [rollout.completion_ids for rollout in rollouts],
            "logprobs": [rollout.logprobs for rollout in rollouts],
            "env_mask": [self._mask(rollout) for rollout in rollouts],
            "judged": [rollout.judged for rollout in rollouts],
        }

    def _mask(self, rollout: Rollout) -> list[int]:
        """What of a completion is trained on: never what was rendered anew, nor (if so wished) what broke off."""
        untrained = (
            rollout.judged is None or rollout.broken == "edited" or (rollout.broken and self._mask_broken)
        )
        return [0] * len(rollout.mask) if untrained else rollout.mask

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        self._scored = self._updates > 1
        output = super()._generate_and_score_completions(inputs)
        output["audio"] = self._audio
        output["old_per_token_logps"] = output["sampling_per_token_logps"]
        if self._rehearsal:
            first = self.accelerator.process_index * len(inputs)
            output["practised"] = self._rehearsal.draw(
                self.state.global_step, range(first, first + len(inputs))
            )
        return output

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        self._audio = inputs["audio"]
        loss = super()._compute_loss(model, inputs)
        if (
            self._step % (self.args.gradient_accumulation_steps * self._updates)
            < self.args.gradient_accumulation_steps
        ):
            self._log_gap(inputs)
        if self._rehearsal is None:
            return loss
        return loss + self._rehearse(self._rehearsal, model, inputs["practised"])

    def _rehearse(self, rehearsal: Rehearsal, model: Any, places: Sequence[int | None]) -> Tensor:
        """This pass's share of the loss of the rehearsal, weighted.

        The model is taken out of its wrapper, whose forward pass would wait for those of all processes: not all have
        examples in this pass. Gradients are gathered all the same, with those of the rollouts.
        """
        with self.accelerator.autocast():
            loss = rehearsal.loss(self.accelerator.unwrap_model(model), places)
        self._metrics["train"]["rehearsal"].append(self.accelerator.reduce(loss.detach(), "mean").item())
        return rehearsal.weight * loss / self.current_gradient_accumulation_steps

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **media: Any,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Log-probabilities ``[rows, logits_to_keep]`` of ids whose placeholders are filled with what was heard.

        Where later updates follow, TRL first scores a generation for the denominator; that is recorded already.
        """
        if self._scored:
            self._scored = False
            return None, None, None
        size = batch_size or len(input_ids)
        labels = input_ids.masked_fill(attention_mask == 0, IGNORED)
        labels[:, :-logits_to_keep] = IGNORED
        logps: list[Tensor] = []
        entropies: list[Tensor] = []
        for first in range(0, len(input_ids), size):
            rows = slice(first, first + size)
            with self.accelerator.autocast():
                outputs = model(
                    input_ids=input_ids[rows],
                    attention_mask=attention_mask[rows],
                    labels=labels[rows],
                    fused_lm_head=True,
                    audio=self._heard(self._audio[rows]),
                )
            logps.append(outputs.log_probs[:, -logits_to_keep:])
            if compute_entropy:
                entropies.append(outputs.entropy[:, -logits_to_keep:])
        scores = torch.cat(logps)
        self._logps = scores.detach()
        return scores, torch.cat(entropies) if compute_entropy else None, None

    def _heard(self, rows: Sequence[Sequence[Any]]) -> list[list[Heard]]:
        heard = iter(self._listen([ref for row in rows for ref in row]))
        return [[next(heard) for _ in row] for row in rows]

    # --- what is logged ---------------------------------------------------------------------------------------

    def _log_rollouts(self, rollouts: Sequence[Rollout]) -> None:
        """Shares and means over the rollouts of all processes."""
        judged = [(rollout, rollout.judged) for rollout in rollouts if rollout.judged is not None]
        met = [overlap(one.asked, one.gold_spans)[1] for _, one in judged if one.asked and one.gold_spans]
        sums = [
            len(rollouts), len(judged), len(met), sum(met),
            sum(one.correct for _, one in judged),
            sum(bool(one.asked) for _, one in judged),
            sum(one.seconds_heard for _, one in judged),
            sum(repeats(one.asked) for _, one in judged),
            sum(bool(rollout.broken) for rollout in rollouts),
            sum(rollout.broken == "unparsed" for rollout in rollouts),
            sum(rollout.failed_calls for rollout in rollouts),
        ]  # fmt: skip
        device = self.accelerator.device
        totals = self.accelerator.reduce(
            torch.tensor(sums, dtype=torch.float32, device=device), "sum"
        ).tolist()
        count, scored, meetings, met_sum, right, listened, seconds, repeated, broken, unparsed, failed = (
            totals
        )
        scored = max(1.0, scored)
        flags = torch.tensor([float(bool(r.judged and r.judged.asked)) for r in rollouts], device=device)
        groups = self.accelerator.gather(flags).view(-1, self.num_generations).mean(1)
        found = {
            "right": right / scored,
            "listened": listened / scored,
            "always": (groups == 1).float().mean().item(),
            "never": (groups == 0).float().mean().item(),
            "seconds_heard": seconds / scored,
            "overlap": met_sum / max(1.0, meetings),
            "repeats": repeated / scored,
            "broken": broken / count,
            "unparsed": unparsed / count,
            "failed_calls": failed / count,
            "failed": 1 - (totals[1] / count),
        }
        for name, value in found.items():
            self._metrics["train"][f"rollout/{name}"].append(value)

    @torch.no_grad()
    def _log_gap(self, inputs: Any) -> None:
        """How far the trainer's log-probabilities are from the engine's, over what is trained on."""
        trained = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        gap = (self._logps - inputs["sampling_per_token_logps"]).abs()[trained]
        sums = self.accelerator.reduce(
            torch.tensor([gap.sum().item(), float(len(gap))], device=self.accelerator.device), "sum"
        )
        largest = gap.max() if len(gap) else torch.zeros((), device=self.accelerator.device)
        largest = self.accelerator.gather(largest).max()
        self._metrics["train"]["sampling/logp_gap_mean"].append((sums[0] / sums[1].clamp(min=1)).item())
        self._metrics["train"][LARGEST_GAP].append(largest.item())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, without what TRL measures by the last token."""
        for name in _MEANINGLESS:
            self._metrics["train"].pop(name, None)
        if gaps := self._metrics["train"].get(LARGEST_GAP):
            self._metrics["train"][LARGEST_GAP] = [max(gaps)]  # TRL would log the mean
        super().log(logs, start_time)


def _without_failures(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The same, with the ids and audio of another in the place of those that failed, as far as one did not.

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
