"""A run in a terminal, as it happens: the reasoning, a line per re-listen, then the answer.

Tags are not shown: a re-listen is a line of its own with its span on a small waveform, and the answer comes at the end.
What a model or a file name says is printed as plain characters, so that it cannot take over the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from echo_agent.audio.outline import clock, described, peaks, sketch
from echo_agent.audio.picture import COLOURS
from echo_agent.audio.recording import Recording
from echo_agent.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

    from echo_agent.agent import EchoResult

HIDDEN = {"<seg>": "</seg>", "<tool_call>": "</tool_call>", "<answer>": "</answer>"}
"""Tags between which nothing is shown."""
WIDTH = 48
"""Most characters of the waveform."""
LABEL = 23
"""Characters before it."""

_TAG = re.compile(r"</?[a-z_]{1,20}>|<\|[a-z_]{1,20}\|>")
_BEGINNING = re.compile(r"<(/?[a-z_]{0,20}|\|[a-z_]{0,20}\|?)")


class Thought:
    """Takes text piece by piece and gives back what is to be shown of it; a tag may come in several pieces."""

    def __init__(self) -> None:
        """Begin outside any tag."""
        self._held = ""
        self._until: str | None = None

    def feed(self, piece: str) -> str:
        """What can be shown by now."""
        self._held += piece
        shown = ""
        while self._held:
            if self._until is not None:
                _, found, rest = self._held.partition(self._until)
                if not found:
                    self._held = self._held[-len(self._until) :]
                    break
                self._held, self._until = rest, None
                continue
            before, opened, _ = self._held.partition("<")
            shown += before
            self._held = self._held[len(before) :]
            if not opened:
                break
            tag = _TAG.match(self._held)
            if tag:
                self._held = self._held[tag.end() :]
                self._until = HIDDEN.get(tag[0])
            elif _BEGINNING.fullmatch(self._held):
                break  # may still become a tag
            else:
                shown += "<"
                self._held = self._held[1:]
        return shown


class Screen:
    """Prints the events of one run."""

    def __init__(self, console: Console, recording: Recording) -> None:
        """Print to ``console`` about ``recording``."""
        self.console = console
        self.recording = recording
        self.duration = recording.duration
        self._plain = not (console.encoding or "").lower().startswith("utf")
        self._peaks = peaks(recording, max(8, min(WIDTH, console.width - LABEL - 4)))
        self._thought = Thought()
        self._column = 0
        self._listens = 0

    def head(self) -> None:
        """One line about the recording."""
        length = clock(self.duration)
        name, room = printable(self.recording.name), LABEL - len(length) - 1
        name = name if len(name) <= room else f"{name[: room - 1]}…"
        self._line(f"{name:<{room}} {length}", None)

    def event(self, event: Mapping[str, Any]) -> None:
        """Print one event of the graph."""
        if event["type"] == "token":
            text = event["text"]
            if (
                event["origin"] == "tool"
            ):  # what it says has a line of its own; a tag opens or closes something
                text = "".join(tag[0] for tag in _TAG.finditer(text))
            self._write(self._thought.feed(text))
        elif event["type"] == "search":
            self.searched(event)
        elif event["type"] == "relisten":
            self.relisten(event)

    def searched(self, heard: Mapping[str, Any]) -> None:
        """One line for a listen of a search, with its span on the waveform."""
        self._end_line()
        span = f"{clock(heard['start'])} – {clock(heard['end'])}"
        said = printable(heard.get("said", ""))
        self._line(f" ·  {span:<{LABEL - 4}}", (heard["start"], heard["end"]), f"  {said}" * bool(said))

    def relisten(self, heard: Mapping[str, Any]) -> None:
        """One line for a re-listen, with its span on the waveform; without, where nothing was heard."""
        from rich.text import Text

        self._end_line()
        told = f"  ({printable(heard['observation'])})" if heard["observation"] else ""
        if heard["start"] is None:
            self.console.print(Text(f"  not heard again{told}", "dim"), soft_wrap=True)
            return
        self._listens += 1
        note = described(heard)
        span = f"{clock(heard['start'])} – {clock(heard['end'])}"
        self._line(
            f"{self._listens:>2}  {span:<{LABEL - 4}}",
            (heard["start"], heard["end"]),
            f"  {note}" * bool(note) + told,
        )

    def replay(self, result: EchoResult) -> None:
        """Show a run that had ended before: its re-listens, since its text was shown then."""
        for record in result.relistens:
            self.relisten(record.model_dump())

    def answer(self, result: EchoResult) -> None:
        """The answer, and what it took."""
        from rich.text import Text

        self._end_line()
        if result.answer is None:
            self.console.print(Text(result.outcome, "bold red"))
        else:
            self.console.print(Text(printable(result.answer, lines=True), "bold"), soft_wrap=True)
        count = len(result.relistens)
        heard = f", {result.seconds_heard:.1f} s heard again" if count else ""
        how = "" if result.confidence is None else f"confidence {result.confidence:.0%}, "
        if result.forced:
            how += (
                "asked for at the end of the budget, " if result.budget_exhausted else "forced to a choice, "
            )
        seconds = sum(result.timings.values())
        line = f"{how}{count} re-listen{'s' * (count != 1)}{heard}; {seconds:.1f} s with {printable(result.model)}"
        self.console.print(Text(line, "dim"), soft_wrap=True)

    def _line(self, label: str, span: tuple[float, float] | None, after: str = "") -> None:
        from rich.text import Text

        colour = COLOURS[(self._listens - 1) % len(COLOURS)] if span else ""
        line = Text().append(f"{label}  ", colour)
        colourless = self.console.no_color or not self.console.color_system
        for piece, marked in sketch(self._peaks, self.duration, span, ascii_only=self._plain):
            if marked and colourless:
                piece = f"[{piece}]"
            line.append(piece, colour if marked else "bright_black")
        line.append(after, "dim")
        self.console.print(line, soft_wrap=True, highlight=False)

    def _write(self, text: str) -> None:
        """Go on with the reasoning, without blank lines at its start."""
        from rich.text import Text

        text = printable(text, lines=True)
        if not self._column:
            text = text.lstrip()
        if text:
            self.console.print(Text(text, "italic"), end="", soft_wrap=True)
            self._column = 0 if text.endswith("\n") else 1

    def _end_line(self) -> None:
        if self._column:
            self.console.print()
            self._column = 0
