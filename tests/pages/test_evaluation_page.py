"""The report: one file with everything in it, nothing of which can act in a browser, and tables for a paper."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import soundfile

from echo_agent.benchmarks.benchmark import load_benchmark
from echo_agent.benchmarks.summary import summarised
from echo_agent.pages.charts import ticks
from echo_agent.pages.evaluation import page
from echo_agent.pages.tables import markdown
from tests.benchmarks.test_rules import item
from tests.benchmarks.test_summary import run
from tests.sounds import lively

RATE = 16000
EVIL = '<script>alert("x")</script>|&'


class Reader(HTMLParser):
    """Counts tags, and holds that each is closed."""

    VOID = {"meta", "br", "img", "circle", "line", "rect", "path", "polyline"}

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.open: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.outside += [
            value for key, value in attrs if key in ("src", "href") and value and "data:" not in value
        ]
        if tag not in self.VOID | {"html"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID | {"html"}:
            assert self.open.pop() == tag


@pytest.fixture
def made(tmp_path: Path) -> tuple[Any, ...]:
    """Four questions: one mended, one spoiled, two the same; everything from outside is hostile."""
    benchmark = load_benchmark("mmar")
    soundfile.write(tmp_path / "a.wav", lively(8.0, RATE), RATE)
    rows = [
        item(number, category=EVIL, modality="sound", duration=8.0, gold_spans=[(2.0, 3.0)]).model_copy(
            update={"audio": str(tmp_path / "a.wav"), "question": f"What is heard? {EVIL}"}
        )
        for number in range(1, 5)
    ]
    listen = {"start": 2.0, "end": 4.0, "speed": 1.0}
    heard = {"relistens": (listen,), "seconds_heard": 2.0}
    rights = {"on": (1, 0, 1, 0), "off": (0, 1, 1, 0), "no-audio": (0, 0, 1, 0)}
    outcomes = [
        run(row, bool(right), control, **(heard if control == "on" else {}))  # type: ignore[arg-type]
        for control, marks in rights.items()
        for row, right in zip(rows, marks, strict=True)
    ]
    summary = summarised(benchmark, rows, outcomes, list(rights))  # type: ignore[arg-type]
    about = {
        "benchmark": "mmar", "split": None, "official_rule": benchmark.rule, "model": EVIL, "made_by": EVIL,
        "version": "0", "questions_hash": "0", "seed": 0, "seeds": 1, "max_relistens": 8, "temperature": 0.0,
        "guided": True, "rows_in_file": 5, "rows": 4, "left_out": [f"f:5: {EVIL}"], "failed": [], "judge": None,
    }  # fmt: skip
    return benchmark, rows, outcomes, summary | about


def test_a_page_holds_everything_and_nothing_acts(made: tuple[Any, ...]) -> None:
    text = page(*made)
    reader = Reader()
    reader.feed(text)
    assert reader.open == [] and reader.outside == [] and EVIL not in text
    assert reader.tags["script"] == 1 and reader.tags["audio"] == 2 and reader.tags["section"] == 2
    assert "<b>50.0 %</b> right" in text and "Without any sound: 25.0 %" in text
    assert "2:00" not in text and "heard again 0:02.0 – 0:04.0" in text and "gold 0:02.0 – 0:03.0" in text
    found = re.findall(r"data:audio/mpeg;base64,([^\"]+)", text)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(found[0])))
    assert rate == RATE and len(samples) / rate == pytest.approx(8.0, abs=0.2) and samples.any()


def test_a_recording_that_is_gone_is_said_so(made: tuple[Any, ...]) -> None:
    benchmark, rows, outcomes, summary = made
    gone = [row.model_copy(update={"audio": "/none/a.wav"}) for row in rows]
    assert "a.wav" in page(benchmark, gone, outcomes, summary)


def test_a_long_recording_is_played_in_part(made: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("echo_agent.pages.examples.LONGEST", 4.0)
    monkeypatch.setattr("echo_agent.pages.examples.AROUND", 0.5)
    text = page(*made)
    assert 'data-begin="1.5"' in text and "0:01.5 – 0:04.5 of the recording" in text


def test_tables_for_a_paper(made: tuple[Any, ...]) -> None:
    text = markdown(made[3])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows[0].startswith("| control | official, % (95 %) | strict, % (95 %) |")
    assert rows[2].startswith("| on | 50.0 (15.0 to 85.0) | 50.0 (15.0 to 85.0) | 0 | 100 % |")
    assert "| on − off | +0.0 (-75.0 to +75.0) | 1 | 1 | 1 | 4 |" in text
    for first, second in zip(rows, rows[1:], strict=False):
        if second.startswith("| ---"):
            assert first.replace("\\|", "").count("|") == second.count("|")
    assert "Asked: 4 of 5 rows. 1 rows could not be asked." in text


@pytest.mark.parametrize(
    ("most", "count", "wanted"),
    [
        (61.2, 5, [0, 20, 40, 60, 80]),
        (93.0, 3, [0, 50, 100]),
        (156.0, 3, [0, 100, 200]),
        (0.9, 4, [0, 0.25, 0.5, 0.75, 1]),
        (100.0, 5, [0, 20, 40, 60, 80, 100]),
        (48.0, 3, [0, 20, 40, 60]),
    ],
)
def test_axes_are_numbered_in_round_steps(most: float, count: int, wanted: list[float]) -> None:
    assert ticks(most, count) == pytest.approx(wanted)
    assert ticks(0.0, count)[0] == 0.0 < ticks(0.0, count)[-1]
