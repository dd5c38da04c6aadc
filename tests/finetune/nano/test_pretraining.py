"""Fine-tuning: the loss is on what the policy writes, it falls, and a stopped run goes on as if it never stopped."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from echo_agent.finetune.nano.lessons import Lesson, Teacher, collate
from echo_agent.finetune.nano.pretraining import (
    PretrainingConfig,
    batches,
    duration_at,
    hardship_at,
    lists_at,
    noisy,
    pointing_loss,
    rate_at,
    spoken_loss,
    train,
    written_loss,
)
from echo_agent.nano.modeling import NanoForConditionalGeneration

CONFIG = PretrainingConfig(steps=10, batch=2, rate=3e-3, warmup=2, save_every=4)


class Stopped(Exception):
    """What stops a run in these tests."""


class StoppingTeacher(Teacher):
    """Gives a number of lessons and then none."""

    def __init__(self, teacher: Teacher, lessons: int) -> None:
        super().__init__(teacher.tiles, teacher.config, teacher.tokenizer)
        self.left = lessons

    def lesson(self, rng: np.random.Generator, seconds: float, **shares: float) -> Lesson:
        if self.left == 0:
            raise Stopped
        self.left -= 1
        return super().lesson(rng, seconds, **shares)


def log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{"step": line["step"], "loss": line["loss"]} for line in lines]


def lessons_of(teacher: Teacher, count: int = 3) -> list[Lesson]:
    rng = np.random.default_rng(5)
    return [teacher.lesson(rng, 40.0) for _ in range(count)]


def loss_of(model: NanoForConditionalGeneration, lessons: list[Lesson], **changes: torch.Tensor) -> float:
    with torch.no_grad():
        return written_loss(model, collate(lessons, 900) | changes).item()


def test_the_loss_is_the_mean_over_written_tokens(
    tiny_nano: NanoForConditionalGeneration, teacher: Teacher
) -> None:
    """Worked out again from full scores and the lessons' masks, one lesson at a time."""
    lessons = lessons_of(teacher)
    losses, weights = [], []
    for lesson in lessons:
        with torch.no_grad():
            logits = tiny_nano(
                input_ids=torch.tensor([lesson.ids]),
                audio_features=lesson.features,
                audio_times=torch.tensor(lesson.times),
            ).logits[0]
        scores = torch.log_softmax(logits.float(), -1)
        for place, (token, mask) in enumerate(zip(lesson.ids, lesson.mask, strict=True)):
            if mask:
                losses.append(-scores[place - 1, token].item())
                weights.append(0.25 if lesson.listing[place] else 1.0)
    assert loss_of(tiny_nano, lessons) == pytest.approx(np.mean(losses), abs=1e-4)
    with torch.no_grad():
        weighted = written_loss(tiny_nano, collate(lessons, 900, listing_weight=0.25)).item()
    assert weighted == pytest.approx(np.average(losses, weights=weights), abs=1e-4)
    assert weighted != pytest.approx(np.mean(losses), abs=1e-3)


def test_given_tokens_are_no_labels(tiny_nano: NanoForConditionalGeneration, teacher: Teacher) -> None:
    """What is given may weigh what it likes, and what stands behind the end may be anything: nothing changes."""
    lessons = lessons_of(teacher)
    batch = collate(lessons, 900)
    given = batch["labels"] == -100
    before = loss_of(tiny_nano, lessons)
    assert loss_of(tiny_nano, lessons, weights=batch["weights"] + 7.0 * given) == pytest.approx(
        before, abs=1e-5
    )
    padded = torch.where(batch["attention_mask"] == 0, 17, batch["input_ids"])
    assert loss_of(tiny_nano, lessons, input_ids=padded) == pytest.approx(before, abs=1e-5)
    other = torch.where(given, batch["labels"], (batch["labels"] + 1) % 900)
    assert abs(loss_of(tiny_nano, lessons, labels=other) - before) > 0.01


