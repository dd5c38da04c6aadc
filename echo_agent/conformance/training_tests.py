"""A family in training and on disk: the trainer hears what the engine hears, and what is saved comes back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.conformance.claims import Made, claim
from echo_agent.conformance.sounds import lively
from echo_agent.conformance.story import CHANGED, SAME, apart, native, stepwise, tell
from echo_agent.engine import Generation, SamplingParams, TorchEngine
from echo_agent.families.base import Family, Piece
from echo_agent.families.loading import load_family
from echo_agent.finetune.audio_inputs import AudioHook, AudioLoader
from echo_agent.finetune.policy import mark_trainable
from echo_agent.stores import RecordingStore


class Trainer:
    """The least of a trainer: rows in one padded batch through the model, audio by the hook that all trainers use."""

    def __init__(self, family: Family, store: RecordingStore) -> None:
        """Mark what trains."""
        mark_trainable(family, train_encoder=False)
        self.family = family
        self.load = AudioLoader(family, store, lambda refs: family.frozen_features(
            [(ref, store.crop(ref, family.sample_rate)) for ref in refs]))  # fmt: skip
        trained = [weight for weight in family.model.parameters() if weight.requires_grad]
        self.optimiser = torch.optim.AdamW(trained, lr=1e-2)

    def score(self, rows: list[tuple[list[int], list[AudioRef]]]) -> list[torch.Tensor]:
        """Log-probabilities ``[n - 1]`` of each row's own tokens after the first."""
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), longest), self.family.pad_id)
        mask = torch.zeros_like(ids)
        for row, (tokens, _) in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        hook = AudioHook(self.family)
        try:
            audio = [self.load(refs) for _, refs in rows]
            logits = self.family.model(input_ids=ids, attention_mask=mask, audio=audio).logits.float()
        finally:
            hook.remove()
        scores = logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        return [scores[row, : len(tokens) - 1] for row, (tokens, _) in enumerate(rows)]

    def step(self, loss: torch.Tensor) -> None:
        """One step down."""
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


