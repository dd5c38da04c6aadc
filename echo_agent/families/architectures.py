"""Which family a checkpoint belongs to, by the ``model_type`` of its ``config.json``; which cannot take part, and why.

This is the one list of architectures: loading, and what is said of a model without loading it, read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from echo_agent.errors import ModelError
from echo_agent.families.base import MARK

if TYPE_CHECKING:
    from echo_agent.families.base import Family

FAMILIES = {
    "echo_nano": "echo-nano",
    "echo_small": "echo-small",
    "qwen2_audio": "qwen2-audio",
    "qwen2_5_omni": "qwen2.5-omni",
    "qwen2_5_omni_thinker": "qwen2.5-omni",
    "qwen3_omni_moe": "qwen3-omni",
    "qwen3_omni_moe_thinker": "qwen3-omni",
    "audioflamingo3": "audio-flamingo-3",
    "musicflamingo": "music-flamingo",
    "granite_speech": "granite-speech",
    "phi4_multimodal": "phi4-multimodal",
    "voxtral": "voxtral",
    "gemma4": "gemma4",
    "gemma4_unified": "gemma4-unified",
}
"""Families by the ``model_type`` of their checkpoints."""

_MAMBA = "it has Mamba layers, whose state cannot be cut back or shared between runs as keys and values can"
_STREAMING = "it hears audio as a stream, in step with what it writes: a crop cannot be put into its context"
_REMOTE = "its code comes with its checkpoint, and no such code is run"
_WRITES_DOWN = "it is a model for transcription alone: it answers no questions"

REFUSED = {
    "nemotron_h_omni": _MAMBA,
    "voxtral_realtime": _STREAMING,
    "kyutai_speech_to_text": _STREAMING,
    "moshi": _STREAMING,
    "gemma3n": "its towers come from another library (timm), and part of its layers share their cache",
    "granite_speech_plus": "its encoder's layers are joined in a way that is not tested here; take granite_speech",
    "phi4mm": f"{_REMOTE}; a checkpoint of type phi4_multimodal, converted for transformers, can be loaded",
    "kimi_audio": _REMOTE,
    "moonshot_kimia": _REMOTE,
    "step_audio_2": _REMOTE,
    "minicpmo": _REMOTE,
    "ultravox": _REMOTE,
    "whisper": _WRITES_DOWN,
    "glmasr": _WRITES_DOWN,
    "qwen3_asr": _WRITES_DOWN,
    "vibevoice_asr": _WRITES_DOWN,
    "cohere_asr": _WRITES_DOWN,
    "fun_asr_nano": _WRITES_DOWN,
}
"""Architectures that hear, and why they cannot take part."""


LAT_AUDIO = "lat-audio"
"""The family that has its architecture from another."""


def known_kind(name: str, config: Mapping[str, Any]) -> str | None:
    """The family of a checkpoint; None where it is none that can take part.

    LAT-Audio's weights are of the architecture of their base. They are known by their name on the hub or that of their
    folder, and by the mark that :meth:`Family.save` leaves.
    """
    kind = FAMILIES.get(str(config.get("model_type")))
    named = name.rstrip("/").replace("\\", "/").rpartition("/")[2].lower() == LAT_AUDIO
    return LAT_AUDIO if kind == "qwen3-omni" and (named or config.get(MARK) == LAT_AUDIO) else kind


def family_kind(name: str, config: Mapping[str, Any]) -> str:
    """The family of a checkpoint.

    Args:
        name: The model.
        config: What stands in its ``config.json``.

    Raises:
        ModelError: It is none that can take part, with the reason where it is known.
    """
    if kind := known_kind(name, config):
        return kind
    model_type = config.get("model_type") or "nameless"
    if reason := REFUSED.get(model_type):
        raise ModelError(f"{name} is a model of type {model_type}, which cannot listen again: {reason}")
    raise ModelError(
        f"{name} is a model of type {model_type} (model_type in its config.json), which is none that echo-agent knows "
        f"as one that hears: {', '.join(FAMILIES)}"
    )


def family_class(kind: str) -> Any:
    """The class of a family; its module, and with it transformers, is imported now."""
    family: type[Family]
    match kind:
        case "echo-nano":
            from echo_agent.families.nano import NanoFamily as family
        case "echo-small":
            from echo_agent.families.small import SmallFamily as family
        case "qwen2-audio":
            from echo_agent.families.qwen2_audio import Qwen2AudioFamily as family
        case "qwen2.5-omni":
            from echo_agent.families.qwen25_omni import Qwen25OmniFamily as family
        case "qwen3-omni":
            from echo_agent.families.qwen3_omni import Qwen3OmniFamily as family
        case "lat-audio":
            from echo_agent.families.lat_audio import LatAudioFamily as family
        case "audio-flamingo-3":
            from echo_agent.families.audio_flamingo3 import AudioFlamingo3Family as family
        case "music-flamingo":
            from echo_agent.families.music_flamingo import MusicFlamingoFamily as family
        case "granite-speech":
            from echo_agent.families.granite_speech import GraniteSpeechFamily as family
        case "phi4-multimodal":
            from echo_agent.families.phi4_multimodal import Phi4MultimodalFamily as family
        case "voxtral":
            from echo_agent.families.voxtral import VoxtralFamily as family
        case "gemma4":
            from echo_agent.families.gemma4 import Gemma4Family as family
        case "gemma4-unified":
            from echo_agent.families.gemma4_unified import Gemma4UnifiedFamily as family
        case _:
            raise ValueError(f"there is no family {kind!r}")
    return family