def test_a_given_token_gets_no_gradient_as_a_label(
    learner: NanoForConditionalGeneration, teacher: Teacher
) -> None:
    """A lesson's request for the answer is given: the loss has no gradient at the scores in front of it."""
    rng = np.random.default_rng(0)
    drawn = (teacher.lesson(rng, 60.0, refused=1.0) for _ in range(200))
    lesson = next(one for one in drawn if 0 in one.mask[one.mask.index(1) :])
    assert not any(parameter.grad is not None for parameter in learner.parameters())
    batch = collate([lesson], 900)
    seen: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, __: object, output: torch.Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    handle = learner.model.language_model.norm.register_forward_hook(keep)
    written_loss(learner, batch).backward()
    handle.remove()
    gradient = seen[0].grad
    assert gradient is not None
    touched = (gradient[0].abs().max(-1).values > 0).int().tolist()
    assert touched == [*lesson.mask[1:], 0]


def test_a_few_steps_lower_the_loss(
    learner: NanoForConditionalGeneration, teacher: Teacher, tmp_path: Path
) -> None:
    frozen = copy.deepcopy(learner.model.encoder.state_dict() | learner.model.adapter.branch.state_dict())
    lessons = lessons_of(teacher, 6)
    before = loss_of(learner, lessons)
    train(learner, teacher, PretrainingConfig(steps=40, batch=2, rate=5e-3, warmup=4), tmp_path)
    assert loss_of(learner, lessons) < 0.8 * before
    assert not learner.training
    assert [line["step"] for line in log(tmp_path)] == [20, 40]
    assert log(tmp_path)[1]["loss"] < log(tmp_path)[0]["loss"]
    now = learner.model.encoder.state_dict() | learner.model.adapter.branch.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in frozen.items()), "what is frozen has moved"


def finished(
    model: NanoForConditionalGeneration, teacher: Teacher, folder: Path, config: PretrainingConfig = CONFIG
) -> dict[str, torch.Tensor]:
    train(model, teacher, config, folder)
    return model.state_dict()


