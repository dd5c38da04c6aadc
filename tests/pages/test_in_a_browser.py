"""The pages in a real browser: they play, they are linked, they need no network, and they fit a telephone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import soundfile

from echo_agent.pages.report import write_report
from tests.pages.browser import browsing
from tests.pages.conftest import Ran
from tests.tiny import sounds
from tests.waiting import until

pytestmark = pytest.mark.slow

PATIENCE = 300
"""Seconds that a run, or the end of a process, may take on a machine that does other things."""
RECORDED = 6
"""Seconds that are recorded."""
PLAYING = "[...document.querySelectorAll('audio')].filter(a => !a.paused).map(a => a.dataset.number)"


def test_the_page_of_a_run(ran: Ran, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    write_report(ran.trace, ran.recording, file)
    with browsing() as (page, faults):
        page.goto(file.as_uri())
        page.hover(".step[data-listen='1']")
        assert "on" in (page.get_attribute(".bar", "class") or ""), (
            "pointing at a step marks it in the picture"
        )
        page.click(".bar")
        until(lambda: page.evaluate(f"{PLAYING}.includes('1')"))
        until(lambda: page.evaluate("document.getElementById('sound-1').currentTime > 0.2"))
        left = float(
            (page.get_attribute(".playhead", "style") or "").partition("left: ")[2].partition("%")[0]
        )
        assert 100 * 2 / 12 < left < 100 * 4 / 12, "the playhead stands in the stretch"
        page.click(".step .play")
        assert page.evaluate(PLAYING) == []
        page.focus(".seek")
        page.keyboard.press("End")
        until(lambda: page.evaluate(f"{PLAYING}.includes('0')"))
        page.keyboard.press(" ")
        assert page.evaluate(PLAYING) == []
        page.keyboard.press("1")
        until(lambda: page.evaluate(f"{PLAYING}.includes('1')"))
        page.click(".time")
        until(
            lambda: page.evaluate(
                f"{PLAYING}.join() === '0' && document.getElementById('sound-0').currentTime >= 3"
            )
        )
        assert faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone(ran: Ran, tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "run.html"
    write_report(ran.trace, ran.recording, file)
    with browsing(400, scheme) as (page, faults):
        page.goto(file.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 400
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        ink, paper = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
        assert (ink < paper) == (scheme == "light") and abs(ink - paper) > 400
        assert faults == []


@contextmanager
def studio(ran: Ran, folder: Path, key: str = "") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The studio of a scripted model, as a command; its address, and the process."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    ran.agent.family.save(folder / "model")
    command = [
        sys.executable,
        "-m",
        "echo_agent.cli",
        "studio",
        "--port",
        "0",
        "--model",
        str(folder / "model"),
    ]
    environment = {**os.environ, "ECHO_AGENT_KEY": key}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert ("(user echo, the key is the password)" in said) == bool(key)
        yield said.split(" at ")[1].split(";")[0].split(" ")[0], process
    finally:
        process.kill()
        process.communicate()


def test_the_studio(ran: Ran, tmp_path: Path) -> None:
    with browsing() as (page, faults), studio(ran, tmp_path) as (address, process):
        page.goto(address)
        page.wait_for_selector("#ask")
        page.click("#ask")
        page.wait_for_selector("text=there is no recording")
        page.set_input_files("input[type=file]", ran.file)
        page.get_by_label("Question").fill("What is it?")
        page.get_by_label("Choices").fill("a dog | a cat")
        page.check("#compare input")
        page.wait_for_timeout(1000)  # until the upload is there
        page.click("#ask")
        page.wait_for_selector("iframe.echo-page", timeout=PATIENCE * 1000)
        frame = page.frame_locator("iframe.echo-page")
        frame.locator(".bar").click()
        page.wait_for_selector(".echo-verdict:nth-child(2) small", timeout=PATIENCE * 1000)
        assert page.locator(".echo-verdict").all_inner_texts()[1].split("\n")[0] == "Re-listening off"
        with page.expect_download() as download:
            page.click("#trace")
        trace = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        assert trace["question"] == "What is it?" and trace["result"]["relistens"][0]["speed"] == 0.5
        page.click("#yourself > button")

        def clamped() -> bool:
            """Type the number and listen, again if the page was still drawing when it was typed."""
            page.get_by_label("End (s)").fill("60")
            page.wait_for_timeout(500)
            page.click("#listen")
            page.wait_for_timeout(2500)
            return page.evaluate("document.querySelector('#told textarea').value.includes('clamped')")

        until(clamped)
        page.wait_for_selector("#heard audio, #heard [data-testid]", state="attached")
        assert faults == []
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE)
        assert (process.returncode, out, err) == (0, "stopped\n", "")


def test_the_studio_records(ran: Ran, tmp_path: Path) -> None:
    """What the microphone hears is asked about; in the trace, the recording is as long as was recorded."""
    soundfile.write(tmp_path / "said.wav", sounds(12.0), 48000)
    with (
        browsing(microphone=tmp_path / "said.wav") as (page, faults),
        studio(ran, tmp_path) as (address, _),
    ):
        page.goto(address)
        page.get_by_label("Record audio").click()
        page.get_by_role("button", name="Record", exact=True).click()
        page.wait_for_timeout(RECORDED * 1000)
        page.locator("button.stop-button").click()
        page.wait_for_selector("button[aria-label=Play]")  # it is uploaded
        page.get_by_label("Question").fill("What is it?")
        page.get_by_label("Choices").fill("a dog | a cat")
        page.click("#ask")
        page.wait_for_selector("iframe.echo-page", timeout=PATIENCE * 1000)
        with page.expect_download() as download:
            page.click("#trace")
        trace = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
        assert trace["recording"]["duration"] > RECORDED - 1 and trace["result"]["relistens"]
        assert faults == []


def test_the_studio_with_a_key(ran: Ran, tmp_path: Path) -> None:
    with browsing() as (page, faults), studio(ran, tmp_path, "open-sesame") as (address, _):
        assert httpx.get(f"{address}config").status_code == 401, "nothing is told to who has not logged in"
        page.goto(address)
        page.wait_for_selector("text=The user is echo")
        name, password = page.locator("input").all()
        assert password.get_attribute("type") == "password"
        for said in ("another-word", "open-sesame"):
            name.fill("echo")
            password.fill(said)
            page.get_by_role("button", name="Login").click()
            if said == "another-word":
                page.wait_for_selector("text=Incorrect Credentials")
        page.wait_for_selector("#ask")
        assert [fault for fault in faults if "401" not in fault and "400" not in fault] == []
