"""Tiny randomly initialised models, one per family, with the real processor classes; nothing is downloaded.

Weights are drawn with a standard deviation of 0.1: at the usual 0.02 the layers of so small a model hardly do anything,
and a position that is off by one would not show.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedModel,
    Qwen2_5OmniConfig,
    Qwen2_5OmniForConditionalGeneration,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2Tokenizer,
    WhisperFeatureExtractor,
)

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.conformance.sounds import lively, randomise
from echo_agent.families.base import Family
from echo_agent.families.nano import NanoFamily
from echo_agent.families.qwen2_audio import Qwen2AudioFamily
from echo_agent.families.qwen25_omni import Qwen25OmniFamily
from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.processing import load_tokenizer, time_token_ids
from echo_agent.nano.weights import WEIGHTS
from tests.tiny_large import CLASSES, LARGE_KINDS, large_extractor, large_model, large_tokenizer

QWEN_KINDS = ("qwen2-audio", "qwen2.5-omni")
sounds = lively
"""Recordings of tests."""
KINDS = (*QWEN_KINDS, "echo-nano")
"""The kinds that most tests run over: one of each way to hear."""
ALL_KINDS = (*KINDS, "echo-small", *LARGE_KINDS)
"""All families; the conformance tests run over these."""

CORPUS = """You are a careful listener. You answer questions about audio recordings. Think step by step before you
answer. Whenever you speak about a part of the audio, cite the audio segment first, with its start and end in seconds:
<seg>start, end</seg>. <think> </think> <answer> </answer> Choices: - copied word for word from the choices, as short as
possible. Which sound comes after the dog? How many times does the bell ring? user assistant system Audio 1: seconds
0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 hear again closely right between thoughts alone"""

SPECIAL = {
    "qwen2-audio": [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|AUDIO|>",
        "<|audio_bos|>",
        "<|audio_eos|>",
    ],
    "qwen2.5-omni": [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|AUDIO|>",
        "<|audio_bos|>",
        "<|audio_eos|>",
    ]
    + ["<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_bos|>", "<|vision_eos|>", "<|vision_pad|>"]
    + ["<|IMAGE|>", "<|VIDEO|>"],
}
OMNI_NAMES = {
    "image_token": "<|IMAGE|>",
    "audio_token": "<|AUDIO|>",
    "video_token": "<|VIDEO|>",
    "vision_bos_token": "<|vision_bos|>",
    "vision_eos_token": "<|vision_eos|>",
    "audio_bos_token": "<|audio_bos|>",
    "audio_eos_token": "<|audio_eos|>",
}
SPARE_ROWS = 3
"""Rows of the embedding that no token stands for: the large checkpoints have them too."""


def crop(seconds: float, seed: int = 0) -> tuple[AudioRef, np.ndarray]:
    """A recording heard whole: its reference, and its samples at 16 kHz."""
    heard = Recording.from_array(sounds(seconds, seed), 16000)
    return heard.ref(), heard.crop(heard.ref(), 16000)


def tiny_family(kind: str, seed: int = 0) -> Family:
    """A family of ``kind`` around a tiny model on the CPU in float32; equal seeds give equal weights."""
    if kind == "qwen2-audio":
        model: PreTrainedModel = Qwen2AudioForConditionalGeneration(qwen2_audio_config())
        family: Family = Qwen2AudioFamily(f"tiny-{kind}", model, tiny_tokenizer(kind), tiny_extractor(kind))
    elif kind == "qwen2.5-omni":
        model = Qwen2_5OmniThinkerForConditionalGeneration(Qwen2_5OmniThinkerConfig(**thinker_sizes()))
        family = Qwen25OmniFamily(f"tiny-{kind}", model, tiny_tokenizer(kind), tiny_extractor(kind))
    elif kind == "echo-nano":
        tokenizer = load_tokenizer(WEIGHTS)
        model = NanoForConditionalGeneration(_nano_config(tokenizer)).eval()
        family = NanoFamily(f"tiny-{kind}", model, tokenizer)
    elif kind == "echo-small":
        from tests.small.tiny_small import tiny_small

        return tiny_small(seed)
    elif kind in LARGE_KINDS:
        ids = tiny_tokenizer(kind).get_vocab()
        make: Any = CLASSES[kind]
        model = large_model(kind, ids, _text_sizes(kind))
        family = make(f"tiny-{kind}", model, tiny_tokenizer(kind), tiny_extractor(kind))
    else:
        raise ValueError(f"no tiny model of kind {kind!r}")
    randomise(family.model, seed)
    return family


@lru_cache
def _bpe() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """Vocabulary and merges of a small byte-level tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS.split("\n"), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], tuple(tuple(merge) for merge in model["merges"])


