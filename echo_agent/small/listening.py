"""A listen of echo-small: what the model's ears hear in samples, written into the places that the listen has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from echo_agent.nano.encoder import SAMPLE_RATE
from echo_agent.small.events import events
from echo_agent.small.modeling import SmallModel
from echo_agent.small.notes import VOICE
from echo_agent.small.processing import sound_ids, word_ids

if TYPE_CHECKING:
    import numpy as np

WORDS_PER_SECOND = 4
"""Tokens that people say in a second, at most, of those that Whisper writes."""


def listen(
    model: SmallModel,
    samples: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    whisper_words: Tokenizer,
    start: float = 0.0,
    pace: float = 1.0,
) -> dict[str, Tensor]:
    """What is written in each place (``ids [tokens]``) and the features there (``features [tokens, width]``).

    Args:
        model: Whose ears hear it.
        samples: Float32 mono ``[n]`` at 16 kHz.
        tokenizer: The decoder's.
        whisper_words: Whisper's vocabulary.
        start: Second of the recording at which the listen begins.
        pace: Seconds of the recording that pass in a second of what is heard.
    """
    config, seconds = model.config, len(samples) / SAMPLE_RATE
    features, scores, encoded = model.hear(torch.from_numpy(samples).to(model.device))
    found = events(
        scores.float().cpu().numpy(), samples, config.sounds, config.struck, start=start, pace=pace
    )
    blank, places = config.blank_token_id, config.listen_size(seconds) - config.sound_tokens
    ids = sound_ids(found, config.sound_tokens, tokenizer, blank)
    if places:
        spoken = sum(event.offset - event.onset for event in found if event.name == VOICE)
        # People say at least a token in a second.
        most = min(2 * places, 8 + int(WORDS_PER_SECOND * seconds))
        said = model.whisper.words(encoded, most, least=min(places, int(spoken)))
        ids += word_ids(said, places, whisper_words, tokenizer, blank)
    return {"ids": torch.tensor(ids), "features": model.pooled(features, config.sound_tokens, places)}
