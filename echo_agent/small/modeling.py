"""The echo-small model: frozen ears, a projector, and SmolLM2 as its decoder, as one ``PreTrainedModel``.

What the ears hear in a listen is written into its places in the decoder's own words (:mod:`echo_agent.small.notes`,
and the words that Whisper hears), so the decoder reads sounds by names that it knows. To each of these embeddings the
projector adds what it makes of the networks' features at that place; it begins as nothing, and is trained with the
decoder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, LlamaModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from echo_agent.nano.adapter import audio_places, pool
from echo_agent.nano.encoder import SAMPLE_RATE
from echo_agent.nano.head import WithHead
from echo_agent.small.configuration import SmallConfig
from echo_agent.small.ears import Ears
from echo_agent.small.whisper import WINDOW_SECONDS, Whisper
from echo_agent.small.yamnet import CLASSES, WIDTH

AUDIO_INPUTS = ("audio_ids", "audio_features")
"""Arguments of ``forward`` that fill placeholders."""


class SmallPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation for echo-small."""

    config: SmallConfig
    config_class = SmallConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["audio", "text"]
    _supports_sdpa = True
    _supports_cache_class = True
    supports_gradient_checkpointing = True


class SmallModel(SmallPreTrainedModel):
    """Everything but the output head."""

    def __init__(self, config: SmallConfig) -> None:
        """Build with random weights."""
        super().__init__(config)
        self.whisper = Whisper(config.whisper_config, config.middle_layer)
        self.ears = Ears(config)
        self.projector = Projector(config)
        self.language_model = LlamaModel(config.text_config)
        self.post_init()
        self.projector.silence()

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embeddings."""
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def hear(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A listen as both networks hear it; each listen alone, so that none depends on another.

        Args:
            samples: 16 kHz ``[n]``.

        Returns:
            Features ``[steps, width]`` and scores ``[steps, sounds]`` of every 0.48 s, and the last layer of Whisper's
            encoder over the first window ``[1500, d_model]``.
        """
        windows = [self.whisper.encode(part) for part in samples.split(WINDOW_SECONDS * SAMPLE_RATE)]
        features = self.ears.features(samples, torch.cat([middle for middle, _ in windows]))
        return features, self.ears.scores(features), windows[0][1]

    def pooled(self, features: Tensor, tokens: int, words: int) -> Tensor:
        """Features of each place of a listen ``[tokens + words, 2 * width]``; those for words have none."""
        return nn.functional.pad(pool(features, tokens), (0, 0, 0, words))

    def audio_embeds(self, ids: Tensor, features: Tensor) -> Tensor:
        """Embeddings ``[n, hidden]`` of what is written in places ``ids [n]``, with what the projector adds."""
        return self.get_input_embeddings()(ids) + self.projector(features)

    def embed(self, input_ids: Tensor, audio_ids: Tensor | None, features: Tensor | None) -> Tensor:
        """Embeddings ``[batch, n, hidden]`` of ids whose placeholders are filled.

        Raises:
            PlaceholderError: The number of placeholders is not the number of places that are filled.
        """
        embeds = self.get_input_embeddings()(input_ids)
        given = 0 if audio_ids is None else len(audio_ids)
        places = audio_places(input_ids, self.config.audio_token_id, given)
        if audio_ids is None or features is None:
            return embeds
        return embeds.masked_scatter(places, self.audio_embeds(audio_ids, features.to(embeds.dtype)))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        audio_ids: Tensor | None = None,
        audio_features: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder on ids whose placeholders are filled with audio.

        Args:
            input_ids: ``[batch, n]``.
            attention_mask: ``[batch, n]``, 1 = real.
            position_ids: ``[batch, n]``.
            cache: Cache to continue.
            inputs_embeds: In place of ``input_ids``; audio is then expected to be in it already.
            audio_ids: Token written in every place of all listens, in reading order ``[total]``.
            audio_features: Features at every place ``[total, 2 * width]``.
            **kwargs: Handed to the decoder.

        Raises:
            PlaceholderError: The number of placeholders is not the number of places that are filled.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("one of input_ids and inputs_embeds is needed")
            inputs_embeds = self.embed(input_ids, audio_ids, audio_features)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            **kwargs,
        )


class Projector(nn.Module):
    """From pooled features to the decoder's width; nothing at first."""

    def __init__(self, config: SmallConfig) -> None:
        """Build with random weights."""
        super().__init__()
        width, hidden = feature_dim(config), config.text_config.hidden_size
        self.enter = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU())
        self.leave = nn.Linear(hidden, hidden, bias=False)

    def silence(self) -> None:
        """Make it add nothing."""
        nn.init.zeros_(self.leave.weight)

    def forward(self, features: Tensor) -> Tensor:
        """``[n, width]`` to ``[n, hidden]``; nothing where the features are nothing."""
        there = features.abs().amax(-1, keepdim=True) > 0
        return self.leave(self.enter(features)) * there


def feature_dim(config: SmallConfig) -> int:
    """Width of the features of one place: mean and maximum of what both networks say."""
    return 2 * (WIDTH + CLASSES + 2 * config.whisper_config.d_model)


class SmallForConditionalGeneration(WithHead, SmallPreTrainedModel, GenerationMixin):
    """echo-small with its output head (tied to the token embeddings)."""

    audio_inputs = AUDIO_INPUTS

    def __init__(self, config: SmallConfig) -> None:
        """Build with random weights."""
        super().__init__(config)
        self.model = SmallModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()
        self.model.projector.silence()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        audio_ids: Tensor | None = None,
        audio_features: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Scores for the next token, and the loss where ``labels`` (-100 = not counted) are given.

        Other arguments as for :meth:`SmallModel.forward`; ``generate`` wants to see their names.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            audio_ids=audio_ids,
            audio_features=audio_features,
            **kwargs,
        )
        return self.scored(outputs, labels)
