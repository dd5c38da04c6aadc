"""Models that follow a script, a recording, and a command line in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from echo_agent.cli import DEBUG, main
from tests.cli.commands import RATE, Result, Run
from tests.scripted import ASK_FOREVER, ASK_ONCE, scripted_family
from tests.tiny import sounds, tiny_family


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with models that follow a script."""
    folder = tmp_path_factory.mktemp("models")
    scripted_family({**ASK_ONCE, "<think>": "<seg>2.0, 4.0; speed=0.5</seg>"}).save(folder / "once")
    scripted_family(ASK_FOREVER).save(folder / "forever")
    scripted_family({**ASK_ONCE, "</think>": "<|im_end|>"}).save(folder / "mute")
    tiny_family("qwen2-audio").save(folder / "short-sighted")
    return folder


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "yard.flac"
    soundfile.write(path, sounds(12.0), RATE)
    return path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("ECHO_AGENT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(DEBUG, raising=False)

    def run(*arguments: str | Path) -> Result:
        code = main([str(argument) for argument in arguments])
        printed = capfd.readouterr()
        return code, printed.out, printed.err

    return run
