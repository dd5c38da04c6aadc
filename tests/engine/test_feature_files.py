"""Features on disk: bit for bit what the encoder gave, under its name, whole or not at all; and the engine's use."""

from __future__ import annotations

import copy
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from echo_agent.audio.recording import AudioRef, Recording, Transform
from echo_agent.engine import SamplingParams, TorchEngine
from echo_agent.engine.feature_files import FeatureFiles
from echo_agent.errors import DataError, RecordingError, RecordingTooLongError
from echo_agent.families.base import Family
from echo_agent.stores import RecordingStore
from tests.tiny import KINDS, sounds, tiny_family

Features = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def store() -> RecordingStore:
    return RecordingStore()


@pytest.fixture(scope="module")
def whole(store: RecordingStore) -> AudioRef:
    return store.add(Recording.from_array(sounds(3.0), 16000))


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest) -> Family:
    return tiny_family(request.param)


def encode(family: Family, store: RecordingStore, ref: AudioRef) -> Features:
    (features,) = family.frozen_features([(ref, store.crop(ref, family.sample_rate))])
    return features


def equal(first: Features | None, second: Features) -> bool:
    """The same tensors, bit for bit and in the same precision."""
    return (
        first is not None
        and first.keys() == second.keys()
        and all(first[n].dtype == second[n].dtype and torch.equal(first[n], second[n]) for n in second)
    )


def kept_in(folder: Path) -> list[Path]:
    """All files below a folder, whatever they are called."""
    return [path for path in folder.rglob("*") if path.is_file()]


# --- files ----------------------------------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(
    family: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path
) -> None:
    files = FeatureFiles(tmp_path, family)
    features = encode(family, store, whole)
    assert whole not in files and files.get(whole) is None
    files.put(whole, features)
    assert whole in files and equal(FeatureFiles(tmp_path, family).get(whole), features)
    off = {name: value + 1 for name, value in features.items()}
    assert not equal(files.get(whole), off)
    files.put(whole, off)  # again, in its place
    assert equal(files.get(whole), off) and kept_in(tmp_path) == [files.path(whole)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.int64])
def test_every_precision_and_layout_comes_back(dtype: torch.dtype, whole: AudioRef, tmp_path: Path) -> None:
    files = FeatureFiles(tmp_path, tiny_family("echo-nano"))
    value = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)).mul(100).to(dtype)
    value[0, 0] = 0 if dtype == torch.int64 else torch.nan
    for part in (value, value[2:5], value.T, value[:, ::2], value[:0]):
        files.put(whole, {"part": part})
        found = files.get(whole)
        assert found is not None and found["part"].dtype == dtype
        assert torch.equal(found["part"].isnan(), part.isnan())
        assert torch.equal(found["part"].nan_to_num(), part.nan_to_num())


def test_each_listen_has_a_file_of_its_own(family: Family, store: RecordingStore, tmp_path: Path) -> None:
    recording = Recording.from_array(sounds(3.0, seed=1), 16000)
    other = Recording.from_array(sounds(3.0, seed=2), 16000)
    refs = [
        recording.ref(),
        recording.ref(0.0, 2.0),
        recording.ref(1.0, 3.0),
        recording.ref(1.0, 3.0, Transform(speed=0.5)),
        other.ref(1.0, 3.0),
    ]
    files = FeatureFiles(tmp_path, family)
    assert len({files.path(ref) for ref in refs}) == len(refs)
    again = Recording.from_array(sounds(3.0, seed=1), 16000)
    assert files.path(again.ref(1.0, 3.0)) == files.path(refs[2])


# --- the encoder's name ---------------------------------------------------------------------------------------------


def altered(family: Family, names: tuple[str, ...]) -> Family:
    """A copy with other weights in some modules."""
    other = copy.copy(family)
    other.model = copy.deepcopy(family.model)
    with torch.no_grad():
        for name in names:
            for parameter in other.model.get_submodule(name).parameters():
                parameter.mul_(1.01).add_(1e-3)
    return other


def test_features_belong_to_the_weights_of_the_encoder(
    family: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path
) -> None:
    name = family.encoder_fingerprint()
    assert name.startswith(f"{family.kind}-") and name == tiny_family(family.kind).encoder_fingerprint()
    assert name != tiny_family(family.kind, seed=1).encoder_fingerprint()
    for module in family.frozen_modules:
        assert altered(family, (module,)).encoder_fingerprint() != name
    trained = altered(family, (family.decoder_module, family.projector_module))
    assert trained.encoder_fingerprint() == name
    assert equal(encode(trained, store, whole), encode(family, store, whole))  # the name is right to stay
    FeatureFiles(tmp_path, family).put(whole, encode(family, store, whole))
    assert whole in FeatureFiles(tmp_path, trained)
    assert whole not in FeatureFiles(tmp_path, altered(family, family.frozen_modules[:1]))


def test_features_belong_to_every_single_weight(family: Family) -> None:
    name = family.encoder_fingerprint()
    for module in family.frozen_modules:
        for place in (0, 1, -1):
            other = altered(family, ())
            parameter = max(other.model.get_submodule(module).parameters(), key=lambda p: p.numel())
            with torch.no_grad():
                parameter.view(-1)[place] += 1e-3
            assert other.encoder_fingerprint() != name


