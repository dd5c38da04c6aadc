"""transformers' Auto classes know echo-nano once one of its modules is imported, and ``import echo_agent`` is light."""

import subprocess
import sys

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

from echo_agent.audio.recording import Recording
from echo_agent.engine import SamplingParams, TorchEngine
from echo_agent.errors import PlaceholderError, RecordingError
from echo_agent.families.loading import load_family
from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.modeling import NanoForConditionalGeneration, NanoModel
from echo_agent.nano.processor import NanoProcessor
from echo_agent.nano.weights import WEIGHTS
from echo_agent.stores import RecordingStore
from tests.tiny import sounds

CHOICES = ["yes", "no"]


@pytest.fixture(scope="module")
def family():
    return load_family("echo-nano", "cpu")


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    family.save(folder)
    return folder


def test_a_saved_model_is_read_by_the_auto_classes(family, folder):
    assert type(AutoConfig.from_pretrained(folder)) is NanoConfig
    own = family.model.state_dict()
    for auto in (AutoModelForCausalLM, AutoModelForMultimodalLM):
        model = auto.from_pretrained(folder)
        assert type(model) is NanoForConditionalGeneration
        assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    base = AutoModel.from_pretrained(folder)
    assert type(base) is NanoModel
    assert all(torch.equal(value, own[f"model.{name}"]) for name, value in base.state_dict().items())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.encode("is a bell heard?") == family.tokenizer.encode("is a bell heard?")


@pytest.mark.parametrize("source", ["saved", "embedded"])
def test_the_processor_gives_what_the_family_gives(family, folder, source):
    processor = AutoProcessor.from_pretrained(folder if source == "saved" else WEIGHTS)
    assert type(processor) is NanoProcessor
    samples = sounds(13.0)
    ref = Recording.from_array(samples, 16000).ref()
    ids, _ = family.render(family.question_pieces([ref], "Is a bell heard?", CHOICES))
    inputs = processor(processor.prompt("Is a bell heard?", 13.0, CHOICES), samples)
    wanted = family.forward_inputs(ids, [(ref, samples)])
    assert set(inputs) == set(wanted)
    assert all(torch.equal(inputs[key], value) for key, value in wanted.items())


def test_generate_writes_what_the_engine_writes(family, folder):
    model, processor = AutoModelForCausalLM.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    samples, store = sounds(13.0), RecordingStore()
    ref = store.add(Recording.from_array(samples, 16000))
    with TorchEngine(family, store) as engine:
        ids, audio = family.render(family.question_pieces([ref], "Is a bell heard?", CHOICES))
        made = engine.generate(ids, audio, SamplingParams(max_new_tokens=12))
    inputs = processor(processor.prompt("Is a bell heard?", 13.0, CHOICES), samples)
    written = model.generate(**inputs, max_new_tokens=12, do_sample=False, eos_token_id=family.eos_ids[0])
    assert written[0, len(ids) :].tolist() == list(made.ids)


def test_a_processor_is_saved_with_its_configuration(folder, tmp_path):
    AutoProcessor.from_pretrained(folder).save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again("hello").input_ids.shape[1] > 0 and again.config.listen_tokens == 48


def test_what_does_not_belong_together_is_an_error(folder):
    processor = AutoProcessor.from_pretrained(folder)
    with pytest.raises(PlaceholderError, match="2 .* for 1 pieces"):
        processor("<|audio|> <|audio|>", np.zeros(16000, np.float32))
    with pytest.raises(RecordingError, match="16000"):
        processor("<|audio|>", np.zeros(8000, np.float32), sampling_rate=8000)


@pytest.mark.slow
def test_any_module_of_it_opens_the_doors(folder):
    code = (
        "import sys, echo_agent; assert 'transformers' not in sys.modules\n"
        "import echo_agent.nano.configuration; from transformers import AutoConfig\n"
        f"print(type(AutoConfig.from_pretrained({str(folder)!r})).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "NanoConfig", done.stderr
