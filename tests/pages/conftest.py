"""A run that listens again, at half speed, and its trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import soundfile

from echo_agent import EchoAgent, Recording
from echo_agent.traces import Trace, trace_of
from tests.scripted import ASK_ONCE, scripted_family
from tests.tiny import sounds

RATE = 16000
SCRIPT = {**ASK_ONCE, "<think>": "At 3 s <seg>2.0, 4.0; speed=0.5</seg>"}


class Ran(NamedTuple):
    """One run."""

    agent: EchoAgent
    file: Path
    recording: Recording
    trace: Trace


def run_of(agent: EchoAgent, file: Path, question: str = "What is it?", **options: object) -> Ran:
    recording = Recording.open(file)
    choices = ["a dog", "a cat"]
    result = agent.ask(recording, question, choices, **options)
    return Ran(agent, file, recording, trace_of(agent, recording, question, choices, options, result))


@pytest.fixture(scope="session")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("yard") / "yard <b>.flac"
    soundfile.write(path, sounds(12.0), RATE)
    return path


@pytest.fixture(scope="session")
def scripted() -> Iterator[EchoAgent]:
    with EchoAgent(scripted_family(SCRIPT)) as agent:
        yield agent


@pytest.fixture(scope="session")
def ran(scripted: EchoAgent, yard: Path) -> Ran:
    return run_of(scripted, yard)
