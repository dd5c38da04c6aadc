"""Every verb that fills a folder leaves it to the process that is at work there, and says which one that is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_agent.cli import main
from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.bank import build_bank
from echo_agent.finetune.data.bank.packages import PACKAGES, fetch
from tests.finetune.small_bank import write_bank
from tests.test_locks import other

OUT = "out.d"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips, a sound bank, annotations, adapters."""
    folder = tmp_path_factory.mktemp("sources")
    (folder / "clips" / "dog").mkdir(parents=True)
    soundfile.write(folder / "clips" / "dog" / "1.wav", np.ones(16000, np.float32) / 2, 16000)
    write_bank(folder / "bank", {"train": ("sound",), "test": ("sound",)})
    row = {"audio": "clips/dog/1.wav", "events": [{"label": "dog", "onset": 0.1, "offset": 0.5}]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "adapters").mkdir()
    (folder / "adapters" / "adapter_config.json").write_text("{}")
    (folder / "debs" / PACKAGES[0].name).mkdir(parents=True)
    return folder


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[Path]:
    """A folder that another process works in, and a file beside it that it writes to."""
    folder = tmp_path / "folder"
    processes = [other(folder), other(tmp_path / OUT)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
    yield folder
    assert [path.name for path in folder.iterdir()] == [".lock"], "something was written there"
    for process in processes:
        process.communicate()


@pytest.mark.parametrize(
    "verb",
    [
        "data bank clips FOLDER",
        "data scenes bank FOLDER --count 1",
        "data build rows.jsonl FOLDER",
        "data build clips FOLDER",
        "data bench FOLDER --bank bank",
        "testset bank FOLDER",
        "nano bank FOLDER",
        "demo FOLDER",
        "merge adapters BESIDE",
    ],
)
def test_a_folder_in_use_is_left_alone(
    sources: Path, taken: Path, verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(sources)
    places = {"FOLDER": str(taken), "BESIDE": str(taken.with_name(OUT))}
    assert main(["finetune", *(places.get(word, word) for word in verb.split())]) == 2
    printed = capfd.readouterr()
    assert (
        printed.out == "" and " is in use by process " in printed.err and "name another folder" in printed.err
    )
    assert printed.err.count("\n") == 1


def test_packages_are_fetched_and_made_a_bank_of_by_one_process(sources: Path, taken: Path) -> None:
    with pytest.raises(DataError, match="in use by process"):
        build_bank(sources / "debs", taken)
    with pytest.raises(DataError, match="in use by process"):
        fetch(taken)
