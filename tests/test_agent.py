"""The agent in front of it all: asking, batches, threads, and bad input."""

import asyncio
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

import echo_agent
from echo_agent import EchoAgent, EchoResult, Recording
from echo_agent.errors import ModelError, QuestionError, RecordingError, RecordingTooLongError
from tests.scripted import ASK_FOREVER, ASK_ONCE, UNSURE, scripted_family
from tests.tiny import sounds

CHOICES = ["a dog", "a cat"]
SAMPLES = sounds(10.0)
AUDIO = (SAMPLES, 16000)


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    folder = tmp_path_factory.mktemp("agent")
    with EchoAgent(scripted_family(ASK_ONCE), checkpoints=folder / "threads.sqlite") as agent:
        yield agent


@pytest.fixture(scope="module")
def unsure(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unsure")
    with EchoAgent(scripted_family(UNSURE, sure=2.0), checkpoints=folder / "threads.sqlite") as agent:
        yield agent


def same(a: EchoResult, b: EchoResult):
    assert a.model_dump(exclude={"timings"}) == b.model_dump(exclude={"timings"})
    assert a.trajectory.ids == b.trajectory.ids
    assert np.allclose(a.trajectory.logprobs, b.trajectory.logprobs, atol=1e-4)


def test_the_result_says_everything(agent):
    result = agent.ask(AUDIO, "What barks?", CHOICES)
    data = json.loads(result.model_dump_json())
    assert set(data["timings"]) == {"load", "encode", "prefill", "decode"}
    assert data["timings"]["prefill"] > 0
    del data["timings"]
    prompt = data["tokens"].pop("prompt")
    assert data == {
        "answer": "a dog",
        "status": "answered",
        "budget_exhausted": False,
        "choice_index": 0,
        "relistens": [
            {
                "start": 2.0,
                "end": 4.0,
                "speed": 1.0,
                "low_hz": None,
                "high_hz": None,
                "gain_db": 0.0,
                "seconds": 2.0,
                "observation": "",
            }
        ],
        "seconds_heard": 2.0,
        "tokens": {"sampled": 7, "audio": 250 + 50},
        "model": "tiny-qwen2.5-omni",
        "text": "<think><seg>2.0, 4.0</seg>a dog barks</think><answer>a dog</answer>",
    }
    assert prompt == len(result.trajectory.segments[0].ids) > 250
    assert result.failed_calls == 0 and len(result.messages) == 4


def test_audio_comes_as_a_path_an_array_or_a_recording(agent, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, SAMPLES, 16000, subtype="FLOAT")
    first = agent.ask(AUDIO, "What barks?", CHOICES)
    for audio in (path, str(path), Recording.open(path), Recording.from_array(SAMPLES, 16000)):
        other = agent.ask(audio, "What barks?", CHOICES)
        assert other.text == first.text and other.trajectory.ids == first.trajectory.ids
        assert np.allclose(other.trajectory.logprobs, first.trajectory.logprobs, atol=1e-4)
    assert sum(ref.in_memory for ref in [first.trajectory.audio[0]]) == 1
    assert agent.recordings.nbytes == 0, "samples are let go of when no run needs them"


def test_a_callers_array_may_change_afterwards(agent):
    samples = SAMPLES.copy()
    first = agent.ask((samples, 16000), "What barks?")
    samples[:] = 0
    assert agent.ask(AUDIO, "What barks?").trajectory.logprobs == pytest.approx(
        first.trajectory.logprobs, abs=1e-4
    )


async def test_sync_async_and_batches_agree(unsure):
    options = {"temperature": 1.0, "seed": 2, "max_new_tokens": 24}
    alone = [unsure.ask(AUDIO, "What barks?", CHOICES, run=run, **options) for run in range(6)]
    assert len({result.text for result in alone}) > 1
    asks = [{"audio": AUDIO, "question": "What barks?", "choices": CHOICES}] * 6
    together = await unsure.abatch(asks, **options)
    threaded = await asyncio.to_thread(unsure.batch, asks, **options)
    gathered = await asyncio.gather(*(unsure.aask(**ask, run=i, **options) for i, ask in enumerate(asks)))
    for results in (together, threaded, gathered):
        for ours, single in zip(results, alone, strict=True):
            same(ours, single)
    assert unsure.batch([]) == [] and await unsure.abatch([]) == []
    assert unsure.recordings.nbytes == 0


def test_many_threads_may_ask(unsure):
    def ask(i):
        return unsure.ask((sounds(4.0 + i % 3, seed=i), 16000), "What barks?", CHOICES, temperature=1.0, run=i,
                          max_new_tokens=24)  # fmt: skip

    alone = [ask(i) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for ours, single in zip(pool.map(ask, range(8)), alone, strict=True):
            same(ours, single)


async def test_asking_works_inside_a_running_event_loop(agent):
    same(agent.ask(AUDIO, "What barks?", CHOICES), await agent.aask(AUDIO, "What barks?", CHOICES))


async def test_a_batch_ends_with_its_first_error(agent):
    good = {"audio": AUDIO, "question": "What barks?"}
    with pytest.raises(ExceptionGroup) as caught:
        await agent.abatch([good, {"audio": "missing.wav", "question": "?"}, good])
    assert caught.group_contains(RecordingError)


# --- options ----------------------------------------------------------------------------------------------------


def test_events_come_as_it_goes(agent):
    events = []
    result = agent.ask(AUDIO, "What barks?", CHOICES, on_event=events.append)
    assert "".join(e["text"] for e in events if e["type"] == "token") == result.text
    assert [e["type"] for e in events if e["type"] != "token"] == ["relisten", "answer"]
    same(result, agent.ask(AUDIO, "What barks?", CHOICES))
    again = []
    asyncio.run(agent.aask(AUDIO, "What barks?", CHOICES, on_event=again.append))
    assert again == events


def test_budgets_and_controls_reach_the_run():
    with EchoAgent(scripted_family(ASK_FOREVER)) as agent:
        two = agent.ask(AUDIO, "What barks?", CHOICES, max_relistens=2)
        assert len(two.relistens) == 2 and two.budget_exhausted and two.answer == "a dog"
        assert len(agent.ask(AUDIO, "What barks?", CHOICES).relistens) == 8
        short = agent.ask(AUDIO, "What barks?", CHOICES, max_seconds=3.0)
        assert short.seconds_heard == 3.0
        for off in (
            agent.ask(AUDIO, "What barks?", CHOICES, relisten=False),
            agent.ask(AUDIO, "What barks?", CHOICES, control="off"),
            agent.ask(AUDIO, "What barks?", CHOICES, max_relistens=0),
        ):
            assert off.relistens == [] and off.text == "<think></think><answer>a dog</answer>".replace(
                "<think>", "<think><seg>2.0, 4.0</seg>"
            )


def test_the_wrong_crop_is_on_record(agent):
    result = agent.ask(AUDIO, "What barks?", CHOICES, control="wrong-crop", gold_spans=[(5, 6)], seed=4)
    (record,) = result.relistens
    assert (record.start, record.end) == (2.0, 4.0) and record.instead.overlap == 0
    assert record.instead.end <= 2.0 or record.instead.start >= 4.0
    assert result.model_dump(mode="json")["relistens"][0]["instead"]["overlap"] == 0


def test_the_fingerprint_tells_weights_apart(agent, unsure):
    assert agent.fingerprint == agent.fingerprint != unsure.fingerprint
    assert agent.fingerprint.startswith("tiny-qwen2.5-omni@")


# --- threads ----------------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def stop_after_the_first_call(event):
    if event["type"] == "relisten":
        raise Stopped


@pytest.mark.parametrize("use_async", [False, True])
def test_a_thread_goes_on_where_it_was_stopped(unsure, use_async):
    name = f"thread-{use_async}"
    ask = {
        "question": "What barks?",
        "choices": CHOICES,
        "temperature": 1.0,
        "seed": 11,
        "run": 3,
        "max_new_tokens": 24,
    }

    def run(**options):
        if use_async:
            return asyncio.run(unsure.aask(AUDIO, **ask, **options))
        return unsure.ask(AUDIO, **ask, **options)

    whole = run()
    assert len(whole.relistens) > 1
    with pytest.raises(Stopped):
        run(thread=name, on_event=stop_after_the_first_call)
    events = []
    resumed = run(thread=name, on_event=events.append)
    same(resumed, whole)
    assert len([e for e in events if e["type"] == "relisten"]) < len(whole.relistens) + 1
    before = unsure.engine.stats()["runs"]
    same(run(thread=name), whole)
    assert unsure.engine.stats()["runs"] == before, "a run that ended is not run again"


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_file(agent):
    def broken_pipe(event):
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        agent.ask(AUDIO, "What barks?", on_event=broken_pipe, thread="pipe")


def test_a_thread_belongs_to_its_question(agent):
    agent.ask(AUDIO, "What barks?", CHOICES, thread="mine")
    for words, change in (
        ("question", {"question": "Who barks?"}),
        ("choices", {"choices": None}),
        ("settings", {"seed": 1}),
        ("settings", {"max_relistens": 2}),
        ("settings", {"guided": False}),
        ("run", {"run": 1}),
        ("recording", {"audio": (sounds(5.0), 16000)}),
    ):
        with pytest.raises(QuestionError, match=f"another {words}"):
            agent.ask(
                **({"audio": AUDIO, "question": "What barks?", "choices": CHOICES, "thread": "mine"} | change)
            )


def test_a_moved_recording_is_still_the_same(agent, tmp_path):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, SAMPLES, 16000)
    first = agent.ask(tmp_path / "a.wav", "What barks?", CHOICES, thread="moved")
    same(agent.ask(tmp_path / "b.wav", "What barks?", CHOICES, thread="moved"), first)


def test_threads_have_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("ECHO_AGENT_HOME", str(tmp_path / "home"))
    with EchoAgent(scripted_family(ASK_ONCE)) as agent:
        agent.ask(AUDIO, "What barks?")
        assert not (tmp_path / "home").exists(), "only named threads are kept"
        agent.ask(AUDIO, "What barks?", thread="t")
        assert agent.threads.path == tmp_path / "home" / "threads.sqlite" and agent.threads.path.is_file()


def test_a_file_that_cannot_hold_threads_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "text.sqlite").write_text("this is no database " * 100)
    for path in (tmp_path / "file" / "t.sqlite", tmp_path / "text.sqlite"):
        with EchoAgent(scripted_family(ASK_ONCE), checkpoints=path) as agent:
            with pytest.raises(QuestionError, match="cannot keep the thread 't'"):
                agent.ask(AUDIO, "What barks?", thread="t")
            with pytest.raises(QuestionError, match="cannot keep the thread 't'"):
                asyncio.run(agent.aask(AUDIO, "What barks?", thread="t"))


