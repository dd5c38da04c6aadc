"""How a call to listen again, its reply and an answer are written in tokens.

Three dialects, one tool: its arguments, checks and results are the same in both.

*inline* is the paper's layout: the assistant's turn is continued, and the crop stands right after ``</seg>``::

    <think>... <seg>12.4, 15.0; speed=0.5; band=300-3400; gain=6</seg> (observation) [audio] ...
    </think><answer>...</answer>

What the tool has to say stands between the call and the audio as tool-origin tokens; it is empty when all is well.

*turns* is ordinary tool calling, for models that were trained on it: a JSON call ends the assistant's turn, and a user
turn brings the tool's response and the audio (the ChatML models speak the tool role as a user turn themselves).

*crop-audio* is what LAT-Audio was taught (arXiv 2604.22245): Hermes' JSON as well, with a function and arguments of its
own, and the audio inside of the tool's response. It can say a span and nothing else.

A dialect is stateless. Times are seconds, frequencies Hz, gains dB. Parsing never guesses: what cannot be read is a
:class:`BadCall` with the reason, and an answer is the text between ``<answer>`` and ``</answer>`` or there is none.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from echo_agent.answers import ANSWER, ANSWER_END, TOOL_NAME, extract_answer, question_text
from echo_agent.audio.recording import AudioRef, Transform
from echo_agent.errors import ContextError
from echo_agent.families.base import Family, Piece

THINK, THINK_END = "<think>", "</think>"
SEG, SEG_END = "<seg>", "</seg>"
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
CROP_AUDIO = "crop_audio"


@dataclass(frozen=True)
class Call:
    """A call that could be read: raw arguments for the tool's schema, not yet checked."""

    arguments: dict[str, Any]
    text: str
    """The call as the policy wrote it, tags included."""


@dataclass(frozen=True)
class BadCall:
    """A call that could not be read, and why: the policy is given ``error``."""

    text: str
    error: str


@dataclass(frozen=True)
class Parsed:
    """What one stretch of sampled text says."""

    text: str
    calls: tuple[Call, ...] = ()
    invalid: tuple[BadCall, ...] = ()
    answer: str | None = None
    """The answer, where the text holds both of its tags; see :func:`extract_answer` for a whole turn."""
    unclosed: bool = False
    """The last call was begun and never closed (it is among ``invalid`` too)."""


