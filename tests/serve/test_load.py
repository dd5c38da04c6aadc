"""The server under load and under nonsense: many clients for some time, and requests that a machine made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import hypothesis
import openai
import psutil
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from echo_agent import EchoAgent
from tests.serve.conftest import NAME, Served, asking, audio, part, serving
from tests.sounds import ffmpeg, half, lively, write
from tests.tiny import sounds
from tests.waiting import until

pytestmark = pytest.mark.slow

CLIENTS, SECONDS = 64, 120.0
"""So many clients at once, and for how long."""
PAUSE = 0.25
"""Seconds that a client waits after a 429; OpenAI's own waits longer."""
SAMPLED = 2.0
"""Seconds between two looks at the memory."""
GROWN = 48
"""MiB by which memory may differ between the second and the last quarter of the time."""


@dataclass
class Load:
    """What came of the requests of all clients."""

    told: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """What requests that were answered took."""
    memory: list[float] = field(default_factory=list)
    """Resident MiB of the process, every ``SAMPLED`` seconds."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, seconds: float) -> None:
        with self.lock:
            self.told[kind] += 1
            if kind == "answered":
                self.seconds.append(seconds)

    @property
    def grown(self) -> float:
        """MiB between the second and the last quarter: the first one fills caches."""
        quarter = len(self.memory) // 4
        return median(self.memory[-quarter:]) - median(self.memory[quarter : 2 * quarter])

    def figures(self, took: float) -> dict[str, Any]:
        ordered = sorted(self.seconds)
        return {
            "clients": CLIENTS,
            "seconds": round(took, 1),
            "requests": dict(self.told),
            "answered_per_second": round(len(ordered) / took, 2),
            "seconds_per_answer": {
                q: round(ordered[int(q / 100 * (len(ordered) - 1))], 2) for q in (50, 95, 100)
            },
            "memory_mib": [round(self.memory[0]), round(max(self.memory)), round(self.memory[-1])],
            "grown_mib": round(self.grown, 1),
        }


def test_many_clients_for_two_minutes(agent: EchoAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """No error but 429, the answers of single requests, and memory that does not grow; the figures are printed."""
    recordings = [audio(sounds(6.0 + i, seed=i)) for i in range(4)]
    asked = [(i, seed) for i in range(4) for seed in range(2)]
    load = Load()

    def ask(client: openai.OpenAI, i: int, seed: int, stream: bool) -> str:
        given: Any = [asking("What barks?", recordings[i])]
        options: dict[str, Any] = {"temperature": 1.0, "seed": seed}
        echo = {"echo": {"choices": ["a dog", "a cat"]}}
        reply: Any = client.chat.completions.create(
            model=NAME, messages=given, stream=stream, extra_body=echo, **options
        )
        if not stream:
            return reply.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in reply)

    with serving(agent, running=16, waiting=32) as served, served.client() as client:
        alone = {pair: ask(client, *pair, False) for pair in asked}
        began = time.monotonic()
        ended = threading.Event()

        def one(number: int) -> None:
            with served.client() as mine:
                for turn in count():
                    if ended.is_set():
                        return
                    pair = asked[(number + turn) % len(asked)]
                    start = time.monotonic()
                    try:
                        answer = ask(mine, *pair, (number + turn) % 2 == 0)
                        kind = (
                            "answered" if answer == alone[pair] else f"{answer!r} in place of {alone[pair]!r}"
                        )
                    except openai.RateLimitError:
                        kind = "429"
                    except openai.OpenAIError as error:
                        kind = f"{type(error).__name__}: {error}"
                    load.note(kind, time.monotonic() - start)
                    if kind == "429":
                        ended.wait(PAUSE)

        clients = [threading.Thread(target=one, args=(number,)) for number in range(CLIENTS)]
        for thread in clients:
            thread.start()
        while time.monotonic() - began < SECONDS:
            load.memory.append(psutil.Process().memory_info().rss / (1 << 20))
            time.sleep(SAMPLED)
        ended.set()
        for thread in clients:
            thread.join()
        took = time.monotonic() - began
        until(lambda: served.server.gate.inside == 0)
        assert agent.recordings.nbytes == 0, "what they sent is gone"
    with capsys.disabled():
        print(json.dumps(load.figures(took)))
    assert set(load.told) <= {"answered", "429"}, load.told
    assert load.told["answered"] > CLIENTS, "each had a turn"
    assert load.grown < GROWN, [round(size) for size in load.memory]


# --- nonsense -----------------------------------------------------------------------------------------------------


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
def test_requests_that_follow_the_document_or_break_it(
    served: Served, mode: schemathesis.GenerationMode
) -> None:
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    asked: Counter[str] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=150,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def check(case: Any) -> None:
            response = case.call()
            case.validate_response(response, checks=CHECKS)
            asked[case.path] += 1

        try:
            check()
        except hypothesis.errors.Unsatisfiable:  # what takes nothing cannot be asked wrongly
            continue
    assert asked["/v1/chat/completions"] > 100


def damaged(folder: Path) -> dict[str, bytes]:
    """Files that are sent in place of recordings: of several formats, whole and cut off, and none at all."""
    wav = write(folder / "a.wav", lively(3.0, 16_000), 16_000)
    found: dict[str, bytes] = {}
    for name in ("a.flac", "a.ogg", "a.mp3"):
        write(folder / name, lively(3.0, 16_000), 16_000)
    for name in ("a.m4a", "a.webm", "a.aac", "a.mkv"):
        ffmpeg("-i", wav, folder / name)
    for file in sorted(folder.glob("a.*")):
        data = file.read_bytes()
        found[file.name] = data
        found[f"half of {file.name}"] = half(file, folder / "cut").read_bytes()
        found[f"head of {file.name}"] = data[:60]
        found[f"{file.name} with noise"] = data[:100] + os.urandom(200) + data[300:]
        found[f"{file.name} without head"] = data[44:]
    found |= {
        "text": b"Dear Sir or Madam,\n" * 100,
        "page": b"<!DOCTYPE html><html></html>" * 50,
        "zeros": bytes(5000),
    }
    found |= {"list": b"#EXTM3U\n/etc/passwd\n", "concat": b"ffconcat version 1.0\nfile /etc/passwd\n"}
    found |= {
        "huge": b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x01\x00\xff\xff\xff\xff\xff\xff" + bytes(50)
    }
    return found


def test_bad_recordings(served: Served, tmp_path: Path) -> None:
    files = damaged(tmp_path)
    heard = 0
    for name, data in files.items():
        request = {"model": NAME, "messages": [asking("What?", part(data))], "echo": {"choices": ["a", "b"]}}
        reply = httpx.post(f"{served.url}/v1/chat/completions", json=request, timeout=120)
        assert reply.status_code in (200, 400), (name, reply.text)
        heard += reply.status_code == 200
        if reply.status_code == 400:
            error = reply.json()["error"]
            assert error["code"] in ("invalid_audio", "audio_too_long"), (name, error)
            assert str(tmp_path) not in error["message"] and "/proc/" not in error["message"], (name, error)
    assert heard >= 14, "whole and cut files are heard"
    assert served.server.agent.recordings.nbytes == 0


def test_a_server_leaves_nothing_behind(tmp_path: Path) -> None:
    """Not even where it is killed while it decodes."""
    code = (
        "import tempfile; from echo_agent.audio.recording import Recording\n"
        f"data = open({str(tmp_path / 'a.m4a')!r}, 'rb').read()\n"
        "for _ in range(3): Recording.from_bytes(data, 'audio 1', 600.0, 16000)\n"
        "print('decoded', flush=True)\n"
        "while True: Recording.from_bytes(data, 'audio 1', 600.0, 16000)\n"
    )
    ffmpeg("-i", write(tmp_path / "a.wav", lively(20.0, 16_000), 16_000), tmp_path / "a.m4a")
    folder = tmp_path / "temporary"
    folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    assert process.stdout is not None and process.stdout.readline() == "decoded\n"
    process.kill()
    process.communicate()
    if sys.platform == "linux":
        assert list(folder.iterdir()) == []
