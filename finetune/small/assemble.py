"""An echo-small from its parts, before any of it is trained on sound: decoder, Whisper, YAMNet, and names of sounds.

    python -m echo_agent.finetune.small.assemble DECODER PARTS FOLDER

DECODER is a folder of ``convert_smollm2``, or the ``model`` of a run of ``text_first``; PARTS holds the files of
``convert_whisper`` and ``convert_yamnet``. The head of the ears is random and taught nothing: every sound is named by
YAMNet's classes alone, until a head is trained. Ears that were taught in another model are taken from it by ``--ears``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from echo_agent.errors import DataError
from echo_agent.families.loading import load_family
from echo_agent.families.small import SmallFamily
from echo_agent.finetune.data.natural.sounds import sounds
from echo_agent.finetune.data.natural.timelines import STRUCK
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.ears import class_indices
from echo_agent.small.modeling import SmallForConditionalGeneration
from echo_agent.small.processing import AUDIO, WHISPER_WORDS, load_tokenizer
from echo_agent.small.whisper import tiny_english


def assemble(decoder: Path, parts: Path) -> SmallFamily:
    """Put a model together, on the CPU in float32.

    Raises:
        DataError: A file of the parts is missing.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    for name in ("whisper.safetensors", WHISPER_WORDS, "yamnet.safetensors", "yamnet.json"):
        if not (parts / name).exists():
            raise DataError(
                f"{parts / name} is missing: run convert_whisper and convert_yamnet into that folder first"
            )
    tokenizer = load_tokenizer(decoder)
    audio: Any = tokenizer.convert_tokens_to_ids(AUDIO)
    classes = json.loads((parts / "yamnet.json").read_text("utf-8"))
    known = list(sounds().values())
    torch.manual_seed(0)
    model = SmallForConditionalGeneration(
        SmallConfig(
            text_config=LlamaConfig.from_pretrained(decoder),
            whisper_config=tiny_english(),
            sounds=[sound.plain for sound in known],
            taught=[False] * len(known),
            struck=[sound.key in STRUCK for sound in known],
            yamnet_classes=[class_indices(sound.audioset, classes) for sound in known],
            audio_token_id=audio,
            blank_token_id=audio,
        )
    )
    llama: Any = LlamaForCausalLM.from_pretrained(decoder, dtype=torch.float32)
    model.model.language_model.load_state_dict(llama.model.state_dict())
    _load(model.model.whisper, load_file(parts / "whisper.safetensors"))
    _load(model.model.ears.yamnet, load_file(parts / "yamnet.safetensors"))
    family = SmallFamily(
        "echo-small", model.eval(), tokenizer, Tokenizer.from_file(str(parts / WHISPER_WORDS))
    )
    family.freeze()
    return family


def take_ears(family: SmallFamily, source: Path) -> None:
    """Give a model the head, and what it was taught, of another with the same names."""
    other = load_family(str(source), "cpu")
    assert isinstance(other, SmallFamily)
    if other.config.sounds != family.config.sounds:
        raise DataError(f"the ears of {source} have other names for sounds: train them anew (hearing)")
    family.config.taught, family.config.thresholds = other.config.taught, other.config.thresholds
    family.model.model.ears.load_state_dict(other.model.model.ears.state_dict())


def _load(module: Any, tensors: dict[str, Any]) -> None:
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("decoder", type=Path, help="a folder of convert_smollm2 or text_first")
    parser.add_argument("parts", type=Path, help="the folder of convert_whisper and convert_yamnet")
    parser.add_argument("folder", type=Path, help="where the model is written")
    parser.add_argument("--ears", type=Path, help="a model of `hearing`, whose ears are taken")
    args = parser.parse_args()
    made = assemble(args.decoder, args.parts)
    if args.ears:
        take_ears(made, args.ears)
    made.save(args.folder)
