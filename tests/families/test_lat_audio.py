"""LAT-Audio: its first listen averaged by two, its call, and a whole run in its dialect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from echo_agent import EchoAgent
from echo_agent.audio.recording import Recording, Transform
from echo_agent.dialects import BadCall, Call, CropAudioDialect, dialect_named
from echo_agent.errors import ContextError
from echo_agent.families.base import MARK, Family
from echo_agent.families.hearing import longest_recording
from echo_agent.families.loading import load_family
from tests.scripted import scripted_family
from tests.tiny import sounds, tiny_family

DIALECT = CropAudioDialect()
CALL = '<tool_call>\n{"name": "crop_audio", "arguments": {"start_sec": 2.0, "end_sec": 4.0}}\n</tool_call>'


@pytest.fixture(scope="module")
def family() -> Family:
    return tiny_family("lat-audio")


def test_a_first_listen_is_averaged_by_two_and_a_crop_is_not(family: Family) -> None:
    """After the projection, as its authors do it, and here before it: the same."""
    heard = Recording.from_array(sounds(4.0), 16000)
    whole, crop = heard.ref(), heard.ref(1.0, 3.0)
    assert (family.audio_tokens(whole), family.audio_tokens(crop)) == (26, 26)
    base = tiny_family("qwen3-omni")
    crops = [(ref, heard.crop(ref, 16000)) for ref in (whole, crop)]
    with torch.no_grad():
        ours = family.audio_embeds([whole, crop], family.frozen_features(crops))
        full = base.audio_embeds([whole, crop], base.frozen_features(crops))
    assert (ours[0] - full[0].unflatten(0, (26, 2)).mean(1)).abs().max() < 1e-5
    assert torch.equal(ours[1], full[1])


def test_lengths_that_are_not_even_are_interpolated(family: Family) -> None:
    for seconds in (0.2, 0.97, 1.33, 3.0):
        heard = Recording.from_array(sounds(seconds), 16000)
        ref = heard.ref()
        (embeds,) = family.audio_embeds([ref], family.frozen_features([(ref, heard.crop(ref, 16000))]))
        assert len(embeds) == family.audio_tokens(ref) >= 1


def test_its_weights_are_known_by_name_or_mark(family: Family, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    family.save(folder)
    assert json.loads((folder / "config.json").read_text())[MARK] == "lat-audio"
    assert load_family(str(folder), "cpu").kind == "lat-audio"
    assert longest_recording(str(folder)) == 1800.0
    config = json.loads((folder / "config.json").read_text())
    del config[MARK]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_family(str(folder), "cpu").kind == "qwen3-omni"
    named = folder.rename(tmp_path / "LAT-Audio")
    assert load_family(str(named), "cpu").default_dialect == "crop-audio"


def test_calls_are_read_and_written() -> None:
    assert dialect_named("crop-audio").name == "crop-audio"
    assert DIALECT.format_call(2.0, 4.0) == CALL
    assert DIALECT.parse(f"<think>there</think>\n{CALL}").calls == (Call({"start": 2.0, "end": 4.0}, CALL),)
    for body, why in {
        "{": "not JSON",
        '{"name": "relisten", "arguments": {"start": 1, "end": 2}}': "no tool 'relisten'",
        '{"name": "crop_audio", "arguments": {"start": 1, "end": 2}}': "start_sec and end_sec",
        '{"name": "crop_audio", "arguments": {"start_sec": 1, "end_sec": 2, "speed": 2}}': "nothing else",
        '{"name": "crop_audio"}': "arguments",
    }.items():
        read = DIALECT.read_call(body, body)
        assert isinstance(read, BadCall) and why in read.error
    for more in ({"recording": 2}, {"transform": Transform(speed=0.5)}):
        with pytest.raises(ContextError, match="a span of the first recording, and for nothing else"):
            DIALECT.format_call(1.0, 2.0, **more)
    assert DIALECT.write_call({"start": 1.0, "end": 2.0, "speed": 0.5}) == ""


def test_the_crop_stands_inside_of_the_tools_response(family: Family) -> None:
    heard = Recording.from_array(sounds(4.0), 16000)
    crop = heard.ref(1.0, 2.0)
    pieces = DIALECT.tool_reply(family, "", crop)
    text = "".join("[audio]" if piece.audio else piece.text for piece in pieces)
    assert text == (
        "<|im_end|>\n<|im_start|>user\n<tool_response>\n"
        '{"result": "Segment extracted: [audio]"}\n</tool_response><|im_end|>\n<|im_start|>assistant\n'
    )
    pieces = DIALECT.tool_reply(family, 'not heard: "here"', None)
    assert '{"error": "not heard: \\"here\\""}' in "".join(piece.text for piece in pieces)
    pieces = DIALECT.tool_reply(family, "heard 1-2: clamped", crop)
    assert pieces[-2].text.startswith(' (heard 1-2: clamped)"}')


def test_a_run_calls_hears_and_answers() -> None:
    script = {"\n": CALL, "<answer>": "a dog", "a dog": "</answer>"}
    with EchoAgent(scripted_family(script, "lat-audio")) as agent:
        assert agent.model.dialect.name == "crop-audio"
        result = agent.ask((sounds(10.0), 16000), "What is heard?", ["a dog", "a cat"], max_relistens=2)
    assert result.answer == "a dog"
    assert [(heard.start, heard.end) for heard in result.relistens] == [(2.0, 4.0)] * 2
    trajectory = result.trajectory
    whole, *crops = trajectory.audio
    assert whole.is_whole and [crop.seconds for crop in crops] == [2.0, 2.0]
