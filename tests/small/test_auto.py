"""transformers' Auto classes know echo-small once ``echo_agent.small.auto`` is imported; what is lighter stays so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
)

import echo_agent.small.auto  # noqa: F401 (it opens the doors)
from echo_agent.audio.recording import Recording
from echo_agent.engine import SamplingParams, TorchEngine
from echo_agent.errors import ModelError, PlaceholderError, RecordingError
from echo_agent.families.small import SmallFamily
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.modeling import SmallForConditionalGeneration, SmallModel
from echo_agent.small.processor import SmallProcessor
from echo_agent.small.weights import WEIGHTS
from echo_agent.stores import RecordingStore
from tests.small.tiny_small import tiny_small
from tests.tiny import sounds

CHOICES = ["yes", "no"]
ODD = "Is <answer> a bell <|audio|> heard?"


@pytest.fixture(scope="module")
def family() -> SmallFamily:
    return tiny_small()


@pytest.fixture(scope="module")
def folder(family: SmallFamily, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    family.save(folder)
    return folder


def test_a_saved_model_is_read_by_the_auto_classes(family: SmallFamily, folder: Path) -> None:
    assert type(AutoConfig.from_pretrained(folder)) is SmallConfig
    own = family.model.state_dict()
    for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
        model: Any = auto.from_pretrained(folder)
        assert type(model) is SmallForConditionalGeneration
        assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    base: Any = AutoModel.from_pretrained(folder)
    assert type(base) is SmallModel
    assert all(torch.equal(value, own[f"model.{name}"]) for name, value in base.state_dict().items())
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode("is a bell heard?") == family.tokenizer.encode("is a bell heard?")


@pytest.mark.parametrize("seconds", [0.1, 13.0, 31.0])
@pytest.mark.parametrize("auto", [AutoModelForCausalLM, AutoModel])
def test_the_processor_gives_what_the_family_gives(
    family: SmallFamily, folder: Path, auto: Any, seconds: float
) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    assert type(processor) is SmallProcessor
    samples = sounds(seconds)
    ref = Recording.from_array(samples, 16000).ref()
    ids, _ = family.render(family.question_pieces([ref], ODD, CHOICES))
    wanted = family.forward_inputs(ids, [(ref, samples)])
    text = processor.prompt(ODD, seconds, CHOICES)
    inputs = processor(text, samples, auto.from_pretrained(folder))
    assert set(inputs) == set(wanted)
    for key, value in wanted.items():  # where weights lie in memory changes the last digits of features
        torch.testing.assert_close(inputs[key], value)


def test_several_pieces_are_heard_each_by_itself(family: SmallFamily, folder: Path) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    one, other = sounds(3.0, 1), sounds(35.0, 2)
    both = processor("<|audio|> and <|audio|>", [one, other], family.model)
    alone = [processor("<|audio|>", samples, family.model) for samples in (one, other)]
    for name in ("audio_ids", "audio_features"):
        assert torch.equal(both[name], torch.cat([inputs[name] for inputs in alone]))
    assert (both["input_ids"] == family.audio_id).sum() == len(both["audio_ids"]) == 96 + 48
    with torch.no_grad():
        assert family.model(**both).logits.shape[1] == both["input_ids"].shape[1]


def test_generate_writes_what_the_engine_writes(family: SmallFamily, folder: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    processor: Any = AutoProcessor.from_pretrained(folder)
    samples, store = sounds(13.0), RecordingStore()
    ref = store.add(Recording.from_array(samples, 16000))
    with TorchEngine(family, store) as engine:
        ids, audio = family.render(family.question_pieces([ref], "Is a bell heard?", CHOICES))
        made = engine.generate(ids, audio, SamplingParams(max_new_tokens=12))
    inputs = processor(processor.prompt("Is a bell heard?", 13.0, CHOICES), samples, model)
    written = model.generate(
        **inputs,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=family.eos_ids[0],
        suppress_tokens=list(family.banned_ids),
    )
    assert written[0, len(ids) :].tolist() == list(made.ids)


def test_a_processor_is_saved_with_its_configuration(folder: Path, tmp_path: Path) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    processor.save_pretrained(tmp_path / "new")
    again: Any = AutoProcessor.from_pretrained(tmp_path / "new")
    assert again("hello").input_ids.shape[1] > 0 and again.config.sound_tokens == 48
    assert again.whisper_words.get_vocab() == processor.whisper_words.get_vocab()


def test_the_embedded_model_has_a_processor() -> None:
    processor: Any = AutoProcessor.from_pretrained(WEIGHTS)
    ids = processor("<|im_start|>user\nhello<|im_end|>").input_ids[0]
    assert processor.decode(ids) == "<|im_start|>user\nhello<|im_end|>"
    assert processor.whisper_words.get_vocab_size() > 50000


def test_what_does_not_belong_together_is_an_error(family: SmallFamily, folder: Path) -> None:
    processor: Any = AutoProcessor.from_pretrained(folder)
    second = np.zeros(16000, np.float32)
    with pytest.raises(PlaceholderError, match="2 .* for 1 pieces"):
        processor("<|audio|> <|audio|>", second, family.model)
    with pytest.raises(RecordingError, match="16000"):
        processor("<|audio|>", second, family.model, sampling_rate=8000)
    with pytest.raises(ModelError, match="ears are in its model"):
        processor("<|audio|>", second)


@pytest.mark.slow
def test_its_module_opens_the_doors(folder: Path) -> None:
    code = (
        "import sys, echo_agent; assert 'transformers' not in sys.modules\n"
        "import echo_agent.small.notes; assert 'transformers' not in sys.modules\n"
        "import echo_agent.small.auto; from transformers import AutoConfig\n"
        f"print(type(AutoConfig.from_pretrained({str(folder)!r})).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "SmallConfig", done.stderr
