"""Ask a recording, and write the page of the run.

python examples/report_of_a_run.py [RECORDING] [QUESTION] [PAGE]
"""

from __future__ import annotations

import sys
from pathlib import Path

from echo_agent import EchoAgent, Recording
from echo_agent.pages.report import write_report
from echo_agent.traces import trace_of


def main(
    path: str = str(Path(__file__).with_name("01.flac")),
    question: str = "Which digits are spoken after the drum?",
    page: str = "run.html",
) -> None:
    """Ask, say the answer, write the page."""
    recording = Recording.open(path)
    with EchoAgent.from_pretrained("echo-nano") as agent:
        result = agent.ask(recording, question)
        trace = trace_of(agent, recording, question, None, {}, result)
    write_report(trace, recording, Path(page))
    print(f"{result.answer}: see {page}")


if __name__ == "__main__":
    main(*sys.argv[1:])
