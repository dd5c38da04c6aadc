"""AudioSet's strong labels: identifiers become words, clips are found under the names that people give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.audioset import first_names, read_audioset
from tests.finetune.data.corpora.clips import clip, write

HEADER = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
ROWS = (
    "b0RFKhbpFJA_30000\t0.000\t10.000\t/m/03m9d0z",
    "b0RFKhbpFJA_30000\t4.753\t5.720\t/m/05zppz",
    "s9d-2nhu_CQ_0\t1.200\t2.183\t/m/05tny_",
    "b0RFKhbpFJA_30000\t4.000\t4.500\t/m/05zppz",
)
NAMES = ("/m/03m9d0z\tWind", "/m/05zppz\tMale speech, man speaking", "/m/05tny_\tBark", "/m/09x0r\tSpeech")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write(tmp_path / "mid_to_display_name.tsv", *NAMES)
    clip(tmp_path / "audio" / "b0RFKhbpFJA_30000.wav")
    clip(tmp_path / "audio" / "Ys9d-2nhu_CQ_0.flac", 9.75)
    return write(tmp_path / "audioset_eval_strong.tsv", HEADER, *ROWS)


def test_clips_with_their_events(table: Path) -> None:
    found = read_audioset(table, table.parent / "audio", split="test")
    assert found.report() == "2 records; nothing skipped."
    one, two = found.records
    assert (one.id, one.group, one.duration) == ("b0RFKhbpFJA_30000", "b0RFKhbpFJA", 10.0)
    assert [(event.label, event.onset, event.offset) for event in one.events] == [
        ("wind", 0.0, 10.0),
        ("male speech", 4.0, 4.5),
        ("male speech", 4.753, 5.72),
    ]
    assert (two.group, two.duration, two.audio) == (
        "s9d-2nhu_CQ",
        9.75,
        str(table.parent / "audio" / "Ys9d-2nhu_CQ_0.flac"),
    )
    for record in found.records:
        assert record.labels == (), "labels are nested: what is not marked may be there all the same"
        assert (record.complete, record.corpus, record.split) == (True, "audioset-strong", "test")
        assert "CC-BY-4.0" in record.licence
    assert read_audioset(table, table.parent / "audio", split="test") == found


@pytest.mark.parametrize(
    "name",
    [
        "b0RFKhbpFJA_30000",
        "Yb0RFKhbpFJA_30000",
        "b0RFKhbpFJA_30",
        "b0RFKhbpFJA_000030",
        "b0RFKhbpFJA",
        "Yb0RFKhbpFJA",
    ],
)
def test_names_of_clips(tmp_path: Path, name: str) -> None:
    table = write(tmp_path / "t.tsv", HEADER, "b0RFKhbpFJA_30000\t0\t1\tDog")
    audio = clip(tmp_path / "audio" / "eval" / f"{name}.wav")
    clip(tmp_path / "audio" / "b0RFKhbpFJA_40000.wav")
    (record,) = read_audioset(table, tmp_path / "audio").records
    assert record.audio == str(audio)


def test_what_is_skipped(table: Path) -> None:
    clip(table.parent / "audio" / "wholevideo1.wav", 30.0)
    clip(table.parent / "audio" / "shortclip11.wav", 3.0)
    clip(table.parent / "audio" / "goodclip111.wav")
    rows = {
        "gonegonegon_1000\t0\t1\t/m/05tny_": "without audio",
        "wholevideo1_1000\t0\t1\t/m/05tny_": "with audio that is not the clip of ten seconds",
        "shortclip11_1000\t0\t8\t/m/05tny_": "with an event beyond the end of the audio",
        "goodclip111_1000\t0\t1\t/m/xxxxx": "with a label that has no name",
        "goodclip111_2000\t2\t1\t/m/05tny_": "with an event that ends before it begins",
        "goodclip111_3000\tsoon\t1\t/m/05tny_": "with a time that is no number",
        "goodclip111_4000\t1": "with a label that has no name",
        "goodclip111\t1\t2\t/m/05tny_": "with a segment id of another form",
    }
    found = read_audioset(write(table, HEADER, *ROWS, *rows), table.parent / "audio")
    assert len(found.records) == 2
    assert [row.why for row in found.skipped] == list(rows.values())
    assert found.skipped[0].where == f"{table}:6 (gonegonegon_1000)"


def test_one_bad_row_leaves_out_its_clip_since_it_would_not_be_complete(table: Path) -> None:
    write(table, HEADER, *ROWS, "b0RFKhbpFJA_30000\t7\t6\t/m/05tny_")
    found = read_audioset(table, table.parent / "audio")
    assert [record.id for record in found.records] == ["s9d-2nhu_CQ_0"]
    assert [row.where for row in found.skipped] == [f"{table}:2 (b0RFKhbpFJA_30000)"]


def test_identifiers_need_names(table: Path) -> None:
    names = table.parent / "mid_to_display_name.tsv"
    kept = names.rename(table.parent / "names.tsv")
    with pytest.raises(DataError, match="identifiers such as /m/.* get mid_to_display_name.tsv"):
        read_audioset(table, table.parent / "audio")
    assert len(read_audioset(table, table.parent / "audio", names=kept).records) == 2
    write(kept, "0,/m/09x0r,Speech")
    with pytest.raises(DataError, match="has no name for any label"):
        read_audioset(table, table.parent / "audio", names=kept)


def test_the_table_of_frames_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "t.tsv", f"{HEADER}\tpresent", "b0RFKhbpFJA_30000\t0.960\t1.920\t/m/04rlf\tNOT_PRESENT"
    )
    with pytest.raises(DataError, match="for each frame whether a label is present"):
        read_audioset(path, tmp_path)


def test_missing_columns_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", "segment_id\tstart_time_seconds\tlabel", "b0RFKhbpFJA_30000\t0\tDog")
    with pytest.raises(DataError, match="no column end_time_seconds in its first line"):
        read_audioset(path, tmp_path)


def test_the_first_synonym_is_said_where_it_is_the_only_such() -> None:
    names = [
        "Baby cry, infant cry",
        "Inside, small room",
        "Inside, public space",
        "Roaring cats (lions, tigers)",
    ]
    assert list(first_names([*names, "Speech"]).values()) == [
        "baby cry",
        "inside, small room",
        "inside, public space",
        "roaring cats (lions, tigers)",
        "speech",
    ]
