"""``echo-agent report``: a page of a run that was kept as a trace; no model is loaded."""

from __future__ import annotations

from pathlib import Path

from echo_agent.cli.ask import check_output, check_page, quiet_decoders
from echo_agent.cli.status import StatusLine
from echo_agent.terminal import printable, say


def run(trace: str, page: str | None, audio: str | None) -> None:
    """Write the page, and say where it is."""
    if page is None:
        page = str(Path(trace).with_suffix(".html"))
    check_page("RUN.html", page)
    check_output("RUN.html", page, trace)
    with StatusLine() as status:
        status.say(f"reading {printable(trace)}")
        from echo_agent.pages.report import write_report
        from echo_agent.traces import read_trace, recording_of

        found = read_trace(Path(trace))
        with quiet_decoders():
            recording = recording_of(found, audio)
        check_output("RUN.html", page, recording.source)
        status.say(f"writing {printable(page)}")
        write_report(found, recording, Path(page))
    say(page)
