"""What messages carry for us: audio as references, token deltas, and text that was given to the assistant.

All of it is plain JSON in places that LangChain leaves alone, so that it survives checkpoints and other models.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

from langchain_core.messages import AIMessage, BaseMessage
from pydantic import ValidationError

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.errors import ContextError, RecordingError
from echo_agent.stores import RecordingStore
from echo_agent.trajectory import TokenDelta, Trajectory

QUESTION_KEY = "echo_question"
"""In ``additional_kwargs`` of a user message: its question and choices, where its text is made of them."""
FORCE_KEY = "echo_force_answer"
"""In ``additional_kwargs`` of a user message: why the policy is asked for its answer now."""
DELTA_KEY = "echo"
GIVEN_KEY = "given"
"""In ``response_metadata``: text that was put into the assistant's turn before what was sampled."""


def message_id() -> str:
    """A name for a message that the graph writes; a UUID would take three times the room in every checkpoint."""
    return secrets.token_hex(6)


def audio_block(ref: AudioRef) -> dict[str, Any]:
    """A content block that stands for audio without holding any: it can go into state and checkpoints."""
    return {
        "type": "audio",
        "file_id": ref.key(),
        "mime_type": "audio/wav",
        "extras": {"echo": ref.model_dump(mode="json")},
    }


def read_audio_block(block: dict[str, Any], store: RecordingStore) -> AudioRef:
    """The audio of a content block: a reference of ours, or base64 data, which is put into the store.

    Raises:
        RecordingError: It is neither, or the data cannot be opened.
    """
    extras = block.get("extras")
    if isinstance(extras, dict) and "echo" in extras:
        try:
            return AudioRef.model_validate(extras["echo"])
        except ValidationError as error:
            raise RecordingError(f"the audio reference in a message is malformed: {error}") from error
    nested = block.get("input_audio")
    data = (
        block.get("base64") or block.get("data") or (nested.get("data") if isinstance(nested, dict) else None)
    )
    if not isinstance(data, str):
        raise RecordingError(
            "audio in a message must be base64 data or a reference made by audio_block: no URLs, no files"
        )
    try:
        return store.add(
            Recording.from_bytes(base64.b64decode(data, validate=True), "the audio in a message")
        )
    except binascii.Error as error:
        raise RecordingError(f"the audio in a message is not base64: {error}") from error


def is_audio(block: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a content block is audio."""
    return isinstance(block, dict) and block.get("type") in ("audio", "input_audio")


def holds_audio_data(messages: Iterable[BaseMessage]) -> bool:
    """Whether audio itself stands in the messages: to read it may start a decoder, which takes time."""
    return any(
        is_audio(block) and "extras" not in block
        for message in messages
        if isinstance(message.content, list)
        for block in message.content
    )


def read_contents(messages: Sequence[BaseMessage], store: RecordingStore) -> tuple[str, list[AudioRef]]:
    """Text and audio of messages, in order.

    Raises:
        ContextError: A content block is neither text nor audio; the message names its type.
        RecordingError: Audio cannot be used; see :func:`read_audio_block`.
    """
    audio: list[AudioRef] = []
    for message in messages:
        for block in message.content if isinstance(message.content, list) else ():
            if is_audio(block):
                audio.append(read_audio_block(block, store))
            elif isinstance(block, dict) and _is_lost(message, block):
                raise ContextError(
                    f"a message of type {message.type!r} holds a content block of type {block.get('type')!r}, but the "
                    "model takes text and audio only (blocks of type 'text' and 'audio'): leave it out, or put it into "
                    "words"
                )
    return "\n".join(message.text for message in messages if message.text), audio


def _is_lost(message: BaseMessage, block: dict[str, Any]) -> bool:
    """Whether something would go missing with a block that is not audio."""
    kind = block.get("type")
    if isinstance(message, AIMessage):  # reasoning and calls of other models stand in blocks of their own
        return isinstance(kind, str) and kind.startswith(_MEDIA)
    return kind != "text"


_MEDIA = (
    "image",
    "video",
    "file",
    "document",
    "media",
    "input_image",
    "input_video",
    "input_file",
    "audio_url",
)
"""Beginnings of the types of blocks that are seen or heard."""


def delta_of(message: BaseMessage) -> TokenDelta | None:
    """The token delta that a message carries; None where there is none or it is malformed."""
    data = message.response_metadata.get(DELTA_KEY)
    if not isinstance(message, AIMessage) or not isinstance(data, dict):
        return None
    try:
        return TokenDelta.from_json(data)
    except (ValidationError, ValueError, TypeError):
        return None


def trajectory_of(messages: Iterable[BaseMessage]) -> Trajectory:
    """The fold over the deltas of the AI messages.

    Raises:
        ContextError: A message has none, or one that continues another prefix: foreign, trimmed or edited messages.
    """
    trajectory = Trajectory()
    for message in messages:
        if isinstance(message, AIMessage):
            delta = delta_of(message)
            if delta is None:
                raise ContextError(
                    f"the AI message {message.text[:40]!r} carries no token delta: it is from another model"
                )
            trajectory = trajectory.extend(delta)
    return trajectory


def transcript(messages: Iterable[BaseMessage]) -> str:
    """The assistant's whole turn as text: what it wrote and what was given to it, audio left out."""
    return "".join(
        f"{message.response_metadata.get(GIVEN_KEY, '')}{message.text}"
        for message in messages
        if isinstance(message, AIMessage)
    )
