"""One list of architectures: who can take part, and what is said to who cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from echo_agent.errors import ModelError
from echo_agent.families.architectures import FAMILIES, LAT_AUDIO, REFUSED, family_class, known_kind
from echo_agent.families.loading import load_family


@pytest.mark.parametrize("model_type", REFUSED)
def test_those_that_cannot_take_part_are_refused_with_the_reason(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(ModelError) as caught:
        load_family(str(tmp_path), "cpu")
    assert str(caught.value).startswith(
        f"{tmp_path} is a model of type {model_type}, which cannot listen again: "
    )
    assert REFUSED[model_type] in str(caught.value)


def test_a_model_that_does_not_hear_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(
        ModelError, match="type bert .* none that echo-agent knows as one that hears: echo_nano, "
    ):
        load_family(str(tmp_path), "cpu")


def test_every_kind_has_a_class_of_that_kind() -> None:
    for kind in {*FAMILIES.values(), LAT_AUDIO}:
        assert family_class(kind).kind == kind
    with pytest.raises(ValueError, match="no family 'none'"):
        family_class("none")
    assert not FAMILIES.keys() & REFUSED.keys()


def test_lat_audio_is_known_by_its_name_on_its_own_architecture_only() -> None:
    thinker = {"model_type": "qwen3_omni_moe"}
    assert known_kind("mcshao/LAT-Audio", thinker) == known_kind("/models/LAT-Audio/", thinker) == LAT_AUDIO
    assert known_kind("mcshao/LAT-Audio-Base", thinker) == "qwen3-omni"
    assert known_kind("mine/LAT-Audio", {"model_type": "qwen2_audio"}) == "qwen2-audio"
    assert known_kind("mine/x", {"model_type": "bert"}) is None
