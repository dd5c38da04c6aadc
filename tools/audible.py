"""Messages as a model of another maker hears them: references become audio, made for one call and kept nowhere.

State and checkpoints hold references. Right before such a model is called, what its messages refer to is read, and the
audio stands in them as base64. Few models take audio in a tool message, and strict servers want all calls of a message
answered before anything else is said: so what was heard again follows the last of the replies, in one user message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage, ToolMessage

from echo_agent.audio.recording import AudioRef
from echo_agent.messages import is_audio, read_audio_block
from echo_agent.stores import RecordingStore
from echo_agent.tools.relisten import Reply, audio_message


def hearable(messages: Sequence[BaseMessage], store: RecordingStore, rate: int = 16000) -> list[BaseMessage]:
    """Copies of messages in which references are audio; those that hold none are the messages themselves.

    Args:
        messages: A conversation. References are blocks made by ``audio_block``, and replies of ``relisten``.
        store: Where they are looked up.
        rate: Samples per second of the audio, in Hz.

    Raises:
        RecordingError: A recording is gone or changed, or a reference is malformed.
    """
    out: list[BaseMessage] = []
    waiting: list[tuple[AudioRef, Any]] = []
    for message in messages:
        if waiting and not isinstance(message, ToolMessage):
            out.append(audio_message(waiting, rate))
            waiting = []
        if isinstance(message, ToolMessage):
            reply = Reply.of(message)
            if reply is not None and reply.ref is not None and isinstance(message.content, str):
                waiting.append((reply.asked or reply.ref, store.crop(reply.ref, rate)))
        elif isinstance(message.content, list) and any(map(is_audio, message.content)):
            content: list[str | dict[str, Any]] = []
            for block in message.content:
                if isinstance(block, dict) and is_audio(block) and "extras" in block:
                    ref = read_audio_block(block, store)
                    content.append(audio_message([(ref, store.crop(ref, rate))], rate).content[1])
                else:
                    content.append(block)
            message = message.model_copy(update={"content": content})
        out.append(message)
    if waiting:
        out.append(audio_message(waiting, rate))
    return out
