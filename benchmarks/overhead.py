"""What the software around the model costs: the command line's start, and the graph's own time per step.

- *help*: seconds of CPU (user and system, of the process and its children) of ``echo-agent --help``, which must load
  neither torch nor transformers;
- *step*: the listening graph with a chat model in place of the audio model that answers at once: it asks eight times to
  listen again, then answers. The wall clock of a run over its 19 steps; the time in the chat model's own function is
  taken off, what LangChain spends around it is not. Sync and async, and async under a checkpointer in memory.

Times are medians. Nothing is read from the recording: the tool answers with references.

    python benchmarks/overhead.py [--runs 50]

Prints one JSON line. ``ratio`` is goal over measured for whichever of the two is nearer to its limit (the help's CPU
seconds, goal 0.3; the slower of a sync and an async step, goal 2 ms): at least 1 where both goals are met.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver

from echo_agent import Recording, RecordingStore
from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, initial_state

HELP_GOAL, STEP_GOAL = 0.3, 2.0
"""Seconds, and milliseconds."""
RELISTENS = 8
STEPS = 2 * RELISTENS + 3
"""Listen, the model and the tool in turns, the model, answer."""


class Trivial(BaseChatModel):
    """Asks for another crop as long as the budget lasts, then answers; notes how long it took."""

    spent: list[float]

    @property
    def _llm_type(self) -> str:
        return "trivial"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """The model itself: it knows its one tool."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        began = time.perf_counter()
        heard = sum(isinstance(message, ToolMessage) for message in messages)
        if heard < RELISTENS:
            arguments = {"start": float(heard), "end": heard + 3.0}
            call: Any = {"name": "relisten", "args": arguments, "id": f"call_{heard}", "type": "tool_call"}
            message = AIMessage("Let me hear that again.", tool_calls=[call])
        else:
            message = AIMessage("<answer>a bell</answer>")
        result = ChatResult(generations=[ChatGeneration(message=message)])
        self.spent.append(time.perf_counter() - began)
        return result

    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate(messages)


def help_seconds(times: int) -> float:
    """Median CPU seconds of ``echo-agent --help``."""
    spent = []
    for _ in range(times + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [
            sys.executable,
            "-c",
            "import sys; from echo_agent.cli import main; sys.exit(main(['--help']))",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(spent[1:])


def step_milliseconds(runs: int) -> dict[str, float]:
    """Median milliseconds per step, for each way of running."""
    store = RecordingStore()
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, 16000 * 30).astype(np.float32)
    whole = store.add(Recording.from_array(samples, 16000))
    model = Trivial(spent=[])
    context = ListeningContext(
        model, store, Budget(max_relistens=RELISTENS), stream_tokens=False, deliver="reference"
    )
    given = initial_state("What rings?", [whole])
    plain, saved = build_listening_graph(), build_listening_graph(checkpointer=InMemorySaver())

    async def asynchronous(number: int) -> dict[str, Any]:
        return await plain.ainvoke(given, context=context)

    async def checkpointed(number: int) -> dict[str, Any]:
        return await saved.ainvoke(given, {"configurable": {"thread_id": str(number)}}, context=context)

    def timed(run: Callable[[int], dict[str, Any]]) -> float:
        spent = []
        for number in range(-5, runs):
            model.spent.clear()
            began = time.perf_counter()
            done = run(number)
            seconds = time.perf_counter() - began - sum(model.spent)
            if done["answer"] != "a bell" or done["spent"]["relistens"] != RELISTENS:
                raise SystemExit(f"the run was not the one to be timed: {done['status']}, {done['spent']}")
            spent.append(seconds)
        return 1000 * statistics.median(spent[5:]) / STEPS

    with asyncio.Runner() as runner:
        return {
            "sync": timed(lambda number: plain.invoke(given, context=context)),
            "async": timed(lambda number: runner.run(asynchronous(number))),
            "checkpointed": timed(lambda number: runner.run(checkpointed(number))),
        }


def main() -> None:
    """Measure both, print the line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=50, help="runs of the graph for each way of running")
    options = parser.parse_args()
    cpu = help_seconds(5)
    steps = step_milliseconds(options.runs)
    line = {
        "benchmark": "overhead",
        "ratio": round(min(HELP_GOAL / cpu, STEP_GOAL / max(steps["sync"], steps["async"])), 2),
        "goal": 1.0,
        "help_cpu_seconds": round(cpu, 3),
        "help_goal": HELP_GOAL,
        "step_ms": {way: round(value, 3) for way, value in steps.items()},
        "step_goal_ms": STEP_GOAL,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
