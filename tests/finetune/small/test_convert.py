"""What the converters make of the files in the packages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from echo_agent.errors import DataError
from echo_agent.finetune.small.convert_smollm2 import RENAMED, give_own_rows, rename
from echo_agent.finetune.small.convert_yamnet import write
from echo_agent.small.processing import ANSWER
from echo_agent.small.yamnet import Yamnet


def test_tokens_get_their_names_and_keep_their_numbers(tmp_path: Path) -> None:
    old = ["<|im_end|>", *RENAMED, "d", "o", "g", "do", "dog"]
    path = tmp_path / "tokenizer.json"
    added = [{"id": i, "content": text, "special": True} for i, text in enumerate(old[:10])]
    known = {"vocab": {t: i for i, t in enumerate(old)}, "merges": [["d", "o"], ["do", "g"]]}
    path.write_text(json.dumps({"added_tokens": added, "model": known}))
    rename(path, len(old) - 1)
    new = json.loads(path.read_text())
    assert [token["content"] for token in new["added_tokens"]] == ["<|im_end|>", *RENAMED.values()]
    kept = ["<|im_end|>", *RENAMED.values(), "d", "o", "g", "do"]
    assert new["model"]["vocab"] == {t: i for i, t in enumerate(kept)}
    assert new["model"]["merges"] == [["d", "o"]], "what is no token any more is not merged"
    assert new["model"]["vocab"][ANSWER] == 1


def test_yamnet_is_written_under_its_names(tmp_path: Path) -> None:
    tensors = {name: value.numpy() for name, value in Yamnet().state_dict().items()}
    write(tensors, ["Speech", "Bark"], tmp_path)
    assert json.loads((tmp_path / "yamnet.json").read_text()) == ["Speech", "Bark"]
    written = load_file(tmp_path / "yamnet.safetensors")
    np.testing.assert_array_equal(written["classifier.bias"], tensors["classifier.bias"].astype(np.float16))


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other layers"):
        write({"classifier.weight": np.zeros((3, 3), np.float32)}, [], tmp_path)


def test_tokens_of_the_frame_are_told_from_one_another() -> None:
    embedding = nn.Embedding(200, 32)
    embedding.weight.data[40:60] = 0.5  # what a model never met is one embedding for all
    before = embedding.weight.data.clone()
    give_own_rows(embedding, [40, 45, 50])
    rows = embedding.weight.data
    assert torch.cdist(rows[[40, 45, 50]], rows[[40, 45, 50]]).fill_diagonal_(9.0).min() > 2.0
    assert (torch.cdist(rows[[40, 45, 50]], before) > 2.0).all()
    assert torch.equal(rows[51:], before[51:])
