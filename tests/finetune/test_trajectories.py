"""Samples as trajectories: the ids, origins and audio of a run of the listening graph that writes the same text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from echo_agent.answers import extract_answer
from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.chat import ChatLALM
from echo_agent.dialects import Dialect, dialect_named
from echo_agent.engine import TorchEngine
from echo_agent.engine.generation import Generation, SamplingParams
from echo_agent.errors import ContextError, DataError, RecordingTooLongError
from echo_agent.families.base import Family
from echo_agent.finetune.data.records import Sample
from echo_agent.finetune.trajectories import _WRITTEN, _call, to_trajectory
from echo_agent.graphs import ListeningContext, build_listening_graph, initial_state
from echo_agent.messages import trajectory_of
from echo_agent.stores import RecordingStore
from echo_agent.trajectory import Trajectory
from tests.scripted import HEARD, START, scripted_family
from tests.tiny import KINDS, QWEN_KINDS, sounds, tiny_family

WRITING = [*((kind, "inline") for kind in KINDS), *((kind, "turns") for kind in QWEN_KINDS)]
"""Families with the dialects that they can write."""

REASONINGS = {
    "none": "A dog barks near the end.",
    "one": "It starts early <seg>2, 4</seg> and there is a dog.",
    "two": "First <seg>1.25, 3.5</seg>, then <seg>7.0, 9.5</seg>: a dog.",
    "adjacent": "<seg>1, 3</seg><seg>4, 6</seg>",
    "last": "Let me hear it <seg>2, 4</seg>",
    "clamped": "At the end <seg>8, 12</seg> it barks.",
    "widened": "Briefly <seg>4.0, 4.05</seg> something.",
    "swapped": "Here <seg>6, 3</seg> it is.",
    "repeated": "Once <seg>2, 4</seg> and again <seg>2, 4</seg> the same.",
    "altered": "Slowly <seg>2, 4; speed=0.5; band=300-3400; gain=6</seg> a dog.",
}


def sample(reasoning: str = REASONINGS["one"], **fields: Any) -> Sample:
    """A sample about a recording of 10 s."""
    fields = {"choices": ("a dog", "a cat"), "answer": "a dog", "duration": 10.0} | fields
    return Sample(id="s1", audio="audio/s.flac", question="What barks?", reasoning=reasoning, **fields)


class Dictated:
    """An engine that samples what it is told, stretch by stretch, each tokenised on its own."""

    def __init__(self, family: Family, recordings: RecordingStore, text: str, close: str) -> None:
        self.family, self.recordings = family, recordings
        pieces = text.split(close)
        self.left = [piece + close for piece in pieces[:-1]] + pieces[-1:]

    def check_process(self) -> None:
        """It has no thread that a fork would leave behind."""

    def generate(self, ids: Sequence[int], audio: Sequence[AudioRef], params: SamplingParams) -> Generation:
        self.family.check_placeholders(ids, audio)
        text = self.family.written(self.left.pop(0))
        sampled = tuple(self.family.tokenize(text))
        return Generation(sampled, (0.0,) * len(sampled), text, "stop")


@pytest.fixture(scope="module")
def store() -> RecordingStore:
    return RecordingStore()


@pytest.fixture(scope="module")
def recording(store: RecordingStore) -> AudioRef:
    return store.add(Recording.from_array(sounds(10.0), 16000))


@pytest.fixture(scope="module")
def families() -> dict[str, Family]:
    return {kind: tiny_family(kind) for kind in KINDS}


@pytest.fixture(scope="module", params=WRITING, ids="-".join)
def writing(request: pytest.FixtureRequest, families: dict[str, Family]) -> tuple[Family, Dialect]:
    kind, dialect = request.param
    return families[kind], dialect_named(dialect)


def text_in(dialect: Dialect, reasoning: str, answer: str) -> str:
    """The assistant's whole turn as the policy writes it."""
    for call in dialect_named("inline").parse(reasoning).calls if dialect.name == "turns" else ():
        values = dict(call.arguments)
        numbers = call.text[len("<seg>") : -len("</seg>")].split(";")[0].split(",")
        start, end = (float(number) if "." in number else int(number) for number in numbers)
        written = dialect.write_call(values).replace(f"{values['start']}", f"{start}", 1)
        tail = written.rpartition('"end": ')
        reasoning = reasoning.replace(
            call.text, tail[0] + tail[1] + tail[2].replace(f"{values['end']}", f"{end}", 1), 1
        )
    return f"<think>{reasoning}</think><answer>{answer}</answer>"


