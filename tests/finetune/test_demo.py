"""The toy task: its data is what it says, and RL finds out that only listening again answers it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.callbacks import read_log
from echo_agent.finetune.data.dataset import read_samples
from echo_agent.finetune.demo import (
    KINDS,
    RATE,
    SLOT,
    SLOTS,
    DemoSize,
    make_dataset,
    make_recording,
    run_demo,
)
from tests.test_disk import small_files


def test_the_data_holds_what_it_asks(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", DemoSize(recordings=6, test_recordings=2))
    samples = read_samples(folder)
    assert len(samples) == 8 * 4 and {sample.split for sample in samples} == {"train", "test"}
    learned = [sample for sample in samples if sample.split == "train"]
    assert sum(sample.listens for sample in learned) == len(learned) / 2
    assert not any(sample.reasoning for sample in samples if sample.split == "test")
    heard = {sample.audio for sample in learned} & {s.audio for s in samples if s.split == "test"}
    assert not heard, "a recording is trained on and tested on"
    for sample in samples:
        (start, end), second = sample.gold_spans[0], int(sample.question.split()[-1].rstrip("?"))
        assert start < second < end and set(sample.choices or ()) == set(KINDS)


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with (
        small_files(2000),
        pytest.raises(DataError, match=r"^cannot write .*0000\.flac: File too large; what is done"),
    ):
        make_dataset(tmp_path / "data", DemoSize(recordings=1, test_recordings=1))


def test_a_recording_has_one_sound_per_slot() -> None:
    rng = np.random.default_rng(0)
    kinds = [KINDS[i % len(KINDS)] for i in range(SLOTS)]
    samples = make_recording(kinds, rng)
    assert len(samples) == SLOT * SLOTS * RATE and np.abs(samples).max() < 1
    slots = samples.reshape(SLOTS, -1)
    loud = np.abs(slots[:, RATE : 2 * RATE]).mean(1)
    assert loud.min() > 5 * np.abs(slots[:, : RATE // 4]).mean()
    pitch = [int(np.abs(np.fft.rfft(slot[RATE : 2 * RATE])).argmax()) for slot in slots]
    assert all(150 < pitch[i] < 250 for i in (0, 4)) and all(1300 < pitch[i] < 1900 for i in (1, 5))


@pytest.mark.slow
def test_rl_learns_what_only_listening_again_can_tell(tmp_path: Path) -> None:
    """From an SFT start that listens half of the time; only a right answer is rewarded."""
    size = DemoSize(recordings=160, test_recordings=25, sft_steps=240, rl_steps=20)
    model = run_demo(tmp_path / "demo", size, report=lambda _: None)
    assert (model / "config.json").exists() and (tmp_path / "demo/demo.png").stat().st_size > 10_000
    log = [row for row in read_log(tmp_path / "demo/rl") if "reward" in row]
    first, last = log[:3], log[-3:]

    def mean(rows: list[dict[str, float]], key: str) -> float:
        return sum(row[key] for row in rows) / len(rows)

    assert mean(first, "rollout/listened") < 0.75 < 0.9 < mean(last, "rollout/listened")
    assert mean(last, "rollout/right") > mean(first, "rollout/right") + 0.15
    import json

    after = json.loads((tmp_path / "demo/scores.json").read_text())["rl"]
    right = {control: after[control]["accuracy"] for control in after}
    assert right["on"] > right["off"] + 0.2 and right["on"] > right["wrong-crop"] + 0.2
    assert right["on"] > right["silence"] + 0.2
