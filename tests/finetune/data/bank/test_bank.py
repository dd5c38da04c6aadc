"""A bank built from a few generated recordings: what is kept, dropped, cut and held out."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank import bank, clips, manifest, packages, speech
from echo_agent.finetune.data.bank.splits import Candidate, split_class, voice_split

RATE = 22_050
MEDIA = "usr/share/scratch/Media/Sounds"
SAMPLES = "usr/share/sonic-pi/samples"


def noise(seconds: float, seed: int, gain: float = 0.3) -> np.ndarray:
    return (gain * np.random.default_rng(seed).uniform(-1, 1, int(seconds * RATE))).astype(np.float32)


def write(debs: Path, package: str, path: str, samples: np.ndarray) -> None:
    file = debs / package / path
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, samples, RATE)


def one_word(folder: Path) -> Iterator[speech.Utterance]:
    """Stands in for the speech engines."""
    for voice in ("joe", "slt"):
        samples = clips.to_mono_16k(noise(0.4, len(voice) + ord(voice[0])), RATE)
        yield speech.Utterance("seven", voice, "test", "none", 0, samples)


@pytest.fixture
def debs(tmp_path: Path) -> Path:
    folder = tmp_path / "debs"
    for number in range(10):
        write(folder, "sonic-pi-samples", f"{SAMPLES}/bd_{number}.flac", noise(0.3, number))
    write(folder, "sonic-pi-samples", f"{SAMPLES}/bd_copy.flac", noise(0.3, 3))
    write(folder, "sonic-pi-samples", f"{SAMPLES}/guit_long.flac", noise(20.0, 50))
    write(folder, "sonic-pi-samples", f"{SAMPLES}/guit_click.flac", noise(0.01, 51))
    write(folder, "sonic-pi-samples", f"{SAMPLES}/guit_silent.flac", np.zeros(RATE, np.float32))
    write(folder, "sonic-pi-samples", f"{SAMPLES}/misc_burp.flac", noise(0.3, 52))
    write(folder, "sonic-pi-samples", f"{SAMPLES}/vinyl_hiss.flac", noise(1.0, 53))
    write(folder, "scratch", f"{MEDIA}/Animal/Dog1.wav", np.pad(noise(0.5, 60), RATE))
    broken = folder / "scratch" / MEDIA / "Animal/Dog2.wav"
    broken.write_bytes(b"RIFF but not really")
    notice = folder / "sonic-pi-samples/usr/share/doc/sonic-pi-samples/copyright"
    notice.parent.mkdir(parents=True)
    notice.write_text(
        "Files: etc/samples/bd_1.flac\n etc/samples/bd_2.flac\nCopyright: someone\nLicense: CC0\n"
    )
    return folder


@pytest.fixture
def rows(debs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[manifest.ClipRow]:
    monkeypatch.setattr(speech, "utterances", one_word)
    return bank.build_bank(debs, tmp_path / "out")


def test_kinds_and_labels(rows: list[manifest.ClipRow]) -> None:
    assert Counter((row.kind, row.label) for row in rows) == {
        ("sound", "drum"): 10,
        ("sound", "guitar"): 3,
        ("sound", "dog"): 1,
        ("background", "ambience"): 1,
        ("digit", "seven"): 2,
    }


def test_clips_are_as_the_manifest_says(rows: list[manifest.ClipRow], tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / "out" / manifest.MANIFEST).to_pylist()
    assert [row["path"] for row in table] == [row.path for row in rows]
    for row in rows:
        samples, rate = soundfile.read(tmp_path / "out" / row.path, dtype="float32")
        assert rate == 16_000
        assert samples.ndim == 1
        assert len(samples) / rate == pytest.approx(row.seconds, abs=1e-3)
        assert row.seconds <= 6.0
        assert np.abs(samples).max() == pytest.approx(0.9, abs=1e-3)
    dog = next(row for row in rows if row.label == "dog")
    assert dog.seconds == pytest.approx(0.5, abs=0.03)  # the second of silence on either side is gone


def test_splits(rows: list[manifest.ClipRow]) -> None:
    assert {row.split for row in rows if row.label == "guitar"} == {"train"}  # one source, three windows
    assert {row.split for row in rows if row.package == "scratch"} == {"unseen_package"}
    assert {row.voice: row.split for row in rows if row.voice} == {"joe": "train", "slt": "unseen_voice"}
    drums = Counter(row.split for row in rows if row.label == "drum")
    assert drums == {"train": 7, "val": 1, "test": 2}
    free = {row.source.rpartition("/")[2] for row in rows if row.label == "drum" and row.split == "test"}
    assert free == {"bd_1.flac", "bd_2.flac"}  # the two under CC0
    assert {row.licence for row in rows if row.split == "test"} == {packages.CC0}


def test_same_input_same_bank(rows: list[manifest.ClipRow], debs: Path, tmp_path: Path) -> None:
    assert bank.build_bank(debs, tmp_path / "again", workers=1) == rows
    for row in rows:
        assert (tmp_path / "again" / row.path).read_bytes() == (tmp_path / "out" / row.path).read_bytes()


@pytest.mark.parametrize("name", sorted(packages.RESERVED))
@pytest.mark.parametrize("form", ["{}", "{}_1.0_all.deb"])
def test_reserved_packages_are_refused(name: str, form: str, debs: Path, tmp_path: Path) -> None:
    (debs / form.format(name)).mkdir()
    with pytest.raises(DataError, match=name):
        bank.build_bank(debs, tmp_path / "out")
    with pytest.raises(DataError, match=name):
        packages.fetch(debs, ())
    assert not (tmp_path / "out").exists()


def test_reserved_packages_are_never_fetched(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reserved"):
        packages.fetch(tmp_path, (packages.Package(sorted(packages.RESERVED)[0], ""),))
    assert not packages.RESERVED & {package.name for package in packages.PACKAGES}


def test_an_empty_folder_and_a_finished_bank_are_refused(
    rows: list[manifest.ClipRow], debs: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="already holds a bank"):
        bank.build_bank(debs, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no package"):
        bank.build_bank(tmp_path / "empty", tmp_path / "other")


def test_licences_stated_in_descriptions() -> None:
    opensfx = next(package for package in packages.PACKAGES if package.name == "openttd-opensfx")
    path = 'x.cat/24 "Helicopter". Edited by "W". License: Creative Commons Zero 1.0.'
    assert packages.licence_of(opensfx, path) == packages.CC0
    assert packages.licence_of(opensfx, "x.cat/00 nothing said") == opensfx.licence


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 11, 40, 300])
def test_shares(count: int) -> None:
    members = [Candidate(f"p:{n}", f"p:{n}", "p", preferred=n % 3 == 0) for n in range(count)]
    shares = Counter(split_class(members).values())
    assert sum(shares.values()) == count
    assert shares["test"] <= count / 2
    if count >= 8:
        assert shares["test"] == max(2, round(0.2 * count))
        assert shares["val"] == max(1, round(0.1 * count))
    assert shares["train"] >= count / 2


def test_groups_stay_together() -> None:
    members = [Candidate(f"p:{n}", f"p:{n // 5}", "p") for n in range(60)]
    splits = split_class(members)
    assert all(len({splits[f"p:{5 * group + n}"] for n in range(5)}) == 1 for group in range(12))
    assert splits == split_class(reversed(members))


def test_voices() -> None:
    assert voice_split("slt") == "unseen_voice"
    assert voice_split("joe") == voice_split(speech.REAL_VOICE) == "train"
    assert {voice_split(voice) for voice in speech.ESPEAK_VOICES} == {"train", "val", "test"}


def test_windows() -> None:
    wave = clips.tidy(clips.to_mono_16k(noise(8.0, 1), RATE))
    assert [len(clip) for clip in clips.windows(wave)] == [96_000]
    assert clips.windows(wave[:400]) == []
    assert len(clips.tidy(np.full(1000, np.nan, np.float32))) == 0
