from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from echo_agent.audio.recording import AudioRef, Recording, Transform
from echo_agent.errors import RecordingError
from echo_agent.stores import ByteStore, RecordingStore
from tests.sounds import lively, write

RATE = 16_000

# ------------------------------------------------------------------------------------------------ bytes


def test_what_was_put_is_got() -> None:
    store: ByteStore[str, list[int]] = ByteStore(100)
    value = [1, 2]
    assert store.put("a", value, 10)
    assert store.get("a") is value
    assert store.get("b") is None
    assert "a" in store and "b" not in store and len(store) == 1
    assert (store.stats.hits, store.stats.misses, store.stats.evictions) == (1, 1, 0)
    assert (store.stats.nbytes, store.stats.items, store.stats.limit) == (10, 1, 100)


def test_what_was_not_used_for_longest_goes_first() -> None:
    store: ByteStore[str, int] = ByteStore(30)
    for key in "abc":
        store.put(key, 0, 10)
    store.get("a")
    store.put("d", 0, 10)
    assert [key for key in "abcd" if key in store] == ["a", "c", "d"]
    store.put("e", 0, 20)
    assert [key for key in "acde" if key in store] == ["d", "e"]
    assert store.stats.evictions == 3 and store.stats.nbytes == 30


def test_a_value_under_a_used_key_takes_its_place() -> None:
    store: ByteStore[str, int] = ByteStore(30)
    store.put("a", 1, 20)
    store.put("b", 2, 10)
    store.put("a", 3, 5)
    assert store.get("a") == 3 and store.get("b") == 2
    assert store.stats.nbytes == 15 and store.stats.evictions == 0


def test_a_value_larger_than_the_store_is_not_held() -> None:
    store: ByteStore[str, int] = ByteStore(30)
    store.put("a", 1, 30)
    assert not store.put("b", 2, 31)
    assert store.get("a") == 1 and "b" not in store
    assert not store.put("a", 3, 31)  # and what it would have replaced is out of date
    assert "a" not in store and store.stats.nbytes == 0


def test_a_store_without_room_holds_nothing() -> None:
    store: ByteStore[str, int] = ByteStore(0)
    assert not store.put("a", 1, 1)
    assert store.put("empty", 1, 0) and store.get("empty") == 1


def test_discard_and_clear() -> None:
    store: ByteStore[str, int] = ByteStore(30)
    store.put("a", 1, 10)
    store.put("b", 1, 10)
    assert store.discard("a") and not store.discard("a")
    store.get("b")
    store.clear()
    assert len(store) == 0 and store.stats.nbytes == 0 and store.stats.hits == 1


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        ByteStore(-1)
    with pytest.raises(ValueError, match="cannot have -1 bytes"):
        ByteStore[str, int](10).put("a", 1, -1)


def test_the_limit_holds_with_many_threads() -> None:
    store: ByteStore[int, int] = ByteStore(1000)
    wrong: list[str] = []

    def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(2000):
            key = choose.randrange(60)
            if choose.random() < 0.05:
                store.discard(key)
            elif choose.random() < 0.5:
                store.put(key, key, key)
            elif (found := store.get(key)) not in (None, key):
                wrong.append(f"{found} under {key}")
            if store.stats.nbytes > 1000:
                wrong.append("over the limit")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    held = [key for key in range(60) if key in store]
    assert store.stats.nbytes == sum(held) and store.stats.items == len(held)


# ------------------------------------------------------------------------------------------------ recordings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "talk.wav", lively(2.0, RATE), RATE)


def test_references_become_samples(file: Path) -> None:
    store = RecordingStore()
    whole = store.add(Recording.open(file))
    assert whole.is_whole and whole in store and len(store) == 1
    ref = whole.span(0.5, 1.0, Transform(speed=0.5))
    assert ref in store
    assert store.get(ref).name == "talk.wav"
    assert len(store.crop(ref, 8_000)) == ref.samples(8_000) == 8_000
    assert np.array_equal(store.crop(whole.span(0.5, 1.0)), Recording.open(file).read(0.5, 1.0))