def tiny_tokenizer(kind: str) -> Any:
    """The tokenizer class of a family, with its control tokens and some hundred words."""
    vocabulary, merges = _bpe()
    if kind in LARGE_KINDS:
        return large_tokenizer(kind, dict(vocabulary), list(merges))
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocabulary),
        merges=list(merges),
        **({"extra_special_tokens": OMNI_NAMES} if kind == "qwen2.5-omni" else {}),
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": SPECIAL[kind]}, replace_extra_special_tokens=False
    )
    return tokenizer


def tiny_extractor(kind: str) -> Any:
    """The feature extractor as the published checkpoints configure it."""
    if kind in LARGE_KINDS:
        return large_extractor(kind)
    seconds = 30 if kind == "qwen2-audio" else 300
    return WhisperFeatureExtractor(feature_size=128, chunk_length=seconds, return_attention_mask=True)


def tiny_processor(kind: str) -> Qwen2AudioProcessor | Qwen2_5OmniProcessor:
    """The real processor of a Qwen family around the tiny tokenizer."""
    if kind == "qwen2-audio":
        return Qwen2AudioProcessor(tiny_extractor(kind), tiny_tokenizer(kind))
    return _AudioOnlyOmniProcessor(None, None, tiny_extractor(kind), tiny_tokenizer(kind))


class _AudioOnlyOmniProcessor(Qwen2_5OmniProcessor):
    """The real processor, built without the parts for pictures and video: those want torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        if argument is not None:
            return super().check_argument_for_proper_class(argument_name, argument)


def _text_sizes(kind: str) -> dict[str, Any]:
    return {
        "vocab_size": len(tiny_tokenizer(kind)) + SPARE_ROWS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    }


def _nano_config(tokenizer: Any) -> NanoConfig:
    audio, times = tokenizer.convert_tokens_to_ids("<|audio|>"), time_token_ids(tokenizer)
    text = dict(
        vocab_size=len(tokenizer) + SPARE_ROWS, hidden_size=32, intermediate_size=48, num_hidden_layers=2
    )
    heads = dict(num_attention_heads=4, num_key_value_heads=4, pad_token_id=tokenizer.pad_token_id)
    sizes = dict(encoder_dim=32, encoder_heads=2, encoder_ffn=48, branch_dim=16)
    return NanoConfig(text_config=text | heads, audio_token_id=audio, time_token_ids=times, **sizes)


def _tower_sizes() -> dict[str, Any]:
    return {
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "num_mel_bins": 128,
        "max_source_positions": 1500,
    }


def qwen2_audio_config(
    text: Mapping[str, int] = MappingProxyType({}), tower: Mapping[str, int] = MappingProxyType({})
) -> Qwen2AudioConfig:
    """The configuration of a tiny Qwen2-Audio; other sizes of decoder and tower can be named."""
    ids = tiny_tokenizer("qwen2-audio").get_vocab()
    return Qwen2AudioConfig(
        audio_config=_tower_sizes() | dict(tower),
        text_config={"model_type": "qwen2", **_text_sizes("qwen2-audio"), **text},
        audio_token_index=ids["<|AUDIO|>"],
    )


def thinker_sizes(
    text: Mapping[str, int] = MappingProxyType({}), tower: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
    """The configuration of a tiny thinker of Qwen2.5-Omni; other sizes of decoder and tower can be named."""
    ids = tiny_tokenizer("qwen2.5-omni").get_vocab()
    decoder = {**_text_sizes("qwen2.5-omni"), **text}
    half = decoder["hidden_size"] // decoder["num_attention_heads"] // 2
    sections = [half // 2, half // 4, half // 4]
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": sections}
    return {
        "audio_config": {**_tower_sizes(), **tower, "n_window": 100, "output_dim": decoder["hidden_size"]},
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": decoder["hidden_size"],
            "fullatt_block_indexes": [0],
        },
        # vLLM reads here whether the head is the embedding, and transformers one level above.
        "text_config": {**decoder, "rope_parameters": rope, "tie_word_embeddings": False},
        "audio_token_index": ids["<|AUDIO|>"],
        "image_token_index": ids["<|IMAGE|>"],
        "video_token_index": ids["<|VIDEO|>"],
        "audio_start_token_id": ids["<|audio_bos|>"],
        "audio_end_token_id": ids["<|audio_eos|>"],
        "vision_start_token_id": ids["<|vision_bos|>"],
        "vision_end_token_id": ids["<|vision_eos|>"],
        "user_token_id": tiny_tokenizer("qwen2.5-omni").encode("user")[0],
    }


def tiny_full_omni(seed: int = 0) -> Qwen2_5OmniForConditionalGeneration:
    """A full Qwen2.5-Omni model (the thinker inside its wrapper), as the published checkpoints are."""
    model = Qwen2_5OmniForConditionalGeneration(
        Qwen2_5OmniConfig(thinker_config=thinker_sizes(), enable_audio_output=False)
    )
    randomise(model, seed)
    return model.eval()
