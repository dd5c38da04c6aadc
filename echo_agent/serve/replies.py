"""What a client gets: OpenAI's chat completions, with what only this model has in places that clients pass through.

The answer alone is the content; why a question was not put to the model is the refusal. What the model wrote on its
way there, calls included, is ``reasoning_content``; where it listened again is in the ``annotations``; confidence,
notes and times are under ``echo``.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from echo_agent.results import EchoResult

SPAN_KEYS = ("start", "end", "seconds", "speed", "low_hz", "high_hz", "gain_db", "observation")


def annotation(heard: Mapping[str, Any]) -> dict[str, Any]:
    """A re-listen as an annotation."""
    span = {"recording": heard.get("recording", 1)} | {key: heard[key] for key in SPAN_KEYS}
    return {"type": "audio_span", "audio_span": span}


def usage_of(result: EchoResult) -> dict[str, Any]:
    """What a run cost: tokens that the model was given (audio and replies of its tool included), and wrote."""
    trajectory = result.trajectory
    given, written = len(trajectory.ids) - trajectory.count("sampled"), trajectory.count("sampled")
    return {
        "prompt_tokens": given,
        "completion_tokens": written,
        "total_tokens": given + written,
        "prompt_tokens_details": {"audio_tokens": result.tokens["audio"]},
    }


class Reply:
    """The reply to one request, in one piece or in chunks."""

    def __init__(self, model: str, fingerprint: str) -> None:
        """Begin a reply of a model."""
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, result: EchoResult) -> dict[str, Any]:
        """The reply in one piece."""
        message = {
            "role": "assistant",
            "content": result.answer or "",
            "refusal": _refusal(result),
            "reasoning_content": result.text,
            "annotations": [annotation(record.model_dump()) for record in result.relistens],
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(result)}
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": usage_of(result),
            "echo": _echo(result),
        }

    def first(self) -> bytes:
        """The first chunk: who speaks."""
        return self._chunk({"role": "assistant", "content": ""})

    def event(self, event: Mapping[str, Any]) -> bytes | None:
        """The chunk for an event of the run; None where it is of no concern to a client."""
        if event["type"] == "token":
            return self._chunk({"reasoning_content": event["text"]})
        if event["type"] == "relisten" and event["start"] is not None:
            return self._chunk({"annotations": [annotation(event)]})
        return None

    def last(self, result: EchoResult, *, usage: bool) -> bytes:
        """The answer, why it ends, what it cost where that is wanted, and the end of the stream."""
        answer = self._chunk({"content": result.answer}) if result.answer else b""
        if (refusal := _refusal(result)) is not None:
            answer = self._chunk({"refusal": refusal})
        end = self._chunk({}, finish_reason=_finish(result), echo=_echo(result))
        cost = sse({**self._head, **_CHUNK, "choices": [], "usage": usage_of(result)}) if usage else b""
        return answer + end + cost + b"data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse({**self._head, **_CHUNK, "choices": [choice], **more})


_CHUNK = {"object": "chat.completion.chunk"}


def sse(data: Mapping[str, Any]) -> bytes:
    """One event of a stream."""
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def _refusal(result: EchoResult) -> str | None:
    """Why the model was not asked; None where it was."""
    return result.notes[0] if result.status == "not_understood" else None


def _finish(result: EchoResult) -> str:
    """Why the reply ended: at the end of the budget, an answer that was not given is cut off."""
    return "length" if result.answer is None and result.budget_exhausted else "stop"


def _echo(result: EchoResult) -> dict[str, Any]:
    """What only this model has to say."""
    keys = ("status", "confidence", "forced", "budget_exhausted", "choice_index", "seconds_heard")
    timings = {name: seconds for name, seconds in result.timings.items() if name != "load"}
    return {key: getattr(result, key) for key in keys} | {"notes": list(result.notes), "timings": timings}
