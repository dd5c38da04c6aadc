"""Threads in a file that somebody else has made, and threads that two processes name at once."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ormsgpack
import pytest
import soundfile
from langgraph.checkpoint.serde import _msgpack
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from echo_agent import EchoAgent
from echo_agent.cli import main
from echo_agent.errors import DataError, EchoAgentError, QuestionError
from echo_agent.graphs import checkpoint_serializer
from echo_agent.graphs.packing import WORDS, packed
from echo_agent.graphs.state import Budget
from tests.scripted import ASK_ONCE, scripted_family
from tests.tiny import sounds

AUDIO = (sounds(12.0), 16000)
CODES = range(8)
"""Extensions of msgpack that LangGraph knows, and one that it does not."""
CALLS = {0, 1, 2, 4, 5, 7}
"""Those from which LangGraph's default serializer calls what they name."""


def extension(code: int, target: Path) -> ormsgpack.Ext:
    """An extension that asks for a folder to be made."""
    named = ("os", "mkdir")
    asked: dict[int, Any] = {
        0: (*named, str(target)),
        1: (*named, (str(target),)),
        2: (*named, {"path": str(target)}),
        3: ("shutil", "os", str(target), "mkdir"),
        4: (*named, {"path": str(target)}),
        5: (*named, {"path": str(target)}, "model_validate_json"),
        6: ("|O", (1,), "C", extension(0, target) if code == 6 else None),
        7: extension(0, target) if code == 7 else None,
    }
    return ormsgpack.Ext(code, ormsgpack.packb(asked[code]))


def checkpoint(value: Any) -> bytes:
    """A checkpoint with one value in it."""
    return ormsgpack.packb(
        {
            "v": 4,
            "ts": "2026-01-01T00:00:00+00:00",
            "id": "1ef4f797-8335-6428-8001-8a1503f9b875",
            "channel_values": {"question": value},
            "channel_versions": {"question": "1"},
            "versions_seen": {},
            "updated_channels": None,
        }
    )


def with_other_words(data: bytes) -> bytes:
    """What a version with another dictionary would have packed."""
    pack = zlib.compressobj(zdict=WORDS[:-1])
    return pack.compress(data) + pack.flush()


def database(path: Path, data: bytes, kind: str = "msgpack", thread: str = "t") -> Path:
    """A file of threads with one checkpoint and one write of a step that was broken off, both holding ``data``."""
    with SqliteSaver.from_conn_string(str(path)) as saver:
        saver.setup()
        saver.conn.execute(
            "insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, type, checkpoint, metadata) "
            "values (?, '', '1ef4f797-8335-6428-8001-8a1503f9b875', ?, ?, '{}')",
            (thread, kind, data),
        )
        saver.conn.execute(
            "insert into writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value) "
            "values (?, '', '1ef4f797-8335-6428-8001-8a1503f9b875', 'x', 0, 'question', ?, ?)",
            (thread, kind, data),
        )
        saver.conn.commit()
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    scripted_family(ASK_ONCE).save(folder)
    soundfile.write(folder / "yard.wav", *AUDIO)
    return folder


@pytest.fixture(scope="module")
def family() -> Any:
    return scripted_family(ASK_ONCE)


def test_the_environment_does_not_help() -> None:
    """What these tests are about would be hidden by LANGGRAPH_STRICT_MSGPACK."""
    assert not _msgpack.STRICT_MSGPACK_ENABLED


@pytest.mark.parametrize("code", CODES)
def test_ask_runs_no_code_of_a_database(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], code: int
) -> None:
    monkeypatch.setenv("ECHO_AGENT_HOME", str(tmp_path))
    target = tmp_path / "made"
    database(tmp_path / "threads.sqlite", checkpoint(extension(code, target)))
    asked = ["ask", str(model / "yard.wav"), "What?", "--model", str(model), "--thread", "t"]
    assert main(asked) == 2
    assert not target.exists()
    err = capfd.readouterr().err
    assert (
        f"the thread 't' in {tmp_path / 'threads.sqlite'} is damaged, or was not written by echo-agent" in err
    )
    assert "unexpected" not in err and len(err.splitlines()) == 1
    if code in CALLS:  # the database is what it is said to be
        default = JsonPlusSerializer()
        default.loads_typed(("msgpack", checkpoint(extension(code, target))))
        assert target.exists()


