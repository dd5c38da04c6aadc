"""Text from outside: reading it, whatever its encoding, and the JSON in it."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

from echo_agent.errors import DataError


def read_text(path: Path, what: str) -> str:
    """All of a text file, in whichever Unicode encoding it was written.

    UTF-8, UTF-16 and UTF-32 are told by the byte order mark or, without one, by where the zero bytes stand
    (PowerShell's ``>`` writes UTF-16). Nothing else is guessed: the encodings of single bytes cannot be told apart.

    Args:
        path: The file.
        what: What it should hold, as the message says it: "questions".

    Raises:
        DataError: It cannot be read, or is no Unicode text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {what} from {path}: {error.strerror or error}") from None
    encoding = encoding_of(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DataError(
            f"cannot read {what} from {path}: it is not {name} text (byte {error.start}); save it as UTF-8"
        ) from None


def encoding_of(data: bytes) -> str:
    """The Unicode encoding of a text, with the name that Python has for it; UTF-8 where nothing speaks for another."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    zeros = "".join("0" if byte == 0 else "x" for byte in data[:4])
    return _WITHOUT_MARK.get(zeros, "utf-8-sig")


_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""The longer ones first: that of UTF-32 begins with that of UTF-16."""
_WITHOUT_MARK = {
    "x0x0": "utf-16-le",
    "0x0x": "utf-16-be",
    "x000": "utf-32-le",
    "000x": "utf-32-be",
}
"""Which of the first four bytes are zero (``0``) where a text begins with two letters of ASCII."""


def parse_json(text: str) -> object:
    """The value that a JSON text holds.

    Raises:
        ValueError: It is no JSON, is nested deeper than :data:`DEEPEST`, or holds an integer of thousands of digits;
            with a message of one line.
    """
    try:
        value: object = json.loads(text)
    except RecursionError:  # how deep that is depends on the Python
        raise ValueError(_TOO_DEEP) from None
    if text.count("[") + text.count("{") > DEEPEST and _depth(value) > DEEPEST:
        raise ValueError(_TOO_DEEP)
    return value


DEEPEST = 100
"""Levels of brackets that are read: whatever handles them further takes a few calls for each."""
_TOO_DEEP = f"its brackets are nested more than {DEEPEST} deep"


def _depth(value: object) -> int:
    """How deep lists and objects are nested, level by level without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth
