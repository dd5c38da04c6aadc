"""Counters of a server in the text form that Prometheus reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from echo_agent.serve.gate import Gate

if TYPE_CHECKING:
    from echo_agent.agent import EchoAgent
    from echo_agent.results import EchoResult

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120)


class Metrics:
    """Counters of one server; each has a registry of its own."""

    def __init__(self, agent: EchoAgent, gate: Gate) -> None:
        """Count from zero; gauges read the gate and the engine when they are asked."""
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "echo_agent_requests", "Requests for an answer by HTTP status; 499: the client left.", ["status"],
            registry=registry,
        )  # fmt: skip
        self._time = Histogram(
            "echo_agent_request_seconds", "From the first byte of a request to the last of its reply.",
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._tokens = Counter(
            "echo_agent_tokens", "Tokens by who wrote them.", ["origin"], registry=registry
        )
        self._relistens = Counter(
            "echo_agent_relistens", "Stretches that were heard again.", registry=registry
        )
        self._heard = Counter("echo_agent_seconds_heard", "Seconds of audio heard again.", registry=registry)
        self._unparsed = Counter("echo_agent_unparsed", "Runs without a readable answer.", registry=registry)
        for name, what, read in (
            ("running", "Runs at this moment.", lambda: gate.running),
            ("waiting", "Requests that are read or wait for their turn.", lambda: gate.waiting),
            ("engine_runs", "Runs in the engine's batch.", lambda: agent.engine.stats()["live_runs"]),
            ("kv_bytes", "Bytes of keys and values kept.", lambda: agent.engine.stats()["kv"]["nbytes"]),
            ("recording_bytes", "Bytes of recordings in memory.", lambda: agent.recordings.nbytes),
        ):
            Gauge(f"echo_agent_{name}", what, registry=registry).set_function(read)

    def request(self, status: int, seconds: float) -> None:
        """Count a request that has ended."""
        self._requests.labels(f"{status}").inc()
        self._time.observe(seconds)

    def run(self, result: EchoResult) -> None:
        """Count what came of a run."""
        trajectory = result.trajectory
        for origin in ("prompt", "sampled", "tool"):
            self._tokens.labels(origin).inc(trajectory.count(origin))
        self._relistens.inc(len(result.relistens))
        self._heard.inc(result.seconds_heard)
        self._unparsed.inc(result.answer is None)

    def text(self) -> bytes:
        """All of them, to be sent as :data:`CONTENT_TYPE`."""
        return generate_latest(self._registry)
