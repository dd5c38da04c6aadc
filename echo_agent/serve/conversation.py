"""What a conversation asks: its last message, about the recordings that it holds.

A model that reads conversations is given all of them, and the text before the question with it. One that does not
(echo-nano) is asked the last question alone, about the recordings of the newest message that brought any, as in a
thread of the listening graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from echo_agent.errors import QuestionError
from echo_agent.serve.protocol import AudioURLPart, InputAudioPart, Message

NO_AUDIO = (
    "there is no recording in this conversation: this model answers questions about recordings. Put one into a user's "
    "message, as {'type': 'input_audio', 'input_audio': {'data': BASE64, 'format': 'wav'}}"
)


@dataclass(frozen=True)
class Asked:
    """What is asked."""

    question: str
    audio: list[InputAudioPart | AudioURLPart]
    """The recordings, in the order in which they are heard."""


def asked_in(messages: Sequence[Message], *, reads_conversation: bool, most_characters: int) -> Asked:
    """What a conversation asks.

    Raises:
        QuestionError: Its last message is not a user's or says nothing, there is no recording, there is audio where a
            model hears none, or there is more text than is taken.
    """
    last = messages[-1]
    if last.role != "user":
        raise QuestionError(f"the last message is of the role {last.role!r}: there is nothing to answer")
    if any(message.audio for message in messages if message.role != "user"):
        raise QuestionError(
            "the model hears what users give it: put recordings into messages of the role 'user'"
        )
    if sum(len(message.text) for message in messages) > most_characters:
        raise QuestionError("there is more text (choices included) than is taken: shorten the conversation")
    brought = [message.audio for message in messages if message.audio]
    if not brought:
        raise QuestionError(NO_AUDIO)
    question = last.text.strip()
    if not question:
        raise QuestionError("the last message says nothing: ask something about the recording")
    if not reads_conversation:
        return Asked(question, brought[-1])
    before = _written([message for message in messages[:-1] if message.text.strip()])
    return Asked(f"{before}{question}", [part for parts in brought for part in parts])


def _written(messages: Sequence[Message]) -> str:
    """What was said before, as text in front of the question."""
    rules = "".join(f"{m.text.strip()}\n\n" for m in messages if m.role in ("system", "developer"))
    turns = [m for m in messages if m.role in ("user", "assistant")]
    said = "".join(f"{'Question' if m.role == 'user' else 'Answer'}: {m.text.strip()}\n" for m in turns)
    return f"{rules}Before this, you were asked:\n{said}\nNow: " if said else rules
