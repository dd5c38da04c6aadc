"""Whisper-tiny.en in echo-small: the middle layer of its encoder for sounds, its decoder for words.

Radford et al., 2022. A window is thirty seconds, filled up with silence, as Whisper was taught; windows are encoded one
by one, so what is heard does not depend on what is heard beside it. Words are decoded greedily, and decoding ends where
it begins to repeat itself, which Whisper does over noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, WhisperConfig, WhisperModel

from echo_agent.nano.encoder import SAMPLE_RATE, log_mel

WINDOW_SECONDS = 30
FRAMES_PER_SECOND = 50
END, START, SILENT, UNTIMED = 50256, 50257, 50361, 50362
"""Whisper's control tokens: the end, the beginning, "no speech", and words without times."""
BLANK = 220
"""A lone space: never the first token."""
SILENCE = 0.6
"""Probability of "no speech" from which on nothing is said."""
REPEATS = 3
"""Times that some words may stand in a row."""
LONGEST_REPEAT = 8


def tiny_english() -> WhisperConfig:
    """The sizes of Whisper-tiny.en."""
    return WhisperConfig(
        vocab_size=51864, d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6,
        decoder_attention_heads=6, encoder_ffn_dim=1536, decoder_ffn_dim=1536, num_mel_bins=80,
        max_source_positions=1500, max_target_positions=448, decoder_start_token_id=START, pad_token_id=END,
        bos_token_id=END, eos_token_id=END, suppress_tokens=None, begin_suppress_tokens=None,
    )  # fmt: skip


class Whisper(nn.Module):
    """Encoder and decoder, with what echo-small wants from them."""

    def __init__(self, config: WhisperConfig, middle_layer: int = 2) -> None:
        """Build with random weights."""
        super().__init__()
        self.model = WhisperModel(config)
        self.middle_layer = middle_layer

    def encode(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Middle and last layer ``[frames, width]``, 50 frames per second, of at most thirty seconds at 16 kHz."""
        size = WINDOW_SECONDS * SAMPLE_RATE
        mel = log_mel(nn.functional.pad(samples.float(), (0, size - len(samples))))
        encoder: Any = self.model.encoder
        out = encoder(mel[None].to(encoder.conv1.weight.dtype), output_hidden_states=True)
        return out.hidden_states[self.middle_layer][0], out.last_hidden_state[0]

    def words(self, encoded: Tensor, most: int, least: int = 0) -> list[int]:
        """Tokens of what is said in a window, at most so many; empty where nobody speaks.

        Args:
            encoded: The encoder's last layer ``[1500, width]``.
            most: Tokens after which it ends.
            least: Tokens before which it does not end, where it is known that somebody speaks: Whisper sometimes ends
                after the first word of a span that begins in the middle of a sentence.
        """
        decoder: Any = self.model.decoder
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        ids, written = torch.tensor([[START, UNTIMED]], device=encoded.device), list[int]()
        while len(written) < most:
            out = decoder(input_ids=ids, encoder_hidden_states=encoded[None], cache=cache, use_cache=True)
            scores = out.last_hidden_state[0] @ decoder.embed_tokens.weight.T
            if not written:
                if float(scores[0].float().softmax(-1)[SILENT]) > SILENCE:
                    return []
                scores[-1, [BLANK, END]] = -torch.inf
            scores[-1, START:] = -torch.inf
            if len(written) < least:
                scores[-1, END] = -torch.inf
            token = int(scores[-1].argmax())
            if token == END:
                break
            written.append(token)
            if period := _period(written):
                return written[: -period * (REPEATS - 1)]
            ids = torch.tensor([[token]], device=encoded.device)
        return written


def _period(tokens: Sequence[int]) -> int:
    """Length of what the tokens end with three times in a row; 0 where they do not."""
    for period in range(1, LONGEST_REPEAT + 1):
        tail = list(tokens[-period * REPEATS :])
        if len(tail) == period * REPEATS and tail == tail[:period] * REPEATS:
            return period
    return 0
