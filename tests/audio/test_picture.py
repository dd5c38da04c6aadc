"""Pictures of runs: that what was heard again is marked where it is, and that no text or recording breaks one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from echo_agent.audio.picture import Listen, _lanes, draw_run, steps
from echo_agent.audio.recording import Recording

RATE = 16000


@pytest.fixture(scope="module")
def recording() -> Recording:
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * RATE).astype(np.float32)
    return Recording.from_array(noise, RATE)


def draw(recording: Recording, path: Path, **fields: Any) -> np.ndarray:
    """Draw a run and read the picture back: ``[height, width, 3]``, 0 to 1."""
    draw_run(recording, path, **({"question": "What is heard?", "answer": "a bell"} | fields))
    return imread(path)[:, :, :3]


def test_marks_are_where_the_span_is(recording: Recording, tmp_path: Path) -> None:
    """The first re-listen is drawn in red: its columns lie between its start and its end on the time axis."""
    picture = draw(recording, tmp_path / "run.png", listens=[Listen(5.0, 10.0)])
    height, width, _ = picture.shape
    red = (picture[..., 0] - picture[..., 2] > 0.25)[: int(0.75 * height)].sum(
        axis=0
    )  # the list below has a badge
    columns = np.flatnonzero(red > 20)
    left, right = 0.75 / 11 * width, (1 - 0.45 / 11) * width
    times = (columns - left) / (right - left) * 20
    assert times.min() == pytest.approx(5.0, abs=0.1)
    assert times.max() == pytest.approx(10.0, abs=0.1)


def test_each_listen_has_its_colour_and_row(recording: Recording, tmp_path: Path) -> None:
    none = draw(recording, tmp_path / "none.png")
    one = draw(recording, tmp_path / "one.png", listens=[Listen(5, 10, "a bell")])
    two = draw(recording, tmp_path / "two.png", listens=[Listen(5, 10, "a bell"), Listen(12, 13, "twice")])
    assert none.shape[0] < one.shape[0] < two.shape[0]
    blue = [(picture[..., 2] - picture[..., 0] > 0.4).sum() for picture in (one, two)]
    assert blue[1] > blue[0] + 500


@pytest.mark.parametrize(
    "fields",
    [
        {"question": "x" * 100_000, "answer": "y " * 50_000},
        {"question": "什么声音? 🔔 $\\frac{1}$ %s \\n", "answer": "$$"},
        {"question": "?", "answer": None, "before": "I hear\nnothing. " * 200, "caption": "a" * 500},
        {"choices": ["a very long choice"] * 40},
        {"listens": [Listen(i, i + 9.5, "text", "speed 0.5, 300 to 3400 Hz, +6 dB") for i in range(11)]},
        {"listens": [Listen(0.0, 0.001), Listen(19.999, 20.0)]},
    ],
)
def test_odd_texts_and_spans(recording: Recording, tmp_path: Path, fields: dict[str, Any]) -> None:
    picture = draw(recording, tmp_path / "run.png", **fields)
    assert picture.shape[1] == 1760
    assert picture.shape[0] < 4000


@pytest.mark.parametrize(("seconds", "rate"), [(0.02, 16000), (3.0, 8000), (1.0, 96000), (1.0, 2000)])
def test_odd_recordings(tmp_path: Path, seconds: float, rate: int) -> None:
    silence = Recording.from_array(np.zeros(int(seconds * rate), np.float32), rate)
    draw(silence, tmp_path / "run.png", listens=[Listen(0.0, seconds)])


def test_lanes() -> None:
    listens = [Listen(0, 5), Listen(4, 8), Listen(9, 12), Listen(9.5, 9.6)]
    assert _lanes(listens, 20.0) == [1, 2, 1, 2]


def test_steps() -> None:
    text = (
        "<think>First, a <b> sound.<seg>1, 2</seg> A bell.\n Again: <seg>3, 4; speed=0.5</seg>Twice.</think>"
        "<answer>a bell</answer><|im_end|>"
    )
    assert steps(text) == ["First, a sound.", "A bell. Again:", "Twice."]
    assert steps('Hm.<tool_call>{"name": "relisten"}</tool_call>A bell.<answer>bell') == ["Hm.", "A bell."]
    assert steps("never <seg>1, 2") == ["never", ""]
