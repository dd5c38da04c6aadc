"""Tables, colours and bars of progress: a console that draws, and shows the text of others without obeying it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.text import Text

from echo_agent.terminal import beneath, printable

PAGE = 130
"""Characters of a line where there is no terminal."""


class PlainConsole(Console):
    """A console of rich, in whose texts nothing is left that a terminal acts on."""

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as text; written out first, so that its width is known, and nothing of it is dropped."""
        return super().render_str(printable(text, lines=True), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of which something is drawn; what moves the cursor is a piece of its own, without text."""
        for piece in super().render(renderable, options):
            if piece.control or piece.text.isprintable():
                yield piece
            else:
                yield Segment(printable(piece.text, lines=True), piece.style)


def console(*, error: bool = False) -> PlainConsole:
    """The console of standard output or standard error, in which square brackets are square brackets."""
    stream = beneath(sys.stderr if error else sys.stdout)
    settings: dict[str, Any] = {"file": stream, "markup": False, "emoji": False, "highlight": False}
    made = PlainConsole(**settings)
    return made if made.is_terminal else PlainConsole(**settings, width=PAGE)


def progress(title: str, *, transient: bool = False) -> Progress:
    """Bars on standard error, with what is left of the time; nothing where that is no terminal.

    Args:
        title: What stands before a bar; ``{task.description}`` is the name that it is given.
        transient: Take them away in the end.
    """
    shown = console(error=True)
    columns = (TextColumn(title, markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=shown, disable=not shown.is_terminal, transient=transient)
