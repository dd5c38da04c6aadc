"""What is not the format is refused by every reader, in words; how the text is encoded is no matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unicodedata import normalize

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.corpora.audioset import read_audioset
from echo_agent.finetune.data.corpora.avqa import read_avqa
from echo_agent.finetune.data.corpora.desed import read_desed
from echo_agent.finetune.data.corpora.jams import read_jams
from echo_agent.finetune.data.corpora.jsonl import read_jsonl
from echo_agent.finetune.data.corpora.musicbench import read_musicbench
from echo_agent.finetune.data.corpora.sourced import Sourced
from echo_agent.finetune.data.corpora.texts import near, speakable, write_text
from tests.finetune.data.corpora.clips import clip, write

Reader = Callable[[Path, Path], Sourced]
READERS: dict[str, Reader] = {
    "audioset": read_audioset,
    "desed": read_desed,
    "musicbench": read_musicbench,
    "avqa": read_avqa,
    "jams": read_jams,
    "jsonl": lambda path, _: read_jsonl(path),
}
SAMPLES = {
    "audioset": "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\nb0RFKhbpFJA_30000\t0.5\t2.0\tBärk\n",
    "desed": "filename\tonset\toffset\tevent_label\nb0RFKhbpFJA_30000.wav\t0.500\t2.000\tDog\n",
    "musicbench": '{"location": "data_aug2/b0RFKhbpFJA_30000.wav", "main_caption": "Ein Stück.", '
    '"chords": ["G"], "chords_time": [0.5]}\n',
    "avqa": '[{"video_name": "b0RFKhbpFJA_30000", "question_text": "Hört man es?",\n"multi_choice": ["ja", "nein"],\n'
    '"answer": 0, "question_relation": "Sound"}]\n',
    "jams": '{"annotations":\n[{"namespace": "segment_open", "annotation_metadata": {},\n'
    '"data": [{"time": 0.5, "duration": 1.5, "value": "Bär", "confidence": 1.0}]}]}\n',
    "jsonl": '{"audio": "b0RFKhbpFJA_30000.wav", "events": [{"label": "Bär", "onset": 0.5, "offset": 2.0}]}\n',
}
"""One record each, in the format; the others' files are what is wrong for a reader."""


@pytest.fixture(params=READERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A file to be, with its audio next to it under the names that the formats use."""
    clip(tmp_path / "b0RFKhbpFJA_30000.wav")
    return tmp_path / "b0RFKhbpFJA_30000.jams"


def test_encodings_and_line_ends_are_no_matter(name: str, place: Path) -> None:
    plain = READERS[name](write(place, SAMPLES[name], end=""), place.parent)
    assert len(plain.records) == 1 and not plain.skipped, plain.report()
    windows = SAMPLES[name].replace("\n", "\r\n") + "\r\n"
    assert READERS[name](write(place, windows, end="", mark="\ufeff"), place.parent) == plain


@pytest.mark.parametrize("content", [b"", b" \r\n\n", b"\xef\xbb\xbf"])
def test_empty_files(name: str, place: Path, content: bytes) -> None:
    place.write_bytes(content)
    with pytest.raises(DataError, match=f"{place} is empty; expected "):
        READERS[name](place, place.parent)


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_every_unicode_encoding_is_read(name: str, place: Path, coding: str) -> None:
    plain = READERS[name](write(place, SAMPLES[name]), place.parent)
    place.write_bytes(SAMPLES[name].replace("\n", "\r\n").encode(coding))
    assert READERS[name](place, place.parent) == plain


def test_other_encodings(name: str, place: Path) -> None:
    place.write_bytes((SAMPLES[name] + "é").encode("latin-1"))
    with pytest.raises(DataError, match=f"cannot read .* from {place}: it is not UTF-8 text .byte"):
        READERS[name](place, place.parent)


def test_accents_in_names_may_be_written_in_either_way(name: str, tmp_path: Path) -> None:
    stem = "bébéKüchénA_30000"
    clip(tmp_path / f"{normalize('NFD', stem)}.wav")
    for form in ("NFC", "NFD"):
        text = SAMPLES[name].replace("b0RFKhbpFJA_30000", normalize(form, stem)).replace("data_aug2/", "")
        path = write(tmp_path / f"{normalize(form, stem)}.jams", text, end="")
        found = READERS[name](path, tmp_path)
        assert len(found.records) == 1, found.report()


@pytest.mark.parametrize("depth", [300, 100_000])
def test_deep_nesting_is_no_crash(name: str, place: Path, depth: int) -> None:
    nest = "[" * depth + "]" * depth
    deep = '{"audio": "a.wav", "annotations": ' + nest + "}"
    for text in (
        deep,
        f"[{deep}]",
        SAMPLES[name].replace("0.5", nest).replace('"answer": 0', f'"answer": {nest}'),
    ):
        write(place, text)
        try:
            found = READERS[name](place, place.parent)
        except DataError as error:
            assert len(str(error)) < 1000
        else:
            assert not found.records and len(found.report()) < 2000


def test_files_that_are_not_there(name: str, place: Path) -> None:
    with pytest.raises(DataError, match=f"cannot read .* from {place}: No such file"):
        READERS[name](place, place.parent)


@pytest.mark.parametrize("wrong", [*SAMPLES, "a poem", "[]", "{}", "null", "[[[", "x\ty\n1\t2"])
def test_files_of_another_format(name: str, place: Path, wrong: str) -> None:
    if wrong == name:
        return
    write(place, SAMPLES.get(wrong, wrong))
    with pytest.raises(DataError, match=f"{place} (is not|does not hold) .*: "):
        READERS[name](place, place.parent)


def test_no_audio_folder(name: str, place: Path) -> None:
    if name in ("jams", "jsonl"):
        return
    write(place, SAMPLES[name])
    with pytest.raises(DataError, match="there is no folder of audio"):
        READERS[name](place, place.parent / "nowhere")


def test_missing_audio_is_counted_and_stops_nothing(name: str, place: Path) -> None:
    (place.parent / "b0RFKhbpFJA_30000.wav").unlink()
    found = READERS[name](write(place, SAMPLES[name]), place.parent)
    assert not found.records and [row.why for row in found.skipped] == ["without audio"]
    assert str(place) in found.skipped[0].where and "b0RFKhbpFJA_30000" in found.skipped[0].detail


def test_labels_as_they_are_said() -> None:
    assert speakable("Alarm_bell_ringing") == "alarm bell ringing"
    assert speakable("  Dog\t_bark ") == "dog bark"


def test_paths_below_the_folder_are_relative(tmp_path: Path) -> None:
    assert near(str(tmp_path / "a" / "b.wav"), tmp_path) == "a/b.wav"
    assert near("/elsewhere/b.wav", tmp_path) == "/elsewhere/b.wav"
    assert near("a/b.wav", tmp_path) == "a/b.wav"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "ä\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ä\n".encode()
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot write .*folder"):
        write_text(tmp_path / "folder", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "new"]