@pytest.mark.parametrize("code", CODES)
def test_an_agent_runs_none_either(family: Any, tmp_path: Path, code: int) -> None:
    path = database(tmp_path / "threads.sqlite", checkpoint(extension(code, tmp_path / "made")))
    with EchoAgent(family, checkpoints=path) as agent:
        for ask in (agent.ask, lambda *args, **kwargs: asyncio.run(agent.aask(*args, **kwargs))):
            with pytest.raises(QuestionError, match="is damaged, or was not written by echo-agent"):
                ask(AUDIO, "What?", thread="t")
            assert agent.ask(AUDIO, "What?", thread="another").answer == "a dog"
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("json", b'{"lc": 2, "type": "constructor", "id": ["os", "mkdir"], "args": ["made"]}'),
        (
            "json",
            b'{"lc": 1, "type": "constructor", "id": ["langchain", "prompts", "prompt", "PromptTemplate"]}',
        ),
        ("pickle", b"cos\nmkdir\n(S'made'\ntR."),
        ("msgpack", b""),
        ("msgpack", b"\xc1"),
        ("msgpack", ormsgpack.packb("text")),
        ("msgpack", ormsgpack.packb({"v": 4})),
        ("msgpack", checkpoint({"deep": [[[]]]})),
        ("msgpack.zlib", b"x"),
        ("msgpack.zlib", zlib.compress(b"no state")),
        ("msgpack.zlib", zlib.compress(checkpoint({}))[:-4]),
        ("msgpack.words", b"x"),
        ("msgpack.words", packed(b"no state")),
        ("msgpack.words", packed(checkpoint({}))[:-4]),
        ("msgpack.words", with_other_words(checkpoint({}))),
        ("msgpack.zlib", packed(checkpoint({}))),
        ("null", b""),
        ("zip", b"x"),
    ],
)
def test_what_is_no_checkpoint_is_said_in_one_sentence(
    family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, data: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    with EchoAgent(family, checkpoints=database(tmp_path / "threads.sqlite", data, kind)) as agent:
        with pytest.raises(
            QuestionError, match="'t' in .* is damaged, or was not written by echo-agent: name"
        ):
            agent.ask(AUDIO, "What?", thread="t")
    assert not (tmp_path / "made").exists()


@pytest.fixture
def kept(family: Any, tmp_path: Path) -> Iterator[tuple[EchoAgent, Callable[[str, Any], None]]]:
    """An agent with a thread that has ended, and what changes a value of what was saved."""
    path = tmp_path / "threads.sqlite"
    serializer = checkpoint_serializer()

    def change(key: str, value: Any) -> None:
        with sqlite3.connect(path) as file:
            rows = file.execute("select checkpoint_id, type, checkpoint from checkpoints").fetchall()
            for name, kind, data in rows:
                saved = serializer.loads_typed((kind, data))
                saved["channel_values"][key] = value
                if value is KeyError:
                    del saved["channel_values"][key]
                written = (*serializer.dumps_typed(saved), name)
                file.execute(
                    "update checkpoints set type = ?, checkpoint = ? where checkpoint_id = ?", written
                )
        file.close()

    with EchoAgent(family, checkpoints=path) as agent:
        agent.ask(AUDIO, "What?", thread="t")
        yield agent, change


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("recordings", "none"),
        ("recordings", [{"sha256": 1}]),
        ("messages", "none"),
        ("messages", [["ai", {"no": "message"}]]),
        ("messages", [{"type": "human", "content": "What?"}]),
        ("spent", KeyError),
        ("spent", {"relistens": "many"}),
        ("status", "done"),
        ("settings", []),
        ("answer", 3),
    ],
)
def test_a_state_that_is_none_is_not_used(
    kept: tuple[EchoAgent, Callable[[str, Any], None]], key: str, value: Any
) -> None:
    agent, change = kept
    assert agent.ask(AUDIO, "What?", thread="t").answer == "a dog"
    change(key, value)
    with pytest.raises(EchoAgentError, match="^the thread 't' in .*is damaged, or was not written"):
        agent.ask(AUDIO, "What?", thread="t")


def test_a_serializer_builds_what_it_is_told_of() -> None:
    budget = Budget(max_relistens=3)
    strict, told = checkpoint_serializer(), checkpoint_serializer(Budget)
    assert told.loads_typed(told.dumps_typed(budget)) == budget
    assert strict.loads_typed(strict.dumps_typed(budget)) == budget.model_dump()


def test_what_is_saved_is_packed_and_no_more_of_it_is_unpacked_than_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    serializer, state = checkpoint_serializer(), {"ids": list(range(9)) * 1000}
    kind, data = serializer.dumps_typed(state)
    assert kind == "msgpack.words" and len(data) < 500 and serializer.loads_typed((kind, data)) == state
    assert serializer.dumps_typed({"a": 1}) == ("msgpack", ormsgpack.packb({"a": 1})), (
        "what is small stays as it is"
    )
    monkeypatch.setattr("echo_agent.graphs.packing.LARGEST", 5000)
    with pytest.raises(ValueError, match="holds more than"):
        serializer.loads_typed((kind, data))


def test_the_words_of_the_packing_are_never_changed() -> None:
    """What was packed with others cannot be read: another dictionary needs another kind."""
    assert hashlib.sha256(WORDS).hexdigest().startswith("ba1d1e47a1eb38b4")


def test_one_run_at_a_time_has_a_thread(family: Any, tmp_path: Path) -> None:
    with (
        EchoAgent(family, checkpoints=tmp_path / "t.sqlite") as agent,
        EchoAgent(family, checkpoints=tmp_path / "t.sqlite") as other,
    ):

        def meanwhile(_: Any) -> None:
            with pytest.raises(
                DataError, match=r"^the thread 't' in .*t\.sqlite is in use by .*name another thread$"
            ):
                other.ask(AUDIO, "What?", thread="t")
            with pytest.raises(DataError, match="in use"):
                asyncio.run(other.aask(AUDIO, "What?", thread="t"))
            seen.append(other.ask(AUDIO, "What?", thread="u").answer)

        seen: list[str | None] = []
        assert agent.ask(AUDIO, "What?", thread="t", on_event=meanwhile).answer == "a dog"
        assert set(seen) == {"a dog"}
        assert other.ask(AUDIO, "What?", thread="t").answer == "a dog"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".lock")]
