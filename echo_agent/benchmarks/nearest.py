"""The choice that a text is nearest to by an embedding model, which MMAU-Pro's own rule asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from echo_agent.benchmarks.rules import Nearest
from echo_agent.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings


def load_embedder(name: str) -> Embeddings:
    """An embedding model by name, such as ``openai:text-embedding-3-large`` or ``huggingface:...``.

    Raises:
        MissingExtraError: langchain, or the provider's package, is not installed.
        ModelError: There is no such provider, or the model cannot be made as named.
    """
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        raise ModelError(
            f"{name!r} names no embedding model: write provider:model, such as openai:text-embedding-3-large"
        )
    try:
        from langchain.embeddings import init_embeddings
    except ImportError as error:
        raise MissingExtraError("embedding models need: pip install langchain") from error
    try:
        made = init_embeddings(model, provider=provider)
    except ImportError as error:
        raise MissingExtraError(f"{name}: {error}") from error
    except Exception as error:  # what a provider raises has no common base: no key, no such option, ...
        raise ModelError(
            f"the embedding model {name} cannot be made: {' '.join(str(error).split())[:300]}"
        ) from error
    return made


def nearest_by(embedder: Embeddings) -> Nearest:
    """A function that says which of some texts is nearest to one, by the cosine of their embeddings."""

    def nearest(text: str, among: Sequence[str]) -> int:
        vectors = np.array(embedder.embed_documents([text, *among]), dtype=float)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.where(lengths == 0, 1.0, lengths)
        return int(np.argmax(unit[1:] @ unit[0]))

    return nearest
