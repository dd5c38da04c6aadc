"""The echo-nano model: encoder, adapter and a small Llama decoder as one ``PreTrainedModel``.

Each audio token is the sum of three parts of equal length: the projection of a pooled feature, the embedding of the
*time token* of the second it stands for, and the embeddings of the names of the sounds that the branch hears in it.
Spans and sounds are written with the same tokens, so that pointing at a place and naming a sound is copying, not
computing.

``forward`` hears in one of two ways: from log-mel windows (the whole model runs), or from pooled features that were
computed before (``audio_features``: the encoder and the sound branch are frozen while the decoder learns).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, GenerationMixin, LlamaModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from echo_agent.errors import PlaceholderError
from echo_agent.nano.adapter import SCORE_SCALE, Adapter, audio_places, pool
from echo_agent.nano.configuration import NanoConfig
from echo_agent.nano.encoder import NanoEncoder
from echo_agent.nano.head import WithHead

AUDIO_NORM = 2.0
"""Length of each part of an audio token, about that of a word's embedding: no part may drown the others."""
AUDIO_INPUTS = ("mels", "mel_lengths", "listen_windows", "listen_tokens", "audio_features", "audio_times")
"""Arguments of ``forward`` that fill placeholders."""
WINDOW_BATCH = 8
"""Most windows that are encoded at once: more are no faster on a CPU, and what they hold at once grows with them."""


Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Makes features of log-mel windows and their lengths, and says how many steps of each window are real."""


class NanoPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation for echo-nano."""

    config: NanoConfig
    config_class = NanoConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ["audio", "text"]
    _supports_sdpa = True
    _supports_cache_class = True
    supports_gradient_checkpointing = True


