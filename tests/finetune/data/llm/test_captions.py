"""Descriptions by a real agent: answers are stored, unreadable ones stay empty, what cannot be heard is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from echo_agent.agent import EchoAgent
from echo_agent.errors import DataError
from echo_agent.finetune.data.llm.captions import FIELDS, describe
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.data.stages import read_rows
from tests.scripted import ASK_ONCE, scripted_family
from tests.tiny import sounds, tiny_family


@pytest.fixture
def agent() -> Iterator[EchoAgent]:
    """Listens again, then says `a dog`."""
    with EchoAgent(scripted_family(ASK_ONCE, "echo-nano")) as made:
        yield made


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    made = []
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", sounds(6.0, number), 16000)
        made.append(Record(id=f"clip/{number}", audio=f"{number}.wav", duration=6.0))
    return made


def test_what_is_heard_said_and_played(agent: EchoAgent, records: list[Record], tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = describe(
        records, tmp_path / "out", agent, home=tmp_path, progress=lambda *done: seen.append(done)
    )
    assert found.notes == {record.id: dict.fromkeys(FIELDS, "a dog") for record in records}
    assert found.report() == "3 records described" and seen[-1] == (3, 3)
    rows = read_rows(tmp_path / "out" / "described.parquet")
    assert rows[1] == {"record": "clip/1", **dict.fromkeys(FIELDS, "a dog"), "problem": ""}


def test_nothing_is_made_up_where_nothing_can_be_read(records: list[Record], tmp_path: Path) -> None:
    with EchoAgent(tiny_family("echo-nano")) as babbling:
        found = describe(records, tmp_path, babbling, max_new_tokens=8)
        answers = [notes[field] for notes in found.notes.values() for field in FIELDS]
        empty = answers.count("")
        assert empty, "a random model that answers everything cannot test this"
        counted = sum(int(line.split()[0]) for line in found.report().splitlines()[1:])
        assert counted == empty and not found.problems


def test_a_recording_that_cannot_be_heard_is_named(
    agent: EchoAgent, records: list[Record], tmp_path: Path
) -> None:
    (tmp_path / "0.wav").write_bytes(b"no audio at all")
    (tmp_path / "2.wav").unlink()
    found = describe(records, tmp_path, agent)
    assert set(found.problems) == {"clip/0", "clip/2"} and "2.wav" in found.problems["clip/2"]
    assert found.notes["clip/1"]["heard"] == "a dog" and found.notes["clip/0"]["heard"] == ""
    assert "2 could not be heard (first: clip/0" in found.report()
    assert "without a readable answer" not in found.report()


def test_it_goes_on_where_it_was_stopped(agent: EchoAgent, records: list[Record], tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        describe(records, tmp_path, agent, workers=1, progress=stop)
    for name in ("0.wav", "1.wav"):
        (tmp_path / name).unlink()  # what was heard is not heard again
    found = describe(records, tmp_path, agent)
    assert not found.problems and len(found.notes) == 3


def test_other_prompts_are_other_work(agent: EchoAgent, records: list[Record], tmp_path: Path) -> None:
    describe(records[:1], tmp_path, agent)
    (tmp_path / "describe-said.txt").write_text("Who speaks?")
    with pytest.raises(DataError, match="other settings"):
        describe(records[:1], tmp_path, agent, prompts=tmp_path)
