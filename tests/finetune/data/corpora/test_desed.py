"""DESED's strong labels: ten classes, and clips in which none of them is heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.desed import CLASSES, read_desed
from tests.finetune.data.corpora.clips import broken, clip, write

HEADER = "filename\tonset\toffset\tevent_label"
ROWS = (
    "Y00pbt6aJV8Y_350.000_360.000.wav\t0.000\t9.971\tVacuum_cleaner",
    "YU0Cg_t_3TdI_30.000_40.000.wav\t\t\t",
    "Y4p-h_aOrhIw_30.000_40.000.wav\t9.865\t10.115\tDog",
    "Y4p-h_aOrhIw_30.000_40.000.wav\t1.0\t2.5\tAlarm_bell_ringing",
    "1Ro0FgMWTUE_120_130.wav\t0.000\t2.081\tSpeech",
    "5.wav\t0.008\t1.022\tElectric_shaver_toothbrush",
)
NAMES = list(dict.fromkeys(row.split("\t")[0] for row in ROWS))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for name in NAMES:
        clip(tmp_path / "audio" / "validation" / name)
    return write(tmp_path / "validation.tsv", HEADER, *ROWS)


def test_clips_with_their_events(table: Path) -> None:
    found = read_desed(table, table.parent / "audio", split="validation")
    assert found.report() == "5 records; nothing skipped."
    assert [record.id for record in found.records] == [name.removesuffix(".wav") for name in NAMES]
    assert [record.group for record in found.records] == [
        *("00pbt6aJV8Y", "U0Cg_t_3TdI", "4p-h_aOrhIw", "1Ro0FgMWTUE", ""),
    ]
    assert [[event.label for event in record.events] for record in found.records] == [
        *(["vacuum cleaner"], [], ["alarm bell ringing", "dog"], ["speech"], ["electric shaver toothbrush"]),
    ]
    assert found.records[2].events[1].offset == 10.0, "cut at the end of the clip"
    for record in found.records:
        assert record.labels == CLASSES and len(set(CLASSES)) == 10 and record.complete
        assert (record.corpus, record.split) == ("desed", "validation")
        assert {event.label for event in record.events} <= set(CLASSES)


def test_tabs_at_the_end_may_be_gone_and_audio_may_be_converted(table: Path) -> None:
    clip(table.parent / "flac" / "YU0Cg_t_3TdI_30.000_40.000.flac", 9.9)
    found = read_desed(write(table, HEADER, "YU0Cg_t_3TdI_30.000_40.000.wav"), table.parent / "flac")
    assert [(record.events, record.duration) for record in found.records] == [((), 9.9)]


def test_what_is_skipped(table: Path) -> None:
    broken(table.parent / "audio" / "bad.wav")
    clip(table.parent / "audio" / "empty.wav", 0.0)
    rows = {
        "gone.wav\t0\t1\tDog": "without audio",
        "bad.wav\t0\t1\tDog": "with audio that is empty or cannot be read",
        "empty.wav\t0\t1\tDog": "with audio that is empty or cannot be read",
        "5.wav\t3\t2\tDog": "with an event that ends before it begins",
        "Y00pbt6aJV8Y_350.000_360.000.wav\t3\t4\tHorse": "with a label that is none of DESED's ten",
        "1Ro0FgMWTUE_120_130.wav\t3\t\tDog": "with a time that is no number",
        "YU0Cg_t_3TdI_30.000_40.000.wav\t3\t12\tDog": "with an event beyond the end of the audio",
    }
    found = read_desed(write(table, HEADER, *rows), table.parent / "audio")
    assert not found.records
    assert [row.why for row in found.skipped] == list(rows.values())
    assert found.report().startswith(
        "0 records; 7 rows skipped: 2 with audio that is empty or cannot be read (first: "
    )
    assert f"{table}:2 (gone.wav)" in found.report()


def test_files_without_times_are_refused(tmp_path: Path) -> None:
    weak = write(
        tmp_path / "weak.tsv", "filename\tevent_labels", "YKK227gPpRn4_30.000_40.000.wav\tDog,Speech"
    )
    with pytest.raises(DataError, match="weak.tsv holds weak labels: .* name a table of strong labels"):
        read_desed(weak, tmp_path)
    listed = write(tmp_path / "unlabel.tsv", "filename", "Y--CE2f-ttEQ_30.000_40.000.wav")
    with pytest.raises(DataError, match="no column onset, offset, event_label"):
        read_desed(listed, tmp_path)
