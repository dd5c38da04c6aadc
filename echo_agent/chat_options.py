"""Names of the chat model's settings and call options: other names for them, and what is said about unknown ones."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

OPTIONS = ("temperature", "top_p", "seed", "run", "max_new_tokens", "max_repeats", "reserve", "choices")
"""Fields that a call may override."""

IGNORED = {"tools", "tool_choice", "stream", "strict", "parallel_tool_calls", "ls_structured_output_format"}
"""What LangChain hands to every model, and what changes nothing here."""


def renamed(options: dict[str, Any]) -> dict[str, Any]:
    """A copy of options, ``max_tokens`` under our name for it (None: the default). TypeError where both are given."""
    if "max_tokens" not in options:
        return {**options}
    rest = {key: value for key, value in options.items() if key != "max_tokens"}
    if "max_new_tokens" in rest:
        raise TypeError("max_tokens and max_new_tokens are two names for one thing: give one of them")
    return rest if options["max_tokens"] is None else rest | {"max_new_tokens": options["max_tokens"]}


def unknown_names(what: str, names: Sequence[str], known: Sequence[str]) -> str:
    """What is said about names that do not exist: the nearest of those that do, or all of them."""
    near = [f"{match[0]!r}" for name in names if (match := get_close_matches(name, known, n=1, cutoff=0.6))]
    hint = f"did you mean {' and '.join(dict.fromkeys(near))}?" if near else f"there are {', '.join(known)}"
    return f"ChatLALM has no {what} {', '.join(map(repr, names))}; {hint}"