def run(model: ChatLALM, asked: Sample, recording: AudioRef) -> Trajectory:
    """The trajectory of a run of the listening graph."""
    context = ListeningContext(model=model, recordings=model.engine.recordings, stream_tokens=False)
    choices = None if asked.choices is None else list(asked.choices)
    state = build_listening_graph().invoke(
        initial_state(asked.question, [recording], choices), context=context
    )
    assert state["status"] == "answered" and state["answer"] == asked.right[0]
    return trajectory_of(state["messages"])


def assert_continues(made: Trajectory, ran: Trajectory, family: Family) -> None:
    """``made`` is ``ran`` and the end of turn."""
    assert made.ids == (*ran.ids, family.eos_ids[0])
    assert made.mask == (*ran.mask, 1)
    assert [s.origin for s in made.segments] == [s.origin for s in ran.segments]
    assert [ref.key() for ref in made.audio] == [ref.key() for ref in ran.audio]
    last = ran.segments[-1]
    ended = last.model_copy(update={"ids": (*last.ids, family.eos_ids[0]), "logprobs": None})
    assert made.hash == Trajectory().append(*ran.segments[:-1], ended).hash


@pytest.mark.parametrize("reasoning", REASONINGS.values(), ids=REASONINGS)
def test_a_run_that_writes_the_same_has_the_same_ids_origins_and_audio(
    writing: tuple[Family, Dialect], store: RecordingStore, recording: AudioRef, reasoning: str
) -> None:
    family, dialect = writing
    asked = sample(reasoning)
    engine = Dictated(family, store, text_in(dialect, reasoning, "a dog"), dialect.call_close)
    made = to_trajectory(asked, family, dialect, recording)
    assert_continues(made, run(ChatLALM(engine, dialect=dialect), asked, recording), family)  # pyright: ignore[reportArgumentType]
    assert made.count("tool") > 0 or "<seg>" not in reasoning


