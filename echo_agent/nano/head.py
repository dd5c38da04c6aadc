"""The output head of the embedded models, as transformers wants one: tied to the token embeddings, with a loss."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast


class WithHead:
    """A ``model`` with its ``lm_head``; among bases it stands before ``PreTrainedModel`` and ``GenerationMixin``."""

    model: Any
    lm_head: nn.Linear
    audio_inputs: ClassVar[tuple[str, ...]]
    """Arguments of ``forward`` that fill placeholders."""
    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def get_input_embeddings(self) -> nn.Module:
        """The decoder's token embeddings."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the decoder's token embeddings."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The output head."""
        return self.lm_head

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Inputs of one step of ``generate``: audio goes in with the prompt, and only then."""
        generation: Any = super()  # the mixin's types are those of another class
        inputs = generation.prepare_inputs_for_generation(*args, **kwargs)
        if not kwargs.get("is_first_iteration") and kwargs.get("use_cache", True):
            return {key: value for key, value in inputs.items() if key not in self.audio_inputs}
        return inputs

    def scored(self, outputs: BaseModelOutputWithPast, labels: Tensor | None) -> CausalLMOutputWithPast:
        """Scores for the next token, and the loss where ``labels`` (-100 = not counted) are given."""
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits, cache=outputs.cache)
