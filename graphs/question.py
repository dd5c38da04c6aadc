"""What a run asks: the question it is given, or what a person said since the last one.

In a thread, the state still holds the question that was asked before. A newer message of a user is then the next
question, about the same recordings unless it brings its own: the old question is never answered in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.errors import QuestionError, RecordingError
from echo_agent.graphs.state import ListeningContext, ListeningState, recordings_of
from echo_agent.messages import (
    FORCE_KEY,
    QUESTION_KEY,
    holds_audio_data,
    is_audio,
    read_audio_block,
    read_contents,
)


@dataclass(frozen=True)
class Question:
    """What is asked."""

    text: str
    choices: list[str] | None
    recordings: list[AudioRef]


def next_question(state: ListeningState, context: ListeningContext) -> Question:
    """The question of the run that begins.

    A user's message is the question where it is newer than the last one asked and ``question`` was asked before (or was
    never given). Then ``choices`` count only if they were not those of an earlier question.

    Args:
        state: The state in which the run begins.
        context: Its store takes the audio in a user's message, and its folder holds the recordings that are named.

    Raises:
        QuestionError: There is neither a question nor a message of a user.
        RecordingError: There is no recording, or the audio of a message cannot be used.
        ContextError: The message holds something that is neither text nor audio.
    """
    messages = state.get("messages") or []
    asked = [stated for message in messages if (stated := message.additional_kwargs.get(QUESTION_KEY))]
    newer, given, choices = _newest(messages), state.get("question"), state.get("choices")
    if newer is None and given is None:
        raise QuestionError(
            "there is nothing to ask: give `question`, or messages that end with one of a user"
        )
    if newer is None or (given is not None and not _was(asked, "question", given)):
        return Question(given or "", choices, _stated(state, context))
    text, audio = read_contents([newer], context.recordings)
    if text.strip() != (given or "").strip() and _was(asked, "choices", choices):
        choices = None
    return Question(text, choices, audio or _stated(state, context))


def _stated(state: ListeningState, context: ListeningContext) -> list[AudioRef]:
    """The recordings of the state; where it has none, those that the messages brought last.

    A graph around this one may keep nothing but the messages from one question to the next.
    """
    store, stated = context.recordings, state.get("recordings")
    if isinstance(stated, list) and context.folder is not None:
        folder = context.folder
        named: list[dict[str, Any] | str] = [
            store.add(Recording.open(folder.find(entry))).model_dump(mode="json")
            if isinstance(entry, str)
            else entry
            for entry in stated
        ]
        return recordings_of({**state, "recordings": named})
    if stated is not None:
        return recordings_of(state)
    for message in reversed(state.get("messages") or []):
        blocks = message.content if isinstance(message, HumanMessage) else ()
        audio = [read_audio_block(block, store) for block in blocks if is_audio(block)]
        if audio:
            return audio
    raise RecordingError(
        "no recording was given to ask about: put audio into the question's message (`audio_block` makes a reference "
        "of a recording), or references into `recordings`"
    )


def reads_files(state: ListeningState, context: ListeningContext) -> bool:
    """Whether finding the question may look at files or decode audio, which takes time."""
    return context.folder is not None or holds_audio_data(state.get("messages") or [])


def _newest(messages: Sequence[BaseMessage]) -> HumanMessage | None:
    for message in reversed(messages):
        if QUESTION_KEY in message.additional_kwargs:
            return None
        if isinstance(message, HumanMessage) and FORCE_KEY not in message.additional_kwargs:
            return message
    return None


def _was(asked: Sequence[dict[str, Any]], key: str, value: Any) -> bool:
    """Whether an earlier question of the thread had this."""
    return any(stated.get(key) == value for stated in asked)
