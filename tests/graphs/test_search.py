"""Long recordings: searched in the same graph, with the same budgets, by models that follow scripts."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from langgraph.checkpoint.memory import InMemorySaver

from echo_agent.audio.recording import Recording
from echo_agent.chat import ChatLALM
from echo_agent.engine import TorchEngine
from echo_agent.errors import RecordingTooLongError
from echo_agent.families.base import Limits, Note
from echo_agent.graphs import (
    Budget,
    ListeningContext,
    build_listening_graph,
    checkpoint_serializer,
    initial_state,
)
from echo_agent.graphs.calls import replies_of
from echo_agent.graphs.search import windows_of
from echo_agent.graphs.search_record import SearchRecord
from echo_agent.messages import trajectory_of
from echo_agent.results import result_of
from echo_agent.stores import RecordingStore
from tests.scripted import ASK_ONCE, START, Script, scripted_family
from tests.tiny import sounds, tiny_family

CHOICES = ["a dog", "a cat"]
LIMITS = Limits(shortest=0.5, longest_crop=8.0, longest_recording=8.0)
SECONDS = 61.5
SAYS_SEVEN: Script = {
    START: "<think>",
    "<think>": "</think>",
    "</think>": "<answer>",
    "<answer>": " 7",
    " 7": " s",
    " s": "</answer>",
}


class Long:
    """A recording of a minute, and a model that can be asked about eight seconds."""

    def __init__(self, script: Script, kind: str) -> None:
        self.store = RecordingStore()
        self.ref = self.store.add(Recording.from_array(sounds(SECONDS), 16000))
        self.family = scripted_family(script, kind=kind)
        self.family.limits = LIMITS
        self.engine = TorchEngine(self.family, self.store)
        self.graph = build_listening_graph()

    def context(self, **options: Any) -> ListeningContext:
        return ListeningContext(
            model=ChatLALM(self.engine), recordings=self.store, stream_tokens=False, **options
        )

    def run(self, question: str = "What barks?", choices: list[str] | None = CHOICES, **options: Any) -> Any:
        state = initial_state(question, [self.ref], choices)
        return self.graph.invoke(state, context=self.context(**options))


@pytest.fixture(scope="module")
def nano():
    long = Long(ASK_ONCE, "echo-nano")
    yield long
    long.engine.close()


@pytest.fixture(scope="module")
def omni():
    long = Long(ASK_ONCE, "qwen2.5-omni")
    yield long
    long.engine.close()


def ears(monkeypatch: pytest.MonkeyPatch, nano: Long, at: float) -> None:
    """Every listen tells of a dog at one second of the recording, and of nothing else."""

    def notes(ref: Any, features: Any) -> list[Note]:
        step = ref.duration / 12
        spans = [(i * step, (i + 1) * step) for i in range(12)]
        return [Note(a, b, {"dog": 0.9 if a <= at - ref.origin < b else 0.1}) for a, b in spans]

    monkeypatch.setattr(nano.family, "notes", notes)


def test_a_window_is_found_and_asked_about_on_its_own_clock(
    nano: Long, monkeypatch: pytest.MonkeyPatch
) -> None:
    ears(monkeypatch, nano, at=50.0)
    state = nano.run("Where is the dog?")
    assert (state["answer"], state["status"]) == ("a dog", "answered")
    result = result_of(state, nano.family)
    record = result.search
    assert record is not None and record.window is not None
    first, *narrowed = record.listens
    assert (first.start, first.end) == (0.0, SECONDS) and len(narrowed) == 1
    assert record.window == (narrowed[0].start, narrowed[0].end)
    start, end = record.window
    assert start < 50.0 < end and end - start < SECONDS and record.unheard == ()
    heard = trajectory_of(state["messages"]).audio
    window = nano.ref.window(int(start), end)
    assert heard == (window, window.span(2.0, 4.0))  # the policy's own call: seconds 2 to 4 of its clock
    (relisten,) = result.relistens
    assert (relisten.start, relisten.end) == (start + 2.0, start + 4.0)
    assert state["spent"] == {
        "relistens": 2,
        "seconds": end - start + 2.0,
        "tokens": state["spent"]["tokens"],
    }
    assert any(f"{start:.0f} to {end:.0f} s" in note for note in record.notes("echo-nano"))


def test_without_a_stream_the_first_listens_are_to_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Long(ASK_ONCE, "echo-nano")
    long.family = tiny_family("echo-small")
    long.family.limits = LIMITS
    long.engine.close()
    long.engine = TorchEngine(long.family, long.store)
    try:
        told = SearchRecord.of(long.run(budget=Budget(max_relistens=0, max_new_tokens=8)))
        assert told is not None and told.window is not None  # of what untaught ears hear
        ears(monkeypatch, long, at=50.0)
        for most, listens in ((0, 8), (3, 9)):
            state = long.run("Where is the dog?", budget=Budget(max_relistens=most, max_new_tokens=8))
            record = SearchRecord.of(state)
            assert record is not None and record.window is not None and len(record.listens) == listens
            assert [one.start for one in record.listens[:8]] == [8.0 * i for i in range(8)]
            assert record.window[0] <= 50.0 < record.window[1]
            assert trajectory_of(state["messages"]).audio[0].origin == record.window[0]
    finally:
        long.engine.close()


def test_without_re_listens_the_whole_is_heard_once(nano: Long) -> None:
    state = nano.run(budget=Budget(max_relistens=0))
    record = SearchRecord.of(state)
    assert record is not None and record.window is None and len(record.listens) == 1
    assert trajectory_of(state["messages"]).audio == (nano.ref,)
    assert state["spent"]["relistens"] == 0 and state["budget_exhausted"]


def test_a_budget_of_seconds_holds_for_the_search_too(nano: Long) -> None:
    state = nano.run(budget=Budget(max_seconds=10.0))
    assert state["spent"]["seconds"] <= 10.0 and SearchRecord.of(state).window is None  # type: ignore[union-attr]


def test_a_time_is_given_on_the_clock_of_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Long(SAYS_SEVEN, "echo-nano")
    try:
        ears(monkeypatch, long, at=50.0)
        state = long.run("When is a dog heard?", None, implied=True, guided=False)
        assert SearchRecord.of(state).window[0] > 0  # type: ignore[union-attr,index]
        choices = ["3 s", "20 s", "44 s", "61 s"]
        for length in (["3 s", "4 s"], ["twice", "60 times"]):
            record = SearchRecord.of(long.run("How long does the dog bark?", length))
            assert record is not None and record.choices is None
        given = long.run("What is the starting time of the dog?", choices)
        record = SearchRecord.of(given)
        assert record is not None and record.window is not None and record.choices is not None
        assert record.choices[:2] == ("0 s", "1 s") and len(record.choices) <= 62
        assert given["answer"] in choices and choices[given["choice_index"]] == given["answer"]
        said = result_of(given, long.family).text
        second = record.window[0] + int(said.rpartition("<answer>")[2].split(" s")[0])
        assert given["answer"] == min(choices, key=lambda choice: abs(int(choice[:-2]) - second))
    finally:
        long.engine.close()


def test_a_part_of_the_recording_is_told_by_the_second_in_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    long = Long(SAYS_SEVEN, "echo-nano")
    try:
        parts = ["the first half", "the second half"]
        for at, part in ((5.0, 0), (50.0, 1)):
            ears(monkeypatch, long, at)
            state = long.run("Cut it in two. In which half is the dog?", parts)
            record = SearchRecord.of(state)
            assert record is not None and record.choices is not None and record.choices[0] == "0 s"
            assert (state["answer"], state["choice_index"]) == (parts[part], part)
    finally:
        long.engine.close()


def test_the_policy_is_asked_in_a_window_before_the_next_place_is_heard(
    nano: Long, monkeypatch: pytest.MonkeyPatch
) -> None:
    def notes(ref: Any, features: Any) -> list[Note]:
        step = ref.duration / 24
        spans = [(i * step, (i + 1) * step) for i in range(24)]
        there = {"dog": (6.5, 40.5), "voice": (9.5, 44.5)}
        return [
            Note(
                a, b, {n: 0.9 if any(a <= t - ref.origin < b for t in at) else 0.1 for n, at in there.items()}
            )
            for a, b in spans
        ]

    monkeypatch.setattr(nano.family, "notes", notes)
    question, words = "Which word is said right after the dog?", ["red", "blue"]
    plain = nano.run(question, words, budget=Budget(max_relistens=5, max_new_tokens=1024))
    record = SearchRecord.of(plain)
    assert record is not None and record.window is not None and len(record.listens) > 3
    assert len(record.listens) - 1 + len(result_of(plain, nano.family).relistens) <= 5
    start, end = record.window
    assert start < 9.5 < end or start < 44.5 < end
    assert plain["answer"] in words
    poor = nano.run(question, words, budget=Budget(max_relistens=5, max_new_tokens=70))
    assert poor["answer"] in words  # too few tokens to ask twice
    assert plain["spent"]["tokens"] > poor["spent"]["tokens"]
    open_one = nano.run(question, None, budget=Budget(max_relistens=5))
    opened = SearchRecord.of(open_one)
    assert opened is not None and opened.window is not None and opened.window[1] - opened.window[0] <= 20.0


def test_other_models_write_a_timeline_and_hear_crops_of_the_whole(omni: Long) -> None:
    state = omni.run()
    record = SearchRecord.of(state)
    assert record is not None and record.window is None and record.unheard == ()
    spans = [(8.0 * i, min(8.0 * i + 8, SECONDS)) for i in range(8)]
    assert [(one.start, one.end) for one in record.listens] == spans
    question = state["messages"][0]
    for one in record.listens:
        assert f"{one.start:.0f}-{one.end:.0f} s: {one.said or 'nothing'}" in question.text
    assert question.text.index("62 s long") < question.text.index("What barks?")
    assert trajectory_of(state["messages"]).audio == (omni.ref.span(2.0, 4.0),)
    assert state["answer"] == "a dog" and state["spent"]["tokens"] > 7


def test_what_the_tokens_do_not_reach_is_never_heard_and_said_so(omni: Long) -> None:
    state = omni.run(budget=Budget(max_new_tokens=16))
    record = SearchRecord.of(state)
    assert record is not None and 0 < len(record.listens) < 8
    assert record.unheard == ((record.listens[-1].end, SECONDS),)
    assert f"{record.listens[-1].end:.0f}-62 s: not heard" in state["messages"][0].text
    assert any("never heard" in note for note in record.notes("omni"))
    dumped = result_of(state, omni.family).model_dump(mode="json")
    assert dumped["search"]["unheard"] == [[record.listens[-1].end, SECONDS]]
    assert "done" not in dumped["search"] and "choices" not in dumped["search"]


@pytest.mark.parametrize("kind", ["echo-nano", "qwen2.5-omni"])
def test_async_and_resumed_runs_are_the_same(kind: str, nano: Long, omni: Long) -> None:
    long = nano if kind == "echo-nano" else omni
    plain = long.run()
    state = initial_state("What barks?", [long.ref], CHOICES)
    awaited = asyncio.run(long.graph.ainvoke(state, context=long.context()))
    graph = build_listening_graph(checkpointer=InMemorySaver(serde=checkpoint_serializer()))
    config: Any = {"configurable": {"thread_id": "long"}}
    steps = 0
    for _ in graph.stream(state, config, context=long.context(), durability="sync"):
        steps += 1
        if steps == 2:  # within the search
            break
    assert graph.get_state(config).next
    resumed = graph.invoke(None, config, context=long.context())
    for other in (awaited, resumed):
        assert other["search"] == plain["search"] and other["answer"] == plain["answer"]
        assert [reply.ref for reply in replies_of(other["messages"])] == [
            reply.ref for reply in replies_of(plain["messages"])
        ]


def test_several_recordings_of_which_one_is_long_are_refused(omni: Long) -> None:
    short = omni.store.add(Recording.from_array(sounds(2.0, seed=3), 16000))
    with pytest.raises(RecordingTooLongError, match="one of several"):
        omni.graph.invoke(initial_state("What barks?", [short, omni.ref], CHOICES), context=omni.context())


def test_gold_spans_lie_on_the_clock_of_the_window(nano: Long, monkeypatch: pytest.MonkeyPatch) -> None:
    ears(monkeypatch, nano, at=50.0)
    state = nano.run("Where is the dog?", control="oracle", gold_spans=((49.0, 51.0),))
    (relisten,) = result_of(state, nano.family).relistens
    assert relisten.instead is not None
    assert (relisten.instead.start, relisten.instead.end) == (49.0, 51.0)


def test_windows_cover_a_recording() -> None:
    ref = Recording.from_array(np.zeros(8000 * 61, np.float32), 8000).ref()
    for longest in (7.5, 20.0, 60.9, 61.0):
        windows = windows_of(ref, longest)
        assert all(window.duration <= longest for window in windows)
        ends = [window.origin + window.duration for window in windows]
        assert ends == [*(window.origin for window in windows[1:]), 61.0] and windows[0].origin == 0.0


def test_a_window_of_a_file_is_its_samples() -> None:
    recording = Recording.from_array(sounds(9.0, rate=44100), 44100)
    window = recording.ref().window(3, 7.25)
    crop = window.span(1.0, 2.5)
    assert window.is_whole and not crop.is_whole and crop.key() != recording.ref(1.0, 2.5).key()
    np.testing.assert_array_equal(recording.crop(crop, 16000), recording.read(4.0, 5.5, 16000))
    again = type(crop).model_validate_json(crop.model_dump_json())
    assert again == crop and "origin" not in recording.ref().model_dump()
