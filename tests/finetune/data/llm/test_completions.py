"""Completions over HTTP: what comes is read, checked and counted; what does not is asked for again, or reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from echo_agent.errors import DataError, MissingExtraError, ModelError
from echo_agent.finetune.data.llm.chat_models import load_chat_model
from echo_agent.finetune.data.llm.completions import PATIENCE, Completions, read_reply
from echo_agent.finetune.data.llm.usage import Price, Usage
from tests.finetune.data.llm.chats import COMPLETION, PROMPT, ChatServer, Say, ScriptedChat, serving

GOOD = '{"name": "bell", "count": 3}'


class Heard(BaseModel):
    """What is heard."""

    name: str
    count: int


def client(server: ChatServer, cache: Path, timeout: float = 120.0, **settings: Any) -> Completions:
    model = load_chat_model("openai:tests", base_url=server.url, api_key="none", timeout=timeout)
    return Completions(model, "openai:tests", cache, **{"longest_wait": 0.05} | settings)


def test_a_reply_is_read_counted_and_never_paid_for_twice(tmp_path: Path) -> None:
    with serving(lambda body, number: Say(GOOD)) as server:
        chat = client(server, tmp_path)
        first = chat.ask("Listen {not a slot}.", "What $is heard?", Heard)
        again = client(server, tmp_path)
        assert again.ask("Listen {not a slot}.", "What $is heard?", Heard) == first
        assert again.spent == Usage() and again.cached == 1
        again.ask("Listen {not a slot}.", "Something else?", Heard)
    assert first.value == Heard(name="bell", count=3) and first.problem == ""
    assert first.usage == chat.spent == Usage(1, 0, PROMPT, COMPLETION)
    assert len(server.requests) == 2
    assert server.requests[0]["response_format"]["type"] == "json_schema"
    assert server.requests[0]["messages"][0]["content"] == "Listen {not a slot}."


@pytest.mark.parametrize(
    ("change", "asked"),
    [({}, 1), ({"settings": {"temperature": 0.5}}, 2), ({"name": "other"}, 2), ({"structured": False}, 2)],
)
def test_what_is_kept_holds_for_the_same_model_and_settings(
    change: dict[str, Any], asked: int, tmp_path: Path
) -> None:
    with serving(lambda body, number: Say(GOOD)) as server:
        model = load_chat_model("openai:tests", base_url=server.url, api_key="none")
        Completions(model, "openai:tests", tmp_path).ask("a", "b", Heard)
        Completions(model, **{"name": "openai:tests", "cache": tmp_path} | change).ask("a", "b", Heard)
    assert len(server.requests) == asked


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Say("I would rather sing."), "no JSON object"),
        (Say(""), "no JSON object"),
        (Say('{"name": "bell", "cou', finish="length"), "no JSON object"),
        (Say('{"name": "bell", "count": "many"}'), "count"),
        (Say("[1, 2]"), "no JSON object"),
        (Say('{"a":' * 20000), "no JSON object"),
    ],
    ids=["nonsense", "empty", "truncated", "wrong-schema", "a-list", "deep"],
)
def test_a_bad_reply_goes_back_with_the_reason(bad: Say, reason: str, tmp_path: Path) -> None:
    with serving(lambda body, number: bad if number == 0 else Say(GOOD)) as server:
        reply = client(server, tmp_path).ask("a", "b", Heard)
    assert reply.value == Heard(name="bell", count=3)
    assert reply.usage == Usage(2, 0, 2 * PROMPT, 2 * COMPLETION), "a bad reply is paid for too"
    assert reason in server.texts()[1]
    assert [message["role"] for message in server.requests[1]["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]


def test_a_model_that_never_mends_its_reply_is_given_up(tmp_path: Path) -> None:
    with serving(lambda body, number: Say(GOOD)) as server:
        reply = client(server, tmp_path).ask("a", "b", Heard, lambda heard: f"{heard.name} is wrong")
    assert reply.value is None and reply.problem == "bell is wrong"
    assert len(server.requests) == reply.usage.calls == 3


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(status: int, tmp_path: Path) -> None:
    with serving(lambda body, number: Say("later", status) if number < 2 else Say(GOOD)) as server:
        reply = client(server, tmp_path).ask("a", "b", Heard)
    assert reply.value and reply.usage == Usage(1, 2, PROMPT, COMPLETION)
    assert len(server.requests) == 3


def test_the_server_says_how_long_to_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    slow = Say("slow down", 429, headers={"Retry-After": "17.5"})
    with serving(lambda body, number: slow if number == 0 else Say(GOOD)) as server:
        assert client(server, tmp_path, longest_wait=30).ask("a", "b", Heard).value
    assert 17.5 in waited


def test_a_connection_that_hangs_is_given_up_and_made_again(tmp_path: Path) -> None:
    with serving(lambda body, number: Say(GOOD, hang=number == 0)) as server:
        reply = client(server, tmp_path, timeout=1.0, attempts=20).ask("a", "b", Heard)
    assert reply.value and reply.usage.retries >= 1  # more where the machine is that busy


def test_one_that_is_not_answered_is_reported_and_asked_anew_the_next_time(tmp_path: Path) -> None:
    with serving(lambda body, number: Say("boom", 500) if number < 3 else Say(GOOD)) as server:
        lost = client(server, tmp_path, attempts=3).ask("a", "b", Heard)
        assert lost.value is None and "no reply" in lost.problem and "boom" in lost.problem
        assert lost.usage == Usage(retries=2)
        assert client(server, tmp_path).ask("a", "b", Heard).value


def test_a_server_that_has_gone_stops_the_work(tmp_path: Path) -> None:
    with serving(lambda body, number: Say(GOOD)) as server:
        chat = client(server, tmp_path, attempts=2)
    for number in range(PATIENCE - 1):
        assert "no reply" in chat.ask("a", str(number), Heard).problem
    with pytest.raises(ModelError, match=f"{PATIENCE} requests in a row.*kept"):
        chat.ask("a", "b", Heard)


def test_requests_that_are_refused_are_reported_one_by_one(tmp_path: Path) -> None:
    def script(body: dict[str, Any], number: int) -> Say:
        return Say("too long", 400) if number % 2 else Say(GOOD)

    with serving(script) as server:
        chat = client(server, tmp_path)
        replies = [chat.ask("a", str(number), Heard) for number in range(4 * PATIENCE)]
    assert [reply.value is None for reply in replies] == [False, True] * 2 * PATIENCE
    assert "refused" in replies[1].problem and "too long" in replies[1].problem


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_stops_the_work_at_once(status: int, tmp_path: Path) -> None:
    with serving(lambda body, number: Say("not for you", status)) as server:
        with pytest.raises(ModelError, match="cannot be asked: .*not for you"):
            client(server, tmp_path).ask("a", "b", Heard)
    assert len(server.requests) == 1


def test_calls_whose_tokens_are_not_told_are_counted_apart(tmp_path: Path) -> None:
    with serving(lambda body, number: Say(GOOD, usage=False)) as server:
        usage = client(server, tmp_path).ask("a", "b", Heard).usage
    assert usage == Usage(1, uncounted=1)
    assert "not told for 1 call" in usage.report()


def test_cost_in_money() -> None:
    usage = Usage(2, 1, 3_000_000, 500_000) + Usage(1, 0, 1_000_000, 0)
    assert usage.money(Price(0.5, 4)) == pytest.approx(4.0)
    assert usage.report(Price(0.5, 4)).endswith("cost 4.0000")
    assert "cost" not in usage.report()


def test_a_damaged_file_of_the_cache_is_made_anew(tmp_path: Path) -> None:
    chat = ScriptedChat(texts=[GOOD])
    Completions(chat, "scripted", tmp_path).ask("a", "b", Heard)
    (path,) = tmp_path.rglob("*.json")
    whole = path.read_text()
    path.write_text(whole[:20])
    assert Completions(chat, "scripted", tmp_path).ask("a", "b", Heard).value
    assert len(chat.told) == 2 and path.read_text() == whole


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(DataError, match="cannot write .*run the same command again"):
        Completions(ScriptedChat(texts=[GOOD]), "scripted", tmp_path / "cache").ask("a", "b", Heard)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"Sure:\n```json\n{GOOD}\n```\nAnything else?",
        f'<think>a {{guess}} {{"name": 1}}</think> {GOOD}',
    ],
)
def test_json_is_found_in_text(text: str) -> None:
    assert read_reply(text, Heard) == (Heard(name="bell", count=3), "")


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ("gpt", ModelError, "write provider:model"),
        ("openai:", ModelError, "write provider:model"),
        ("nobody:gpt", ModelError, "nobody"),
        ("openai:gpt", ModelError, "API_KEY"),
        ("fireworks:any", MissingExtraError, "langchain-fireworks"),
    ],
)
def test_models_that_cannot_be_made(
    name: str, error: type[Exception], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(error, match=match):
        load_chat_model(name)


def test_without_langchain_the_message_is_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(MissingExtraError, match="pip install langchain"):
        load_chat_model("openai:gpt")


KILLED = """
import sys
from pathlib import Path
from echo_agent.finetune.data.llm.chat_models import load_chat_model
from echo_agent.finetune.data.llm.completions import Completions
from echo_agent.finetune.data.llm.writer import WriterSettings, write_questions
from tests.finetune.data.llm.chats import make_records

