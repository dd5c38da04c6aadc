"""From names, folders and checkpoints to families; and what is said when that fails."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    Phi4MultimodalConfig,
    Phi4MultimodalForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from echo_agent.audio.recording import Recording
from echo_agent.errors import ModelError
from echo_agent.families.base import Family
from echo_agent.families.loading import KnownModel, known_models, load_family, resolve_device
from echo_agent.shipped import NANO
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.modeling import SmallForConditionalGeneration
from echo_agent.small.weights import WEIGHTS as SMALL_WEIGHTS
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
    load_family(NANO, "cpu")
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


def edited(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a checkpoint."""
    data = json.loads((folder / file).read_text(encoding="utf-8"))
    change(data)
    (folder / file).write_text(json.dumps(data), encoding="utf-8")


def reweighed(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the weights of a checkpoint."""
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path, file: str) -> None:
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])


def some(weights: dict[str, torch.Tensor], part: str) -> str:
    return next(key for key in weights if part in key)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "config is a list": (lambda c: (c / "config.json").write_text("[1]"), "config.json holds no JSON object"),
    "config is null": (lambda c: (c / "config.json").write_text("null"), "config.json holds no JSON object"),
    "config is cut": (lambda c: cut(c, "config.json"), "config.json"),
    "a type that is no name": (
        lambda c: edited(c, "config.json", lambda d: d.update(model_type=["x"])),
        r"model_type in its config.json is \['x'\]",
    ),
    "the decoder's settings are lost": (
        lambda c: edited(c, "config.json", lambda d: d.pop("text_config")),
        "config.json describes a model of [0-9,]+ weights, but its files hold",
    ),
    "absurdly many layers": (
        lambda c: edited(c, "config.json", lambda d: d["text_config"].update(num_hidden_layers=10**9)),
        "num_hidden_layers in its config.json is 1000000000",
    ),
    "a size in words": (
        lambda c: edited(c, "config.json", lambda d: d["text_config"].update(hidden_size="big")),
        "hidden_size in its config.json is 'big'",
    ),
    "a depth that is negative": (
        lambda c: edited(c, "config.json", lambda d: d.update(anything={"num_blocks": -1})),
        "num_blocks in its config.json is -1: a number up to 1000",
    ),
    "a size that is absurd": (
        lambda c: edited(c, "config.json", lambda d: d.update(anything={"ffn_dim": 1e300})),
        r"ffn_dim in its config.json is 1e\+300: a number up to 10000000",
    ),
    "config is nested too deeply": (
        lambda c: (c / "config.json").write_text('{"a":' * 100_000),
        "cannot be loaded: .*recursion",
    ),
    "weights are whole numbers": (
        lambda c: reweighed(c, lambda w: w.update({some(w, "conv1.bias"): torch.ones(32, dtype=torch.int8)})),
        "model.safetensors holds 1 weights as whole numbers, among them .*conv1.bias",
    ),
    "another width": (
        lambda c: edited(c, "config.json", lambda d: d["text_config"].update(intermediate_size=24)),
        r"the weight \S+ is \[.*\] in the checkpoint, but \[.*\] by its config.json",
    ),
    "a layer less in the config": (
        lambda c: edited(
            c, "config.json", lambda d: d["text_config"].update(num_hidden_layers=1, layer_types=None)
        ),
        r"holds \d+ weights that the model of its config.json does not have, among them \S*layers.1",
    ),
    "another audio token": (
        lambda c: edited(c, "config.json", lambda d: d.update(audio_token_id=1)),
        "token",
    ),
    "tokenizer is cut": (lambda c: cut(c, "tokenizer.json"), "tokenizer.* is damaged"),
    "tokenizer is empty": (lambda c: (c / "tokenizer.json").write_text("{}"), "tokenizer.* is damaged"),
    "a weight is missing": (
        lambda c: reweighed(c, lambda w: w.pop(some(w, "conv1.bias"))),
        "lacks 1 weights, among them .*conv1.bias",
    ),
    "a weight is too much": (
        lambda c: reweighed(c, lambda w: w.update({"model.extra.weight": torch.zeros(3)})),
        "holds 1 weights that the model .*extra.weight",
    ),
    "a weight of another size": (
        lambda c: reweighed(c, lambda w: w.update({some(w, "conv1.bias"): torch.zeros(3)})),
        r"conv1.bias is \[3\] in the checkpoint",
    ),
    "weights are cut": (lambda c: cut(c, "model.safetensors"), "model.safetensors is damaged"),
    "weights are empty": (
        lambda c: (c / "model.safetensors").write_bytes(b""),
        "model.safetensors is damaged",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_model_folder_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    tiny_family(kind).save(whole)
    for name, (damage, message) in DAMAGE.items():
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        damage(folder)
        with pytest.raises(ModelError, match=message) as caught:
            load_family(str(folder), "cpu")
        assert str(folder) in str(caught.value), name


def test_an_extractor_of_another_model_is_refused(checkpoint: Path) -> None:
    edited(checkpoint, "preprocessor_config.json", lambda d: d.update(feature_size=17))
    with pytest.raises(ModelError, match="preprocessor_config.json has 17 mel bins"):
        load_family(str(checkpoint))


def test_an_address_is_no_model() -> None:
    with pytest.raises(ModelError, match="is an address.*--server URL.*openai:NAME@URL"):
        load_family("http://localhost:8000/v1")


def test_a_damaged_checkpoint_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"not weights at all")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_family(str(checkpoint))


@pytest.mark.parametrize("kind", KINDS)
def test_pickled_weights_are_refused(kind: str, tmp_path: Path) -> None:
    tiny_family(kind).save(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors"):
        load_family(str(tmp_path))


@pytest.mark.parametrize("names", ["ab", "abc", "abb"])
def test_adapters_that_stand_on_each_other_in_a_circle(names: str, tmp_path: Path) -> None:
    """The last of them stands on the one before it, or on the first."""
    chain = [tmp_path / f"{name}{place}" for place, name in enumerate(names)]
    bases = [*chain[1:], chain[1] if names == "abb" else chain[0]]
    for folder, base in zip(chain, bases, strict=True):
        folder.mkdir()
        (folder / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": f"../{base.name}"})
        )
    with pytest.raises(ModelError, match=r"a0 come to no model: .* in a circle \(a0 -> b1 -> ") as caught:
        load_family(str(chain[0]))
    assert "\n" not in str(caught.value)


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
        ModelError,
        match="is a model of type evil .* none that echo-agent knows as one that hears: echo_nano, echo_small, ",
    ):
        load_family(str(checkpoint))
    assert not (checkpoint / "ran").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("echo-nan", "no model 'echo-nan'; did you mean echo-nano"),
        ("qwen2.5-omni-7b", "did you mean Qwen/Qwen2.5-Omni-7B"),
        ("zzz", "known are echo-nano, "),
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
QWEN25_7B = {
    "model_type": "qwen2",
    "vocab_size": 151672,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
FLAMINGO = {"audio_config": {"model_type": "audioflamingo3_encoder"}, "text_config": QWEN25_7B}
MUSIC_FLAMINGO = (MusicFlamingoForConditionalGeneration, MusicFlamingoConfig(**FLAMINGO))
THINKER3 = (
    Qwen3OmniMoeThinkerForConditionalGeneration,
    Qwen3OmniMoeThinkerConfig(
        audio_config={"output_dim": 2048},
        vision_config={"out_hidden_size": 2048},
        text_config={
            "vocab_size": 152064,
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "moe_intermediate_size": 768,
            "num_experts": 128,
        },
    ),
)


def gemma4(text: dict[str, Any]) -> Gemma4Config:
    return Gemma4Config(text_config=text, audio_config={}, vision_config={})


MISTRAL_SMALL = {
    "model_type": "llama",
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
GRANITE = GraniteSpeechConfig(
    encoder_config={"num_layers": 16, "output_dim": 348},
    projector_config={
        "model_type": "blip_2_qformer",
        "hidden_size": 1024,
        "num_hidden_layers": 2,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "encoder_hidden_size": 1024,
        "cross_attention_frequency": 1,
    },
    text_config={
        "model_type": "granite",
        "vocab_size": 49160,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 40,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
)
GEMMA = {"num_attention_heads": 8, "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 262_144}
E2B = {
    **GEMMA,
    "hidden_size": 1536,
    "intermediate_size": 6144,
    "num_hidden_layers": 35,
    "num_key_value_heads": 1,
    "num_kv_shared_layers": 20,
    "use_double_wide_mlp": True,
    "layer_types": [*["sliding_attention"] * 4, "full_attention"] * 7,
}
E4B = {
    **GEMMA,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 42,
    "num_key_value_heads": 2,
    "num_kv_shared_layers": 18,
}
UNIFIED = {
    "hidden_size": 3840,
    "intermediate_size": 15360,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
}
PUBLISHED |= {
    "google/gemma-4-12B-it": (
        Gemma4UnifiedForConditionalGeneration,
        Gemma4UnifiedConfig(
            text_config=UNIFIED, audio_config={}, vision_config={"mm_embed_dim": 3840, "mm_posemb_size": 1120}
        ),
    ),
    "google/gemma-4-E2B-it": (Gemma4ForConditionalGeneration, gemma4(E2B)),
    "google/gemma-4-E4B-it": (Gemma4ForConditionalGeneration, gemma4(E4B)),
    "Qwen/Qwen3-Omni-30B-A3B-Instruct": THINKER3,
    "mcshao/LAT-Audio": THINKER3,
    "nvidia/audio-flamingo-3-hf": (
        AudioFlamingo3ForConditionalGeneration,
        AudioFlamingo3Config(**FLAMINGO),
    ),
    "nvidia/music-flamingo-2601-hf": MUSIC_FLAMINGO,
    "nvidia/audio-flamingo-next-hf": MUSIC_FLAMINGO,
    "ibm-granite/granite-speech-3.3-2b": (GraniteSpeechForConditionalGeneration, GRANITE),
    "echo-small": (SmallForConditionalGeneration, SmallConfig.from_pretrained(SMALL_WEIGHTS)),
    "microsoft/Phi-4-multimodal-instruct": (
        Phi4MultimodalForCausalLM,
        Phi4MultimodalConfig(tie_word_embeddings=True),
    ),
    "mistralai/Voxtral-Mini-3B-2507": (VoxtralForConditionalGeneration, VoxtralConfig(audio_token_id=24)),
    "mistralai/Voxtral-Small-24B-2507": (
        VoxtralForConditionalGeneration,
        VoxtralConfig(audio_token_id=24, text_config=MISTRAL_SMALL),
    ),
}
"""Sizes as published; nothing is loaded."""


@pytest.mark.parametrize(
    "known", [model for model in known_models() if model.name != NANO], ids=lambda known: known.name
)
def test_what_a_model_needs_follows_from_its_sizes(known: KnownModel) -> None:
    model_class, config = PUBLISHED[known.name]
    with torch.device("meta"):
        model = model_class(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == known.parameters
    assert kept(config.get_text_config()) == known.cache_values
    assert known.memory("float32") == pytest.approx(2 * known.memory("bfloat16"))
    assert known.memory("bfloat16", tokens=0) == pytest.approx(known.parameters * 2e-9)


def kept(text: Any) -> int:
    """Numbers that a token leaves in the cache, by the configuration of a decoder."""
    modes = getattr(text, "kv_sharing_modes", None)
    if modes is None:
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return 2 * text.num_hidden_layers * text.num_key_value_heads * head
    own = [text.per_layer_config[number] for number, mode in enumerate(modes) if mode != "reuse"]
    return sum(2 * layer.num_key_value_heads * layer.head_dim for layer in own)


def test_known_models_are_listed_by_their_size() -> None:
    names = [model.name for model in known_models()]
    assert names[0] == NANO and len(set(names)) == len(names)
    assert [model.parameters for model in known_models()] == sorted(
        model.parameters for model in known_models()
    )


def test_the_list_of_models_loads_no_torch() -> None:
    code = "import sys; from echo_agent.families import known_models; known_models(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
