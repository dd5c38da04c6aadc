"""Policies written by hand: real tiny models whose weights say which text follows which token.

The layers stay random (so log-probabilities depend on the whole context and on the audio), but the embeddings of the
tokens in the script are far apart and large, and the output rows of what may follow point at them. So the next text
depends on the last token: ``{"\\n": "<think>", "<think>": ["<seg>2.0, 4.0</seg>", "</think>"]}`` calls or does not,
each half of the time when sampled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from tokenizers import AddedToken

from echo_agent.families.base import Family
from echo_agent.families.chatml import ChatMLFamily
from tests.tiny import tiny_family

TAGS = ("<think>", "</think>", "<seg>", "</seg>", "<answer>", "</answer>", "<tool_call>", "</tool_call>")
START, HEARD, TOLD, EOS = "\n", "<|audio_eos|>", ")", "<|im_end|>"
"""Last tokens of: the prompt, a crop, an observation, a turn."""

NANO = {START: "<|assistant|>", HEARD: "<|audio_end|>", EOS: "<|end|>"}
"""What these are for echo-nano; scripts are translated."""

Script = Mapping[str, str | Sequence[str]]

ASK_ONCE: Script = {
    START: "<think>",
    "<think>": "<seg>2.0, 4.0</seg>",
    HEARD: "a dog barks",
    "a dog barks": "</think>",
    "</think>": "<answer>",
    "<answer>": "a dog",
    "a dog": "</answer>",
}
"""Listens again once, then answers."""

ASK_FOREVER: Script = {**ASK_ONCE, HEARD: "<seg>2.0, 4.0</seg>"}
"""Asks for the same crop until it is asked for its answer."""

UNSURE: Script = {
    **ASK_ONCE,
    "<think>": ["<seg>2.0, 4.0</seg>", "<seg>5.0, 6.0</seg>", "a dog barks"],
    HEARD: ["a dog barks", "<seg>7.0, 9.0</seg>", "<seg>1.0, 1.5</seg>"],
    "<answer>": ["a dog", "a cat"],
    "a cat": "</answer>",
}
"""When sampled, listens again or not, here or there, and answers this or that."""


def scripted_family(script: Script, kind: str = "qwen2.5-omni", seed: int = 0, sure: float = 3.0) -> Family:
    """A tiny family that follows ``script``; ``sure`` scales the scores of what is in it."""
    return scripted(script, tiny_family(kind, seed), kind, seed, sure)


def scripted(script: Script, family: Family, kind: str, seed: int = 0, sure: float = 3.0) -> Family:
    """The same around the model of a family, whose weights change."""
    tokenizer, model = family.tokenizer, family.model
    names = NANO if kind == "echo-nano" else {}
    script = {
        names.get(key, key): [names.get(text, text) for text in _several(following)]
        for key, following in script.items()
    }
    texts = [text for key, following in script.items() for text in (key, *following)]
    known = tokenizer.get_vocab()
    new = [text for text in dict.fromkeys([*TAGS, *texts]) if text not in known and text not in (START, TOLD)]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in new])
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # new rows are drawn at random
        if model.get_input_embeddings().weight is model.get_output_embeddings().weight:
            model.config.tie_word_embeddings = False
            model.get_output_embeddings().weight = torch.nn.Parameter(
                model.get_output_embeddings().weight.clone()
            )
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        parts = [tokenizer, family.feature_extractor] if hasattr(family, "feature_extractor") else [tokenizer]
        family = type(family)(family.name, model, *parts)
        words = "|".join(re.escape(text) for text in dict.fromkeys(texts) if text[0] not in "<\n")
        if (
            isinstance(family, ChatMLFamily) and words
        ):  # words are no control tokens, though they are added ones
            family._control = re.compile(f"(?!{words})(?:{family._control.pattern})")
        embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        assert embeddings is not head
        head.mul_(0.2)
        width = embeddings.shape[1]
        directions = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(7)))[0]
        ids = [tokenizer.encode(text, add_special_tokens=False)[-1] for text in script]
        assert len(set(ids)) == len(ids) <= width, "keys of a script end in different tokens"
        for token, direction in zip(ids, directions, strict=False):
            embeddings[token] = direction * 4 * width**0.5
        for following, direction in zip(script.values(), directions, strict=False):
            for text in following:
                (token,) = tokenizer.encode(text, add_special_tokens=False)
                head[token] += direction * sure
    return family


def _several(following: str | Sequence[str]) -> Sequence[str]:
    return [following] if isinstance(following, str) else following
