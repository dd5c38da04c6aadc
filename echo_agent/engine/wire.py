"""What vLLM's token endpoint is sent, and what it gives back.

``POST /inference/v1/generate`` (``vllm serve --enable-scale-out``) takes token ids with *one* placeholder per clip, and
the clips beside them; the server puts as many placeholders in its place as its own processor says. It streams sampled
ids, their log-probabilities, and, with the first of them, the ids that it made of the context.

Everything that a server could choose by itself is spelled out: a model's ``generation_config.json`` may hold penalties
and stops of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from echo_agent.errors import ServerError

if TYPE_CHECKING:
    from echo_agent.engine.generation import SamplingParams
    from echo_agent.families.base import Family, PlaceholderRange

GENERATE = "/inference/v1/generate"
FLAG = "--enable-scale-out"
"""The server's flag for that route."""

BAN = -100.0
"""Added to the scores of ids that are never sampled."""
MOST_BANS = 1000
"""Servers take about so many; an id that comes all the same is noticed when it does."""
LIKELIEST = 20
"""Log-probabilities asked for inside a guided answer, of the likeliest ids; servers give no more by default."""
LEAST_TEMPERATURE = 0.01
"""Servers raise what lies below to this."""


class _Lenient(BaseModel):
    """Servers add keys from release to release."""

    model_config = ConfigDict(extra="ignore")


class Range(_Lenient):
    """Where the placeholders of one clip stand."""

    offset: int
    length: int


class LogProb(_Lenient):
    """One id with its log-probability; some releases write the id into ``token``."""

    logprob: float
    token_id: int | None = None
    token: str = ""

    @property
    def id(self) -> int | None:
        """The id; None where it cannot be told."""
        number = self.token.removeprefix("token_id:")
        return int(number) if self.token_id is None and number.isdigit() else self.token_id


class SampledLogProb(LogProb):
    """The same of a sampled id, with the likeliest ids of its place."""

    top_logprobs: list[LogProb] = []


class LogProbs(_Lenient):
    """Log-probabilities of the ids of one piece."""

    content: list[SampledLogProb] | None = None


class Choice(_Lenient):
    """Newly sampled ids."""

    token_ids: list[int] | None = None
    logprobs: LogProbs | None = None
    finish_reason: str | None = None
    weight_versions: list[dict[str, Any]] | None = None

    @property
    def versions(self) -> list[str]:
        """Of the weights that sampled, as the server calls them; with the last piece."""
        return [str(span.get("version", span)) for span in self.weight_versions or ()]


class CachedTokens(_Lenient):
    """What of a context the server knew."""

    cached_tokens: int | None = None


class Usage(_Lenient):
    """What a request cost; with its last piece."""

    prompt_tokens_details: CachedTokens | None = None


class Chunk(_Lenient):
    """One piece of a stream."""

    choices: list[Choice] = []
    prompt_token_ids: list[int] | None = None
    mm_placeholders: dict[str, list[Range]] | None = None
    usage: Usage | None = None
    error: Any = None

    @classmethod
    def read(cls, data: str, server: str) -> Chunk:
        """Read one piece; raises ServerError where it is none."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ServerError(
                f"the server {server} gave back what cannot be read ({where}: {first['msg']}): is it a vLLM of 0.32 or "
                "later?"
            ) from None


def unexpanded(ids: Sequence[int], ranges: Sequence[PlaceholderRange]) -> list[int]:
    """A context with one placeholder in the place of each range."""
    short: list[int] = []
    done = 0
    for first, count in ranges:
        short.extend(ids[done : first + 1])
        done = first + count
    return [*short, *ids[done:]]


def sampling(
    params: SamplingParams,
    *,
    seed: int,
    tokens: int,
    stop: Sequence[str],
    ends: Sequence[int],
    bans: Mapping[str, float],
) -> dict[str, Any]:
    """How the server is to sample the next tokens.

    Args:
        params: As the caller wants them.
        seed: Of the noise of this request.
        tokens: Most tokens.
        stop: Strings that end it.
        ends: Ids that end it.
        bans: What :func:`bias` gives.
    """
    return {
        "n": 1,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "seed": seed,
        "max_tokens": tokens,
        "min_tokens": 0,
        "stop": list(stop),
        "stop_token_ids": list(ends),
        "ignore_eos": True,  # the model's own list of ends may hold others than the family's
        "logprobs": 2,  # the second tells whether the first nearly tied with another
        "logit_bias": dict(bans),
        "detokenize": True,  # for the stop strings
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
    }


def limited_to(kept: Sequence[int]) -> dict[str, Any]:
    """What is different where one of some ids has to come next."""
    return {
        "allowed_token_ids": list(kept),
        "logit_bias": None,
        "max_tokens": 1,
        "stop": [],
        "logprobs": LIKELIEST,
    }


def bias(family: Family) -> dict[str, float]:
    """What bans a family's ids: those that stand in its vocabulary first, then rows that no token stands for."""
    known = set(family.tokenizer.get_vocab().values())
    banned = sorted(family.banned_ids, key=lambda token: (token not in known, token))
    return {str(token): BAN for token in banned[:MOST_BANS]}


def body(
    ids: Sequence[int], parts: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], model: str
) -> dict[str, Any]:
    """A request: unexpanded ids, their clips in order, and how to sample."""
    media = {"content_parts": list(parts)} if parts else {}
    return {
        "model": model,
        "token_ids": list(ids),
        **media,
        "sampling_params": dict(settings),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }


def check_context(chunk: Chunk, ids: Sequence[int], ranges: Sequence[PlaceholderRange], server: str) -> None:
    """Compare what the server made of a context with what it is.

    Raises:
        ServerError: They differ; both are named.
    """
    theirs = chunk.prompt_token_ids
    if theirs is None:
        raise ServerError(
            f"the server {server} does not say which tokens it read (return_token_ids), so that it cannot be "
            "checked: use vLLM 0.32 or later"
        )
    if list(theirs) != list(ids):
        place = next(
            (i for i, (a, b) in enumerate(zip(theirs, ids, strict=False)) if a != b),
            min(len(theirs), len(ids)),
        )
        raise ServerError(
            f"the server {server} read {len(theirs)} tokens where {len(ids)} were meant; they part at token "
            f"{place + 1} ({_at(theirs, place)} in place of {_at(ids, place)}): it serves another model, or its "
            "processor counts audio in another way"
        )
    found = [(entry.offset, entry.length) for entry in (chunk.mm_placeholders or {}).get("audio", [])]
    wanted = [tuple(entry) for entry in ranges]
    if found != wanted:
        raise ServerError(
            f"the server {server} put audio at {found} (first token, tokens), but it belongs at {wanted}: its "
            "audio and ours do not agree"
        )


def _at(ids: Sequence[int], place: int) -> str:
    return str(ids[place]) if place < len(ids) else "none"


def explained(text: str) -> str:
    """What a server says in the body of an error, in one line."""
    try:
        said = json.loads(text)
    except ValueError:
        said = text
    while isinstance(said, dict):
        said = said.get("error") or said.get("message") or said.get("detail") or json.dumps(said)
    return " ".join(str(said).split())[:500] or "no reason given"