def spoiled(model: NanoForConditionalGeneration) -> NanoForConditionalGeneration:
    """The same encoder and branch with another decoder: all else has to come out of the checkpoint."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in (
            *other.model.language_model.parameters(),
            *other.model.adapter.project.parameters(),
        ):
            parameter.add_(0.3)
    return other


@pytest.mark.parametrize("stop", [13, 21])
def test_a_stopped_run_ends_as_one_that_was_never_stopped(
    learner: NanoForConditionalGeneration, teacher: Teacher, tmp_path: Path, stop: int
) -> None:
    """Four batches of two are drawn at a time: it stops after four steps, or after eight."""
    config = PretrainingConfig(steps=24, batch=2, rate=3e-3, warmup=2, save_every=4)
    config = config if stop == 21 else CONFIG
    other = spoiled(learner)
    stopped = copy.deepcopy(learner)
    whole = finished(learner, teacher, tmp_path / "whole", config)
    with pytest.raises(Stopped):
        train(stopped, StoppingTeacher(teacher, stop), config, tmp_path / "stopped")
    state = torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4 * (stop // 8)
    torch.rand(7)  # whatever else draws random numbers in the process that goes on
    resumed = finished(other, teacher, tmp_path / "stopped", config)
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    assert (tmp_path / "whole" / "log.jsonl").exists() == (config.steps >= 20)
    if config.steps >= 20:
        assert log(tmp_path / "whole") == log(tmp_path / "stopped")


def test_a_checkpoint_without_running_losses_can_be_read(
    learner: NanoForConditionalGeneration, teacher: Teacher, tmp_path: Path
) -> None:
    """Runs that began before the checkpoint had them."""
    with pytest.raises(Stopped):
        train(copy.deepcopy(learner), StoppingTeacher(teacher, 9), CONFIG, tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["losses"]
    torch.save(state, tmp_path / "checkpoint.pt")
    resumed = finished(copy.deepcopy(learner), teacher, tmp_path)
    whole = finished(learner, teacher, tmp_path / "whole")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_lines_of_the_log_behind_the_checkpoint_are_made_again(
    learner: NanoForConditionalGeneration, teacher: Teacher, tmp_path: Path
) -> None:
    config = PretrainingConfig(steps=24, batch=1, save_every=100)
    train(copy.deepcopy(learner), teacher, config, tmp_path)
    whole = log(tmp_path)
    (tmp_path / "checkpoint.pt").unlink()  # killed before the first was written
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 2')
    train(learner, teacher, config, tmp_path)
    assert log(tmp_path) == whole and [line["step"] for line in whole] == [20]


def test_a_finished_run_is_left_as_it_is(
    learner: NanoForConditionalGeneration, teacher: Teacher, tmp_path: Path
) -> None:
    before = copy.deepcopy(finished(learner, teacher, tmp_path))
    bytes_before = (tmp_path / "checkpoint.pt").read_bytes()
    again = finished(spoiled(learner), StoppingTeacher(teacher, 0), tmp_path)
    assert all(torch.equal(value, again[name]) for name, value in before.items())
    assert (tmp_path / "checkpoint.pt").read_bytes() == bytes_before
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt"}


@pytest.mark.parametrize("steps", [5, 8])
def test_exactly_so_many_steps(
    learner: NanoForConditionalGeneration, teacher: Teacher, tmp_path: Path, steps: int
) -> None:
    train(learner, teacher, PretrainingConfig(steps=steps, batch=1), tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == steps
    assert {int(value["step"]) for value in state["optimiser"]["state"].values()} == {steps}


def test_batches_are_a_function_of_seed_and_step(teacher: Teacher) -> None:
    def ids(seed: int, step: int) -> list[list[int]]:
        config = PretrainingConfig(steps=100, batch=2, seed=seed)
        return [lesson.ids for batch in batches(teacher, step, config) for lesson in batch]

    assert ids(0, 8) == ids(0, 8)
    assert ids(0, 8) != ids(0, 12) and ids(0, 8) != ids(1, 8)
    assert [len(batch) for batch in batches(teacher, 0, PretrainingConfig(steps=100, batch=2))] == [2] * 4


def test_noise_drops_its_share_and_keeps_the_mean() -> None:
    features, config = torch.ones(300, 200), PretrainingConfig(steps=10, noise=0.2)
    heard = noisy(features, 7, 3, config)
    assert torch.equal(heard[:, -7:], features[:, -7:]), "scores of sounds stay as they are"
    heard = heard[:, :-7]
    assert heard.unique().tolist() == pytest.approx([0.0, 1.25])
    assert (heard == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert torch.equal(heard, noisy(features, 7, 3, config)[:, :-7])
    assert not torch.equal(heard, noisy(features, 7, 4, config)[:, :-7])
    assert torch.equal(noisy(features, 7, 3, PretrainingConfig(steps=10, noise=0.0)), features)


def test_audio_tokens_that_look_like_their_words_in_order_have_no_loss(
    tiny_nano: NanoForConditionalGeneration, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    lessons = [teacher.lesson(rng, 10.0) for _ in range(8)]
    lessons = [lesson for lesson in lessons if lesson.spoken and lesson.spoken[0].words]
    inputs = collate(lessons, 900)
    table = torch.nn.functional.normalize(torch.randn(tiny_nano.get_input_embeddings().weight.shape))

    def loss(backwards: bool) -> float:
        rows = []
        for lesson in lessons:
            tokens = [tiny_nano.config.audio_token_id] * len(lesson.times)
            words = lesson.spoken[0].words[:: -1 if backwards else 1]
            tokens[1 : 1 + 2 * len(words) : 2] = words  # with a pause after each
            rows.append(table[tokens])
        with monkeypatch.context() as patch:
            patch.setattr(tiny_nano.model, "speech", lambda features: torch.cat(rows))
            patch.setattr(
                tiny_nano, "get_input_embeddings", lambda: torch.nn.Embedding.from_pretrained(4 * table)
            )
            return spoken_loss(tiny_nano, inputs, lessons).item()

    assert len(lessons) > 2
    assert loss(backwards=False) < 0.1 < 1.0 < loss(backwards=True)


def test_listens_too_coarse_for_their_words_are_left_out(
    tiny_nano: NanoForConditionalGeneration, teacher: Teacher
) -> None:
    lesson = teacher.lesson(np.random.default_rng(0), 10.0)
    (listen,) = lesson.spoken
    full = replace(lesson, spoken=[replace(listen, words=(40, 41) * 30)])
    assert spoken_loss(tiny_nano, collate([full], 900), [full]).item() == 0.0
    none = replace(lesson, spoken=[])
    assert spoken_loss(tiny_nano, collate([none], 900), [none]).item() == 0.0


def test_pointing_is_the_attention_that_the_first_head_pays(
    learner: NanoForConditionalGeneration, teacher: Teacher
) -> None:
    """The loss is worked out again from the attention that the decoder itself reports."""
    rng = np.random.default_rng(1)
    lessons = [teacher.lesson(rng, 20.0) for _ in range(10)]
    lessons = [lesson for lesson in lessons if lesson.pointings][:4]
    inputs = collate(lessons, 900)
    learner.set_attn_implementation("eager")
    with torch.no_grad():
        told = pointing_loss(learner, inputs, lessons).item()
        heard = {k: v for k, v in inputs.items() if k not in ("labels", "weights")}
        paid = learner.model(**heard, output_attentions=True).attentions
    assert paid is not None
    expected = []
    for row, lesson in enumerate(lessons):
        audio = lesson.ids.index(learner.config.audio_token_id)
        for point in lesson.pointings:
            there = paid[0][row, 0, point.place, audio + point.first : audio + point.last + 1]
            expected.append(-there.sum().log().item())
    assert len(expected) > 3
    assert told == pytest.approx(sum(expected) / len(expected), abs=1e-4)
    bare = [replace(lesson, pointings=[]) for lesson in lessons]
    assert pointing_loss(learner, inputs, bare).item() == 0.0


def test_recordings_grow_and_the_rate_falls() -> None:
    config, rng = PretrainingConfig(steps=1000, warmup=100), np.random.default_rng(0)
    early = [duration_at(0, config, rng) for _ in range(300)]
    late = [duration_at(900, config, rng) for _ in range(300)]
    assert 5 <= min(early) and max(early) <= 15 and 5 <= min(late) and 80 < max(late) <= 120
    assert lists_at(0, config) == 0.6 and lists_at(250, config) == pytest.approx(0.375)
    assert lists_at(500, config) == pytest.approx(0.15) == lists_at(1000, config)
    rates = [rate_at(step, config) for step in range(1001)]
    assert rates[:100] == sorted(rates[:100]) and rates[99:] == sorted(rates[99:], reverse=True)
    assert max(rates) == pytest.approx(config.rate) and rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_more_goes_wrong_in_the_last_quarter(teacher: Teacher) -> None:
    config = PretrainingConfig(steps=100, batch=32)
    assert hardship_at(74, config) == hardship_at(0, config)
    turned_down = []
    for step in (72, 76):
        assert hardship_at(step, config).keys() == {"refused", "mistakes"}
        lessons = [lesson for batch in batches(teacher, step, config) for lesson in batch]
        texts = [teacher.tokenizer.decode(lesson.ids, skip_special_tokens=False) for lesson in lessons]
        called = [text for text in texts if "</seg>" in text]
        turned_down.append(sum("</seg></think><answer>" in text for text in called) / len(called))
    assert 0 < turned_down[0] < 0.3 < turned_down[1] < 0.6, turned_down