def test_features_belong_to_the_version_of_the_program(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = family.encoder_fingerprint()
    monkeypatch.setattr("echo_agent.families.base.version", lambda _: "99")
    assert family.encoder_fingerprint() != name


def test_features_belong_to_a_precision(family: Family) -> None:
    coarse = altered(family, ())
    model: Any = coarse.model
    model.to(torch.bfloat16)
    assert coarse.encoder_fingerprint() != family.encoder_fingerprint()


@pytest.mark.parametrize("setting", ["listen_tokens", "tokens_per_second"])
def test_features_of_echo_nano_belong_to_the_budget_of_a_listen(setting: str, whole: AudioRef) -> None:
    first, second = tiny_family("echo-nano"), tiny_family("echo-nano")
    setattr(second.model.config, setting, 3)
    assert first.audio_tokens(whole) != second.audio_tokens(whole)
    assert first.encoder_fingerprint() != second.encoder_fingerprint()


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.fixture
def nano() -> Family:
    return tiny_family("echo-nano")


VALUES: Features = {"pooled": torch.arange(40_000.0)}


@pytest.fixture
def small_files() -> Iterator[None]:
    """A disk that takes files of at most 20 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_one_line_and_leaves_nothing_partial(
    nano: Family, whole: AudioRef, tmp_path: Path, small_files: None
) -> None:
    files = FeatureFiles(tmp_path, nano)
    with pytest.raises(DataError, match=f"cannot be kept in {files.folder}: File too large") as error:
        files.put(whole, VALUES)
    assert "\n" not in str(error.value)
    assert whole not in files and kept_in(tmp_path) == []
    files.put(whole, {"pooled": VALUES["pooled"][:4]})
    assert whole in files


def test_what_was_there_stays_where_writing_fails(
    nano: Family, whole: AudioRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FeatureFiles(tmp_path, nano)
    files.put(whole, VALUES)

    def fails(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(DataError, match="No space left on device; free some space"):
        files.put(whole, {"pooled": VALUES["pooled"] + 1})
    assert equal(files.get(whole), VALUES)
    assert kept_in(tmp_path) == [files.path(whole)]


def test_a_file_that_is_not_whole_yet_is_not_read(
    nano: Family, whole: AudioRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks in while it is written, or after its writer was killed, finds nothing."""
    files = FeatureFiles(tmp_path, nano)

    class Killed(BaseException):
        pass

    def killed(self: Path, target: Path) -> Path:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "replace", killed)
        files.put(whole, VALUES)
    assert whole not in files and files.get(whole) is None
    files.put(whole, VALUES)
    assert equal(files.get(whole), VALUES)


def test_a_folder_that_is_none_is_named(nano: Family, whole: AudioRef, tmp_path: Path) -> None:
    named = FeatureFiles(tmp_path / "features", nano).folder
    for file in (named.parent, named):
        shutil.rmtree(named.parent)
        file.parent.mkdir(exist_ok=True)
        file.write_text("a file")
        with pytest.raises(DataError, match=f"cannot be kept in {named}: .*; free some space, or name"):
            FeatureFiles(named.parent, nano)
        assert file.read_text() == "a file"
        file.unlink()
        FeatureFiles(named.parent, nano)


