"""The agent in front of it all: asking, batches, threads, and bad input."""

import asyncio
import json
import math
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

import echo_agent
from echo_agent import EchoAgent, EchoResult, Recording, SamplingParams
from echo_agent.errors import ModelError, QuestionError, RecordingError, RecordingTooLongError
from tests.scripted import ASK_FOREVER, ASK_ONCE, UNSURE, scripted_family
from tests.small.tiny_small import tiny_small
from tests.tiny import sounds, tiny_family

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
    assert a.model_dump(exclude={"timings", "confidence"}) == b.model_dump(exclude={"timings", "confidence"})
    assert a.confidence == pytest.approx(b.confidence, abs=1e-4)
    assert a.trajectory.ids == b.trajectory.ids
    assert np.allclose(a.trajectory.logprobs, b.trajectory.logprobs, atol=1e-4)


def test_silence_is_called_silence(agent):
    silent = Recording.from_array(np.zeros(16000), 16000, "room.wav")
    assert agent.ask(silent, "What barks?", CHOICES).notes == ("it is silent: nothing can be heard in it",)
    several = asyncio.run(agent.aask([silent, AUDIO], "What barks?", CHOICES)).notes
    assert several == ("room.wav: it is silent: nothing can be heard in it",)
    assert agent.ask(AUDIO, "What barks?", CHOICES).notes == ()


