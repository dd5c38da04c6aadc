"""The tool ``relisten`` bound to recordings, for any LangChain or LangGraph agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from langchain_core.tools import BaseTool, StructuredTool
from pydantic import ValidationError

from echo_agent.answers import TOOL_NAME
from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.families.base import Limits
from echo_agent.stores import RecordingStore
from echo_agent.tools.relisten import (
    DEFAULT_LIMITS,
    DESCRIPTION,
    RelistenArgs,
    Reply,
    audio_of,
    check_call,
    explain,
    not_heard,
)

Recordings: TypeAlias = Sequence[Recording | AudioRef | str | Path]
"""Paths, open recordings, or references into a store."""


def references(recordings: Recordings, store: RecordingStore) -> list[AudioRef]:
    """References to recordings, which are put into the store; raises RecordingError where one cannot be opened."""
    return [
        entry
        if isinstance(entry, AudioRef)
        else store.add(entry if isinstance(entry, Recording) else Recording.open(entry))
        for entry in recordings
    ]


def make_relisten(
    recordings: Recordings,
    *,
    limits: Limits = DEFAULT_LIMITS,
    store: RecordingStore | None = None,
    deliver: Literal["reference", "audio"] = "reference",
    rate: int = 16_000,
) -> BaseTool:
    """The tool ``relisten``, bound to recordings, for any LangChain or LangGraph agent.

    It answers with text and, as the message's artifact, a :class:`Reply` whose ``ref`` says what is heard. A
    ``ChatLALM`` hears what a reference says; for models of other makers, ``HearingMiddleware`` in ``create_agent``, or
    :func:`~echo_agent.tools.audible.hearable` before any other call, puts the audio itself into the messages.

    Args:
        recordings: What the calls count from 1: paths, open recordings, or references into ``store``.
        limits: Shortest and longest crop.
        store: Where references are looked up; a new one by default.
        deliver: ``audio`` puts the audio into the tool's message beside the text, as a file in base64, for models that
            hear tool messages. It stays in the conversation and its checkpoints.
        rate: Samples per second of audio that is delivered, in Hz.
    """
    store = store or RecordingStore()
    refs = references(recordings, store)

    def refuse(error: Any) -> str:
        return not_heard(explain(error)) if isinstance(error, ValidationError) else not_heard(str(error))

    def listen(**arguments: Any) -> tuple[str | list[dict[str, Any]], dict[str, Any]]:
        answer = Reply.to(check_call(arguments, refs, limits))
        if deliver == "reference" or answer.ref is None:
            return answer.content, answer.to_json()
        told = {"type": "text", "text": answer.content}
        # LangGraph's tool nodes know no block of audio in a tool's message, but one of a file.
        heard = audio_of(store.crop(answer.ref, rate), rate) | {"type": "file"}
        return [told, heard], answer.to_json()

    return StructuredTool.from_function(
        func=listen,
        name=TOOL_NAME,
        description=DESCRIPTION,
        args_schema=RelistenArgs,
        response_format="content_and_artifact",
        handle_validation_error=refuse,
    )
