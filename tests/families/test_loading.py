"""From names, folders and checkpoints to families; and what is said when that fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
)

from echo_agent.errors import ModelError
from echo_agent.families.base import Family
from echo_agent.families.loading import EMBEDDED, KnownModel, known_models, load_family, resolve_device
from echo_agent.recording import Recording
from tests.tiny import (
    KINDS,
    QWEN_KINDS,
    sounds,
    tiny_extractor,
    tiny_family,
    tiny_full_omni,
    tiny_processor,
    tiny_tokenizer,
)


def logits(family: Family) -> torch.Tensor:
    heard = Recording.from_array(sounds(1.0), 16000)
    ids, _ = family.render(family.question_pieces([heard.ref()], "What is it?", ["dog", "bell"]))
    with torch.no_grad():
        return family.model(
            **family.forward_inputs(ids, [(heard.ref(), heard.crop(heard.ref(), 16000))])
        ).logits


def test_the_thread_that_loads_is_gone() -> None:
    """Its worker threads would slow down the engine's."""
    load_family(EMBEDDED, "cpu")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("echo-agent-load")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_family_comes_back_from_its_folder(kind: str, tmp_path: Path) -> None:
    family = tiny_family(kind)
    family.save(tmp_path)
    assert list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.bin"))
    again = load_family(str(tmp_path), device="cpu")
    assert again.kind == family.kind == kind and again.name == str(tmp_path)
    assert again.banned_ids == family.banned_ids and again.eos_ids == family.eos_ids
    assert again.model.dtype == torch.float32 and not again.model.training
    assert torch.equal(logits(again), logits(family))


@pytest.mark.parametrize("kind", QWEN_KINDS)
def test_a_folder_written_by_the_processor_loads(kind: str, tmp_path: Path) -> None:
    """Recent processors write one file for all their parts."""
    family = tiny_family(kind)
    family.model.save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"feature_extractor": json.loads(tiny_extractor(kind).to_json_string())})
    )
    tiny_processor(kind).tokenizer.save_pretrained(tmp_path)
    assert torch.equal(logits(load_family(str(tmp_path))), logits(family))


def test_of_a_full_omni_checkpoint_the_thinker_is_taken(tmp_path: Path) -> None:
    full = tiny_full_omni()
    full.save_pretrained(tmp_path)
    tiny_tokenizer("qwen2.5-omni").save_pretrained(tmp_path)
    tiny_extractor("qwen2.5-omni").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "qwen2_5_omni"
    family = load_family(str(tmp_path))
    assert isinstance(family.model, Qwen2_5OmniThinkerForConditionalGeneration)
    theirs, ours = full.thinker.state_dict(), family.model.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in theirs)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tiny_family("qwen2-audio").save(tmp_path)
    return tmp_path


def test_a_checkpoint_with_weights_missing_is_refused(checkpoint: Path) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    lost = next(key for key in weights if "k_proj" in key)
    del weights[lost]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights, among them .*k_proj"):
        load_family(str(checkpoint))


def test_a_damaged_checkpoint_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_family(str(checkpoint))


def test_pickled_weights_are_refused(checkpoint: Path) -> None:
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load_family(str(checkpoint))


def test_code_that_comes_with_a_checkpoint_is_not_run(checkpoint: Path) -> None:
    (checkpoint / "evil.py").write_text(
        f"open({str(checkpoint / 'ran')!r}, 'w').close()\nclass C: ...\nclass M: ...\n"
    )
    config = json.loads((checkpoint / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.M", None]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    assert load_family(str(checkpoint)).kind == "qwen2-audio"
    config["model_type"] = "evil"
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelError, match="is a model of type evil .*knows echo_nano, qwen2_audio and qwen2_5_omni"
    ):
        load_family(str(checkpoint))
    assert not (checkpoint / "ran").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("echo-nan", "no model 'echo-nan'; did you mean echo-nano"),
        ("qwen2.5-omni-7b", "did you mean Qwen/Qwen2.5-Omni-7B"),
        ("zzz", "known are echo-nano, Qwen/"),
        ("./nowhere", "no folder ./nowhere"),
        ("a/b/c", "no folder a/b/c"),
        ("", "no model ''"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_family(name)


def test_a_folder_that_holds_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"without a config\.json"):
        load_family(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(
        ModelError, match=r"adapter_config\.json does not say which model its adapters belong to"
    ):
        load_family(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_family(str(tmp_path))


def test_without_a_network_the_message_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="Qwen/Qwen2.5-Omni-7B is not on this machine and the hub cannot be reached"
    ):
        load_family("Qwen/Qwen2.5-Omni-7B")


def test_devices_and_precisions_are_checked(checkpoint: Path) -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ModelError, match="'toaster' is not one of"):
        resolve_device("toaster")
    with pytest.raises(ModelError, match="'meta' is not one of"):
        resolve_device("meta")
    with pytest.raises(ModelError, match="no device cuda:99 here"):
        resolve_device("cuda:99")
    with pytest.raises(ModelError, match="dtype 'int8' is not one of auto, float32, bfloat16, float16"):
        load_family(str(checkpoint), dtype="int8")
    assert load_family(str(checkpoint), device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


OMNI_EYES = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
PUBLISHED: dict[str, tuple[type[PreTrainedModel], PreTrainedConfig]] = {
    "Qwen/Qwen2-Audio-7B-Instruct": (
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioConfig(
            text_config={
                "model_type": "qwen2",
                "vocab_size": 156032,
                "hidden_size": 4096,
                "intermediate_size": 11008,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
            }
        ),
    ),
    "Qwen/Qwen2.5-Omni-7B": (
        Qwen2_5OmniThinkerForConditionalGeneration,
        Qwen2_5OmniThinkerConfig(vision_config={**OMNI_EYES, "out_hidden_size": 3584}),
    ),
    "Qwen/Qwen2.5-Omni-3B": (
        Qwen2_5OmniThinkerForConditionalGeneration,
        Qwen2_5OmniThinkerConfig(
            vision_config={**OMNI_EYES, "out_hidden_size": 2048},
            audio_config={"output_dim": 2048},
            text_config={
                "vocab_size": 151936,
                "hidden_size": 2048,
                "intermediate_size": 11008,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
            },
        ),
    ),
}
"""Sizes as published; nothing is loaded."""


@pytest.mark.parametrize(
    "known", [model for model in known_models() if model.name != EMBEDDED], ids=lambda known: known.name
)
def test_what_a_model_needs_follows_from_its_sizes(known: KnownModel) -> None:
    model_class, config = PUBLISHED[known.name]
    with torch.device("meta"):
        model = model_class(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == known.parameters
    text = config.get_text_config()
    head = text.hidden_size // text.num_attention_heads
    assert 2 * text.num_hidden_layers * text.num_key_value_heads * head == known.cache_values
    assert known.memory("float32") == pytest.approx(2 * known.memory("bfloat16"))
    assert known.memory("bfloat16", tokens=0) == pytest.approx(known.parameters * 2e-9)


def test_known_models_begin_with_the_embedded_one() -> None:
    names = [model.name for model in known_models()]
    assert names[0] == EMBEDDED and len(set(names)) == len(names)
    assert [model.parameters for model in known_models()] == sorted(
        model.parameters for model in known_models()
    )


def test_the_list_of_models_loads_no_torch() -> None:
    code = "import sys; from echo_agent.families import known_models; known_models(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