# --- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"question": ""}, QuestionError, "empty"),
        ({"question": "What barks? " * 8334}, QuestionError, "holds 4096.*shorten the question"),
        ({"choices": ["a dog"]}, QuestionError, "1 choice"),
        ({"choices": ["a dog", "A dog"]}, QuestionError, "the same"),
        ({"choices": "a dog|a cat"}, QuestionError, "list"),
        ({"temperature": -1}, QuestionError, "temperature=-1"),
        ({"temperature": float("nan")}, QuestionError, "temperature"),
        ({"top_p": 0}, QuestionError, "top_p"),
        ({"max_relistens": -1}, QuestionError, "max_relistens"),
        ({"control": "loud"}, QuestionError, "control"),
        ({"volume": 3}, QuestionError, "no option 'volume'"),
        ({"audio": SAMPLES}, QuestionError, "samples alone"),
        ({"audio": "missing.wav"}, RecordingError, "missing.wav"),
        ({"audio": (np.full(16000, np.nan), 16000)}, RecordingError, "NaN|nan"),
        ({"audio": (np.zeros(0), 16000)}, RecordingError, "no samples"),
        ({"audio": (np.zeros(8000 * 700, np.float32), 8000)}, RecordingTooLongError, "at most"),
    ],
)
def test_bad_input_is_refused_before_the_model_runs(agent, change, error, words):
    before = agent.engine.stats()["runs"]
    ask = {"audio": AUDIO, "question": "What barks?", "choices": CHOICES} | change
    with pytest.raises(error, match=words):
        agent.ask(**ask)
    with pytest.raises(error, match=words):
        asyncio.run(agent.aask(**ask))
    assert agent.engine.stats()["runs"] == before and agent.recordings.nbytes == 0