def test_the_result_says_everything(agent):
    result = agent.ask(AUDIO, "What barks?", CHOICES)
    data = json.loads(result.model_dump_json())
    assert set(data["timings"]) == {"load", "encode", "prefill", "decode"}
    assert data["timings"]["prefill"] > 0
    del data["timings"]
    # that of the answer and its closing tag, which are the last two tokens
    assert data.pop("confidence") == pytest.approx(math.exp(sum(result.trajectory.logprobs[-2:])))
    prompt = data["tokens"].pop("prompt")
    assert data == {
        "answer": "a dog",
        "status": "answered",
        "forced": False,
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


def test_several_recordings(tmp_path):
    two = [AUDIO, (sounds(8.0, seed=1), 16000)]
    with EchoAgent(scripted_family({**ASK_ONCE, "<think>": "<seg>2.0, 4.0; recording=2</seg>"})) as agent:
        events = []
        result = agent.ask(two, "What barks?", CHOICES, on_event=events.append)
        (heard,) = result.relistens
        assert heard.recording == 2 and result.model_dump()["relistens"][0]["recording"] == 2
        assert [e["recording"] for e in events if e["type"] == "relisten"] == [2]
        assert [ref.duration for ref in result.trajectory.audio] == [10.0, 8.0, 8.0]
        same(asyncio.run(agent.aask(two, "What barks?", CHOICES)), result)
        assert len(agent.recordings) == 0, "samples are let go of"
        with pytest.raises(QuestionError, match="the list of recordings is empty"):
            agent.ask([], "What barks?")


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


def test_without_a_home_there_is_a_sentence_and_only_for_threads(monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("ECHO_AGENT_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    with EchoAgent(scripted_family(ASK_ONCE)) as agent:
        assert agent.ask(AUDIO, "What barks?").answer == "a dog"
        with pytest.raises(QuestionError, match="no home folder.*ECHO_AGENT_HOME"):
            agent.ask(AUDIO, "What barks?", thread="t")


def test_nothing_blocks_the_event_loop(tmp_path, monkeypatch):
    """What reads or writes files does so in another thread than the loop's."""
    path = tmp_path / "a.wav"
    soundfile.write(path, SAMPLES, 16000)
    loop_thread, blocked = [], []

    def watched(name, call):
        def watch(*args, **kwargs):
            if threading.get_ident() in loop_thread:
                blocked.append((name, args))
            return call(*args, **kwargs)

        return watch

    async def asked(agent):
        loop_thread.append(threading.get_ident())
        try:
            first = await agent.aask(path, "What barks?", CHOICES)
            return first, await agent.aask(path, "What barks?", CHOICES, thread="t", control="wrong-crop")
        finally:
            loop_thread.clear()

    with EchoAgent(scripted_family(ASK_ONCE), checkpoints=tmp_path / "new" / "t.sqlite") as agent:
        agent.ask(AUDIO, "What barks?")  # what is imported on the way is read once
        asyncio.run(agent.aask(AUDIO, "What barks?", thread="first"))
        (tmp_path / "new" / "t.sqlite").unlink()
        for name in ("mkdir", "stat", "listdir", "open", "scandir"):
            monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
        monkeypatch.setattr("builtins.open", watched("open", open))
        monkeypatch.setattr("time.sleep", watched("sleep", time.sleep))
        assert all(result.answer == "a dog" for result in asyncio.run(asked(agent)))
    assert not blocked


# --- what an answer is worth ---------------------------------------------------------------------------------------


def test_the_confidence_is_the_policys_own(agent):
    """Of a choice that the policy would not have written, it is low, and the answer is called forced."""
    own = agent.ask(AUDIO, "What barks?", CHOICES)
    other = agent.ask(AUDIO, "What barks?", ["a cow", "a pig"])
    assert own.confidence > 0.5 and not own.forced
    assert other.answer in ("a cow", "a pig") and other.forced and 0 < other.confidence < 0.1
    free = agent.ask(AUDIO, "What barks?", ["a cow", "a pig"], guided=False)
    assert (free.answer, free.confidence, free.forced) == (None, None, False)
    assert agent.ask(AUDIO, "What barks?", CHOICES, relisten=False).forced, "it was asked for"


def test_the_confidence_counts_the_answer_and_its_closing_tag_alone(unsure):
    for run in range(6):
        result = unsure.ask(AUDIO, "What barks?", run=run, temperature=1.0, seed=2, max_new_tokens=24)
        written = unsure.family.tokenize(f"{result.answer}</answer>")
        assert list(result.trajectory.ids[-len(written) :]) == written
        expected = math.exp(sum(result.trajectory.logprobs[-len(written) :]))
        assert result.confidence == pytest.approx(expected)


# --- loops -----------------------------------------------------------------------------------------------------------


def test_a_loop_in_the_answer_ends_the_run_and_is_no_answer():
    script = {"\n": "<answer>", "<answer>": "a violin", "a violin": ",", ",": "a violin"}
    with EchoAgent(scripted_family(script, sure=6.0)) as agent:
        for question in ("What is heard?", "What plays?"):
            result = agent.ask(AUDIO, question)
            assert (result.status, result.answer, result.budget_exhausted) == ("unparsed", None, False)
            assert result.tokens["sampled"] == 1 + 8 and result.text == "<answer>" + "a violin," * 4


def test_a_loop_before_the_answer_has_the_answer_asked_for():
    script = {"\n": "<think>", "<think>": "hm", "hm": "hm", "<answer>": "a dog", "a dog": "</answer>"}
    with EchoAgent(scripted_family(script, sure=6.0)) as agent:
        result = agent.ask(AUDIO, "What barks?")
    assert result.answer == "a dog" and result.budget_exhausted and result.forced
    assert result.text == "<think>" + "hm" * 8 + "</think><answer>a dog</answer>"


def test_a_choice_may_repeat_itself(agent):
    choices = ["no no no no no no no no no no", "yes yes yes yes yes yes yes yes yes yes"]
    assert agent.ask(AUDIO, "What barks?", choices).answer in choices


def test_without_the_limit_loops_run_on():
    """As in training: what is sampled is a function of weights and seed alone."""
    script = {"\n": "hm", "hm": "hm"}
    with EchoAgent(scripted_family(script, sure=6.0)) as agent:
        ids, audio = agent.family.render(agent.family.question_pieces([], "What?", None))
        free = agent.engine.generate(ids, audio, SamplingParams(max_new_tokens=40))
        held = agent.engine.generate(ids, audio, SamplingParams(max_new_tokens=40, max_repeats=3))
    assert free.finish == "length" and len(free.ids) == 40
    assert (
        held.finish == "loop"
        and held.ids == free.ids[:8]
        and held.logprobs == pytest.approx(free.logprobs[:8])
    )


# --- choices that follow from the question ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def nano():
    with EchoAgent.from_pretrained("echo-nano", device="cpu") as agent:
        yield agent


EXAMPLE = Path(__file__).parents[1] / "examples" / "04.flac"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Is a beep heard?", "yes"),
        ("Can you hear a violin?", "no"),
        ("When does the telephone start?", "12 s"),
        ("At what time does the beep start?", "6 s"),
    ],
)
def test_echo_nano_is_held_to_what_is_asked(nano, question, answer):
    result = nano.ask(EXAMPLE, question)
    assert result.answer == answer and result.choice_index is None and 0 < result.confidence <= 1
    assert nano.ask(EXAMPLE, question, ["yes", "no"]).choice_index in (0, 1)


def test_other_questions_stay_open(nano):
    assert "," in nano.ask(EXAMPLE, "What do you hear?").answer


def test_other_families_are_asked_as_they_are(agent):
    assert agent.ask(AUDIO, "Is a dog heard?").answer == "a dog"


def test_the_head_of_a_context_is_rendered_once(agent, monkeypatch):
    """The check before the run, each turn of it, and the other runs of the same question need the same tokens."""
    written, head = [], type(agent.model.dialect).head
    monkeypatch.setattr(
        type(agent.model.dialect), "head", lambda *given: written.append(given) or head(*given)
    )
    for run in range(2):
        agent.ask(AUDIO, "What barks at the very end?", CHOICES, run=run, on_event=lambda event: None)
    assert len(written) == 1


# --- what is not put to a model --------------------------------------------------------------------------------


async def test_words_that_echo_nano_does_not_know_are_named_and_nothing_is_answered(nano):
    runs, asked = nano.engine.stats()["runs"], ("Is a sheep heard?", ["yes", "Schafe"])
    said = "echo-nano does not know the words sheep, schafe, and was not asked"
    for result in (nano.ask(EXAMPLE, *asked), await nano.aask(EXAMPLE, *asked, thread="t")):
        assert (result.answer, result.status, result.notes) == (None, "not_understood", (said,))
        assert result.outcome == "the question was not understood" and not result.trajectory.ids
    silent = nano.ask((np.zeros(16000, np.float32), 16000), *asked)
    assert silent.notes == (said, "it is silent: nothing can be heard in it")
    assert nano.engine.stats()["runs"] == runs
    with pytest.raises(QuestionError, match="1 choice"):
        nano.ask(EXAMPLE, "Is a sheep heard?", ["yes"])
    with pytest.raises(RecordingError, match=r"missing\.wav"):
        nano.ask("missing.wav", *asked)


async def test_what_is_measured_is_asked_whatever_its_words_are(nano):
    found = await nano.acontrols(EXAMPLE, "Is a sheep heard?", controls=["off"])
    assert found["off"].status == "answered"


def test_a_doubt_about_the_language_is_a_note():
    with EchoAgent(tiny_small()) as small:
        clear, unsure, plain = (
            small.ask(AUDIO, question, max_new_tokens=8)
            for question in ("Wie oft bellt der Hund?", "wer hustet", "Who barks?")
        )
    assert clear.status == "not_understood" and "is not in English" in clear.notes[0]
    assert unsure.status != "not_understood" and "seems not to be in English" in unsure.notes[0]
    assert plain.status != "not_understood" and plain.notes == ()


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
        (
            {"audio": [(np.zeros(8000 * n, np.float32), 8000) for n in (700, 1)]},
            RecordingTooLongError,
            "at most",
        ),
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


async def test_folders_of_threads_are_not_made_in_the_event_loop(monkeypatch, tmp_path):
    callers = []
    made = Path.mkdir
    monkeypatch.setattr(
        Path,
        "mkdir",
        lambda *args, **kwargs: callers.append(threading.current_thread()) or made(*args, **kwargs),
    )
    with EchoAgent(scripted_family(ASK_ONCE), checkpoints=tmp_path / "new" / "t.sqlite") as agent:
        assert (await agent.aask(AUDIO, "What barks?", CHOICES, thread="t")).answer == "a dog"
    assert callers and threading.current_thread() not in callers


def test_a_segment_of_pydub_can_be_asked_about(tmp_path: Path) -> None:
    from pydub import AudioSegment

    segment = AudioSegment(
        np.full(16000, 2000, np.int16).tobytes(), sample_width=2, frame_rate=16000, channels=1
    )
    with EchoAgent(tiny_family("echo-nano")) as agent:
        result = agent.ask(segment, "Is a dog heard?", max_new_tokens=8)
    assert result.trajectory.audio[0].seconds == 1.0
