"""echo-small as a family: a constant price per listen, written in the decoder's own words, ChatML turns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from tokenizers import Tokenizer
from torch import nn

from echo_agent.audio.recording import AudioRef
from echo_agent.errors import ModelError
from echo_agent.families.base import Limits, Note, Piece
from echo_agent.families.checkpoint import check_vocabulary, check_weights, reading
from echo_agent.families.embedded import EmbeddedFamily
from echo_agent.question_forms import answer_kind
from echo_agent.small import processing
from echo_agent.small.listening import listen
from echo_agent.small.modeling import SmallForConditionalGeneration
from echo_agent.small.notes import read
from echo_agent.small.weights import is_embedded, load_embedded, save_embedded

if TYPE_CHECKING:
    import numpy as np

SHORTEST = 0.5
"""Seconds of the shortest crop: a step of the ears."""
LONGEST = 600.0
"""Seconds of the longest listen."""


class SmallFamily(EmbeddedFamily):
    """echo-small with its loaded weights."""

    kind = "echo-small"
    model_class = SmallForConditionalGeneration
    feature_names = ("ids", "features")
    limits = Limits(shortest=SHORTEST, longest_crop=LONGEST, longest_recording=LONGEST)
    takes_notes = True
    projector_module = "model.projector"
    frozen_modules = ("model.whisper", "model.ears")

    def __init__(
        self, name: str, model: SmallForConditionalGeneration, tokenizer: Any, whisper_words: Tokenizer
    ) -> None:
        """Wrap a model, its tokenizer, and Whisper's vocabulary."""
        self.name = name
        self.model: Any = model
        self.tokenizer = tokenizer
        self.whisper_words = whisper_words
        self.config = model.config
        self.context_length = model.config.text_config.max_position_embeddings
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in processing.CONTROL}
        self.audio_id = ids[processing.AUDIO]
        self._start_id, self._end_id = ids[processing.AUDIO_START], ids[processing.AUDIO_END]
        self.eos_ids = (ids[processing.TURN_END],)
        unused = range(len(tokenizer), model.config.text_config.vocab_size)
        self.banned_ids = tuple(
            sorted({*(i for token, i in ids.items() if token != processing.TURN_END), *unused})
        )

    @classmethod
    def load(cls, source: str | Path, *, name: str, device: torch.device, dtype: torch.dtype) -> SmallFamily:
        """Load a folder that :meth:`save` or :meth:`save_in_blocks` wrote.

        Raises:
            ModelError: A file is missing or damaged, or they do not belong together.
        """
        folder = Path(source)
        model: Any
        if is_embedded(folder):
            model = load_embedded(folder)
        else:
            loaded: Any = SmallForConditionalGeneration.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
            )
            model, report = loaded
            check_weights(name, report)
        for file in ("tokenizer.json", processing.WHISPER_WORDS):
            if not (folder / file).exists():
                raise ModelError(f"{folder}: {file} is missing; save model and tokenizer together")
        with reading(name, "tokenizer.json"):
            tokenizer = processing.load_tokenizer(folder)
        with reading(name, processing.WHISPER_WORDS):
            words = Tokenizer.from_file(str(folder / processing.WHISPER_WORDS))
        rows = model.config.text_config.vocab_size
        check_vocabulary(name, (*processing.CONTROL, *processing.MARKUP), tokenizer.get_vocab(), rows)
        if tokenizer.convert_tokens_to_ids(processing.AUDIO) != model.config.audio_token_id:
            raise ModelError(
                f"{name}: tokenizer.json has another token for audio than the model's config.json"
            )
        cast("nn.Module", model).to(device, dtype).eval()  # transformers' own `to` has no types
        family = cls(name, model, tokenizer, words)
        family.freeze()
        return family

    def save(self, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
        """Write model, tokenizer and Whisper's vocabulary."""
        super().save(folder, weights)
        self.whisper_words.save(str(folder / processing.WHISPER_WORDS))

    def save_in_blocks(self, folder: Path) -> None:
        """Write what ships with the package: weights in blocks of a few bits, tokenizer and Whisper's vocabulary."""
        save_embedded(self.model, folder)
        self.tokenizer.save_pretrained(folder)
        self.whisper_words.save(str(folder / processing.WHISPER_WORDS))

    @property
    def feature_settings(self) -> str:
        """The budget of a listen, and the names of sounds with what the ears take for each: all is written in it."""
        config = self.config
        names = [config.sounds, config.taught, config.struck, config.yamnet_classes, config.thresholds]
        known = hashlib.sha256(repr(names).encode()).hexdigest()[:16]
        return f"{config.sound_tokens} {config.word_tokens} {config.words_seconds} {known}"

    # --- tokens -------------------------------------------------------------------------------------------------

    def question_pieces(
        self, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """User's turn with the first listens, then the question; the assistant's turn is open at the end.

        Raises:
            ContextError: There is no recording: the model was never taught to answer without one.
        """
        self.check_recordings(recordings)
        shown = [self.escape(choice) for choice in choices] if choices else None
        text = processing.prompt_text(self.escape(question), shown, recordings[0].duration)
        return [Piece(text=processing.USER), *(Piece(audio=ref) for ref in recordings), Piece(text=text)]

    def implied_choices(self, question: str, recordings: Sequence[AudioRef]) -> list[str] | None:
        """Yes or no, where that is asked; all else is answered openly."""
        return ["yes", "no"] if answer_kind(question) == "yes-no" else None

    def turn_open(self, role: str) -> str:
        """Text that opens a turn."""
        return f"<|im_start|>{role}\n"

    def turn_close(self, role: str = "assistant") -> str:
        """Text that closes a turn."""
        return f"{processing.TURN_END}\n"

    def escape(self, text: str) -> str:
        """The text with a space inside everything that the tokenizer would take for a control or markup token."""
        return processing.escape(text)

    def written(self, text: str) -> str:
        """The stretch without the tags of a thought: its thoughts begin at once, and end where the answer is opened."""
        return text.replace(processing.THINK, "").replace(processing.THINK_END, "")

    # --- audio --------------------------------------------------------------------------------------------------

    def encode(self, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[dict[str, torch.Tensor]]:
        """What is written in each place ``[tokens]`` and the features there ``[tokens, width]``."""
        for ref, _ in crops:
            self.check_length(ref)
        return [self._heard(ref, samples) for ref, samples in crops]

    def _heard(self, ref: AudioRef, samples: np.ndarray) -> dict[str, torch.Tensor]:
        pace = (ref.end - ref.start) / self.seconds_of(ref)
        return listen(self.model.model, samples, self.tokenizer, self.whisper_words, ref.start, pace)

    def notes(self, ref: AudioRef, features: Mapping[str, torch.Tensor]) -> list[Note]:
        """The events that are written in a listen, and a note of nothing for the whole of it."""
        ids = [i for i in features["ids"].tolist() if i != self.config.blank_token_id]
        told = [Note(h.onset, min(h.offset, ref.end), {h.name: 1.0}) for h in read(self.detokenize(ids))]
        return [Note(ref.start, ref.end, {}), *(note for note in told if note.start < note.end)]

    def forward_inputs(
        self, ids: Sequence[int], crops: Sequence[tuple[AudioRef, np.ndarray]]
    ) -> dict[str, Any]:
        """Ids, and what is written in the places of audio, for the model's own ``forward``."""
        inputs = self.text_inputs(ids, [ref for ref, _ in crops])
        if crops:
            heard = self.frozen_features(crops)
            inputs["audio_ids"] = torch.cat([one["ids"] for one in heard]).to(self.device)
            inputs["audio_features"] = torch.cat([one["features"] for one in heard]).to(self.device)
        return inputs
