"""The gate of the first listen: what is read in notes, and how it is counted."""

from __future__ import annotations

from pathlib import Path

import soundfile

from benchmarks import first_listen as gate
from echo_agent.finetune.data.records import Event, Record
from echo_agent.small.notes import LOUD, SOFT, Heard, told
from tests.small.tiny_small import tiny_small
from tests.tiny import sounds

BELL = Event("church_bell", "burst", 12.4, 15.2, hits=3)


def test_a_note_says_how_much_it_tells_of_each_event() -> None:
    note = "12-15 church bell 3s x3 loud\n20-22 dog\n30 rain\n41-42 cow 1s\n..."
    found = gate.told_in(note)
    assert [each.detail for each in found] == [3, 2, 1, 3]
    assert (found[0].heard.hits, found[1].heard.hits) == (3, 1)
    levels = [each.heard.level_db for each in found]
    assert levels[0] is not None and levels[0] > LOUD and levels[1:] == [None, None, None]
    assert "quiet" not in told(Heard("dog", 1, 2, level_db=SOFT - 2))


def test_what_a_note_tells_of_an_event() -> None:
    every = {"named", "when", "length", "strokes"}
    for note, right in (
        ("12-15 church bell 3s x3", every),
        ("11-15 church bell 4s x3", every),
        ("12-15 church bell 3s x4", every - {"strokes"}),
        ("12-15 church bell", every - {"strokes"}),
        ("12-19 church bell", {"named", "when"}),
        ("13 church bell", {"named", "when"}),
        ("2-5 church bell 3s x3", {"named"}),
        ("2 church bell\n12 church bell", {"named", "when"}),
        ("12-15 dog 3s x3", set()),
        ("nothing", set()),
    ):
        got = gate.reading(BELL, gate.told_in(note))
        assert got.keys() == every and {key for key, yes in got.items() if yes} == right, note
    once = Event("dog", "sound", 1.0, 2.0)
    assert "strokes" not in gate.reading(once, [])


def test_counts_are_by_length() -> None:
    score = gate.Score()
    yes, no = dict.fromkeys(("named", "when"), True), dict.fromkeys(("named", "when"), False)
    for duration, first in ((20.0, yes), (29.0, no), (45.0, no), (700.0, yes)):
        score.add(duration, first, yes)
    table = score.table()
    assert list(table) == ["30", "60", "600"]
    assert table["30"]["when"] == {"events": 2, "closer": 100.0, "first": 50.0}
    assert table["60"]["named"]["first"] == 0.0


def test_recordings_are_listened_to_whole_and_closely(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", sounds(8.0), 16000)
    events = (Event("dog", "sound", 1.0, 2.0), BELL.__class__("church_bell", "burst", 3.0, 5.0, hits=2))
    untaught = Event("rain", "sound", 5.0, 6.0)  # the tiny ears name it, but were not taught it
    voice = Event("voice", "words", 6.0, 7.0, content=("one",))
    record = Record(id="a", audio="a.flac", duration=8.0, events=(*events, untaught, voice))
    silent = Record(id="b", audio="a.flac", duration=8.0, events=(voice,))
    table = gate.measure(tiny_small(), [record, silent], tmp_path).table()
    assert {key: part["events"] for key, part in table["30"].items()} == {
        "length": 2, "named": 2, "strokes": 1, "when": 2,
    }  # fmt: skip
