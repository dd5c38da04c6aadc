"""The studio around a model that is loaded here: a large one, or one of your own.

    python examples/studio.py [MODEL] [PORT]

Needs ``pip install 'echo-agent[ui]'``.
"""

from __future__ import annotations

import sys
import threading

from echo_agent import EchoAgent
from echo_agent.pages.studio import Studio, build, launch


def main(model: str = "echo-nano", port: str = "7860") -> None:
    """Load, and serve until Ctrl-C."""
    with EchoAgent.from_pretrained(model) as agent:
        print(launch(build(Studio(agent)), "127.0.0.1", int(port)), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
