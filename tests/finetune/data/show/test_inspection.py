"""Pictures and pages of rows: there, whole, and safe to open."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from echo_agent.audio.picture import Page
from echo_agent.errors import DataError, RecordingError
from echo_agent.finetune.data.questions.composer import GrammarSettings, compose
from echo_agent.finetune.data.records import Event, Record, Sample
from echo_agent.finetune.data.show.gallery import write_page
from echo_agent.finetune.data.show.inspection import ASKED, draw_samples
from tests.finetune.data.symbolic import record


@pytest.fixture
def rows(tmp_path: Path) -> tuple[list[Sample], dict[str, Record]]:
    records = [record(n, 20, 40) for n in range(2)]
    (tmp_path / "audio").mkdir()
    for one in records:
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, round(16000 * one.duration))
        soundfile.write(tmp_path / one.audio, noise, 16000)
    samples = list(compose(records, GrammarSettings(rl_share=0, listen_share=1)))
    return samples, {one.id: one for one in records}


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def has(picture: np.ndarray, colour: str) -> bool:
    """Whether some pixels have about this colour."""
    wanted = np.array(rgb(colour)) / 255
    return bool((np.abs(picture[..., :3] - wanted).max(-1) < 0.02).any())


def test_a_picture_grows_with_its_rows(tmp_path: Path, rows: tuple[list[Sample], dict[str, Record]]) -> None:
    samples, records = rows
    one, three = tmp_path / "one.png", tmp_path / "three.png"
    draw_samples(samples[:1], records, tmp_path, one)
    draw_samples(samples[:3], records, tmp_path, three)
    first, second = imread(one), imread(three)
    assert second.shape[0] > 2 * first.shape[0] and second.shape[1] == first.shape[1]


def test_what_must_be_heard_and_what_is_heard_again_are_marked(
    tmp_path: Path, rows: tuple[list[Sample], dict[str, Record]]
) -> None:
    samples, records = rows
    listening = next(sample for sample in samples if sample.listens and sample.gold_spans)
    silent = listening.model_copy(update={"reasoning": "", "gold_spans": ()})
    draw_samples([listening], records, tmp_path, tmp_path / "a.png")
    draw_samples([silent], records, tmp_path, tmp_path / "b.png")
    marked, plain = imread(tmp_path / "a.png"), imread(tmp_path / "b.png")
    assert has(marked, ASKED) and not has(plain, ASKED)


def test_a_page_stands_alone_and_escapes_its_text(
    tmp_path: Path, rows: tuple[list[Sample], dict[str, Record]]
) -> None:
    samples, records = rows
    evil = samples[0].model_copy(
        update={"question": 'Is <script>alert("x")</script> heard?', "reasoning": "<b>&"}
    )
    write_page([evil, *samples[1:3]], records, tmp_path, tmp_path / "rows.html")
    text = (tmp_path / "rows.html").read_text()
    found: list[tuple[str, dict[str, str | None]]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            found.append((tag, dict(attrs)))

    Reader().feed(text)
    tags = [tag for tag, _ in found]
    assert tags.count("img") == tags.count("audio") == 3
    assert text.count("<script") <= 1 and "&lt;script&gt;" in text and "http" not in text
    for tag, given in found:
        if tag == "img":
            assert str(given["src"]).startswith("data:image/png;base64,")
        if tag == "audio":
            assert (tmp_path / str(given["src"])).is_file()


def test_a_row_without_a_record_is_drawn_without_events(
    tmp_path: Path, rows: tuple[list[Sample], dict[str, Record]]
) -> None:
    draw_samples(rows[0][:1], {}, tmp_path, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_what_cannot_be_read_or_written_is_said(
    tmp_path: Path, rows: tuple[list[Sample], dict[str, Record]]
) -> None:
    samples, records = rows
    with pytest.raises(RecordingError, match="none"):
        draw_samples(
            [samples[0].model_copy(update={"audio": "none.flac"})], records, tmp_path, tmp_path / "a.png"
        )
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        draw_samples(samples[:1], records, tmp_path, tmp_path / "file" / "a.png")


def test_a_row_with_thousands_of_everything_is_drawn(
    tmp_path: Path, rows: tuple[list[Sample], dict[str, Record]]
) -> None:
    """Some of it; what is not is counted."""
    samples, records = rows
    sample, known = samples[0], records[samples[0].record]
    many = sample.model_copy(
        update={
            "reasoning": "".join(f"<seg>{n % 8}, {n % 8 + 1}</seg> a " for n in range(4000)),
            "gold_spans": tuple((n / 1000, n / 1000 + 1) for n in range(4000)),
        }
    )
    crowd = known.model_copy(update={"events": tuple(Event("dog", "sound", 1.0, 2.0) for _ in range(4000))})
    written: list[str] = []
    write = Page.write

    def noting(page: Page, text: str, **options: Any) -> None:
        written.append(text)
        write(page, text, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Page, "write", noting)
        draw_samples([many], {known.id: crowd}, tmp_path, tmp_path / "a.png")
    assert "not drawn: 3940 calls, 3940 gold spans, 3970 events" in written
    assert imread(tmp_path / "a.png").shape[0] < 6000
