"""What the exit code of a command says. Imports nothing, so that an interrupt is one line from the first import on."""

from __future__ import annotations

UNEXPECTED = 1
"""A mistake of ours."""
BAD_INPUT = 2
"""The input cannot be used; one line on stderr says why."""
UNPARSED = 3
"""The model gave no answer that can be read."""
NOT_UNDERSTOOD = 4
"""The model was not asked: the question has words that it does not know, or is in another language than its own."""
INTERRUPTED = 130
"""Ctrl-C."""