class TrainingTests(Made):
    """Gradients, steps, and files; see the module."""

    @claim("gradients")
    def test_frozen_features_depend_on_frozen_weights_only(self) -> None:
        family = self.make()
        family.freeze()
        recording = Recording.from_array(lively(2.0, 10), 16000)
        crop = (recording.ref(), recording.crop(recording.ref(), family.sample_rate))
        before = family.frozen_features([crop])[0]
        frozen = {
            id(p) for name in family.frozen_modules for p in family.model.get_submodule(name).parameters()
        }
        assert frozen or not family.frozen_modules
        with torch.no_grad():
            for parameter in family.model.parameters():
                assert parameter.requires_grad != (id(parameter) in frozen)
                if id(parameter) not in frozen:
                    parameter.add_(torch.randn_like(parameter))
        after = family.frozen_features([crop])[0]
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
        assert not any(value.requires_grad for value in after.values())
        with torch.autocast("cpu", dtype=torch.bfloat16):  # as a trainer computes
            beside = family.frozen_features([crop])[0]
        assert all(torch.equal(before[key], beside[key]) for key in before)

    @claim("gradients")
    def test_gradients_reach_the_projector_and_the_decoder_in_training(self) -> None:
        family = self.make()
        family.freeze()
        told = tell(family)
        out = family.model(**family.forward_inputs(told.ids, told.crops))
        torch.nn.functional.cross_entropy(out.logits[0, :-1], torch.tensor(told.ids[1:])).backward()
        frozen = {
            id(p) for name in family.frozen_modules for p in family.model.get_submodule(name).parameters()
        }
        assert all(
            parameter.grad is None for parameter in family.model.parameters() if id(parameter) in frozen
        )
        family.model.zero_grad()
        embeds = family.audio_embeds(told.audio, family.frozen_features(told.crops))
        torch.stack([each.square().sum() for each in embeds]).sum().backward()
        learning = [parameter for parameter in family.model.parameters() if parameter.grad is not None]
        assert learning and all(
            parameter.grad.abs().sum() > 0 for parameter in learning if parameter.grad is not None
        )
        assert not any(id(parameter) in frozen for parameter in learning)

    @claim("bfloat16")
    def test_bfloat16_runs_and_scores_in_float32(self) -> None:
        family = self.make()
        model: Any = family.model  # its method has types for one argument at a time
        model.to(torch.bfloat16)
        told = tell(family)
        *_, last = stepwise(family, told)
        full = native(family, told)
        assert last.dtype == torch.float32 and torch.isfinite(last).all()
        assert (last[-1] - full[-1]).abs().mean() < 0.1

    @claim("SFT step")
    def test_a_step_of_supervised_training_lowers_the_loss_and_leaves_the_encoder_alone(self) -> None:
        family, told = self.make(), tell(self.make())
        store = RecordingStore()
        store.add(told.recording)
        trainer = Trainer(family, store)
        frozen = _frozen(family)
        row = (told.ids, told.audio)
        written = slice(len(told.steps[0]) - 1, None)
        losses = []
        for _ in range(3):
            loss = -trainer.score([row])[0][written].mean()
            losses.append(loss.item())
            trainer.step(loss)
        assert losses[-1] < losses[0]
        assert all(torch.equal(old, new) for old, new in zip(frozen, _frozen(family), strict=True))

    @claim("RL step")
    def test_a_step_on_rollouts_changes_the_policy_and_the_engine_follows(self) -> None:
        """The trainer scores what the engine sampled, before the step and after it; the engine's caches are dropped."""
        family, store = self.make(), RecordingStore()
        whole = store.add(Recording.from_array(lively(3.0, 30), 16000))
        trainer = Trainer(family, store)
        frozen = _frozen(family)
        crop = whole.span(0.5, 1.4)
        with TorchEngine(family, store) as engine:
            ids, audio = family.render(family.question_pieces([whole], "Which sound is it?", None))
            ids, audio = [*ids, *family.render([Piece(audio=crop)])[0]], [*audio, crop]
            first = _rollouts(engine, ids, audio)
            scores = trainer.score([([*ids, *run.ids], audio) for run in first])
            assert _gap(first, scores) < SAME
            signs = [1.0 if number % 2 else -1.0 for number in range(len(first))]
            written = [one[-len(run.ids) :] for one, run in zip(scores, first, strict=True)]
            gains = [sign * one.mean() for sign, one in zip(signs, written, strict=True)]
            trainer.step(-torch.stack(gains).sum())
            engine.weights_changed()
            after = _rollouts(engine, ids, audio)
            with torch.no_grad():
                assert _gap(first, trainer.score([([*ids, *run.ids], audio) for run in first])) > CHANGED
                assert _gap(after, trainer.score([([*ids, *run.ids], audio) for run in after])) < SAME
        assert all(torch.equal(old, new) for old, new in zip(frozen, _frozen(family), strict=True))

    @claim("engine = trainer")
    def test_rows_of_a_padded_batch_are_scored_as_by_one_full_pass(self, family: Family) -> None:
        told = [tell(family), tell(family, 1, 4.0, [(0.2, 0.9), (1.0, 3.0)]), tell(family, 2, 2.0, [])]
        store = RecordingStore()
        for one in told:
            store.add(one.recording)
        family = copy.copy(family)
        family.model = copy.deepcopy(family.model)
        with torch.no_grad():
            scores = Trainer(family, store).score([(one.ids, one.audio) for one in told])
        for one, row in zip(told, scores, strict=True):
            full = native(family, one)[:-1].gather(-1, torch.tensor(one.ids)[1:, None])[:, 0]
            assert apart(row, full) < SAME

    @claim("save and load")
    def test_what_is_saved_comes_back(self, family: Family, tmp_path: Path) -> None:
        family.save(tmp_path)
        assert list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.bin"))
        again = self.load(tmp_path)
        assert (again.kind, again.banned_ids, again.eos_ids) == (
            family.kind,
            family.banned_ids,
            family.eos_ids,
        )
        assert again.context_length == family.context_length and again.audio_id == family.audio_id
        told = tell(family)
        other = tell(again)
        assert told.ids == other.ids, "its tokenizer writes another prompt"
        assert apart(native(again, other), native(family, told)) < 1e-6

    def load(self, folder: Path) -> Family:
        """Read a folder that the family wrote; one that is not in echo-agent's list says here how it is read."""
        return load_family(str(folder), "cpu")


def _rollouts(engine: TorchEngine, ids: list[int], audio: list[AudioRef]) -> list[Generation]:
    """Four runs from one context, decoded together."""
    params = [SamplingParams(temperature=1.0, run=run, max_new_tokens=5) for run in range(4)]
    return [future.result() for future in [engine.submit(ids, audio, one) for one in params]]


def _gap(runs: list[Generation], scores: list[torch.Tensor]) -> float:
    """The largest difference between what an engine recorded and what a trainer scores."""
    return max(
        (torch.tensor(run.logprobs) - one[-len(run.ids) :]).abs().max().item()
        for run, one in zip(runs, scores, strict=True)
    )


def _frozen(family: Family) -> list[torch.Tensor]:
    """Copies of the weights that training must leave alone."""
    modules = [family.model.get_submodule(name) for name in family.frozen_modules]
    return [weight.detach().clone() for module in modules for weight in module.parameters()]
