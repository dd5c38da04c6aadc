"""The one way to the terminal: nothing reaches it that it would act on, whoever writes it.

Names of files, labels, categories, ids and answers come from strangers. An escape sequence in one of them could hide
what was printed before, move the cursor or set the title of the window. So while a command runs, standard output and
standard error are streams that write such characters out (:func:`guard`): what is printed, warned of or logged by
anybody goes through them, tracebacks too. Colours and bars, which need sequences of their own, are drawn by the console
of :mod:`echo_agent.console`, which writes out what stands in its texts. Errors say themselves in plain characters.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that are not shown as they are: controls, format characters (among them those that turn the
direction of writing), halves of surrogate pairs, separators of lines and paragraphs."""
_JOINERS = "\u200c\u200d"
"""Format characters that belong to words of several scripts and to emoji."""
_OF_BARS = re.compile(r"\r|(?:\x1b\[A)+$")
"""What the bars of downloads begin with, and how they go up to the line of another; tqdm writes them so."""


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with everything that a terminal would act on written out, such as ``\x1b`` for the escape character.

    Args:
        text: Any text; bytes of a file name that are not UTF-8 are halves of surrogate pairs, and shown as ``\udcff``.
        lines: Keep line breaks and tabs; else they are written out too, so that the text stays on one line.

    Returns:
        Text that can be encoded as UTF-8. Text that is plain already comes back as it is.
    """
    if text.isprintable():
        return text
    kept = _JOINERS + "\n\t" * lines
    return "".join(
        letter
        if letter in kept or unicodedata.category(letter) not in _HIDDEN
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def say(text: object = "", *, error: bool = False, end: str = "\n", flush: bool = False) -> None:
    """Print a text of any number of lines, to standard output or standard error."""
    print(printable(f"{text}", lines=True), end=end, file=sys.stderr if error else sys.stdout, flush=flush)


def say_json(value: Any, *, compact: bool = False) -> None:
    """Print a value as JSON on one line of ASCII, in which everything that a terminal acts on is escaped."""
    text = json.dumps(value, separators=(",", ":") if compact else None)
    print(text.replace("\x7f", "\\u007f"))  # the one control character that JSON leaves as it is


class _Plain:
    """A text stream that writes out what a terminal would act on, and is the stream beneath it in all else."""

    def __init__(self, beneath: TextIO, *, bars: bool) -> None:
        self.beneath = beneath
        self._bars = bars

    def write(self, text: str) -> int:
        """Write a text; returns how long it was."""
        start = 0
        if self._bars and (moves := _OF_BARS.match(text)):
            start = moves.end()
        self.beneath.write(text[:start] + printable(text[start:], lines=True))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # bytes would go around all this
            raise AttributeError(name)
        return getattr(self.beneath, name)


def beneath(stream: TextIO) -> TextIO:
    """The stream itself, for what draws with sequences of its own; under a picture that is redrawn by rich, too."""
    stream = getattr(stream, "rich_proxied_file", stream)
    return stream.beneath if isinstance(stream, _Plain) else stream


def guard() -> None:
    """Let nothing through standard output and standard error, from here on, that a terminal acts on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, _Plain):
            setattr(sys, name, _Plain(stream, bars=name == "stderr"))


@contextmanager
def guarded() -> Iterator[None]:
    """As :func:`guard`, for a while."""
    kept = sys.stdout, sys.stderr
    guard()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = kept
