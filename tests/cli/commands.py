"""What a command gives, and what one that is refused looks like."""

from __future__ import annotations

import re
from collections.abc import Callable

RATE = 16000
Result = tuple[int, str, str]
Run = Callable[..., Result]


def refused(result: Result, message: str) -> str:
    """Exit code 2, nothing on stdout, and one line on stderr that says what was wrong."""
    code, out, err = result
    assert (code, out) == (2, ""), result
    assert re.fullmatch(r"echo-agent: [^\n]+\n", err), err
    assert message in err
    assert "Traceback" not in err and "unexpected" not in err
    return err