class NanoModel(NanoPreTrainedModel):
    """Everything but the output head."""

    time_tokens: Tensor
    """Token id of every whole second ``[MAX_SECONDS + 1]``."""
    label_tokens: Tensor
    """Token id of the name of every sound that the branch knows ``[branch_labels]``."""

    def __init__(self, config: NanoConfig) -> None:
        """Build with random weights."""
        super().__init__(config)
        self.encoder = NanoEncoder(config)
        self.adapter = Adapter(config)
        self.language_model = LlamaModel(config.text_config)
        self.register_buffer("time_tokens", torch.tensor(config.time_token_ids), persistent=True)
        self.register_buffer("label_tokens", torch.tensor(config.label_token_ids), persistent=True)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embeddings."""
        return self.language_model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embeddings."""
        self.language_model.set_input_embeddings(value)

    def frames(self, mels: Tensor, mel_lengths: Tensor, listen_windows: Tensor) -> list[Tensor]:
        """Frames ``[steps, feature_dim / 2]`` of each listen; its windows stand one after another.

        Windows know nothing of each other, so a row of windows has the features of its windows in a row.

        Args:
            mels: ``[windows, bins, frames]``, zero behind each window's end.
            mel_lengths: Mel frames per window ``[windows]``.
            listen_windows: Windows per listen ``[listens]``.
        """
        windows = self._windows(self.encoder, mels, mel_lengths)
        windows = [torch.cat([w, self.adapter.branch.describe(w[None])[0]], dim=-1) for w in windows]
        return _joined(windows, listen_windows)

    def scores(self, mels: Tensor, mel_lengths: Tensor, listen_windows: Tensor) -> list[Tensor]:
        """The last columns of :meth:`frames` alone, the scores of the sounds ``[steps, branch_labels]``.

        They take half of the encoder.
        """
        windows = self._windows(self.encoder.middle, mels, mel_lengths)
        labels = self.config.branch_labels
        return _joined(
            [self.adapter.branch.describe(w[None])[0, :, -labels:] for w in windows], listen_windows
        )

    def _windows(self, encode: Encode, mels: Tensor, mel_lengths: Tensor) -> list[Tensor]:
        """What the encoder makes of each window ``[steps, dim]``, some windows at a time."""
        found: dict[int, Tensor] = {}
        for rows in mel_lengths.argsort(stable=True).split(WINDOW_BATCH):  # alike in length: little padding
            lengths = mel_lengths[rows]
            encoded, steps = encode(mels[rows, :, : int(lengths.max())], lengths)
            found |= {row: encoded[i, : int(steps[i])] for i, row in enumerate(rows.tolist())}
        return [found[row] for row in range(len(mels))]

    def audio_embeds(self, features: Tensor, times: Tensor) -> Tensor:
        """Embeddings ``[n, hidden]`` of pooled features ``[n, feature_dim]`` at whole seconds ``times [n]``."""
        embed = self.get_input_embeddings()
        names = nn.functional.normalize(embed(self.label_tokens), dim=-1)
        there = torch.sigmoid(
            features[:, -self.config.branch_labels :] / SCORE_SCALE
        )  # greatest score in the bin
        seconds = nn.functional.normalize(embed(self.time_tokens[times]), dim=-1)
        return AUDIO_NORM * (self.speech(features) + seconds + there @ names)

    def speech(self, features: Tensor) -> Tensor:
        """What the projector makes of pooled features, at length 1 ``[n, hidden]``: what is said, and all else."""
        return nn.functional.normalize(self.adapter.project(features), dim=-1)

    def embed(self, input_ids: Tensor, features: Tensor | None, times: Tensor | None) -> Tensor:
        """Embeddings ``[batch, n, hidden]`` of ids whose placeholders are filled with pooled features.

        Raises:
            PlaceholderError: the number of placeholders is not the number of audio features.
        """
        embeds = self.get_input_embeddings()(input_ids)
        given = 0 if features is None else features.shape[0]
        places = audio_places(input_ids, self.config.audio_token_id, given)
        if features is None:
            return embeds
        if times is None:
            raise PlaceholderError(f"{given} audio features, but not the second that each of them stands for")
        return embeds.masked_scatter(places, self.audio_embeds(features.to(embeds.dtype), times))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        mels: Tensor | None = None,
        mel_lengths: Tensor | None = None,
        listen_windows: Tensor | None = None,
        listen_tokens: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_times: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the decoder on ids whose placeholders are filled with audio.

        Args:
            input_ids: ``[batch, n]``.
            attention_mask: ``[batch, n]``, 1 = real.
            position_ids: ``[batch, n]``.
            cache: Cache to continue.
            inputs_embeds: In place of ``input_ids``; audio is then expected to be in it already.
            mels: Windows of all listens of the batch, in reading order; see :meth:`frames`.
            mel_lengths: See :meth:`frames`.
            listen_windows: See :meth:`frames`.
            listen_tokens: Audio tokens of each listen ``[listens]``.
            audio_features: In place of the four above: pooled features of all audio tokens ``[total, feature_dim]``.
            audio_times: Whole second of every audio token ``[total]``.
            **kwargs: Handed to the decoder.

        Raises:
            PlaceholderError: the number of placeholders is not the number of audio features.
        """
        if inputs_embeds is None:
            if input_ids is None:
                raise ValueError("one of input_ids and inputs_embeds is needed")
            if mels is not None:
                if mel_lengths is None or listen_windows is None or listen_tokens is None:
                    raise ValueError("mels come with mel_lengths, listen_windows and listen_tokens")
                frames = self.frames(mels, mel_lengths, listen_windows)
                audio_features = torch.cat(
                    [pool(f, int(n)) for f, n in zip(frames, listen_tokens, strict=True)]
                )
            inputs_embeds = self.embed(input_ids, audio_features, audio_times)
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            **kwargs,
        )


def _joined(windows: Sequence[Tensor], counts: Tensor) -> list[Tensor]:
    """The windows of each listen in a row; ``counts`` says how many it has."""
    listens, first = [], 0
    for count in counts.tolist():
        listens.append(torch.cat(list(windows[first : first + count])))
        first += count
    return listens


class NanoForConditionalGeneration(WithHead, NanoPreTrainedModel, GenerationMixin):
    """echo-nano with its output head (tied to the token embeddings)."""

    audio_inputs = AUDIO_INPUTS

    def __init__(self, config: NanoConfig) -> None:
        """Build with random weights."""
        super().__init__(config)
        self.model = NanoModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        mels: Tensor | None = None,
        mel_lengths: Tensor | None = None,
        listen_windows: Tensor | None = None,
        listen_tokens: Tensor | None = None,
        audio_features: Tensor | None = None,
        audio_times: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Scores for the next token, and the loss where ``labels`` (-100 = not counted) are given.

        Other arguments as for :meth:`NanoModel.forward`; ``generate`` wants to see their names.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=cache,
            inputs_embeds=inputs_embeds,
            mels=mels,
            mel_lengths=mel_lengths,
            listen_windows=listen_windows,
            listen_tokens=listen_tokens,
            audio_features=audio_features,
            audio_times=audio_times,
            **kwargs,
        )
        return self.scored(outputs, labels)
