"""What a message cost, why it ended, and how sure its model was of an answer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from math import ceil

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from echo_agent.answers import ANSWER
from echo_agent.chat import FINISH_KEY, TOKENS_KEY
from echo_agent.families.base import Family
from echo_agent.messages import delta_of

CHARACTERS_PER_TOKEN = 4
"""About what a token holds of plain English; for servers that do not say what a message cost."""


def sampled_tokens(message: AIMessage) -> int:
    """How many tokens a message cost: as its model says, else an estimate from what it wrote, at least one."""
    tokens = message.response_metadata.get(TOKENS_KEY)
    if isinstance(tokens, dict) and "sampled" in tokens:
        return tokens["sampled"]
    said = message.usage_metadata["output_tokens"] if message.usage_metadata else 0
    return said or max(1, ceil(_characters(message) / CHARACTERS_PER_TOKEN))


def written_tokens(chunk: AIMessage) -> float:
    """An estimate of the tokens of one piece of a stream; 0 where it holds nothing that was written."""
    return _characters(chunk) / CHARACTERS_PER_TOKEN


def _characters(message: AIMessage) -> int:
    """Characters of what a message says: text, reasoning and calls."""
    reasoning = message.additional_kwargs.get("reasoning_content")
    size = len(message.text) + (len(reasoning) if isinstance(reasoning, str) else 0)
    if isinstance(message, AIMessageChunk):
        return size + sum(
            len(part["name"] or "") + len(part["args"] or "") for part in message.tool_call_chunks
        )
    size += sum(len(call["name"]) + len(json.dumps(call["args"])) for call in message.tool_calls)
    return size + sum(
        len(call["name"] or "") + len(call["args"] or "") for call in message.invalid_tool_calls
    )


def finish_of(message: BaseMessage) -> str:
    """Why a message ended: ``eos``, ``stop``, ``loop``, ``length``; other models' words for these are translated."""
    metadata = message.response_metadata
    if FINISH_KEY in metadata:
        return metadata[FINISH_KEY]
    finish = metadata.get("finish_reason") or metadata.get("stop_reason") or "stop"
    return {"stop": "eos", "end_turn": "eos", "max_tokens": "length"}.get(finish, finish)


def confidence_of(messages: Sequence[BaseMessage], family: Family) -> float:
    """Probability that the policy gives to the last answer of a run as it is written, its closing tag included."""
    deltas = [delta for message in messages if (delta := delta_of(message)) is not None]
    tokens = [
        (token, segment.logprobs[i] if segment.logprobs else 0.0)
        for delta in deltas
        for segment in delta.segments
        for i, token in enumerate(segment.ids)
    ]
    ids = [token for token, _ in tokens]
    first = len(ids) - 1  # of the tokens that hold the last opening tag
    while first > 0 and ANSWER not in family.detokenize(ids[first:]):
        first -= 1
    end = first + 1
    while end < len(ids) and ANSWER not in family.detokenize(ids[first:end]):
        end += 1
    if not family.detokenize(ids[first:end]).endswith(ANSWER):
        end -= 1  # its last token holds some of the answer too
    return math.exp(sum(logprob for _, logprob in tokens[end:]))
