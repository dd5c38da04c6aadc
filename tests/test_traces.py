"""Traces: what is written is read back, and what is no trace is one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent import EchoAgent, Recording
from echo_agent.errors import DataError, RecordingError
from echo_agent.traces import Trace, read_trace, recording_of, trace_of
from tests.scripted import ASK_ONCE, scripted_family
from tests.tiny import sounds

QUESTION, CHOICES = "What barks?", ["a dog", "a cat"]


@pytest.fixture(scope="module")
def agent():
    with EchoAgent(scripted_family(ASK_ONCE)) as agent:
        yield agent


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "yard.wav"
    soundfile.write(path, sounds(10.0), 16000)
    return path


def traced(agent: EchoAgent, recording: Recording) -> Trace:
    result = agent.ask(recording, QUESTION, CHOICES)
    return trace_of(agent, recording, QUESTION, CHOICES, {}, result)


def test_a_trace_comes_back(agent: EchoAgent, file: Path, tmp_path: Path) -> None:
    trace = traced(agent, Recording.open(file))
    path = tmp_path / "run.json"
    path.write_text(json.dumps(trace.to_json()), encoding="utf-8")
    found = read_trace(path)
    assert found.to_json() == trace.to_json()
    assert [s.ids for s in found.segments] == [s.ids for s in trace.segments], "placeholders are unpacked"
    assert path.stat().st_size < 20_000
    assert recording_of(found).sha256 == found.recording.sha256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no trace of a run"),
        ("[1, 2]", "is no trace of a run"),
        ('{"question": "What?"}', "is no trace of a run (echo_agent: Field required)"),
        ("[" * 5000 + "]" * 5000, "nested more than 100 deep"),
    ],
)
def test_what_is_no_trace_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_trace(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_the_recording_of_a_run(agent: EchoAgent, file: Path, tmp_path: Path) -> None:
    trace = traced(agent, Recording.open(file))
    moved = file.rename(tmp_path / "elsewhere.wav")
    with pytest.raises(RecordingError, match="any more: name its file with --audio"):
        recording_of(trace)
    assert recording_of(trace, str(moved)).duration == 10.0
    soundfile.write(file, np.zeros(160000), 16000)
    for audio in (None, str(file)):
        with pytest.raises(RecordingError, match="its content is another"):
            recording_of(trace, audio)


def test_a_recording_in_memory_is_told_by_its_length(agent: EchoAgent, file: Path, tmp_path: Path) -> None:
    trace = traced(agent, Recording.from_array(sounds(10.0), 16000))
    with pytest.raises(RecordingError, match="given in memory: name its file"):
        recording_of(trace)
    assert recording_of(trace, str(file)).name == "yard.wav"
    soundfile.write(tmp_path / "other.wav", sounds(3.0), 16000)
    with pytest.raises(RecordingError, match="its content is another"):
        recording_of(trace, str(tmp_path / "other.wav"))
