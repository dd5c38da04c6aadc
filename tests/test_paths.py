"""Files are found as the disk spells them, through links, and a loop of links ends."""

from pathlib import Path
from unicodedata import normalize

from echo_agent.paths import as_on_disk, walk_files

NAME = "café-Küche.wav"


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"sound")
    return path


def test_a_name_is_found_however_its_accents_are_written(tmp_path: Path) -> None:
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        made = touch(tmp_path / form / normalize(form, "Töne") / normalize(form, NAME))
        meant = tmp_path / form / normalize(other, "Töne") / normalize(other, NAME)
        assert not meant.exists()
        assert as_on_disk(meant) == made
        assert as_on_disk(made) == made


def test_a_file_that_is_called_just_so_comes_first(tmp_path: Path) -> None:
    both = [touch(tmp_path / normalize(form, NAME)) for form in ("NFC", "NFD")]
    assert [as_on_disk(path) for path in both] == both


def test_backslashes_may_stand_for_slashes(tmp_path: Path) -> None:
    made = touch(tmp_path / "clips" / "a.wav")
    assert as_on_disk(tmp_path / "clips\\a.wav") == made
    odd = touch(tmp_path / "odd\\name.wav")
    assert as_on_disk(odd) == odd


def test_what_is_not_there_stays_as_it_is(tmp_path: Path) -> None:
    for name in ("nowhere.wav", "no/where.wav", "a\0b.wav", "x" * 5000, NAME):
        assert as_on_disk(tmp_path / name) == tmp_path / name
    assert as_on_disk(Path("nowhere.wav")) == Path("nowhere.wav")


def test_links_to_folders_and_files_are_followed_and_loops_end(tmp_path: Path) -> None:
    store = tmp_path / "store"
    touch(store / "part" / "a.wav")
    touch(store / "b.wav")
    data = tmp_path / "data"
    touch(data / "own" / "c.wav")
    (data / "part").symlink_to(store / "part")
    (data / "b.wav").symlink_to(store / "b.wav")
    (data / "again").symlink_to(data / "own")
    (data / "loop").symlink_to(data)
    (data / "own" / "up").symlink_to("..")
    (data / "itself").symlink_to("itself")
    (data / "gone.wav").symlink_to(store / "gone.wav")
    assert walk_files(data) == [data / "b.wav", data / "own" / "c.wav", data / "part" / "a.wav"]


def test_folders_that_link_to_each_other_are_listed_once(tmp_path: Path) -> None:
    for number in range(12):
        touch(tmp_path / f"f{number}" / f"{number}.wav")
        for other in range(12):
            (tmp_path / f"f{number}" / f"to{other}").symlink_to(tmp_path / f"f{other}")
    assert len(walk_files(tmp_path)) == 12