def test_what_is_put_between_two_stretches_is_compared(
    families: dict[str, Family], store: RecordingStore, recording: AudioRef
) -> None:
    """The twin that must fail: another crop."""
    family, dialect = families["qwen2-audio"], dialect_named("inline")
    engine = Dictated(family, store, text_in(dialect, "A <seg>2, 4</seg> dog.", "a dog"), "</seg>")
    ran = run(ChatLALM(engine, dialect=dialect), sample(), recording)  # pyright: ignore[reportArgumentType]
    with pytest.raises(AssertionError):
        assert_continues(
            to_trajectory(sample("A <seg>2, 5</seg> dog."), family, dialect, recording), ran, family
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_engine_that_follows_a_script_samples_the_same_ids(
    kind: str, store: RecordingStore, recording: AudioRef
) -> None:
    gap = " " if kind == "echo-nano" else ""  # it writes numbers and words behind a space
    script = {
        START: "<think>", "<think>": f"<seg>{gap}2.0, 4.0</seg>", HEARD: "a dog barks", "a dog barks": "</think>",
        "</think>": "<answer>", "<answer>": f"{gap}a dog", f"{gap}a dog": "</answer>",
    }  # fmt: skip
    family = scripted_family(script, kind)
    asked = sample("<seg>2.0, 4.0</seg>a dog barks")
    with TorchEngine(family, store) as engine:
        ran = run(ChatLALM(engine), asked, recording)
    assert_continues(to_trajectory(asked, family, dialect_named("inline"), recording), ran, family)


@dataclass(frozen=True)
class Written:
    """What the policy wrote in a trajectory."""

    reasoning: str
    answer: str
    heard: tuple[AudioRef, ...]


def read_back(made: Trajectory, family: Family, dialect: Dialect) -> Written:
    """Read from sampled tokens alone, calls put back as samples write them."""
    text = ""
    for segment in made.segments:
        if segment.origin == "sampled":
            written = family.detokenize([token for token in segment.ids if token not in family.eos_ids])
            for call in dialect.parse(written).calls:
                written = written.replace(call.text, _call(_WRITTEN, call))
            text += written
    answer = extract_answer(text)
    thought, closed, _ = text.removeprefix("<think>").rpartition("</think><answer>")
    assert answer is not None and closed and text.startswith("<think>")
    heard = (ref for segment in made.segments if segment.origin == "tool" for ref in segment.audio)
    return Written(thought, answer, tuple(heard))


@pytest.mark.parametrize("reasoning", REASONINGS.values(), ids=REASONINGS)
def test_nothing_of_a_sample_is_lost(
    writing: tuple[Family, Dialect], recording: AudioRef, reasoning: str
) -> None:
    family, dialect = writing
    written = read_back(to_trajectory(sample(reasoning), family, dialect, recording), family, dialect)
    plain = str.lower if family.kind == "echo-nano" else str
    spaced = family.written(f"<think>{reasoning}").removeprefix("<think>")
    assert (written.reasoning, written.answer) == (plain(spaced), "a dog")
    assert len(written.heard) == reasoning.count("<seg>")


def test_echo_nano_writes_numbers_and_words_as_the_prompt_has_them(
    families: dict[str, Family], recording: AudioRef
) -> None:
    """A span is copied with the tokens of seconds, an answer with those of the choices."""
    family = families["echo-nano"]
    made = to_trajectory(sample(), family, dialect_named("inline"), recording)
    texts = [family.detokenize([token]) for token in made.ids]
    seg, answer = texts.index("<seg>"), texts.index("<answer>")
    assert texts[seg + 1 : seg + 5] == [" 2", ",", " 4", "</seg>"]
    assert texts[answer + 1].startswith(" ")


@pytest.mark.parametrize("reasoning", [REASONINGS["two"], REASONINGS["last"]])
def test_a_policy_that_hears_once_learns_the_reasoning_without_its_calls(
    writing: tuple[Family, Dialect], recording: AudioRef, reasoning: str
) -> None:
    family, dialect = writing
    made = to_trajectory(sample(reasoning), family, dialect, recording, "never")
    assert made.audio == (recording,) and made.count("tool") == 0
    text = family.detokenize(made.segments[-1].ids[:-1])
    assert dialect.call_open not in text and text.endswith("</answer>")


def test_text_only_spans_are_written_and_nothing_is_heard(
    writing: tuple[Family, Dialect], recording: AudioRef
) -> None:
    """As in the paper's first stage."""
    family, dialect = writing
    heard = to_trajectory(sample(REASONINGS["two"]), family, dialect, recording)
    made = to_trajectory(sample(REASONINGS["two"]), family, dialect, recording, "text")
    assert made.audio == (recording,) and made.count("tool") == 0
    written = "".join(family.detokenize(s.ids) for s in heard.segments if s.origin == "sampled")
    assert family.detokenize(made.segments[-1].ids) == written


def test_what_is_heard_is_what_the_tool_gives(families: dict[str, Family], recording: AudioRef) -> None:
    family = families["qwen2.5-omni"]
    made = to_trajectory(sample(REASONINGS["altered"]), family, dialect_named("inline"), recording)
    whole, crop = made.audio
    assert whole == recording and (crop.start, crop.end, crop.transform.speed) == (2.0, 4.0, 0.5)
    assert "clamped" in family.detokenize(
        to_trajectory(sample(REASONINGS["clamped"]), family, dialect_named("inline"), recording)
        .segments[2]
        .ids
    )


def test_the_whole_is_taken_by_the_models_own_forward(
    writing: tuple[Family, Dialect], store: RecordingStore, recording: AudioRef
) -> None:
    """And the loss reaches what was sampled after a crop through the crop's audio."""
    family, dialect = writing
    made = to_trajectory(sample(REASONINGS["two"]), family, dialect, recording)
    crops = [(ref, store.crop(ref, family.sample_rate)) for ref in made.audio]
    with torch.no_grad():
        scores = family.model(**family.forward_inputs(made.ids, crops)).logits
        crops[2] = (crops[2][0], crops[2][1] * 0)
        deaf = family.model(**family.forward_inputs(made.ids, crops)).logits
    assert scores.shape[1] == len(made.ids) and bool(torch.isfinite(scores).all())
    first = family.placeholder_ranges(made.ids)[2][0]
    assert torch.equal(scores[0, :first], deaf[0, :first]) and not torch.allclose(scores[0, -1], deaf[0, -1])


def test_the_mask_says_sampled_for_what_is_written_and_nothing_else(
    writing: tuple[Family, Dialect], recording: AudioRef
) -> None:
    family, dialect = writing
    made = to_trajectory(sample(REASONINGS["clamped"]), family, dialect, recording)
    learned = [token for token, one in zip(made.ids, made.mask, strict=True) if one]
    text = family.written(text_in(dialect, REASONINGS["clamped"], "a dog"))
    plain = str.lower if family.kind == "echo-nano" else str
    assert family.detokenize(learned[:-1]) == plain(text) and learned[-1] == family.eos_ids[0]
    assert not set(family.banned_ids) & set(learned)


def test_an_open_question_is_answered_with_its_first_right_answer(
    families: dict[str, Family], recording: AudioRef
) -> None:
    asked = sample(choices=None, answer=None, answers=("  ", "a dog", "dog"))
    family, dialect = families["qwen2-audio"], dialect_named("inline")
    assert read_back(to_trajectory(asked, family, dialect, recording), family, dialect).answer == "a dog"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"reasoning": " "}, "no reasoning"),
        ({"reasoning": "A <seg>20, 30</seg> dog."}, "outside of 0-10"),
        ({"reasoning": "A <seg>nan, 3</seg> dog."}, "finite"),
        ({"reasoning": "A <seg>two, 3</seg> dog."}, "cannot be read"),
        ({"reasoning": "A <seg>2, 3 dog."}, "cannot be read"),
        ({"reasoning": "A 2, 3</seg> dog."}, "cannot be read"),
        ({"reasoning": "A dog.<answer>a cat</answer>"}, "holds <answer>"),
        ({"reasoning": "A dog.</think>"}, "holds </think>"),
        ({"reasoning": "A <|audio_bos|> dog."}, "control token"),
        ({"reasoning": "A dog.<|im_end|>"}, "control token"),
        ({"choices": None, "answer": "a</answer>b"}, "cannot be written"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_by_name(
    families: dict[str, Family], recording: AudioRef, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=f"'s1'.*{words}") as error:
        to_trajectory(sample(**fields), families["qwen2-audio"], dialect_named("inline"), recording)
    assert "\n" not in str(error.value)


def test_what_the_family_cannot_hold_is_refused(
    families: dict[str, Family], store: RecordingStore, recording: AudioRef
) -> None:
    inline = dialect_named("inline")
    with pytest.raises(ContextError, match="turns"):
        to_trajectory(sample(), families["echo-nano"], dialect_named("turns"), recording)
    with pytest.raises(ContextError, match="'s1' takes .* holds 4096"):
        to_trajectory(sample("a dog " * 5000), families["qwen2-audio"], inline, recording)
    long = store.add(Recording.from_array(sounds(31.0, rate=8000), 8000))
    with pytest.raises(RecordingTooLongError):
        to_trajectory(sample(), families["qwen2-audio"], inline, long)
