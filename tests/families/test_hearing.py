from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_agent.families.architectures import FAMILIES, family_class
from echo_agent.families.hearing import longest_recording
from echo_agent.families.loading import known_models


def _folder(path: Path, file: str, **said: object) -> str:
    path.mkdir(exist_ok=True)
    (path / file).write_text(json.dumps(said))
    return str(path)


def test_models_and_folders_hear_what_their_family_does(tmp_path: Path) -> None:
    for model_type, kind in FAMILIES.items():
        folder = _folder(tmp_path / model_type, "config.json", model_type=model_type)
        assert longest_recording(folder) == family_class(kind).limits.longest_recording
    for model in known_models():
        assert longest_recording(model.name) == model.longest_recording
        assert family_class(model.kind).limits.longest_recording == model.longest_recording


def test_adapters_hear_what_their_base_does(tmp_path: Path) -> None:
    first = _folder(tmp_path / "first", "adapter_config.json", base_model_name_or_path="echo-nano")
    second = _folder(tmp_path / "second", "adapter_config.json", base_model_name_or_path="../first")
    assert longest_recording(first) == longest_recording(second) == 600.0
    _folder(
        tmp_path / "second", "config.json", model_type="qwen2_audio"
    )  # a whole model, its adapters worked in
    assert longest_recording(second) == 30.0


@pytest.mark.parametrize("content", ["", "[]", '{"model_type": 3}', '{"model_type": "bert"}', "[" * 100_000])
def test_what_is_not_known_is_left_to_loading(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    assert longest_recording(str(tmp_path)) is None
    assert longest_recording("someone/something") is None
    circle = _folder(
        tmp_path / "circle", "adapter_config.json", base_model_name_or_path=str(tmp_path / "circle")
    )
    assert longest_recording(circle) is None
