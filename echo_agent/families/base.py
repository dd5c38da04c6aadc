"""What the engine and the dialects must know of a model architecture: one class per family.

A family owns a loaded model and says, in numbers and tensors, what differs between architectures: placeholder ids, how
many tokens a crop of n seconds costs, how samples become features, where positions come from, how a prompt is written.
It holds no state of a run. Everything above it deals in token ids and audio references only.

A family is accepted when the conformance tests (``tests/families``) pass on a tiny randomly initialised model of the
architecture; the central one is that log-probabilities from incremental decoding with crops appended to the cache equal
those of one full forward pass through the model's own ``forward``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

from echo_agent.audio.recording import AudioRef
from echo_agent.errors import ContextError, PlaceholderError, RecordingTooLongError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from transformers import Cache, PreTrainedModel, PreTrainedTokenizerBase


MARK = "echo_agent_family"
"""Entry of a ``config.json`` that names the family where the architecture alone does not."""

TAIL = 0.1
"""Seconds by which a listen may pass its limit: encoders such as MP3 pad by so much. The rest of it is not heard."""


@dataclass(frozen=True)
class Piece:
    """One part of what is rendered into the context: text to tokenise, or audio to listen to."""

    text: str = ""
    audio: AudioRef | None = None


class PlaceholderRange(NamedTuple):
    """Audio placeholders that stand in a row: what one listen is put into."""

    first: int
    """Index of the first of them in the context."""
    size: int


@dataclass(frozen=True)
class Note:
    """What one token of a listen says in words, without the decoder: what a search goes by."""

    start: float
    """Seconds on the recording that the listen is to."""
    end: float
    sounds: Mapping[str, float]
    """How likely it is, 0 to 1, that a sound of this name is heard in it."""


@dataclass(frozen=True)
class Limits:
    """What a model can hear, in seconds of audio as it is heard (after a change of speed)."""

    shortest: float
    """Shortest crop; shorter spans are widened to it by the tool."""
    longest_crop: float
    """Longest crop; longer spans are cut to it by the tool."""
    longest_recording: float
    """Longest first listen that a question is asked of; longer recordings are searched
    (:mod:`echo_agent.graphs.search`)."""


def weights_hash(state: Mapping[str, torch.Tensor], *, whole: bool = False) -> str:
    """A hash of weights.

    Args:
        state: Tensors by name.
        whole: Of every byte; else of a few hundred values of each tensor: enough to tell one training from another.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in state.items():
        flat = tensor.detach().reshape(-1)
        if whole:
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(flat.contiguous().view(torch.uint8).cpu().numpy().data)
            continue
        sample = flat[:: max(1, flat.numel() // 256)].double().cpu()
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()


class Family(ABC):
    """One model architecture with its loaded weights."""

    name: str
    """Name under which the model was asked for (``echo-small``, a hub id or a folder)."""
    kind: str
    """Architecture: ``echo-nano``, ``qwen2-audio`` or ``qwen2.5-omni``."""
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    sample_rate: int = 16000
    """Rate in Hz at which :meth:`frozen_features` wants its samples."""
    limits: Limits
    context_length: int
    """Most tokens that the model's positions allow."""
    audio_id: int
    """Placeholder id: each stands for one audio embedding."""
    banned_ids: tuple[int, ...]
    """Ids that are never sampled: placeholders of every medium, and their begin and end markers."""
    eos_ids: tuple[int, ...]
    """Ids that end the assistant's turn."""
    streams: bool = False
    """Whether a recording of any length can be heard once, in a stream: see :meth:`encode_stream`."""
    takes_notes: bool = False
    """Whether tokens of its listens say something by themselves: see :meth:`notes`."""
    notes_early: bool = False
    """Whether notes take less of the encoder than features do: see :meth:`encode_notes`."""
    default_dialect: str = "inline"
    reads_conversation: bool = True
    """Whether it makes anything of text before the question: instructions, and what was said in earlier turns."""
    decoder_module: str = "model.language_model"
    """Dotted name of the text decoder in ``model``."""
    projector_module: str
    """Dotted name of what turns frozen features into embeddings of the decoder: trained along with it."""
    frozen_modules: tuple[str, ...] = ()
    """Dotted names of the modules of ``model`` that :meth:`frozen_features` runs: training must leave them alone."""

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return self.model.device

    @property
    def has_weights(self) -> bool:
        """Whether the model can be run here; else it is known by its configuration, and a server runs it."""
        return self.model.device.type != "meta"

    def freeze(self) -> None:
        """Stop gradients into the modules whose outputs :meth:`frozen_features` hands out to be kept."""
        for name in self.frozen_modules:
            self.model.get_submodule(name).requires_grad_(False)

    @property
    def pad_id(self) -> int:
        """Id that fills up rows of a batch; masked, so any that is no placeholder will do."""
        pad: Any = self.tokenizer.pad_token_id
        return self.eos_ids[0] if pad is None else pad

    @property
    def is_frozen(self) -> bool:
        """Whether no gradient reaches those modules, so that their outputs may be kept."""
        return not any(
            parameter.requires_grad
            for name in self.frozen_modules
            for parameter in self.model.get_submodule(name).parameters()
        )

    def encoder_fingerprint(self) -> str:
        """A name for what :meth:`frozen_features` gives.

        It changes with any weight of the encoder, with its settings, and with the version of the program.
        """
        made_by = f"digested {self.kind} {self.model.dtype} {self.feature_settings} {version('echo-agent')}"
        digest = hashlib.sha256(made_by.encode())
        for name in self.frozen_modules:
            digest.update(weights_hash(self.model.get_submodule(name).state_dict(), whole=True).encode())
        return f"{self.kind}-{digest.hexdigest()[:16]}"

    @property
    def feature_settings(self) -> str:
        """What besides weights decides about features, in words."""
        return ""

    def save(self, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write model and tokenizer so that ``load_family(folder)`` gives this family again (safetensors).

        ``weights`` are those of a model that is spread over processes, gathered; else the model's own.
        """
        self.model.save_pretrained(folder, state_dict=weights)
        self.tokenizer.save_pretrained(folder)

    # --- tokens -------------------------------------------------------------------------------------------------

    @abstractmethod
    def audio_tokens(self, ref: AudioRef) -> int:
        """Number of placeholders (without markers) that a listen to ``ref`` costs; exact, and without reading audio."""

    def check_length(self, ref: AudioRef) -> None:
        """Refuse, before anything is read or encoded, audio that is longer than the model can hear.

        Raises:
            RecordingTooLongError: Naming the limit and the way out.
        """
        limit = self.limits.longest_recording if ref.is_whole else self.limits.longest_crop
        if ref.seconds <= limit + TAIL or self.in_stream(ref):
            return
        raise RecordingTooLongError(
            f"{'the recording' if ref.is_whole else 'the crop'} {ref.source} [{ref.start:g}, {ref.end:g}] is "
            f"{ref.seconds:.1f} s of audio, but {self.name} hears at most {limit:g} s at once: "
            f"cut it into pieces of at most {limit:g} s, or use one that hears longer ones (see `echo-agent models`)"
        )

    def in_stream(self, ref: AudioRef) -> bool:
        """Whether a listen is so long that it is encoded in a stream: a whole recording beyond the limit."""
        return self.streams and ref.is_whole and ref.seconds > self.limits.longest_recording + TAIL

    def clock(self, recordings: Sequence[AudioRef]) -> float:
        """Seconds that one second stands for where the policy reads and writes times of these recordings.

        1, but where a recording is longer than the policy's numbers reach.
        """
        return 1.0

    @abstractmethod
    def audio_ids(self, ref: AudioRef) -> list[int]:
        """Ids that stand for one listen: begin marker, placeholders, end marker."""

    @abstractmethod
    def question_pieces(
        self, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """The head of the context, up to where the assistant's turn begins: system text, audio, question."""

    def implied_choices(self, question: str, recordings: Sequence[AudioRef]) -> list[str] | None:
        """Choices that follow from an open question, for a model that needs them; None leaves the question open."""
        return None

    def render(self, pieces: Sequence[Piece]) -> tuple[list[int], list[AudioRef]]:
        """Turn pieces into ids (no special tokens added) and the audio that their placeholders stand for, in order."""
        ids: list[int] = []
        audio: list[AudioRef] = []
        for piece in pieces:
            if piece.audio is not None:
                ids.extend(self.audio_ids(piece.audio))
                audio.append(piece.audio)
            if piece.text:
                ids.extend(self.tokenize(piece.text))
        return ids, audio

    def turn_open(self, role: str) -> str:
        """Text that opens a turn of ``system``, ``user``, ``assistant`` or ``tool``."""
        raise ContextError(f"{self.kind} has no turns: {role!r} cannot be written; use the inline dialect")

    def turn_close(self, role: str = "assistant") -> str:
        """Text that closes a turn of that role (the end marker first: it is left out where the policy sampled it)."""
        raise ContextError(f"{self.kind} has no turns; use the inline dialect")

    def placeholder_ranges(self, ids: Sequence[int]) -> list[PlaceholderRange]:
        """Where placeholders stand in a row, in order."""
        found: list[PlaceholderRange] = []
        for i, token in enumerate(ids):
            if token != self.audio_id:
                continue
            if found and found[-1].first + found[-1].size == i:
                found[-1] = PlaceholderRange(found[-1].first, found[-1].size + 1)
            else:
                found.append(PlaceholderRange(i, 1))
        return found

    def check_placeholders(self, ids: Sequence[int], audio: Sequence[AudioRef]) -> list[PlaceholderRange]:
        """Check that the ranges of placeholders are those of ``audio``, one to one, and give the ranges.

        Raises:
            PlaceholderError: Naming both counts.
        """
        ranges = self.placeholder_ranges(ids)
        if len(ranges) != len(audio):
            raise PlaceholderError(
                f"the context has {len(ranges)} runs of audio placeholders for {len(audio)} pieces of audio"
            )
        for number, ((_, count), ref) in enumerate(zip(ranges, audio, strict=True), start=1):
            if count != self.audio_tokens(ref):
                raise PlaceholderError(
                    f"run {number} has {count} audio placeholders, but {ref.seconds:.2f} s of audio give "
                    f"{self.audio_tokens(ref)} features"
                )
        return ranges

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text; special tokens written in it are recognised, none are added."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    @abstractmethod
    def escape(self, text: str) -> str:
        """Text from outside (a question, a choice) in which no control token is recognised any more."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens such as ``</seg>`` kept, placeholders and end-of-turn left out by the caller."""
        text: Any = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text  # a list only where a batch went in

    def written(self, text: str) -> str:
        """A stretch of the assistant's turn as this policy writes it, where it spaces tags, or leaves them out."""
        return text

    # --- audio --------------------------------------------------------------------------------------------------

    def frozen_features(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, torch.Tensor]]:
        """Encode crops without gradient; what comes back is kept across optimiser steps (see :meth:`encode`).

        It is the same whether the model is being trained or not: dropout and a trainer's autocast have no part in it.
        """
        with self._frozen():
            return self.encode(crops)

    def frozen_stream(self, ref: AudioRef, pieces: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """The same of one long listen, whose samples come piece by piece."""
        with self._frozen():
            return self.encode_stream(ref, pieces)

    def frozen_notes(self, ref: AudioRef, pieces: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """As much of the features of a listen as :meth:`notes` take; its samples come piece by piece."""
        with self._frozen():
            return self.encode_notes(ref, pieces)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """Run the frozen modules as they are, whoever trains the rest."""
        import torch

        modules = [m for name in self.frozen_modules for m in self.model.get_submodule(name).modules()]
        training = [module for module in modules if module.training]
        for module in training:
            module.training = False
        try:
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            for module in training:
                module.training = True

    @abstractmethod
    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, torch.Tensor]]:
        """Encode crops (reference, float32 mono samples at ``sample_rate``) as one batch with the frozen modules.

        It depends on their weights only, and is differentiable in them where they are trained after all.
        """

    def encode_stream(self, ref: AudioRef, pieces: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """Encode a listen that is longer than :attr:`limits` allow for, in memory that does not grow with it.

        Only asked of a family that :attr:`streams`; what comes out is what :meth:`encode` would give, to rounding.

        Args:
            ref: A whole recording.
            pieces: Its samples in order, pieces of 30 s but for the last.
        """
        raise NotImplementedError(f"{self.kind} hears no recording in a stream")

    def encode_notes(self, ref: AudioRef, pieces: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """As much of the features of a listen as :meth:`notes` take, in memory that does not grow with its length.

        Only asked of a family with :attr:`notes_early`; see :meth:`encode_stream`, but for listens of any length.
        """
        raise NotImplementedError(f"notes of {self.kind} take all of its features")

    def notes(self, ref: AudioRef, features: Mapping[str, torch.Tensor]) -> list[Note]:
        """What the tokens of a listen say in words, by its frozen features; never empty.

        Those of :meth:`encode_notes` are enough, and say the same to rounding. Only asked of a family that
        :attr:`takes_notes`. The notes cover the listen, in order.
        """
        raise NotImplementedError(f"listens of {self.kind} say nothing by themselves")

    @abstractmethod
    def audio_embeds(
        self, refs: Sequence[AudioRef], features: Sequence[dict[str, torch.Tensor]]
    ) -> list[torch.Tensor]:
        """Embeddings ``[audio_tokens(ref), hidden]`` of each listen, from its frozen features, as one batch.

        Raises PlaceholderError where the number of embeddings is not ``audio_tokens(ref)``.
        """

    # --- text model ---------------------------------------------------------------------------------------------

    @abstractmethod
    def token_embeds(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings ``[..., hidden]`` of ids ``[...]``.

        A decoder whose layers read ids too has them wider: behind the first ``hidden`` numbers stands what those layers
        read, which audio leaves as it is.
        """

    def with_audio(self, embeds: torch.Tensor, places: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
        """Embeddings of ids in which listens are heard, differentiable in both.

        Args:
            embeds: What :meth:`token_embeds` gives ``[..., n, hidden or wider]``.
            places: Where placeholders stand ``[..., n]``.
            audio: What is heard there ``[placeholders, hidden]``, in reading order.
        """
        width = audio.shape[-1]
        if width == embeds.shape[-1]:
            return embeds.masked_scatter(places[..., None], audio)
        heard = embeds.clone()
        heard[..., :width] = embeds[..., :width].masked_scatter(places[..., None], audio)
        return heard

    def embeds_inputs(self, embeds: torch.Tensor) -> dict[str, torch.Tensor]:
        """Keyword arguments by which the model's own ``forward`` takes such embeddings in the place of ids."""
        return {"inputs_embeds": embeds}

    def position_ids(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions ``[batch, n]`` (a running count) as the model's ``forward`` wants them."""
        return positions

    @abstractmethod
    def forward_embeds(
        self, embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, Cache]:
        """One step of the text model.

        Args:
            embeds: New inputs ``[batch, new, hidden]``, as :meth:`token_embeds` gives them.
            mask: ``[batch, cached + new]``, 1 = a real slot, 0 = a hole or padding.
            positions: Position of each new input ``[batch, new]`` (plain, 1-D; a family widens it where it must).
            cache: The cache to append to, or None for a new one.

        Returns:
            Hidden states ``[batch, new, hidden]`` and the cache; :meth:`logits` turns chosen ones into scores.
        """

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores ``[..., vocabulary]`` (float32) of hidden states ``[..., hidden]``."""

    @abstractmethod
    def forward_inputs(
        self, ids: Sequence[int], crops: Sequence[tuple[AudioRef, np.ndarray]]
    ) -> dict[str, Any]:
        """Keyword arguments with which the model's own ``forward`` runs the whole trajectory in one pass.

        This is the path that training takes and that incremental decoding is tested against.
        """
