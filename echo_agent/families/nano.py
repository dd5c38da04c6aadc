"""echo-nano as a family: a constant price per listen, whole seconds as time tokens, a terse prompt of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from echo_agent.audio.recording import AudioRef
from echo_agent.errors import ModelError
from echo_agent.families.base import Limits, Note, Piece
from echo_agent.families.checkpoint import check_vocabulary, check_weights, reading
from echo_agent.families.embedded import EmbeddedFamily
from echo_agent.nano import processing
from echo_agent.nano.adapter import SCORE_SCALE, StreamPool, pool
from echo_agent.nano.configuration import MAX_SECONDS
from echo_agent.nano.encoder import SAMPLE_RATE, steps_of
from echo_agent.nano.modeling import NanoForConditionalGeneration
from echo_agent.nano.weights import POLICY_FILE, load_embedded
from echo_agent.question_forms import answer_kind

SHORTEST = 0.5
"""Seconds: the shortest crop, three audio tokens."""


class NanoFamily(EmbeddedFamily):
    """echo-nano with its loaded weights."""

    kind = "echo-nano"
    model_class = NanoForConditionalGeneration
    feature_names = ("pooled", "times")
    reads_conversation = False
    streams = True
    takes_notes = True
    notes_early = True
    limits = Limits(shortest=SHORTEST, longest_crop=float(MAX_SECONDS), longest_recording=float(MAX_SECONDS))
    projector_module = "model.adapter.project"
    frozen_modules = ("model.encoder", "model.adapter.branch")

    def __init__(self, name: str, model: NanoForConditionalGeneration, tokenizer: Any) -> None:
        """Wrap a model and its tokenizer."""
        self.name = name
        self.model: Any = model
        self.tokenizer = tokenizer
        self.config = model.config
        self.context_length = model.config.text_config.max_position_embeddings
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in processing.CONTROL}
        self.audio_id = ids[processing.AUDIO]
        self._start_id, self._end_id = ids[processing.AUDIO_START], ids[processing.AUDIO_END]
        self.eos_ids = (ids[processing.END],)
        unused = range(len(tokenizer), model.config.text_config.vocab_size)
        self.banned_ids = tuple(sorted({*(i for t, i in ids.items() if t != processing.END), *unused}))

    @classmethod
    def load(cls, source: str | Path, *, name: str, device: torch.device, dtype: torch.dtype) -> NanoFamily:
        """Load the embedded model, or a folder that :meth:`save` wrote."""
        folder = Path(source)
        model: Any  # nn.Module.to is typed for one argument at a time
        if (folder / POLICY_FILE).exists():
            model = load_embedded(folder)
        else:
            loaded: Any = NanoForConditionalGeneration.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
            model, report = loaded
            check_weights(name, report)
        if not (folder / "tokenizer.json").exists():
            raise ModelError(f"{folder}: tokenizer.json is missing; save model and tokenizer together")
        with reading(name, "tokenizer.json"):
            tokenizer = processing.load_tokenizer(folder)
        rows = model.config.text_config.vocab_size
        check_vocabulary(name, (*processing.CONTROL, *processing.MARKUP), tokenizer.get_vocab(), rows)
        tokens = [tokenizer.convert_tokens_to_ids(processing.AUDIO), *processing.time_token_ids(tokenizer)]
        if tokens != [model.config.audio_token_id, *model.config.time_token_ids]:
            raise ModelError(
                f"{name}: tokenizer.json has other tokens for audio and seconds than the model's config.json"
            )
        cast("nn.Module", model).to(device, dtype).eval()  # transformers' own `to` has no types
        family = cls(name, model, tokenizer)
        family.freeze()
        return family

    @property
    def feature_settings(self) -> str:
        """The budget of a listen: features are pooled to it."""
        return f"{self.config.listen_tokens} {self.config.tokens_per_second}"

    def question_pieces(
        self, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """User's turn with the first listens, then the question; the assistant's turn is open at the end.

        Raises:
            ContextError: There is no recording: the model was never taught to answer without one.
        """
        self.check_recordings(recordings)
        duration = recordings[0].duration / self.clock(recordings)
        text = processing.prompt_text(question, choices, duration)
        return [
            Piece(text=processing.USER),
            *(Piece(audio=ref) for ref in recordings),
            Piece(text=f"{text}{processing.END}{processing.ASSISTANT}"),
        ]

    def implied_choices(self, question: str, recordings: Sequence[AudioRef]) -> list[str] | None:
        """Yes or no, or every whole second of the first recording; asked openly it would list sounds."""
        kind = answer_kind(question)
        if kind == "yes-no":
            return ["yes", "no"]
        duration = recordings[0].duration / self.clock(recordings)
        return processing.whole_seconds(duration) if kind == "time" else None

    def clock(self, recordings: Sequence[AudioRef]) -> float:
        """Of ten minutes at most: there is a token for each whole second of them."""
        return processing.pace(max((ref.duration for ref in recordings), default=0.0))

    def turn_open(self, role: str) -> str:
        """The token that opens a turn; there are two roles."""
        tokens = {"user": processing.USER, "assistant": processing.ASSISTANT}
        return tokens[role] if role in tokens else super().turn_open(role)

    def turn_close(self, role: str = "assistant") -> str:
        """The token that closes a turn."""
        return processing.END

    def escape(self, text: str) -> str:
        """Text in which no control or markup token is recognised."""
        return processing.escape(text)

    def written(self, text: str) -> str:
        """Numbers and words always stand behind a space, also after a tag: then they are the tokens of the prompt."""
        text = re.sub(rf"\s*{processing.SEG}\s*", f"{processing.SEG} ", text)
        return re.sub(rf"({processing.THINK}|{processing.ANSWER})(?=[^\s<])", r"\1 ", text)

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, torch.Tensor]]:
        """Pooled features ``[tokens, feature_dim]`` and the second of each token."""
        for ref, _ in crops:
            self.check_length(ref)
        inputs = self._listens(crops)
        frames = self.model.model.frames(inputs["mels"], inputs["mel_lengths"], inputs["listen_windows"])
        sizes = [self.audio_tokens(ref) for ref, _ in crops]
        return [
            {"pooled": pool(f, n), "times": self._times(ref)}
            for f, n, (ref, _) in zip(frames, sizes, crops, strict=True)
        ]

    def encode_stream(self, ref: AudioRef, pieces: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """The same of a listen of any length: its frames are pooled as they come, a few windows at a time."""
        return {"pooled": self._pooled(ref, pieces, self.model.model.frames), "times": self._times(ref)}

    def encode_notes(self, ref: AudioRef, pieces: Iterable[np.ndarray]) -> dict[str, torch.Tensor]:
        """The last columns of ``pooled``: the greatest score of each sound in each token."""
        pooled = self._pooled(ref, pieces, self.model.model.scores)
        return {"pooled": pooled[:, pooled.shape[1] // 2 :]}

    def _pooled(
        self, ref: AudioRef, pieces: Iterable[np.ndarray], frames: Callable[..., list[torch.Tensor]]
    ) -> torch.Tensor:
        """What the model makes of a listen, pooled as it comes ``[tokens, 2 * dim]``."""
        seconds = self.config.window_seconds
        pool = StreamPool(steps_of(ref.samples(self.sample_rate), seconds), self.audio_tokens(ref))
        for samples in _in_windows(pieces, int(seconds * SAMPLE_RATE)):
            inputs = self._listens([(ref, samples)])
            (made,) = frames(inputs["mels"], inputs["mel_lengths"], inputs["listen_windows"])
            pool.add(made)
        return pool.pooled()

    def notes(self, ref: AudioRef, features: Mapping[str, torch.Tensor]) -> list[Note]:
        """The names of sounds that every audio token carries, with the greatest score of the branch in it."""
        labels = [self.detokenize([token]).strip() for token in self.config.label_token_ids]
        scores = torch.sigmoid(features["pooled"][:, -len(labels) :].float() / SCORE_SCALE).tolist()
        step = (ref.end - ref.start) / len(scores)
        return [
            Note(ref.start + i * step, ref.start + (i + 1) * step, dict(zip(labels, row, strict=True)))
            for i, row in enumerate(scores)
        ]

    def forward_inputs(
        self, ids: Sequence[int], crops: Sequence[tuple[AudioRef, np.ndarray]]
    ) -> dict[str, Any]:
        """Ids, mel windows and times for the model's own ``forward``."""
        refs = [ref for ref, _ in crops]
        inputs = self.text_inputs(ids, refs)
        if crops:
            sizes = [self.audio_tokens(ref) for ref in refs]
            inputs |= self._listens(crops)
            inputs["listen_tokens"] = torch.tensor(sizes, device=self.device)
            inputs["audio_times"] = torch.cat([self._times(ref) for ref in refs])
        return inputs

    def _listens(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> dict[str, torch.Tensor]:
        # Also in training, mel features are those of full precision.
        with torch.autocast("cpu", enabled=False):
            inputs = processing.listen_inputs(
                [torch.from_numpy(samples) for _, samples in crops], self.config
            )
        return {
            "mels": inputs.mels.to(self.device, self.model.dtype),
            "mel_lengths": inputs.mel_lengths.to(self.device),
            "listen_windows": inputs.listen_windows.to(self.device),
        }

    def _times(self, ref: AudioRef) -> torch.Tensor:
        pace = processing.pace(ref.duration)
        times = processing.listen_times(ref.start / pace, ref.end / pace, self.audio_tokens(ref))
        return torch.tensor(times, device=self.device)


def _in_windows(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in pieces that hold whole windows of ``size``; only the last may end within one."""
    held = np.zeros(0, np.float32)
    for piece in pieces:
        held = np.concatenate([held, piece]) if len(held) else piece
        whole = len(held) // size * size
        if whole:
            yield held[:whole]
        held = held[whole:]
    if len(held):
        yield held
