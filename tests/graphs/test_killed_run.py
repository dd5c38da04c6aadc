"""A run that is killed between any two of its steps goes on from its checkpoint in another process, as the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import soundfile

from tests.tiny import sounds

RUN = textwrap.dedent(
    """
    import json, os, signal, sys, traceback
    from langgraph.checkpoint.sqlite import SqliteSaver
    from echo_agent.chat import ChatLALM
    from echo_agent.engine import TorchEngine
    from echo_agent.graphs import Budget, ListeningContext, build_listening_graph, checkpoint_serializer, initial_state
    from echo_agent.graphs.calls import replies_of
    from echo_agent.audio.recording import Recording
    from echo_agent.messages import trajectory_of
    from echo_agent.stores import RecordingStore
    from tests.scripted import ASK_FOREVER, scripted_family

    SCRIPT = {**ASK_FOREVER, "<think>": "<seg>5.0, 6.0</seg>"}


    class Saver(SqliteSaver):
        '''Dies right before it writes for the n-th time.'''

        left = 0

        def count(self):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def put(self, *args, **kwargs):
            self.count()
            return super().put(*args, **kwargs)

        def put_writes(self, *args, **kwargs):
            self.count()
            return super().put_writes(*args, **kwargs)


    def run(database, wav, at):
        store = RecordingStore()
        ref = store.add(Recording.open(wav))
        heard = []
        with TorchEngine(scripted_family(SCRIPT), store) as engine, Saver.from_conn_string(database) as saver:
            saver.left, saver.serde = at, checkpoint_serializer()
            context = ListeningContext(ChatLALM(engine), store, Budget(max_relistens=2), stream_tokens=False)
            graph = build_listening_graph(context, saver)
            config = {"configurable": {"thread_id": "t"}}
            begun = graph.get_state(config)
            # As EchoAgent does: what has a question goes on, also where no next node was noted yet.
            given = None if "question" in begun.values else initial_state("What barks?", [ref], ["a dog", "a cat"])
            if begun.values.get("status") is not None:
                done = begun.values
            else:
                done = graph.invoke(given, config, durability="sync")
        trajectory = trajectory_of(done["messages"])
        replies = [reply.to_json() for reply in replies_of(done["messages"])]
        told = {key: done[key] for key in ("answer", "status", "choice_index", "spent", "budget_exhausted", "settings")}
        return {**told, "ids": trajectory.ids, "audio": [ref.key() for ref in trajectory.audio], "replies": replies,
                "written": -saver.left}


    # One process imports everything; each run is a child of its own that was forked before torch computed anything.
    for line in sys.stdin:
        database, wav, at, out = json.loads(line)
        child = os.fork()
        if not child:
            try:
                result = run(database, wav, at)
                with open(out, "w") as file:
                    json.dump(result, file)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
    """
)


class Runs:
    """Runs in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.wav = folder, folder / "talk.wav"
        soundfile.write(self.wav, sounds(10.0), 16000)
        env = {**os.environ, "PYTHONPATH": os.getcwd()}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", RUN],
            env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, database: str, at: int = 0) -> tuple[int, Any]:
        """Begin or resume the run in a database; how its process ended, and what came of it."""
        out = self.folder / "out.json"
        out.unlink(missing_ok=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        print(
            json.dumps([str(self.folder / database), str(self.wav), at, str(out)]),
            file=self.process.stdin,
            flush=True,
        )
        status = int(self.process.stdout.readline())
        return status, json.loads(out.read_text()) if out.exists() else None


@pytest.mark.slow
def test_killed_at_every_write_it_is_the_run_it_would_have_been(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    try:
        _, whole = runs.run("whole.sqlite")
        assert whole["answer"] == "a dog" and len(whole["replies"]) == 3
        steps = whole.pop("written")
        assert steps >= 2 * 8, "the input, seven nodes, and what each of them wrote"
        for at in range(1, steps + 1):
            database = f"killed-{at}.sqlite"
            status, nothing = runs.run(database, at)
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and nothing is None
            status, resumed = runs.run(database)
            assert status == 0
            resumed.pop("written")
            assert resumed == whole, f"killed before write {at}"
    finally:
        runs.process.communicate()


@pytest.mark.slow
def test_killed_again_and_again_it_ends(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    try:
        _, whole = runs.run("whole.sqlite")
        whole.pop("written")
        for _ in range(60):
            status, done = runs.run("killed.sqlite", at=3)
            if done is not None:
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
        else:
            pytest.fail("it makes no progress")
        done.pop("written")
        assert done == whole
    finally:
        runs.process.communicate()
