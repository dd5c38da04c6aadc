"""What the studio does, without its page."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from echo_agent import EchoAgent, Recording
from echo_agent.cli import main
from echo_agent.errors import QuestionError
from echo_agent.pages.report import report
from echo_agent.pages.studio import THREAD, Studio, framed, style, verdict
from echo_agent.serve.settings import KEY
from tests.pages.conftest import Ran
from tests.scripted import scripted_family
from tests.sounds import apart
from tests.waiting import held, until

CHOICES = ["a dog", "a cat"]


def test_a_run_is_watched_as_it_happens(ran: Ran) -> None:
    shown = list(Studio(ran.agent).watch(ran.recording, "What is it?", CHOICES))
    assert [one.trace is None for one in shown] == [True] * (len(shown) - 1) + [False]
    assert "First listen" in shown[0].live and "data-listen" not in shown[0].live
    assert 'data-listen="1"' in shown[-1].live and "a dog barks" in shown[-1].live
    trace = shown[-1].trace
    assert trace is not None and trace.result.answer == ran.trace.result.answer
    assert [s.ids for s in trace.segments] == [s.ids for s in ran.trace.segments]
    assert "a dog" in verdict("Listening again", trace)


def test_who_looks_away_ends_the_run(ran: Ran) -> None:
    with held(ran.agent):
        before = ran.agent.engine.stats()["runs"]
        watching = Studio(ran.agent).watch(ran.recording, "What is it?", CHOICES)
        next(watching)
        watching.close()
    until(lambda: all(thread.name != THREAD for thread in threading.enumerate()))
    assert ran.agent.engine.stats()["runs"] <= before + 1, "of its two calls of the model, one"


def test_what_the_model_does_not_know_is_named_and_silence_is_called_silence() -> None:
    room = Recording.from_array(np.zeros(32000, np.float32), 16000, "room")
    with EchoAgent.from_pretrained("echo-nano", device="cpu") as nano:
        studio = Studio(nano)
        *_, sheep = studio.watch(room, "Is a sheep heard?", None)
        *_, bell = studio.watch(room, "Is a bell heard?", None)
    assert sheep.trace is not None and bell.trace is not None
    silent, page = "Note: it is silent: nothing can be heard in it.", report(sheep.trace, room)
    for shown in (verdict("Listening again", sheep.trace), page):
        assert "the question was not understood" in shown and silent in shown
        assert "Note: echo-nano does not know the word sheep, and was not asked." in shown
    assert "First listen" not in page, "nothing was heard"
    assert silent in verdict("Listening again", bell.trace) and "not understood" not in report(
        bell.trace, room
    )


def test_a_loop_is_no_answer(yard: Path) -> None:
    script = {"\n": "<answer>", "<answer>": "a violin", "a violin": ",", ",": "a violin"}
    with EchoAgent(scripted_family(script, sure=6.0)) as agent:
        *_, last = Studio(agent).watch(Recording.open(yard), "What plays?", None)
    assert last.trace is not None and last.trace.result.status == "unparsed"
    assert "no answer could be read" in verdict("Listening again", last.trace)


def test_errors_come_through(ran: Ran) -> None:
    studio = Studio(ran.agent)
    with pytest.raises(QuestionError, match="1 choice given"):
        list(studio.watch(ran.recording, "What is it?", ["a dog"]))
    with pytest.raises(QuestionError, match="there is no recording"):
        studio.open(None)
    assert studio.open(str(ran.file)).duration == 12.0


def test_listening_by_hand_is_the_tool_of_the_model(ran: Ran) -> None:
    studio = Studio(ran.agent)
    sound, told = studio.listen(ran.recording, 4.0, 2.0, 0.5, None, None, 0.0)
    assert sound is not None and told == "heard 2-4: swapped"
    again = ran.recording.ref(2.0, 4.0, ran.trace.segments[2].audio[0].transform)
    assert sound[0] == 16000 and apart(sound[1] / 32767, ran.recording.crop(again)) < 1e-4
    assert studio.listen(ran.recording, 1.0, 2.0, 1.0, 300.0, 3400.0, 6.0)[1] == "heard 1 to 2 s"
    assert studio.listen(ran.recording, 50.0, 60.0, 1.0, None, None, 0.0) == (
        None, "not heard: 50-60 is outside of 0-12",
    )  # fmt: skip


def test_a_page_in_a_frame_cannot_leave_it() -> None:
    frame = framed('<script>"</script>')
    assert 'sandbox="allow-scripts"' in frame and "<script>" not in frame and "&quot;&lt;/script" in frame
    assert ".echo-run {" in style() and style().count("{") == style().count("}")


def test_what_is_wrong_is_said_before_the_model_is_loaded(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert main(["studio", "--host", "0.0.0.0"]) == 2 and f"set {KEY} to one" in capfd.readouterr().err
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["studio", "--port", "0"]) == 2
    assert "pip install 'echo-agent[ui]'" in capfd.readouterr().err
