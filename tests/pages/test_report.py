"""The page of a run: all of it is in one file, nothing from outside is markup, and it is the same each time."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import soundfile

from echo_agent import EchoAgent, Recording
from echo_agent.errors import DataError
from echo_agent.pages import report as module
from echo_agent.pages.figure import Mark, figure
from echo_agent.pages.report import report, write_report
from tests.pages.conftest import Ran, run_of
from tests.sounds import tone


class Elements(HTMLParser):
    """The elements of a page, with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, name: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.found if t == tag and (not name or name in (a.get("class") or "").split())]


@pytest.fixture(scope="module")
def page(ran: Ran) -> str:
    return report(ran.trace, ran.recording)


def test_the_page_shows_the_run(page: str) -> None:
    found = Elements(page)
    text = " ".join(found.text.split())
    assert "What is it?" in text and "First listen, 0:00.0 – 0:12.0" in text and "0:02.0 – 0:04.0" in text
    assert "speed 0.5" in text and "a dog barks" in text
    assert "Heard again 4.0 s in 1 re-listen" in re.sub(r"(?<=[a-z])(?=\d)|(?<=s)(?=in )", " ", text)
    (bar,) = found.all("button", "bar")
    assert bar["data-play"] == "1" and "left:25.000%;width:max(16.667%,1.25rem)" in (bar["style"] or "")
    assert [a["data-time"] for a in found.all("button", "time")] == ["3"]
    assert [a["class"] for a in found.all("li") if a.get("class") == "chosen"] == ["chosen"]


def test_the_sounds_are_in_it(page: str, ran: Ran) -> None:
    lengths = {}
    for audio in Elements(page).all("audio"):
        data = base64.b64decode((audio["src"] or "").removeprefix("data:audio/mpeg;base64,"))
        samples, rate = soundfile.read(io.BytesIO(data))
        lengths[audio["data-number"]] = len(samples) / rate
        assert "controls" in audio, "without scripts, the browser's own controls play it"
    assert lengths["0"] == pytest.approx(12.0, abs=0.1)
    assert lengths["1"] == pytest.approx(4.0, abs=0.1), "two seconds at half speed"


def test_nothing_comes_from_a_network(page: str) -> None:
    found = Elements(page)
    (policy,) = [a["content"] or "" for a in found.all("meta") if a.get("http-equiv")]
    assert policy.startswith("default-src 'none'")
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    for _, attributes in found.found:
        for name, value in attributes.items():
            assert not name.startswith("on"), "a script in an attribute would not run"
            if name in ("src", "href"):
                assert (value or "").startswith(("data:", "#"))
    assert not re.search(r"url\((?!data:)", page) and "@import" not in page and "http://" not in page


EVIL = "</script><script>alert(1)</script>\"'&\u202eab$title"


def test_what_comes_from_outside_is_text(scripted: EchoAgent, ran: Ran) -> None:
    result = ran.trace.result.model_copy(update={"answer": EVIL, "notes": (EVIL,)})
    segments = [s.model_copy(update={"text": s.text + EVIL}) for s in ran.trace.segments]
    trace = ran.trace.model_copy(
        update={
            "question": EVIL,
            "choices": [EVIL, "b"],
            "result": result,
            "segments": segments,
            "model": EVIL,
        }
    )
    page = report(trace, ran.recording)
    assert page.count("<script>") == 1 and "\u202e" not in page and "alert(1)&lt;/script&gt;" in page
    assert "yard &lt;b&gt;.flac" in page


def test_the_same_run_is_the_same_page(ran: Ran, tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write_report(ran.trace, ran.recording, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_page_that_cannot_be_written_is_one_line(ran: Ran) -> None:
    with pytest.raises(DataError, match="No space left on device"):
        write_report(ran.trace, ran.recording, Path("/dev/full"))


def test_of_a_long_recording_only_what_was_heard_again_is_embedded(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_WHOLE", 5.0)
    found = Elements(report(ran.trace, ran.recording))
    assert [a["data-number"] for a in found.all("audio")] == ["1"]
    assert "too long to be part of this page" in found.text and not found.all("button", "time")


def test_an_answer_that_could_not_be_read_is_said(scripted: EchoAgent, yard: Path) -> None:
    ran = run_of(scripted, yard, relisten=False, max_new_tokens=1)
    result = ran.trace.result.model_copy(update={"answer": None, "choice_index": None})
    page = report(ran.trace.model_copy(update={"result": result}), ran.recording)
    assert "no answer could be read" in Elements(page).text


@pytest.mark.parametrize("seconds", [0.3, 4.0, 75.0])
def test_a_picture_of_any_length(seconds: float) -> None:
    recording = Recording.from_array(tone(300, seconds, 8000), 8000)
    end = recording.duration
    picture = figure(recording, [Mark(1, 0.0, end), Mark(2, end / 2, end, asked=(0.0, end / 2))])
    found = Elements(picture)
    assert len(found.all("button", "bar")) == 2 and len(found.all("div", "asked")) == 1
    shares = [float(share) for share in re.findall(r"(?:left|width):(-?[\d.]+)%", picture)]
    assert shares and all(0 <= share <= 100 for share in shares)
    assert len(re.findall(r"<span style=", picture)) >= 2, "the time axis has marks"