def test_a_file_is_opened_again_after_a_resume(file: Path) -> None:
    """In another process all there is is the reference's JSON."""
    ref = Recording.open(file).ref(0.5, 1.0)
    code = """
import sys
from echo_agent.audio.recording import AudioRef
from echo_agent.stores import RecordingStore
print(float(RecordingStore().crop(AudioRef.model_validate_json(sys.argv[1])).sum()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, ref.model_dump_json()],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert float(done.stdout) == float(Recording.open(file).read(0.5, 1.0).sum())


def test_a_file_that_changed_since_is_refused(file: Path) -> None:
    ref = Recording.open(file).ref()
    write(file, lively(2.0, RATE, seed=1), RATE)
    with pytest.raises(RecordingError, match="is not the one that this run began with: its content changed"):
        RecordingStore().get(ref)


def test_a_file_that_changes_while_it_is_held_is_refused(file: Path) -> None:
    store = RecordingStore()
    ref = store.add(Recording.open(file))
    original = file.read_bytes()
    write(file, lively(3.0, RATE, seed=1), RATE)
    with pytest.raises(RecordingError, match="its content changed"):
        store.crop(ref)
    file.write_bytes(original)
    assert len(store.crop(ref)) == 2 * RATE


def test_a_file_that_is_gone_is_refused(file: Path) -> None:
    store = RecordingStore()
    ref = store.add(Recording.open(file))
    file.unlink()
    for each in (store, RecordingStore()):
        with pytest.raises(RecordingError, match="cannot be opened: No such file"):
            each.get(ref)


def test_a_copy_elsewhere_serves_as_well(file: Path, tmp_path: Path) -> None:
    ref = Recording.open(file).ref()
    store = RecordingStore()
    copy = tmp_path / "copy.wav"
    copy.write_bytes(file.read_bytes())
    file.unlink()
    store.add(Recording.open(copy))
    assert len(store.crop(ref)) == 2 * RATE


def test_the_original_serves_where_a_held_copy_has_gone(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.wav"
    copy.write_bytes(file.read_bytes())
    store = RecordingStore()
    store.add(Recording.open(copy))
    copy.unlink()
    assert len(store.crop(Recording.open(file).ref())) == 2 * RATE


def test_memory_that_is_gone_says_what_to_do() -> None:
    ref = Recording.from_array(lively(1.0, RATE), RATE).ref()
    with pytest.raises(RecordingError, match="pass the same audio again, or give it as a file"):
        RecordingStore().get(ref)


def test_memory_comes_back_with_the_same_samples() -> None:
    ref = Recording.from_array(lively(1.0, RATE), RATE, "first").ref(0.25, 0.5)
    store = RecordingStore()
    store.add(Recording.from_array(lively(1.0, RATE), RATE, "again"))
    assert np.array_equal(store.crop(ref), lively(1.0, RATE)[4000:8000])


def test_memory_is_kept_until_it_is_discarded() -> None:
    store = RecordingStore(max_open=1)
    refs = [store.add(Recording.from_array(lively(0.1, RATE, seed=seed), RATE)) for seed in range(5)]
    assert len(store) == 5 and store.nbytes == 5 * 1600 * 4
    assert all(len(store.crop(ref)) == 1600 for ref in refs)
    assert store.discard(refs[0]) and not store.discard(refs[0])
    assert refs[0] not in store and len(store) == 4
    with pytest.raises(RecordingError, match="not here any more"):
        store.get(refs[0])


def test_files_beyond_the_limit_are_opened_again(tmp_path: Path) -> None:
    store = RecordingStore(max_open=2)
    waves = [lively(0.1, RATE, seed=seed) for seed in range(4)]
    files = [write(tmp_path / f"{n}.wav", wave, RATE, "FLOAT") for n, wave in enumerate(waves)]
    refs = [store.add(Recording.open(each)) for each in files]
    assert len(store) == 2 and [ref in store for ref in refs] == [False, False, True, True]
    for ref, wave in zip(refs, waves, strict=True):
        assert np.array_equal(store.crop(ref), wave)
    with pytest.raises(ValueError, match="max_open"):
        RecordingStore(max_open=0)


def test_a_server_opens_no_file_that_it_was_not_given(file: Path) -> None:
    store = RecordingStore(reopen=False)
    ref = Recording.open(file).ref()
    with pytest.raises(RecordingError, match="was not given to this store"):
        store.get(ref)
    store.add(Recording.open(file))
    assert len(store.crop(ref)) == 2 * RATE


def test_a_reference_to_a_missing_file_tells_nothing_on_a_server(tmp_path: Path) -> None:
    ref = AudioRef(source=str(tmp_path / "no"), sha256="0" * 64, duration=1.0, start=0.0, end=1.0)
    with pytest.raises(RecordingError, match="was not given to this store"):
        RecordingStore(reopen=False).get(ref)


def test_many_threads_use_one_store(tmp_path: Path) -> None:
    waves = [lively(0.5, RATE, seed=seed) for seed in range(6)]
    files = [write(tmp_path / f"{n}.flac", wave, RATE) for n, wave in enumerate(waves)]
    refs = [Recording.open(each).ref(0.1, 0.4) for each in files]
    store = RecordingStore(max_open=3)
    wrong: list[object] = []

    def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(30):
            n = choose.randrange(6)
            try:
                if np.abs(store.crop(refs[n]) - waves[n][1600:6400]).max() > 1e-4:
                    wrong.append(n)
            except RecordingError as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(store) == 3
