"""Tiny models of the public families that came later, each of the real transformers architecture; see tests/tiny.py."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    GPT2Tokenizer,
    GraniteSpeechConfig,
    GraniteSpeechFeatureExtractor,
    GraniteSpeechForConditionalGeneration,
    MusicFlamingoConfig,
    MusicFlamingoForConditionalGeneration,
    Phi4MultimodalConfig,
    Phi4MultimodalFeatureExtractor,
    Phi4MultimodalForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    Qwen3OmniMoeThinkerConfig,
    Qwen3OmniMoeThinkerForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

from echo_agent.families.audio_flamingo3 import AudioFlamingo3Family
from echo_agent.families.base import Family
from echo_agent.families.gemma4 import Gemma4Family
from echo_agent.families.gemma4_unified import Gemma4UnifiedFamily
from echo_agent.families.granite_speech import GraniteSpeechFamily
from echo_agent.families.lat_audio import LatAudioFamily
from echo_agent.families.music_flamingo import MusicFlamingoFamily
from echo_agent.families.phi4_multimodal import Phi4MultimodalFamily
from echo_agent.families.qwen3_omni import Qwen3OmniFamily
from echo_agent.families.voxtral import VoxtralFamily

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTROL = {
    "qwen3-omni": [
        *CHATML,
        *("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>", "<|image_pad|>", "<|video_pad|>"),
        *("<|vision_start|>", "<|vision_end|>", "<tts_pad>", "<tts_text_bos>"),
    ],
    "audio-flamingo-3": [*CHATML, "<sound>"],
    "music-flamingo": [*CHATML, "<sound>", "<|sound_bos|>", "<|sound_eos|>"],
    "granite-speech": ["<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>"],
    "phi4-multimodal": [
        *("<|endoftext|>", "<|image|>", "<|audio|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        *("<|tool_call|>", "<|/tool_call|>"),
    ],
    "voxtral": ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AUDIO]", "[BEGIN_AUDIO]"],
    "gemma4": [
        *("<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|think|>"),
        *("<|audio>", "<audio|>", "<|audio|>", "<|image>", "<image|>", "<|image|>", "<|video|>"),
    ],
}
CONTROL["lat-audio"] = CONTROL["qwen3-omni"]
CONTROL["gemma4-unified"] = CONTROL["gemma4"]
"""Control tokens by kind, as the published tokenizers have them; the first of each list pads."""
LARGE_KINDS = tuple(CONTROL)

WHISPER = dict(num_mel_bins=128, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64)


def large_tokenizer(kind: str, vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """The tokenizer class of a family, with its control tokens, around a byte-level vocabulary."""
    tokens = [AddedToken(token, special=True, normalized=False) for token in CONTROL[kind]]
    if kind in ("granite-speech", "phi4-multimodal"):
        tokenizer: Any = GPT2Tokenizer(
            vocab=vocab, merges=merges, unk_token=None, bos_token=None, eos_token=None
        )
    else:
        tokenizer = Qwen2Tokenizer(vocab=vocab, merges=merges)
    if kind == "voxtral":
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    tokenizer.add_tokens(tokens)
    tokenizer.pad_token = CONTROL[kind][0]
    return tokenizer


def large_extractor(kind: str) -> Any:
    """The feature extractor as the published checkpoints configure it."""
    if kind == "granite-speech":
        return GraniteSpeechFeatureExtractor()
    if kind == "phi4-multimodal":
        return Phi4MultimodalFeatureExtractor()
    if kind == "gemma4":
        return Gemma4AudioFeatureExtractor()
    if kind == "gemma4-unified":
        return Gemma4UnifiedAudioFeatureExtractor()
    return WhisperFeatureExtractor(feature_size=128, return_attention_mask=True)


def large_model(kind: str, ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    """A model with random weights; ``text`` are the sizes of its decoder."""
    return {
        "qwen3-omni": _qwen3_omni,
        "lat-audio": _qwen3_omni,
        "audio-flamingo-3": _audio_flamingo3,
        "music-flamingo": _music_flamingo,
        "granite-speech": _granite_speech,
        "phi4-multimodal": _phi4_multimodal,
        "voxtral": _voxtral,
        "gemma4": _gemma4,
        "gemma4-unified": _gemma4_unified,
    }[kind](ids, text)


def thinker_config(ids: dict[str, int], text: dict[str, Any]) -> Qwen3OmniMoeThinkerConfig:
    rope = {
        "rope_type": "default",
        "rope_theta": 1000000.0,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
    experts = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    vision = dict(depth=1, hidden_size=32, intermediate_size=32, num_heads=2, out_hidden_size=32)
    return Qwen3OmniMoeThinkerConfig(
        audio_config={**WHISPER, "output_dim": 32, "downsample_hidden_size": 8},
        vision_config={**vision, "deepstack_visual_indexes": [0]},
        text_config={**text, **experts, "rope_parameters": rope},
        audio_token_id=ids["<|audio_pad|>"],
        audio_start_token_id=ids["<|audio_start|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
    )


def _qwen3_omni(ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    return Qwen3OmniMoeThinkerForConditionalGeneration(thinker_config(ids, text))


def _audio_flamingo3(ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    return AudioFlamingo3ForConditionalGeneration(
        AudioFlamingo3Config(
            audio_config={"model_type": "audioflamingo3_encoder", **WHISPER},
            text_config={"model_type": "qwen2", **text},
            audio_token_id=ids["<sound>"],
        )
    )


def _music_flamingo(ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    return MusicFlamingoForConditionalGeneration(
        MusicFlamingoConfig(
            audio_config={"model_type": "audioflamingo3_encoder", **WHISPER},
            text_config={"model_type": "qwen2", **text},
            audio_token_id=ids["<sound>"],
            audio_bos_token_id=ids["<|sound_bos|>"],
            audio_eos_token_id=ids["<|sound_eos|>"],
        )
    )


def _granite_speech(ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    scale = dict(
        attention_multiplier=0.25, embedding_multiplier=2.0, residual_multiplier=0.8, logits_scaling=2.0
    )
    encoder = dict(input_dim=160, num_layers=2, hidden_dim=32, num_heads=4, output_dim=12, context_size=20)
    questions = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48)
    return GraniteSpeechForConditionalGeneration(
        GraniteSpeechConfig(
            encoder_config={**encoder, "max_pos_emb": 40, "feedforward_mult": 2},
            projector_config={"model_type": "blip_2_qformer", **questions, "encoder_hidden_size": 32,
                              "cross_attention_frequency": 1},
            text_config={"model_type": "granite", **text, **scale},
            audio_token_index=ids["<|audio|>"],
            has_lora_adapter=False,
            tie_word_embeddings=False,
        )
    )  # fmt: skip


def _phi4_multimodal(ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    audio = dict(
        hidden_size=32, intermediate_size=48, num_blocks=2, num_attention_heads=4, nemo_conv_channels=8
    )
    audio |= dict(ext_pw_out_channel=32, depthwise_separable_out_channel=32)
    vision = dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, crop_size=28
    )
    half = text["hidden_size"] // text["num_attention_heads"] // 2
    rope = dict(rope_type="longrope", short_factor=[1.0] * half, long_factor=[4.0] * half, rope_theta=10000.0)
    return Phi4MultimodalForCausalLM(
        Phi4MultimodalConfig(
            **text | {"max_position_embeddings": 8192},
            original_max_position_embeddings=4096,
            rope_parameters=rope | {"original_max_position_embeddings": 4096, "factor": 2.0},
            audio_config={**audio, "audio_token_id": ids["<|audio|>"]},
            vision_config={**vision, "image_size": 28, "image_token_id": ids["<|image|>"]},
            bos_token_id=ids["<|endoftext|>"],
            pad_token_id=ids["<|endoftext|>"],
            eos_token_id=[ids["<|endoftext|>"], ids["<|end|>"]],
        )
    )


def _voxtral(ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    return VoxtralForConditionalGeneration(
        VoxtralConfig(
            audio_config={"model_type": "voxtral_encoder", **WHISPER, "encoder_ffn_dim": 128},
            text_config={"model_type": "llama", **text, "head_dim": 8},
            audio_token_id=ids["[AUDIO]"],
        )
    )


def _gemma4_sizes(ids: dict[str, int], text: dict[str, Any]) -> dict[str, Any]:
    """Layers of two shapes, as in E2B the last two without keys and values, and a window shorter than a listen."""
    kinds = [
        "sliding_attention",
        "full_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
    ]
    layers = dict(num_hidden_layers=5, num_kv_shared_layers=2, layer_types=kinds, sliding_window=24)
    heads = dict(head_dim=8, global_head_dim=16, final_logit_softcapping=30.0, pad_token_id=ids["<pad>"])
    names = dict(boa="<|audio>", audio="<|audio|>", boi="<|image>", eoi="<image|>")
    names |= dict(image="<|image|>", video="<|video|>")
    marks = {f"{key}_token_id": ids[token] for key, token in names.items()}
    return {"text_config": {**text, **layers, **heads}, "eoa_token_index": ids["<audio|>"], **marks}


def _gemma4(ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    sizes = _gemma4_sizes(ids, text)
    sizes["text_config"] |= dict(hidden_size_per_layer_input=6, vocab_size_per_layer_input=text["vocab_size"])
    audio = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, output_proj_dims=24)
    vision = dict(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, head_dim=16
    )
    return Gemma4ForConditionalGeneration(
        Gemma4Config(
            audio_config={**audio, "subsampling_conv_channels": [128, 4]},
            vision_config={**vision, "num_key_value_heads": 2, "position_embedding_size": 64},
            **sizes,
        )
    )


def _gemma4_unified(ids: dict[str, int], text: dict[str, Any]) -> PreTrainedModel:
    sizes = _gemma4_sizes(ids, text)
    sizes["text_config"] |= dict(attention_k_eq_v=True, num_global_key_value_heads=1, num_kv_shared_layers=0)
    return Gemma4UnifiedForConditionalGeneration(
        Gemma4UnifiedConfig(audio_config={}, vision_config=None, **sizes)
    )


CLASSES: dict[str, type[Family]] = {
    "qwen3-omni": Qwen3OmniFamily,
    "lat-audio": LatAudioFamily,
    "audio-flamingo-3": AudioFlamingo3Family,
    "music-flamingo": MusicFlamingoFamily,
    "granite-speech": GraniteSpeechFamily,
    "phi4-multimodal": Phi4MultimodalFamily,
    "voxtral": VoxtralFamily,
    "gemma4": Gemma4Family,
    "gemma4-unified": Gemma4UnifiedFamily,
}
"""Families by kind."""
