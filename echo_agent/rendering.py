"""Messages to tokens: which trajectory a list of messages stands for, and what has to be given to the model next.

An AI message of ours carries, in ``response_metadata["echo"]``, the token delta that it added to its context. The
trajectory is the fold over these deltas: text is never tokenised again. Deltas are believed only where they fit: each
must continue the trajectory before it, hold what the messages before it give when they are rendered, and its sampled
ids must read as the message's text. Where anything was trimmed or edited, or a message comes from another model, the
whole context is rendered again from its text, marked ``rerendered``, and never trained on.

What is rendered has an origin: ``prompt`` for the question and for foreign text, ``tool`` for replies to calls and for
the request to answer. Audio is a reference in a content block; standard base64 blocks are read into the store.
"""

from __future__ import annotations

import hashlib
import marshal
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from echo_agent.answers import question_text
from echo_agent.audio.recording import AudioRef
from echo_agent.dialects import Dialect
from echo_agent.errors import ContextError
from echo_agent.families.base import Family, Piece
from echo_agent.forks import Lock
from echo_agent.messages import DELTA_KEY, FORCE_KEY, QUESTION_KEY, delta_of, read_contents
from echo_agent.stores import RecordingStore
from echo_agent.tools.relisten import Reply
from echo_agent.trajectory import Origin, Segment, TokenDelta, Trajectory

REMEMBERED = 512
"""Beginnings of message lists that a renderer remembers."""
HEADS = 64
"""Heads of contexts that it remembers; they are longer."""


def visible_text(family: Family, ids: Sequence[int]) -> str:
    """Text of sampled ids without the end of turn."""
    return family.detokenize([token for token in ids if token not in family.eos_ids])


@dataclass(frozen=True)
class Turn:
    """Where the context stands after some messages."""

    begun: bool = False
    """The head is written: the assistant has the word."""
    said: str = ""
    """The assistant's turn so far."""
    ended: bool = False
    """The assistant ended its turn."""
    unclosed: bool = False
    """Its last call was never closed."""


