"""What is going on, on stderr where that is a terminal: from the first second on, until there is something to read."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live


class StatusLine:
    """One line that says what is being done; nothing at all where stderr is no terminal."""

    def __init__(self) -> None:
        """Say nothing yet."""
        self._console: Console | None = None
        self._live: Live | None = None
        if sys.stderr.isatty():
            from echo_agent.console import console

            made = console(error=True)
            self._console = made if made.is_terminal else None

    @property
    def shown(self) -> bool:
        """Whether there is a terminal to show it in."""
        return self._console is not None

    def say(self, text: str) -> None:
        """Show ``text`` in place of what was shown before."""
        if self._console is None:
            return
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        shown = Spinner("dots", Text(text, "dim"))
        if self._live is None:
            self._live = Live(shown, console=self._console, transient=True)
            self._live.start(refresh=True)
        else:
            self._live.update(shown, refresh=True)

    def line(self, text: str) -> None:
        """Print a line that stays, with nothing in motion below it (downloads show bars of their own)."""
        self.clear()
        if self._console is not None:
            self._console.print(text, style="dim")

    def clear(self) -> None:
        """Take the line away: something else is about to be printed."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        """The line itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take it away."""
        self.clear()
