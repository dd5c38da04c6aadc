"""Where the command ``echo-agent`` begins: an interrupt is one line from the first import to the end of the process.

SIGTERM and SIGHUP (a cluster, a service or a closed terminal ends the command) are interrupts too: what is open is
closed and what is half written is removed. Then the process ends by that signal, as whoever sent it expects.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from echo_agent.exit_codes import INTERRUPTED
from echo_agent.terminal import guard

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals by which others end a command, of those that the system has."""


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    guard()
    asked: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    heard = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]  # `nohup` ignores one
    try:
        for number in heard:
            signal.signal(number, end)
        from echo_agent.cli import main as run

        code = run()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is over: closing takes no time
    except KeyboardInterrupt:
        code = INTERRUPTED
        print("echo-agent: interrupted", file=sys.stderr, flush=True)
    finally:
        for number in heard:
            signal.signal(number, signal.SIG_DFL)
    if code == INTERRUPTED:
        if asked:
            os.kill(os.getpid(), asked[0])
        os._exit(code)  # nobody waits for a thread that is loading a model
    sys.exit(code)
