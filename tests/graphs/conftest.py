"""What the graph tests share: one recording, and engines by script."""

import pytest

from echo_agent.audio.recording import Recording
from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine
from echo_agent.graphs import ListeningContext, build_listening_graph, initial_state
from echo_agent.stores import RecordingStore
from tests.scripted import scripted_family
from tests.tiny import sounds

CHOICES = ["a dog", "a cat"]


class Setup:
    """A store with a recording of 10 s, and models that follow scripts."""

    def __init__(self):
        self.store = RecordingStore()
        self.ref = self.store.add(Recording.from_array(sounds(10.0), 16000))
        self.graph = build_listening_graph()
        self._engines = {}

    def model(self, script, **options):
        key = (repr(script), repr(options))
        if key not in self._engines:
            self._engines[key] = TorchEngine(scripted_family(script, **options), self.store)
        return ChatLALM(self._engines[key])

    def context(self, script, sure=3.0, kind="qwen2.5-omni", **options):
        options.setdefault("stream_tokens", False)
        model = self.model(script, sure=sure, kind=kind)
        return ListeningContext(model=model, recordings=self.store, **options)

    def state(self, question="What barks?", choices=CHOICES, run=0):
        return initial_state(question, [self.ref], choices, run=run)

    def run(self, script, *, question="What barks?", choices=CHOICES, run=0, **options):
        return self.graph.invoke(self.state(question, choices, run), context=self.context(script, **options))

    def close(self):
        for engine in self._engines.values():
            engine.close()


@pytest.fixture(scope="session")
def setup():
    setup = Setup()
    yield setup
    setup.close()


def comparable(messages):
    """Messages without what differs from run to run (ids, timings, what was cached)."""
    kept = []
    for message in messages:
        data = message.model_dump()
        data.pop("id", None)
        metadata = dict(data.get("response_metadata") or {})
        metadata.pop("timings", None)
        metadata["tokens"] = {k: v for k, v in (metadata.get("tokens") or {}).items() if k != "cached"}
        data["response_metadata"] = metadata
        if data.get("usage_metadata"):
            data["usage_metadata"].pop("input_token_details", None)  # says what was cached
        kept.append(data)
    return kept
