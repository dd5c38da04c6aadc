"""``echo-agent studio``: a page in the browser to try a model."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from echo_agent.cli.ask import load_agent
from echo_agent.cli.serve import bind
from echo_agent.cli.status import StatusLine
from echo_agent.errors import MissingExtraError
from echo_agent.serve.settings import KEY, check_key
from echo_agent.terminal import say


def run(host: str, port: int, *, model: str, device: str) -> None:
    """Serve the page until an interrupt."""
    key = os.environ.get(KEY) or None
    check_key(host, key)
    with bind(host, port) as found:  # before a model is loaded in vain
        number = found.getsockname()[1]
    with StatusLine() as status:
        status.say("loading the page")
        try:
            import gradio  # noqa: F401 - the page needs it
        except ImportError as error:
            raise MissingExtraError(
                f"echo-agent studio needs: pip install 'echo-agent[ui]' ({error.name})"
            ) from error
        from echo_agent.pages.studio import USER, Studio, build, launch

        with load_agent(model, device, status) as agent:
            page = build(Studio(agent))
            status.clear()
            address = launch(page, host, number, key=key)
            user = f" (user {USER}, the key is the password)" if key else ""
            say(f"{agent.family.name} at {address}{user}; Ctrl-C stops it", flush=True)
            with suppress(KeyboardInterrupt):
                while True:
                    time.sleep(1)
            page.close(verbose=False)
    say("stopped", flush=True)
