"""One's own clips as a bank: what is taken, what is left out and why, and that what comes out can be mixed."""

from __future__ import annotations

import resource
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pyarrow.parquet as parquet
import pytest
import soundfile

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank import user_clips as own_bank
from echo_agent.finetune.data.bank.manifest import MANIFEST, bank_digest, has_bank, made_of
from echo_agent.finetune.data.bank.reader import SoundBank, read_clips
from echo_agent.finetune.data.bank.user_clips import bank_from_folder, given_digest
from echo_agent.finetune.data.bank.user_table import spoken_label
from echo_agent.finetune.data.scenes.mixer import SceneSettings, mix

RATE = 22_050
LABELS = ("Bell", "dog_bark", "Door", "car-horn", "rain", "train", "Owl", "cow", "saw", "Clock")


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE)).astype(np.float32)


def write(path: Path, seed: int, seconds: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed), RATE)
    return path


def table(folder: Path, *lines: str) -> Path:
    """A CSV file next to clips a.wav, b.wav, ... f.wav."""
    for seed, name in enumerate("abcdef"):
        write(folder / f"{name}.wav", seed)
    path = folder / "clips.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    """Ten clips of ten labels, in four formats."""
    for seed, label in enumerate(LABELS):
        write(tmp_path / "sounds" / label / f"one.{('wav', 'flac', 'ogg', 'mp3')[seed % 4]}", seed)
    return tmp_path / "sounds"


def test_ten_clips_of_ten_labels_are_enough(ten: Path, tmp_path: Path) -> None:
    rows, report = bank_from_folder(ten, tmp_path / "bank")
    labels = {"bell", "dog bark", "door", "car horn", "rain", "train", "owl", "cow", "saw", "clock"}
    assert {row.label for row in rows} == labels
    assert {row.split for row in rows} == {"train"} and report.clips == 10
    assert not report.skipped and "all in train" in str(report)
    assert parquet.read_table(tmp_path / "bank" / MANIFEST).num_rows == 10
    for clip in read_clips(tmp_path / "bank", ["train"]):
        assert np.abs(clip.samples).max() == pytest.approx(0.9, abs=0.01)
    bank = SoundBank.load(tmp_path / "bank", ["train"])
    scene = mix(bank, np.random.default_rng(0), 60.0, SceneSettings(patterns=1.0))
    assert len(scene.events) > 5 and {event.label for event in scene.events} <= labels
    assert scene.licences == ("not stated",)


def test_same_clips_same_bank(ten: Path, tmp_path: Path) -> None:
    rows, report = bank_from_folder(ten, tmp_path / "bank")
    assert bank_from_folder(ten, tmp_path / "again") == (rows, report)
    for row in rows:
        assert (tmp_path / "bank" / row.path).read_bytes() == (tmp_path / "again" / row.path).read_bytes()


def test_what_is_left_out_is_named_with_the_reason(ten: Path, tmp_path: Path) -> None:
    (ten / "Bell" / "broken.wav").write_bytes(b"RIFF but not really")
    (ten / "Bell" / "empty.wav").write_bytes(b"")
    (ten / "Bell" / ".hidden").write_text("not looked at")
    soundfile.write(ten / "Bell" / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(ten / "Bell" / "click.wav", noise(0.01, 77), RATE)
    soundfile.write(ten / "Bell" / "copy.flac", soundfile.read(ten / "Bell" / "one.wav")[0], RATE)
    soundfile.write(ten / "Owl" / "same.wav", soundfile.read(ten / "Bell" / "one.wav")[0], RATE)
    (ten / "goat").mkdir()
    (ten / "sheep").mkdir()
    (ten / "sheep" / "notes.txt").write_text("baa")
    (ten / "readme.txt").write_text("my sounds")
    rows, report = bank_from_folder(ten, tmp_path / "bank")
    assert report.clips == len(rows) == 10
    reasons = dict(report.skipped)
    assert reasons.keys() == {
        "readme.txt", "Bell/broken.wav", "Bell/empty.wav", "Bell/silent.wav", "Bell/click.wav", "sheep/notes.txt",
    }  # fmt: skip
    assert "silent" in reasons["Bell/silent.wav"] and "shorter than 0.03 s" in reasons["Bell/click.wav"]
    assert "empty" in reasons["Bell/empty.wav"] and "no folder" in reasons["readme.txt"]
    copies = dict(report.copies)
    assert copies.keys() == {"Bell/one.wav", "Owl/same.wav"}  # in order of their paths, copy.flac comes first
    assert "under another label, 'bell'" in copies["Owl/same.wav"]
    assert report.empty_labels == ("sheep",)
    assert "no clip in the folder 'goat'" in str(report)


def test_labels_with_enough_sources_are_split(tmp_path: Path) -> None:
    for seed in range(10):
        write(tmp_path / "sounds" / "bell" / f"{seed}.wav", seed)
    write(tmp_path / "sounds" / "dog" / "0.wav", 50, seconds=20.0)
    rows, report = bank_from_folder(tmp_path / "sounds", tmp_path / "bank")
    assert {row.split for row in rows if row.label == "bell"} == {"train", "val", "test"}
    dog = [row for row in rows if row.label == "dog"]
    assert len(dog) == 3 and {row.split for row in dog} == {"train"}  # windows of one source
    assert "'dog'" in str(report) and "'bell'" not in str(report)


def test_a_table_says_all_that_can_be_known(tmp_path: Path) -> None:
    path = table(
        tmp_path, "path,label,kind,voice,gender,source,licence,split,pitch,mood",
        "a.wav,Dog_Bark,,,,field 1,CC0-1.0,train,,glad", "b.wav,dog bark,,,,field 2,,validation,,",
        "c.wav,7,digit,Ann,woman,,MIT,train,,", "d.wav,river,word,Ann,woman,,MIT,train,,",
        "e.wav,oboe,note,,,,MIT,test,62,", "f.wav,hum,background,,,,MIT,train,,", "gone.wav,owl,,,,,,train,,",
    )  # fmt: skip
    rows, report = bank_from_folder(path, tmp_path / "bank")
    found = {(row.kind, row.label, row.voice, row.gender, row.licence, row.split, row.pitch) for row in rows}
    assert found == {
        ("sound", "dog bark", "", "", "CC0-1.0", "train", -1),
        ("sound", "dog bark", "", "", "not stated", "val", -1),
        ("digit", "seven", "Ann", "woman", "MIT", "train", -1),
        ("word", "river", "Ann", "woman", "MIT", "train", -1),
        ("note", "oboe", "", "", "MIT", "test", 62),
        ("background", "hum", "", "", "MIT", "train", -1),
    }
    assert report.skipped == (("gone.wav", "there is no such file"),)
    assert report.empty_labels == ("owl",) and "mood" in str(report)
    genders = {clip.gender for clip in read_clips(tmp_path / "bank", ["train"]) if clip.voice}
    assert genders == {"woman"}


def test_a_source_lies_in_one_split_whatever_its_labels(tmp_path: Path) -> None:
    lines = ["path,label,source"]
    for seed in range(24):
        write(tmp_path / f"{seed}.wav", seed)
        lines.append(f"{seed}.wav,{('bell', 'dog')[seed % 2]},tape {seed // 2}")
    (tmp_path / "clips.csv").write_text("\n".join(lines))
    rows, _ = bank_from_folder(tmp_path / "clips.csv", tmp_path / "bank")
    assert {row.split for row in rows} == {"train", "val", "test"}
    assert all(len({row.split for row in rows if row.source == f"tape {n}"}) == 1 for n in range(12))


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("path,name", "a.wav,dog"), "no column 'label'"),
        (("path;label", "a.wav;dog"), "comma"),
        (("path,label",), "names no clip"),
        (("path,label,kind", "a.wav,dog,noise"), r"csv:2: the kind 'noise' is none of sound"),
        (("path,label", "a.wav,dog", "b.wav,"), r"csv:3: the label '' cannot be spoken"),
        (("path,label", "a.wav"), r"csv:2: the label '' cannot be spoken"),
        (("path,label", ",dog"), "path is empty"),
        (("path,label", "a.wav,voice"), "spoken phrases"),
        (("path,label,kind", "a.wav,seven,digit"), "needs a voice"),
        (("path,label,kind,voice", "a.wav,eleven,digit,Ann"), "is no digit"),
        (("path,label,kind", "a.wav,oboe,note"), "needs a pitch"),
        (("path,label,pitch", "a.wav,oboe,high"), "no MIDI pitch"),
        (("path,label,gender", "a.wav,dog,x"), "none of woman, man"),
        (("path,label,split", "a.wav,dog,dev"), "none of train"),
        (("path,label,split", "a.wav,dog,train", "b.wav,dog,"), "for every row, or for none"),
        (("path,label,source,split", "a.wav,dog,x,train", "b.wav,dog,x,test"), "'x' lies in several splits"),
    ],
)
def test_a_wrong_table_is_refused_before_anything_is_done(
    lines: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        bank_from_folder(table(tmp_path, *lines), tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


def test_labels_are_text_that_can_be_spoken() -> None:
    assert spoken_label("  Car-Horn_ far  AWAY ") == "car horn far away"
    assert spoken_label("Bär") == "bär" and spoken_label("baby's cry") == "baby's cry"
    for wrong in ("", "???", "12", "dog, cat", "dog\ncat" * 20, "<seg>", "a" * 41):
        with pytest.raises(ValueError, match="cannot be spoken"):
            spoken_label(wrong)


def test_a_folder_that_cannot_be_a_bank_is_refused(ten: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lies within"):
        bank_from_folder(ten, ten / "bank")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="one subfolder per label"):
        bank_from_folder(tmp_path / "none", tmp_path / "bank")
    with pytest.raises(DataError, match="cannot read clips"):
        bank_from_folder(tmp_path / "nowhere", tmp_path / "bank")
    (tmp_path / "bad" / "!!!").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be spoken"):
        bank_from_folder(tmp_path / "bad", tmp_path / "bank")
    (tmp_path / "mute" / "dog").mkdir(parents=True)
    soundfile.write(tmp_path / "mute" / "dog" / "a.wav", np.zeros(RATE), RATE)
    with pytest.raises(DataError, match=r"no clip that can be used\ndog/a.wav: it is silent"):
        bank_from_folder(tmp_path / "mute", tmp_path / "bank")
    bank_from_folder(ten, tmp_path / "bank")
    with pytest.raises(DataError, match="already holds a bank"):
        bank_from_folder(ten, tmp_path / "bank")


def test_a_build_that_was_killed_is_no_bank_and_can_be_run_again(
    ten: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(own_bank, "write_manifest", killed)
        with pytest.raises(KeyboardInterrupt):
            bank_from_folder(ten, tmp_path / "bank")
    with pytest.raises(DataError, match="no sound bank there"):
        read_clips(tmp_path / "bank", ["train"])
    rows, _ = bank_from_folder(ten, tmp_path / "bank")
    assert len(read_clips(tmp_path / "bank", ["train"])) == len(rows) == 10


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-be"])
def test_a_table_in_every_unicode_encoding(tmp_path: Path, encoding: str) -> None:
    text = "path,label\r\na.wav,Glöckchen\r\nb.wav,bell\r\n"
    path = table(tmp_path / "clips", "")
    path.write_bytes(text.encode(encoding))
    rows, _ = bank_from_folder(path, tmp_path / "bank")
    assert {row.label for row in rows} == {"glöckchen", "bell"}


def test_names_with_accents_and_backslashes_are_found(tmp_path: Path) -> None:
    write(tmp_path / "clips" / normalize("NFD", "Glöckchen") / normalize("NFD", "Küche.wav"), 1)
    path = tmp_path / "clips.csv"
    path.write_text(normalize("NFC", "path,label\nclips\\Glöckchen\\Küche.wav,bell\n"), encoding="utf-8")
    _, report = bank_from_folder(path, tmp_path / "bank")
    assert report.clips == 1 and not report.skipped
    rows, _ = bank_from_folder(tmp_path / "clips", tmp_path / "other")
    assert {row.label for row in rows} == {"glöckchen"}


def test_linked_folders_are_read_and_loops_end(ten: Path, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "bell").symlink_to(ten / "Bell")
    (given / "door").mkdir()
    (given / "door" / "more").symlink_to(ten / "Door")
    (given / "door" / "loop").symlink_to(given / "door")
    _, report = bank_from_folder(given, tmp_path / "bank")
    assert report.clips == 2 and not report.skipped and not report.copies


def test_a_bank_says_what_it_was_made_of(ten: Path, tmp_path: Path) -> None:
    bank_from_folder(ten, tmp_path / "bank")
    assert made_of(tmp_path / "bank")["given"] == given_digest(ten)
    write(ten / "Bell" / "one.wav", 99)
    assert made_of(tmp_path / "bank")["given"] != given_digest(ten)
    bank_from_folder(ten, tmp_path / "other")
    assert bank_digest(tmp_path / "other") != bank_digest(tmp_path / "bank"), "the same rows, other samples"


def test_a_full_disk_is_one_sentence(ten: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(DataError, match=r"^cannot write [^\n]*\.wav: File too large; [^\n]*$"):
            bank_from_folder(ten, tmp_path / "bank")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not has_bank(tmp_path / "bank")
