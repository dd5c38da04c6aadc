"""Stop strings, loops and streamed text, token by token, without tokenising anything again.

A stop string may be one token, be spread over several, or end in the middle of a token (``</seg>.``); in the last case
the token is kept whole. Text is only made where it must be: a token can complete a stop string only if its own text
holds the string's last character, which is looked up once per token id, so most tokens cost one dictionary look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Detokenize = Callable[[Sequence[int]], str]
"""Ids to text, as ``Family.detokenize``."""

REPLACEMENT = "\ufffd"
"""What a tokenizer puts in place of bytes that are not (yet) a character."""

_LONGEST_BLOCK = 64
_SHORTEST_LOOP = 8

_MARGIN = 4
"""Tokens looked back on beyond one per byte of the stop string: some tokens have no text."""


class StopStrings:
    """The stop strings of some runs; one object serves all runs with the same strings."""

    def __init__(self, strings: Sequence[str], detokenize: Detokenize) -> None:
        """Watch for ``strings``; texts come from ``detokenize``."""
        self._strings = tuple(strings)
        self._detokenize = detokenize
        self._last = {text[-1] for text in strings}
        # The end of a string may not show in its token alone: a character of several tokens, or a space at a token's
        # beginning that some tokenizers write only after other text. Then every token is looked at.
        self._always = any(not char.isascii() or char.isspace() for char in self._last)
        self._window = max((len(text.encode()) for text in strings), default=0) + _MARGIN
        self._may_end: dict[int, bool] = {}

    def found(self, ids: Sequence[int]) -> str | None:
        """The stop string that the last of the sampled ``ids`` completes; of several, the one that ends first."""
        if not self._strings:
            return None
        may_end = self._may_end.get(ids[-1])
        if may_end is None:
            may_end = self._always or not self._last.isdisjoint(self._detokenize([ids[-1]]))
            self._may_end[ids[-1]] = may_end
        if not may_end:
            return None
        text = self._detokenize(ids[-self._window :])
        ends = [
            (text.find(string) + len(string), -len(string), string)
            for string in self._strings
            if string in text
        ]
        return min(ends)[2] if ends else None


def is_loop(ids: Sequence[int], repeats: int) -> bool:
    """Whether ``ids`` end with a block of at most 64 ids and ``repeats`` repeats of it, at least 8 ids in all.

    Shorter loops are left alone: a row of dots, or of equal digits, is ordinary text.
    """
    for size in range(1, min(_LONGEST_BLOCK, len(ids) // (repeats + 1)) + 1):
        if ids[-1] != ids[-1 - size]:
            continue
        length = max(size * (repeats + 1), _SHORTEST_LOOP)
        if len(ids) >= length and ids[-length:-size] == ids[size - length :]:
            return True
    return False


class TextStream:
    """Text of a growing sequence of ids, given out only in whole characters.

    The pieces given out, put together, are the text of all the ids: what is held back is given out by :meth:`rest`.
    """

    def __init__(self, detokenize: Detokenize) -> None:
        """Start empty."""
        self._detokenize = detokenize
        self._ids: list[int] = []
        self._settled = 0  # ids before this one have been given out, and so have those from here to _given
        self._given = 0

    def push(self, token: int) -> tuple[list[int], str] | None:
        """Take one more id: the ids and the text that are ready now, or None while a character is incomplete."""
        self._ids.append(token)
        text = self._piece()
        if text.endswith(REPLACEMENT):
            return None
        return self._give(text)

    def rest(self) -> tuple[list[int], str]:
        """What was held back; both parts are empty where nothing was."""
        if self._given == len(self._ids):
            return [], ""
        return self._give(self._piece())

    def _piece(self) -> str:
        """Text of the ids that have not been given out, as it reads after those before them."""
        before = self._detokenize(self._ids[self._settled : self._given])
        return self._detokenize(self._ids[self._settled :])[len(before) :]

    def _give(self, text: str) -> tuple[list[int], str]:
        ids = self._ids[self._given :]
        self._settled, self._given = self._given, len(self._ids)
        return ids, text
