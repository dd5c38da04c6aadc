"""A tiny echo-small with random weights, and a tokenizer of single bytes with its control tokens."""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, WhisperConfig

from echo_agent.families.small import SmallFamily
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.modeling import SmallForConditionalGeneration
from echo_agent.small.processing import AUDIO, CONTROL, MARKUP, TURN_END
from tests.tiny import randomise

SOUNDS = ("dog", "church bell", "rain", "voice")


def tiny_small(seed: int = 0, **settings: Any) -> SmallFamily:
    """A family around a tiny model; Whisper's and the decoder's vocabularies have their real tokens' numbers."""
    tokenizer = byte_tokenizer((*CONTROL, *MARKUP))
    config = SmallConfig(
        text_config=LlamaConfig(
            vocab_size=len(tokenizer) + 3, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True,
        ),
        whisper_config=WhisperConfig(
            vocab_size=51864, d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=1500,
            pad_token_id=50256, bos_token_id=50256, eos_token_id=50256, decoder_start_token_id=50257,
        ),
        sounds=SOUNDS, taught=(True, True, False, True), struck=(True, True, False, False),
        yamnet_classes=((69,), (195, 196), (283,), (0, 1)), head_dim=16, head_blocks=2, middle_layer=1,
        audio_token_id=tokenizer.convert_tokens_to_ids(AUDIO),
        blank_token_id=tokenizer.convert_tokens_to_ids(AUDIO), **settings,
    )  # fmt: skip
    model = SmallForConditionalGeneration(config).eval()
    randomise(model, seed)
    family = SmallFamily("tiny-echo-small", model, tokenizer, byte_tokenizer(()).backend_tokenizer)
    family.freeze()
    return family


def byte_tokenizer(special: tuple[str, ...]) -> PreTrainedTokenizerFast:
    """Byte by byte, with some control tokens."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core: Any = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(alphabet))}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    ending = {"pad_token": "<|endoftext|>", "eos_token": TURN_END} if special else {}
    return PreTrainedTokenizerFast(tokenizer_object=core, **ending)