@dataclass(frozen=True)
class Context:
    """What a list of messages comes to."""

    trajectory: Trajectory
    """What is known token by token; empty if it had to be rendered again."""
    given: tuple[Segment, ...]
    """What comes after it, before the model goes on."""
    readable: str
    """``given``, in the assistant's turn, as a person reads it."""
    said: str
    """The assistant's turn so far, ``readable`` included."""
    rerendered: bool
    """``given`` is the whole context, rendered again."""

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The whole context."""
        return self.trajectory.ids + tuple(token for segment in self.given for token in segment.ids)

    @property
    def audio(self) -> tuple[AudioRef, ...]:
        """The audio of its placeholder runs."""
        return self.trajectory.audio + tuple(ref for segment in self.given for ref in segment.audio)


@dataclass
class _Draft:
    """Segments that are being rendered."""

    segments: list[Segment] = field(default_factory=list)
    readable: str = ""


class Renderer:
    """Messages to contexts, for one family and dialect.

    It remembers what the beginnings of message lists came to, by their content, so that a run does not read its whole
    past again at every turn. That is a memory of a pure function: it holds no state of a run.
    """

    def __init__(self, family: Family, dialect: Dialect, store: RecordingStore) -> None:
        """Render for ``family`` in ``dialect``; audio data found in messages goes into ``store``."""
        self.family, self.dialect, self.store = family, dialect, store
        self._folds: OrderedDict[bytes, tuple[Trajectory | None, Turn]] = OrderedDict()
        self._heads: OrderedDict[Any, Segment] = OrderedDict()
        self._lock = Lock()

    def head(self, audio: Sequence[AudioRef], question: str, choices: Sequence[str] | None) -> Segment:
        """The head of a context; rendered once, however often a run, or all runs of one question, come to it."""
        key = (tuple(audio), question, None if choices is None else tuple(choices))
        with self._lock:
            if key in self._heads:
                self._heads.move_to_end(key)
                return self._heads[key]
        ids, heard = self.family.render(self.dialect.head(self.family, audio, question, choices))
        head = Segment(origin="prompt", ids=tuple(ids), audio=tuple(heard))
        with self._lock:
            self._heads[key] = head
            while len(self._heads) > HEADS:
                self._heads.popitem(last=False)
        return head

    def context(self, messages: Sequence[BaseMessage]) -> Context:
        """Fold the deltas, and render what comes after the last; if they do not fit, render everything again."""
        begin, trajectory, turn, keys = self._known(messages)
        pending: list[BaseMessage] = []
        for i, message in enumerate(messages[begin:], start=begin):
            if not isinstance(message, AIMessage):
                pending.append(message)
                continue
            trajectory, turn = self._fold(messages[:i], pending, message, trajectory, turn)
            pending = []
            if keys:
                self._remember(keys[i], trajectory, turn)
        if trajectory is None:
            draft, turn = self._anew(messages)
        else:
            draft, turn = self._render(pending, turn)
        if not turn.begun:
            raise ContextError("there is nothing to answer: no user message")
        known = trajectory or Trajectory()
        return Context(known, tuple(draft.segments), draft.readable, turn.said, trajectory is None)

    def _fold(
        self,
        before: Sequence[BaseMessage],
        pending: Sequence[BaseMessage],
        message: AIMessage,
        trajectory: Trajectory | None,
        turn: Turn,
    ) -> tuple[Trajectory | None, Turn]:
        """Take in one AI message; the trajectory is None where its delta does not fit."""
        delta = delta_of(message)
        if delta is None or (trajectory is None and not delta.rerendered):
            return None, turn
        if delta.rerendered:
            known = Trajectory()
            draft, turn = self._anew(before)
        else:
            known = trajectory or Trajectory()
            draft, turn = self._render(pending, turn)
        fits = (delta.rerendered or delta.prefix == known.hash) and _same(draft.segments, delta)
        fits = fits and self._reads_as(delta, message.text)
        return known.extend(delta) if fits else None, self._after(turn, message, delta)

    def _known(self, messages: Sequence[BaseMessage]) -> tuple[int, Trajectory | None, Turn, list[bytes]]:
        """Where folding can begin: what the longest known beginning came to, and keys of all beginnings."""
        keys: list[bytes] = []
        key = b""
        for message in messages:
            try:
                key = hashlib.sha256(key + marshal.dumps(_content(message), 2)).digest()
            except ValueError:  # holds what is not plain data: nothing is remembered
                return 0, Trajectory(), Turn(), []
            keys.append(key)
        with self._lock:
            for i in reversed(range(len(messages))):
                if isinstance(messages[i], AIMessage) and keys[i] in self._folds:
                    self._folds.move_to_end(keys[i])
                    return i + 1, *self._folds[keys[i]], keys
        return 0, Trajectory(), Turn(), keys

    def _remember(self, key: bytes, trajectory: Trajectory | None, turn: Turn) -> None:
        with self._lock:
            self._folds[key] = (trajectory, turn)
            while len(self._folds) > REMEMBERED:
                self._folds.popitem(last=False)

    def _anew(self, messages: Sequence[BaseMessage]) -> tuple[_Draft, Turn]:
        """Render everything from text, AI messages too."""
        draft, turn = _Draft(), Turn()
        pending: list[BaseMessage] = []
        for message in [*messages, None]:
            if message is not None and not isinstance(message, AIMessage):
                pending.append(message)
                continue
            turn = self._add(draft, pending, turn)
            pending = []
            if message is not None:
                text = self._foreign_text(message)
                self._append(draft, "prompt", [Piece(text=self._escape_foreign(text))])
                parsed = self.dialect.parse(text)
                turn = replace(turn, said=turn.said + text, ended=False, unclosed=parsed.unclosed)
        return draft, turn

    def _render(self, messages: Sequence[BaseMessage], turn: Turn) -> tuple[_Draft, Turn]:
        """Render the messages between two AI messages."""
        draft = _Draft()
        return draft, self._add(draft, messages, turn)

    def _add(self, draft: _Draft, messages: Sequence[BaseMessage], turn: Turn) -> Turn:
        rest = list(messages)
        if not turn.begun and rest:
            first = next((i for i, m in enumerate(rest) if _is_reply(m)), len(rest))
            if not first:
                raise ContextError("the messages begin with a reply, not with a question")
            draft.segments.append(self._head(rest[:first]))
            rest = rest[first:]
            turn = Turn(begun=True)
        for message in rest:
            turn = self._add_one(draft, message, turn)
        return turn

    def _add_one(self, draft: _Draft, message: BaseMessage, turn: Turn) -> Turn:
        """Render one message after the assistant had the word."""
        if isinstance(message, ToolMessage):
            reply = Reply.of(message)
            observation, ref = (reply.observation, reply.ref) if reply else self._foreign_reply(message)
            pieces = self.dialect.tool_reply(
                self.family, observation, ref, unclosed=turn.unclosed, ended=turn.ended
            )
            self._append(draft, "tool", pieces)
            readable = self.dialect.readable_reply(observation, unclosed=turn.unclosed)
        elif FORCE_KEY in message.additional_kwargs:
            readable = self.dialect.answer_opening(turn.said)
            self._append(draft, "tool", self.dialect.force_answer(self.family, turn.said, ended=turn.ended))
        else:
            family = self.family
            text, audio = read_contents([message], self.store)
            closing = self.dialect.end_turn(family, ended=turn.ended) + family.turn_open("user")
            heard = [piece for ref in audio for piece in (Piece(audio=ref), Piece(text="\n"))]
            after = family.escape(text) + family.turn_close("user") + family.turn_open("assistant")
            self._append(draft, "prompt", [Piece(text=closing), *heard, Piece(text=after)])
            draft.readable = ""
            return Turn(begun=True)
        draft.readable += readable
        return Turn(begun=True, said=turn.said + readable)

    def _after(self, turn: Turn, message: AIMessage, delta: TokenDelta) -> Turn:
        """The turn after what an AI message added."""
        last = delta.segments[-1] if delta.segments else None
        ended = last is not None and last.origin == "sampled" and last.ids[-1] in self.family.eos_ids
        unclosed = self.dialect.parse(message.text).unclosed
        return replace(turn, said=turn.said + message.text, ended=ended, unclosed=unclosed)

    def _head(self, messages: Sequence[BaseMessage]) -> Segment:
        """The head of the context from the messages before the first AI message."""
        text, audio = read_contents(messages, self.store)
        question, choices = text, None
        stated = messages[-1].additional_kwargs.get(QUESTION_KEY) if len(messages) == 1 else None
        if isinstance(stated, dict) and text == question_text(
            stated.get("question", ""), stated.get("choices")
        ):
            question, choices = stated["question"], stated.get("choices")
        return self.head(audio, question, choices)

    def _foreign_reply(self, message: ToolMessage) -> tuple[str, AudioRef | None]:
        """Text and audio of a reply that is not the tool's own."""
        text, audio = read_contents([message], self.store)
        if len(audio) > 1:
            raise ContextError(
                f"a tool message holds {len(audio)} pieces of audio: a reply brings at most one"
            )
        return text, audio[0] if audio else None

    def _foreign_text(self, message: AIMessage) -> str:
        """Text of an AI message that is not ours, with its calls written in this dialect."""
        text, audio = read_contents([message], self.store)
        if audio:
            raise ContextError("an AI message holds audio: the model hears what users and tools give it only")
        if self.dialect.parse(text).calls:
            return text
        calls = [self.dialect.write_call(call["args"]) for call in message.tool_calls]
        return "".join([text, *calls])

    def _escape_foreign(self, text: str) -> str:
        """Assistant text with no control tokens but the dialect's own tags."""
        parts = self.dialect.tags.split(text)
        return "".join(part if i % 2 else self.family.escape(part) for i, part in enumerate(parts))

    def _append(self, draft: _Draft, origin: Origin, pieces: Sequence[Piece]) -> None:
        ids, audio = self.family.render(pieces)
        if ids:
            draft.segments.append(Segment(origin=origin, ids=tuple(ids), audio=tuple(audio)))

    def _reads_as(self, delta: TokenDelta, text: str) -> bool:
        """Whether the sampled ids of a delta are the text of its message."""
        sampled = [
            token for segment in delta.segments if segment.origin == "sampled" for token in segment.ids
        ]
        return visible_text(self.family, sampled) == text


def _content(message: BaseMessage) -> tuple[Any, ...]:
    """All of a message that its rendering depends on."""
    tool = (message.artifact,) if isinstance(message, ToolMessage) else ()
    calls = (message.tool_calls,) if isinstance(message, AIMessage) else ()
    kwargs, metadata = message.additional_kwargs, message.response_metadata.get(DELTA_KEY)
    return (type(message).__name__, message.content, kwargs, metadata, *tool, *calls)


def _is_reply(message: BaseMessage) -> bool:
    """Whether a message answers the assistant within its turn."""
    return isinstance(message, ToolMessage) or FORCE_KEY in message.additional_kwargs


def _same(given: Sequence[Segment], delta: TokenDelta) -> bool:
    """Whether a delta was given exactly this before its sampled tokens."""
    return _flat(given) == _flat(segment for segment in delta.segments if segment.origin != "sampled")


def _flat(segments: Iterable[Segment]) -> tuple[list[tuple[str, int]], list[str]]:
    ids: list[tuple[str, int]] = []
    audio: list[str] = []
    for segment in segments:
        ids.extend((segment.origin, token) for token in segment.ids)
        audio.extend(ref.key() for ref in segment.audio)
    return ids, audio