def test_a_folder_that_has_become_a_file_is_named(nano: Family, whole: AudioRef, tmp_path: Path) -> None:
    files = FeatureFiles(tmp_path, nano)
    file = files.path(whole).parent
    file.write_text("a file")
    with pytest.raises(DataError, match=f"cannot be kept in {files.folder}: .*; free some space, or name"):
        files.put(whole, VALUES)
    assert file.read_text() == "a file" and whole not in files


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" * 400])
def test_a_damaged_file_is_named(
    nano: Family, whole: AudioRef, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    files = FeatureFiles(tmp_path, nano)
    files.put(whole, VALUES)
    files.path(whole).write_bytes(damage(files.path(whole).read_bytes()))
    with pytest.raises(DataError, match=f"{files.path(whole)} is damaged: remove it") as error:
        files.get(whole)
    assert "\n" not in str(error.value)


def test_what_cannot_be_read_is_named(nano: Family, whole: AudioRef, tmp_path: Path) -> None:
    files = FeatureFiles(tmp_path, nano)
    files.path(whole).mkdir(parents=True)
    with pytest.raises(DataError, match=f"{files.path(whole)} "):
        files.get(whole)


# --- the engine -----------------------------------------------------------------------------------------------------


def ask(engine: TorchEngine, refs: list[AudioRef]) -> Any:
    """What the engine samples after a question about a listen."""
    ids, audio = engine.family.render(engine.family.question_pieces(refs, "What rings?", None))
    return engine.generate(ids, audio, SamplingParams(max_new_tokens=4, temperature=1.0, seed=3))


def encoded(engine: TorchEngine) -> int:
    return engine.stats()["encoded_crops"]


def test_first_listens_are_read_from_files_by_the_next_engine(
    family: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path
) -> None:
    with TorchEngine(family, store, files=FeatureFiles(tmp_path, family)) as engine:
        first = ask(engine, [whole])
        assert encoded(engine) == 1
    with TorchEngine(family, store, files=FeatureFiles(tmp_path, family)) as engine:
        again = ask(engine, [whole])
        assert encoded(engine) == 0
    assert (again.ids, again.logprobs) == (first.ids, first.logprobs)
    with TorchEngine(family, store) as engine:  # the twin: without files it is encoded again
        assert ask(engine, [whole]).ids == first.ids and encoded(engine) == 1


def test_first_listens_are_written_and_crops_are_not(
    family: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path
) -> None:
    files, crop = FeatureFiles(tmp_path, family), whole.span(1.0, 2.5)
    with TorchEngine(family, store, files=files) as engine:
        ask(engine, [crop, whole])
        assert encoded(engine) == 2
    assert whole in files and crop not in files
    assert kept_in(tmp_path) == [files.path(whole)]


def test_crops_that_a_training_has_kept_are_read(
    family: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path
) -> None:
    files, crop = FeatureFiles(tmp_path, family), whole.span(1.0, 2.5)
    files.put(crop, encode(family, store, crop))
    with TorchEngine(family, store, files=files) as engine:
        assert equal(engine.features([crop])[0], encode(family, store, crop)) and encoded(engine) == 0


def test_a_trainer_is_given_what_the_engine_heard(
    family: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path
) -> None:
    crop = whole.span(1.0, 2.5)
    for files in (None, FeatureFiles(tmp_path, family)):
        with TorchEngine(family, store, files=files) as engine:
            ask(engine, [whole])
            found = engine.features([crop, whole, crop])
            assert encoded(engine) == 2 and found[0] is found[2]
            assert equal(found[1], encode(family, store, whole)) and equal(
                found[0], encode(family, store, crop)
            )
            assert not equal(found[0], found[1]) and not any(v.requires_grad for v in found[0].values())


def test_after_a_change_of_weights_frozen_features_are_there_and_trained_ones_are_not(
    store: RecordingStore, whole: AudioRef
) -> None:
    family = tiny_family("qwen2-audio")
    for frozen in (False, True):
        family.model.requires_grad_(True)
        if frozen:
            family.freeze()
        with TorchEngine(family, store) as engine:
            engine.features([whole])
            engine.weights_changed()
            engine.features([whole])
            assert encoded(engine) == (1 if frozen else 2)


def test_what_is_wrong_with_a_listen_is_raised(
    family: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path
) -> None:
    gone = Recording.from_array(sounds(1.0, seed=5), 16000).ref()
    long = AudioRef(source="memory:long", sha256="1" * 64, duration=9999, start=0, end=9999)
    longest = (
        RecordingError if family.streams else RecordingTooLongError
    )  # a stream has no end to be too long for
    files = FeatureFiles(tmp_path, family)
    files.put(whole, encode(family, store, whole))
    files.path(whole).write_bytes(b"damaged")
    with TorchEngine(family, store, files=files) as engine:
        for ref, kind in ((gone, RecordingError), (long, longest), (whole, DataError)):
            with pytest.raises(kind):
                engine.features([whole.span(0.0, 1.0), ref])
        with pytest.raises(DataError, match=f"{files.path(whole)} is damaged"):
            ask(engine, [whole])
        assert len(engine.features([whole.span(0.0, 1.0)])) == 1  # it goes on


@pytest.mark.parametrize("how", ["names", "nothing", "width", "type", "values", "unsigned", "folder"])
def test_a_file_of_other_things_is_not_taken_for_features(
    nano: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path, how: str
) -> None:
    files = FeatureFiles(tmp_path, nano)
    files.put(whole, encode(nano, store, whole))
    path = files.path(whole)
    with safe_open(path, "pt") as file:
        signed, good = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    name, tensor = next(iter(good.items()))
    other = {
        "names": {f"{name}x": tensor},
        "nothing": {},
        "width": good | {name: tensor[..., :-1].contiguous()},
        "type": good | {name: tensor.to(torch.int64)},
        "values": good | {name: tensor + 1},
        "unsigned": good,
    }
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        save_file(other[how], path, metadata=None if how == "unsigned" else signed)
    with TorchEngine(nano, store, files=files) as engine:
        with pytest.raises(DataError, match=rf"^{path} (is damaged, or holds no features|cannot be read)"):
            ask(engine, [whole])


def test_a_full_disk_ends_the_runs_with_its_reason_and_not_the_engine(
    nano: Family, store: RecordingStore, whole: AudioRef, tmp_path: Path
) -> None:
    files = FeatureFiles(tmp_path, nano)
    files.folder.rmdir()
    files.folder.write_text("a file")
    with TorchEngine(nano, store, files=files) as engine:
        with pytest.raises(DataError, match="features cannot be kept in"):
            ask(engine, [whole])
        assert ask(engine, [whole.span(0.0, 1.0)]).ids