class Dialect(ABC):
    """How calls, replies and answers are written; see the module."""

    name: ClassVar[str]
    call_open: ClassVar[str]
    call_close: ClassVar[str]

    @property
    def tags(self) -> re.Pattern[str]:
        """The tags of this dialect, as one group."""
        tags = (THINK, THINK_END, ANSWER, ANSWER_END, self.call_open, self.call_close)
        return re.compile(f"({'|'.join(map(re.escape, tags))})")

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings right after which sampling stops."""
        return (self.call_close, ANSWER_END)

    # --- reading ------------------------------------------------------------------------------------------------

    @abstractmethod
    def read_call(self, body: str, text: str) -> Call | BadCall:
        """Read what stands between the tags of one call; ``text`` is the call with its tags."""

    def parse(self, text: str) -> Parsed:
        """Read the newly sampled text of one generation: its calls, closed or not, and its answer.

        A call after a finished answer cannot happen (sampling stops there), so an answer ends the reading.
        """
        answer = extract_answer(text)
        calls: list[Call] = []
        invalid: list[BadCall] = []
        rest = text
        while self.call_close in rest:
            before, rest = rest.split(self.call_close, 1)
            _, opened, body = before.partition(self.call_open)
            if not opened:
                invalid.append(
                    BadCall(f"{before[-40:]}{self.call_close}", "a call was closed that was never opened")
                )
                continue
            whole = f"{self.call_open}{body}{self.call_close}"
            read = (
                BadCall(whole, "a call inside a call")
                if self.call_open in body
                else self.read_call(body, whole)
            )
            if isinstance(read, Call):
                calls.append(read)
            else:
                invalid.append(read)
        _, opened, body = rest.partition(self.call_open)
        unclosed = bool(opened) and answer is None
        if unclosed:
            invalid.append(BadCall(f"{self.call_open}{body}", "the call was not closed"))
        return Parsed(text, tuple(calls), tuple(invalid), answer, unclosed)

    # --- writing ------------------------------------------------------------------------------------------------

    @abstractmethod
    def head(
        self, family: Family, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """The head of the context, up to where the assistant's turn begins."""

    @abstractmethod
    def format_call(
        self, start: float, end: float, transform: Transform | None = None, recording: int = 1
    ) -> str:
        """A call as the policy writes it; :meth:`parse` reads it back. An int stays without a point."""

    @abstractmethod
    def tool_reply(
        self,
        family: Family,
        observation: str,
        ref: AudioRef | None,
        *,
        unclosed: bool = False,
        ended: bool = False,
    ) -> list[Piece]:
        """Tool-origin content that answers a call.

        Args:
            family: Whose tokens they become.
            observation: What the tool says; empty when all is well.
            ref: The audio that is heard, if any.
            unclosed: The policy did not close its call: it is closed here, so that the context stays well-formed.
            ended: The policy sampled its end of turn.
        """

    def answer_opening(self, said: str) -> str:
        """What asks for the answer by opening it, after ``said``; nothing where the policy is in the middle of it."""
        _, _, last = said.rpartition(self.call_close)
        if ANSWER in last and ANSWER_END not in last.rpartition(ANSWER)[2]:
            return ""
        return (THINK_END if said.rfind(THINK) > said.rfind(THINK_END) else "") + ANSWER

    def force_answer(self, family: Family, said: str, *, ended: bool = False) -> list[Piece]:
        """Tool-origin text that asks for the answer, in the assistant's turn.

        Args:
            family: Whose tokens it becomes.
            said: The assistant's turn so far.
            ended: The policy sampled its end of turn: a new turn is opened.
        """
        text = (self.reopen(family) if ended else "") + self.answer_opening(said)
        return [Piece(text=text)] * bool(text)

    def end_turn(self, family: Family, *, ended: bool) -> str:
        """What closes the assistant's turn; without its end marker where the policy sampled that itself."""
        close = family.turn_close()
        markers = [family.detokenize([token]) for token in family.eos_ids] if ended else []
        return next((close.removeprefix(marker) for marker in markers if close.startswith(marker)), close)

    def reopen(self, family: Family) -> str:
        """What opens the assistant's turn again after the policy ended it."""
        return self.end_turn(family, ended=True) + family.turn_open("assistant")

    def write_call(self, arguments: dict[str, Any]) -> str:
        """A call with raw arguments, as another model made it; empty where they are no call."""
        values = dict(arguments)
        try:
            start, end, recording = values.pop("start"), values.pop("end"), values.pop("recording", 1)
            return self.format_call(float(start), float(end), Transform(**values), int(recording))
        except (KeyError, TypeError, ValueError):
            return ""

    @abstractmethod
    def readable_reply(self, observation: str, *, unclosed: bool = False) -> str:
        """The reply without its audio, as a person reads it in the transcript."""