model = load_chat_model("openai:tests", base_url=sys.argv[1], api_key="none")
chat = Completions(model, "openai:tests", Path(sys.argv[2]) / "calls")
write_questions(make_records(6), Path(sys.argv[2]), chat, WriterSettings(questions=1), workers=1)
"""


@pytest.mark.slow
def test_killed_and_run_again_nothing_is_asked_twice(tmp_path: Path) -> None:
    """The server holds the fourth request back until the process is dead."""
    from tests.finetune.data.llm.chats import question, written

    def script(body: dict[str, Any], number: int) -> Say:
        return Say(written(question()), hang=number == 3)

    with serving(script) as server:
        command = [sys.executable, "-c", KILLED, server.url, str(tmp_path)]
        root = Path(__file__).parents[4]
        process = subprocess.Popen(command, cwd=root, env=os.environ | {"OMP_NUM_THREADS": "1"})
        while len(server.requests) < 4 and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(server.requests) == 4 and not (tmp_path / "written.parquet").exists()
        for path in (tmp_path / ".written").glob("0000002.parquet"):
            path.unlink()  # as if killed between the reply and the end of its part
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    texts = server.texts()
    assert len(texts) == 7 and len(set(texts)) == 6
    assert texts.count(texts[3]) == 2, "only what was never answered is asked again"
    assert json.loads((next((tmp_path / "calls").rglob("*.json"))).read_text())["calls"] == 1
