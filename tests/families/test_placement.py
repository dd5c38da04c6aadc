"""Weights in fewer bits, and in other memory: only the decoder's change, and what it says is still its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from echo_agent.conformance.story import apart, by_steps, native, tell
from echo_agent.errors import MissingExtraError, ModelError
from echo_agent.families import placement
from echo_agent.families.loading import load_family
from tests.tiny import tiny_family


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    tiny_family("qwen2.5-omni").save(path)
    return path


@pytest.mark.parametrize("way", ["int8", "8bit", pytest.param("4bit", marks=pytest.mark.gpu)])
def test_the_decoder_loses_bits_and_what_hears_does_not(way: str, folder: Path) -> None:
    pytest.importorskip(placement.PACKAGES[way])
    whole, light = load_family(str(folder), "cpu"), load_family(str(folder), "cpu", quantise=way)
    told = tell(whole)
    assert 0.001 < apart(native(light, told), native(whole, told)) < 3
    assert apart(by_steps(light, told), native(light, told)) < 1e-4, "cached equals uncached, as ever"
    one, other = (each.frozen_features(told.crops)[1]["tower"] for each in (whole, light))
    assert torch.equal(one, other)


def test_a_map_of_devices_is_handed_on(folder: Path) -> None:
    whole, mapped = load_family(str(folder), "cpu"), load_family(str(folder), "cpu", device_map="auto")
    told = tell(whole)
    assert apart(native(mapped, told), native(whole, told)) < 1e-4


def test_what_computes_on_several_devices_is_refused() -> None:
    class Spread:
        hf_device_map = {"a": 0, "b": 1, "c": "cpu"}

    with pytest.raises(ModelError, match="m would be spread over the devices 0, 1, .* behind vLLM"):
        placement.check_spread("m", Spread())
    Spread.hf_device_map = {"a": 0, "c": "cpu", "d": "disk"}
    placement.check_spread("m", Spread())


def test_what_cannot_be_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="quantise '2bit' is not one of 4bit, 8bit, int8"):
        load_family(str(folder), "cpu", quantise="2bit")
    with pytest.raises(ModelError, match="device_map 'everywhere' is not one of auto, "):
        load_family(str(folder), "cpu", device_map="everywhere")
    with pytest.raises(ModelError, match="echo-nano is an echo-nano: it is small"):
        load_family("echo-nano", quantise="int8")
    monkeypatch.setattr(placement, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"quantise int8 needs torchao: .*echo-agent\[quantised\]"):
        load_family(str(folder), "cpu", quantise="int8")