class InlineDialect(Dialect):
    """The paper's layout: ``<seg>start, end</seg>`` inside the thought, the crop right after it."""

    name = "inline"
    call_open, call_close = SEG, SEG_END

    def read_call(self, body: str, text: str) -> Call | BadCall:
        """Read ``12.4, 15.0; speed=0.5; band=300-3400; gain=6``."""
        span, *options = body.split(";")
        found = _SPAN.fullmatch(span.strip())
        if not found:
            return BadCall(text, "write start, end in seconds")
        arguments: dict[str, Any] = {"start": float(found[1]), "end": float(found[2])}
        for option in options:
            key, equals, value = (part.strip().lower() for part in option.partition("="))
            band = _BAND.fullmatch(value) if key == "band" else None
            if band and (band[1] or band[2]):
                read = {
                    "low_hz": float(band[1]) if band[1] else None,
                    "high_hz": float(band[2]) if band[2] else None,
                }
            elif key in _OPTIONS and equals and _VALUE.fullmatch(value):
                read = {_OPTIONS[key]: float(value)}
            elif key == "recording" and value.isascii() and value.isdigit():
                read = {"recording": int(value[:9])}
            else:
                return BadCall(text, f"cannot read {option.strip()[:24]!r}")
            if any(name in arguments for name in read):
                return BadCall(text, f"{key} is given twice")
            arguments.update(read)
        return Call(arguments, text)

    def head(
        self, family: Family, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """The family's own template: it teaches this dialect."""
        return family.question_pieces(recordings, question, choices)

    def format_call(
        self, start: float, end: float, transform: Transform | None = None, recording: int = 1
    ) -> str:
        """``<seg>12.4, 15.0; speed=0.5; band=300-3400; gain=6</seg>``; only what is not the default is written."""
        t = transform or Transform()
        parts = [f"{_number(start)}, {_number(end)}"]
        if t.speed != 1:
            parts.append(f"speed={t.speed:g}")
        if t.low_hz is not None or t.high_hz is not None:
            parts.append("band=" + "-".join("" if f is None else f"{f:g}" for f in (t.low_hz, t.high_hz)))
        if t.gain_db != 0:
            parts.append(f"gain={t.gain_db:g}")
        if recording != 1:
            parts.append(f"recording={recording}")
        return f"{SEG}{'; '.join(parts)}{SEG_END}"

    def tool_reply(
        self,
        family: Family,
        observation: str,
        ref: AudioRef | None,
        *,
        unclosed: bool = False,
        ended: bool = False,
    ) -> list[Piece]:
        """The observation in brackets, if there is one, then the audio, in the assistant's own turn."""
        text = (SEG_END if unclosed else "") + (self.reopen(family) if ended else "")
        text += f" ({family.escape(observation)})" if observation else ""
        return [Piece(text=text)] * bool(text) + [Piece(audio=ref)] * (ref is not None)

    def readable_reply(self, observation: str, *, unclosed: bool = False) -> str:
        """`` (observation)``, or nothing."""
        return (SEG_END if unclosed else "") + (f" ({observation})" if observation else "")


class TurnsDialect(Dialect):
    """Tool calling in turns: a JSON call, then a user turn with the tool's response and the audio."""

    name = "turns"
    call_open, call_close = TOOL_CALL, TOOL_CALL_END

    def read_call(self, body: str, text: str) -> Call | BadCall:
        """Read ``{"name": "relisten", "arguments": {...}}``."""
        return _json_call(body, text, TOOL_NAME)

    def head(
        self, family: Family, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """A system turn with the tool's signature, then the audio and the question in a user turn."""
        pieces = [
            Piece(
                text=family.turn_open("system")
                + prompt("turns")
                + family.turn_close("system")
                + family.turn_open("user")
            )
        ]
        for number, ref in enumerate(recordings, start=1):
            label = f"Recording {number} ({ref.seconds:.1f} seconds): "
            pieces += [Piece(text=label), Piece(audio=ref), Piece(text="\n")]
        question = question_text(family.escape(question), [family.escape(choice) for choice in choices or ()])
        return [*pieces, Piece(text=question + family.turn_close("user") + family.turn_open("assistant"))]

    def format_call(
        self, start: float, end: float, transform: Transform | None = None, recording: int = 1
    ) -> str:
        """The JSON call between its tags; only what is not the default is written."""
        arguments: dict[str, Any] = {"start": start, "end": end}
        arguments |= (transform or Transform()).model_dump(exclude_defaults=True)
        if recording != 1:
            arguments["recording"] = recording
        return f"{TOOL_CALL}\n{json.dumps({'name': TOOL_NAME, 'arguments': arguments})}\n{TOOL_CALL_END}"

    def tool_reply(
        self,
        family: Family,
        observation: str,
        ref: AudioRef | None,
        *,
        unclosed: bool = False,
        ended: bool = False,
    ) -> list[Piece]:
        """End of the assistant's turn, a user turn with response and audio, a new assistant turn."""
        text = (
            (TOOL_CALL_END if unclosed and not ended else "")
            + self.end_turn(family, ended=ended)
            + family.turn_open("user")
        )
        after = Piece(text=family.turn_close("user") + family.turn_open("assistant"))
        return [Piece(text=text), *self._response(family, observation, ref), after]

    def _response(self, family: Family, observation: str, ref: AudioRef | None) -> list[Piece]:
        """What the tool says, then the audio."""
        said = family.escape(observation) or ("Here it is." if ref is not None else "No more listening.")
        text = f"<tool_response>\n{said}\n</tool_response>"
        return [Piece(text=text)] if ref is None else [Piece(text=f"{text}\n"), Piece(audio=ref)]

    def readable_reply(self, observation: str, *, unclosed: bool = False) -> str:
        """The observation on a line of its own."""
        return (TOOL_CALL_END if unclosed else "") + (f"\n({observation})\n" if observation else "\n")


class CropAudioDialect(TurnsDialect):
    """LAT-Audio's: ``crop_audio(start_sec, end_sec)`` in Hermes' JSON, the crop inside of the tool's response."""

    name = "crop-audio"

    def read_call(self, body: str, text: str) -> Call | BadCall:
        """Read ``{"name": "crop_audio", "arguments": {"start_sec": 12.4, "end_sec": 15.0}}``."""
        call = _json_call(body, text, CROP_AUDIO)
        if isinstance(call, BadCall):
            return call
        if call.arguments.keys() != {"start_sec", "end_sec"}:
            return BadCall(text, "write start_sec and end_sec in seconds, and nothing else")
        return Call({"start": call.arguments["start_sec"], "end": call.arguments["end_sec"]}, text)

    def head(
        self, family: Family, recordings: Sequence[AudioRef], question: str, choices: Sequence[str] | None
    ) -> list[Piece]:
        """A system turn with the function's signature, then the audio and the question in a user turn."""
        system = family.turn_open("system") + prompt(CROP_AUDIO) + family.turn_close("system")
        heard = [piece for ref in recordings for piece in (Piece(audio=ref), Piece(text="\n"))]
        asked = question_text(family.escape(question), [family.escape(choice) for choice in choices or ()])
        rule = f"Write your answer alone between {ANSWER} and {ANSWER_END}."
        after = f"{asked}\n{rule}{family.turn_close('user')}{family.turn_open('assistant')}"
        return [Piece(text=system + family.turn_open("user")), *heard, Piece(text=after)]

    def format_call(
        self, start: float, end: float, transform: Transform | None = None, recording: int = 1
    ) -> str:
        """The JSON call between its tags.

        Raises:
            ContextError: It asks for more than a span of the first recording.
        """
        if recording != 1 or transform not in (None, Transform()):
            raise ContextError(
                f"the dialect {self.name} can ask for a span of the first recording, and for nothing else: not for "
                "another speed, band or gain, or another recording"
            )
        arguments = {"start_sec": start, "end_sec": end}
        return f"{TOOL_CALL}\n{json.dumps({'name': CROP_AUDIO, 'arguments': arguments})}\n{TOOL_CALL_END}"

    def write_call(self, arguments: dict[str, Any]) -> str:
        """A call with raw arguments; empty where it cannot be said."""
        try:
            return super().write_call(arguments)
        except ContextError:
            return ""

    def _response(self, family: Family, observation: str, ref: AudioRef | None) -> list[Piece]:
        """JSON with the audio in it, as a result; or with what the tool says, as an error."""
        said = json.dumps(family.escape(observation), ensure_ascii=False)[1:-1]
        opened, closed = "<tool_response>\n", "\n</tool_response>"
        if ref is None:
            return [Piece(text=f'{opened}{{"error": "{said or "No more listening."}"}}{closed}')]
        note = f" ({said})" if said else ""
        before = Piece(text=f'{opened}{{"result": "Segment extracted: ')
        return [before, Piece(audio=ref), Piece(text=f'{note}"}}{closed}')]


DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (InlineDialect(), TurnsDialect(), CropAudioDialect())
}
"""Dialects by name."""


def dialect_named(name: str) -> Dialect:
    """The dialect of that name; raises ValueError where there is none."""
    if name not in DIALECTS:
        raise ValueError(f"there is no dialect {name!r}: take {' or '.join(map(repr, DIALECTS))}")
    return DIALECTS[name]


def _json_call(body: str, text: str, function: str) -> Call | BadCall:
    """A call of ``function`` in Hermes' JSON, its arguments as they were written."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return BadCall(text, "this is not JSON")
    if not isinstance(call, dict) or not isinstance(call.get("arguments"), dict):
        return BadCall(text, 'write {"name": ..., "arguments": {...}}')
    if call.get("name") != function:
        return BadCall(text, f"there is no tool {str(call.get('name'))[:24]!r}")
    return Call(call["arguments"], text)


@cache
def prompt(name: str) -> str:
    """System text of a dialect, with the signature of its tool."""
    return (files("echo_agent") / "prompts" / f"{name}.txt").read_text(encoding="utf-8").rstrip("\n")


_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+|nan|inf(?:inity)?)"
_SPAN = re.compile(rf"({_NUMBER})\s*s?\s*,\s*({_NUMBER})\s*s?", re.IGNORECASE | re.ASCII)
_VALUE = re.compile(_NUMBER, re.IGNORECASE | re.ASCII)
_BAND = re.compile(r"(\d+(?:\.\d*)?)?\s*-\s*(\d+(?:\.\d*)?)?", re.ASCII)
_OPTIONS = {"speed": "speed", "gain": "gain_db"}


def _number(value: float) -> str:
    """Seconds as text: an int stays whole, a float keeps at least one and at most three decimals."""
    return str(value) if isinstance(value, int) else str(round(float(value), 3))