def test_a_recording_of_20_ms_and_a_silent_one_are_asked_about(agent):
    assert agent.ask((sounds(0.02), 16000), "What barks?", CHOICES).answer is not None
    assert agent.ask((np.zeros(16000), 16000), "What barks?", CHOICES).status == "answered"


def test_an_unknown_model_is_an_error_with_the_nearest_names():
    with pytest.raises(ModelError, match="echo-nano"):
        EchoAgent.from_pretrained("echo-nan")


def test_a_closed_agent_says_so():
    agent = EchoAgent(scripted_family(ASK_ONCE))
    agent.close()
    with pytest.raises(echo_agent.EchoAgentError, match="closed"):
        agent.ask(AUDIO, "What barks?")


def test_from_a_folder(tmp_path):
    scripted_family(ASK_ONCE).save(tmp_path)
    with EchoAgent.from_pretrained(str(tmp_path), device="cpu") as agent:
        result = agent.ask(AUDIO, "What barks?", CHOICES, guided=False)
        assert result.answer == "a dog" and result.timings["load"] > 0 and result.model == str(tmp_path)


# --- the package ------------------------------------------------------------------------------------------------


def test_public_names_are_there():
    for name in echo_agent.__all__:
        assert getattr(echo_agent, name) is not None and name in dir(echo_agent)
    with pytest.raises(AttributeError, match="nothing"):
        _ = echo_agent.nothing


def test_importing_the_package_is_light():
    heavy = "torch transformers langgraph langchain_core torchaudio soundfile pydub numpy"
    code = f"import sys, echo_agent; print([m for m in {heavy.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
