"""The model as it ships: what is written into the package is the model that was given, in fewer bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from echo_agent.audio.recording import Recording
from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.finetune.small.embed import embed, print_sizes
from tests.small.tiny_small import tiny_small
from tests.tiny import sounds


def loaded(folder: Path) -> SmallFamily:
    family = load_family(str(folder), "cpu")
    assert isinstance(family, SmallFamily)
    return family


def test_what_ships_is_the_model_in_few_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("echo_agent.small.blocks.BLOCK", 16)
    tiny_small().save(tmp_path / "model")
    embed(tmp_path / "model", tmp_path / "ships")
    before, after = loaded(tmp_path / "model"), loaded(tmp_path / "ships")
    recording = Recording.from_array(sounds(8.0, 3), 16000)
    ref = recording.ref(1.0, 6.0)
    ids, _ = before.render(before.question_pieces([ref], "What is heard?", None))
    with torch.inference_mode():
        logits = [
            family.model(**family.forward_inputs(ids, [(ref, recording.crop(ref, 16000))])).logits[0, -1]
            for family in (before, after)
        ]
    assert torch.cosine_similarity(logits[0], logits[1], dim=0) > 0.97
    assert after.config.sounds == before.config.sounds and after.config.taught == before.config.taught
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "ships").iterdir()}
    assert sizes["ears.safetensors"] < 1.4 * 3_729_481, "a byte for each weight of YAMNet"
    print_sizes(tmp_path / "ships")
    assert len(capsys.readouterr().out.splitlines()) == len(sizes) + 1


def test_tokenizers_say_the_same_on_one_line(tmp_path: Path) -> None:
    family = tiny_small()
    family.save(tmp_path / "model")
    embed(tmp_path / "model", tmp_path / "ships")
    after = loaded(tmp_path / "ships")
    ids = [40, 41, 200]
    assert after.whisper_words.decode(ids) == family.whisper_words.decode(ids)
    text = "Is a dog heard? <seg>1, 2</seg>"
    assert after.tokenize(text) == family.tokenize(text)
    for name in ("tokenizer.json", "whisper.json"):
        data = (tmp_path / "ships" / name).read_text("utf-8")
        assert data.count("\n") == 1 and len(data) < (tmp_path / "model" / name).stat().st_size
