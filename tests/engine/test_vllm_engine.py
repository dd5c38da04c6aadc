"""The engine over servers: what it gives equals the engine in this process, and no fault of a server goes unnoticed.

The server is one of ours (``tests/token_server.py``), behind a real socket; each silent fault that was seen of the real
one is switched on in turn.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from echo_agent.audio.recording import Recording, Transform
from echo_agent.audio.references import AudioRef
from echo_agent.engine import Generation, SamplingParams, TorchEngine, VLLMEngine, connections, token_client
from echo_agent.engine import replicas as replicas_module
from echo_agent.engine.replicas import KEY, Replicas
from echo_agent.engine.served_audio import ServedAudio
from echo_agent.errors import (
    ContextError,
    EchoAgentError,
    ModelError,
    PlaceholderError,
    QuestionError,
    ServerError,
)
from echo_agent.families.base import Family
from echo_agent.families.loading import load_family
from echo_agent.stores import RecordingStore
from tests.engine.conftest import World, same
from tests.scripted import ASK_ONCE, UNSURE, scripted_family
from tests.tiny import QWEN_KINDS, sounds, tiny_family
from tests.token_faults import Faults
from tests.token_server import TokenServer

KIND = "qwen2.5-omni"
"""For what does not depend on the architecture."""
GREEDY = SamplingParams(max_new_tokens=8)
ANSWERS = tuple(f"<answer>{space}{text}</answer>" for space in ("", " ") for text in ("a dog", "a cat"))


def noisy(run: int = 0, seed: int = 3) -> SamplingParams:
    return SamplingParams(temperature=1.0, seed=seed, run=run, max_new_tokens=8)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models as the client sees them: in folders."""
    made = {kind: tmp_path_factory.mktemp("served") / kind for kind in QWEN_KINDS}
    for kind, folder in made.items():
        tiny_family(kind).save(folder)
    return made


@dataclass
class Served:
    """A server of a tiny model, clients of it, and the same model in this process to compare with."""

    kind: str
    folder: Path
    server: TokenServer
    world: World
    engines: list[VLLMEngine] = field(default_factory=list)

    def engine(self, *more: str, **options: Any) -> VLLMEngine:
        urls = [self.server.url, *more]
        family = load_family(str(self.folder), weights=False)
        options = {"patience": 20.0, **options}
        self.engines.append(VLLMEngine(family, self.world.store, urls, **options))
        return self.engines[-1]

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
        self.server.stop()
        self.world.close()


@cache
def family_of(kind: str) -> Family:
    return tiny_family(kind)


def serve(kind: str, folders: dict[str, Path]) -> Iterator[Served]:
    family = family_of(kind)
    served = Served(kind, folders[kind], TokenServer(family, name=str(folders[kind])), World(family))
    yield served
    served.close()


@pytest.fixture
def served(folders: dict[str, Path]) -> Iterator[Served]:
    yield from serve(KIND, folders)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers rest, and runs wait, a thousandth of the time."""
    monkeypatch.setattr(replicas_module, "REST", (0.001, 0.03))
    monkeypatch.setattr(token_client, "PAUSE", (0.001, 0.01))


# --- equal to the engine in this process --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", QWEN_KINDS)
def test_greedy_tokens_and_log_probabilities_are_those_of_the_torch_engine(
    kind: str, folders: dict[str, Path]
) -> None:
    """Over two crops, one of them transformed, appended inside the assistant's turn."""
    for served in serve(kind, folders):
        engine, here, family = served.engine(), served.world.engine(), served.world.family
        ids, audio = served.world.prompt()
        for crop in (
            served.world.whole.span(0.5, 1.5),
            served.world.whole.span(1, 2, Transform(speed=0.5)),
            None,
        ):
            said = engine.generate(ids, audio, GREEDY)
            same(said, here.generate(ids, audio, GREEDY))
            assert (said.prompt_tokens, said.audio_tokens) == (len(ids), ids.count(family.audio_id))
            if crop is not None:
                ids, audio = [*ids, *said.ids, *family.audio_ids(crop)], [*audio, crop]
        assert engine.family.model.device.type == "meta"
        sent = [
            [part["url"] is not None for part in body["content_parts"]] for body in served.server.requests
        ]
        assert sent == [[True], [False, True], [False, False, True]], "audio is sent once"
        assert [body["token_ids"].count(family.audio_id) for body in served.server.requests] == [1, 2, 3]


def test_sampled_log_probabilities_are_those_of_the_full_softmax(served: Served) -> None:
    engine, prompt = served.engine(), served.world.prompt()
    first, again, other = (engine.generate(*prompt, noisy(run)) for run in (0, 0, 1))
    assert first.logprobs == pytest.approx(served.world.forward(*prompt, first.ids), abs=1e-4)
    assert first.ids == again.ids and first.ids != other.ids
    assert first.weights == (str(served.folder),)


def test_text_without_audio_goes_too(served: Served) -> None:
    ids = served.world.family.tokenize("How many times does the bell ring?")
    same(served.engine().generate(ids, (), GREEDY), served.world.engine().generate(ids, (), GREEDY))
    assert "content_parts" not in served.server.requests[0]


def test_a_listen_shorter_than_the_shortest_is_heard_alike(served: Served) -> None:
    short = served.world.store.add(Recording.from_array(sounds(0.05), 16000))
    prompt = served.world.prompt("?", short)
    same(served.engine().generate(*prompt, GREEDY), served.world.engine().generate(*prompt, GREEDY))


def test_many_runs_at_once(served: Served) -> None:
    engine, here = served.engine(), served.world.engine()
    prompts = [
        served.world.prompt(number % 4, ref)
        for number in range(6)
        for ref in (served.world.whole, served.world.other)
    ]

    async def all_of_them() -> list[Generation]:
        return await asyncio.gather(*(engine.agenerate(*prompt, GREEDY) for prompt in prompts))

    for said, prompt in zip(asyncio.run(all_of_them()), prompts, strict=True):
        same(said, here.generate(*prompt, GREEDY))
    assert engine.stats()["runs"] == len(prompts) and engine.stats()["live_runs"] == 0


# --- where a run ends ---------------------------------------------------------------------------------------------


@dataclass
class Scripted:
    """A policy by script behind a server, and here."""

    engine: VLLMEngine
    here: TorchEngine
    server: TokenServer
    prompt: tuple[list[int], list[AudioRef]]


@pytest.fixture
def scripted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scripted]:
    family = scripted_family(request.param, KIND)
    family.save(tmp_path)
    store = RecordingStore()
    ref = store.add(Recording.from_array(sounds(5.0), 16000))
    server = TokenServer(family, name=str(tmp_path))
    client = scripted_family(
        request.param, KIND
    )  # its words are no control tokens, as those of the saved one are
    engine, here = VLLMEngine(client, store, server.url, served_as=str(tmp_path)), TorchEngine(family, store)
    yield Scripted(
        engine, here, server, family.render(family.question_pieces([ref], "What barks?", ["a dog", "a cat"]))
    )
    engine.close()
    here.close()
    server.stop()


@pytest.mark.parametrize("scripted", [ASK_ONCE], indirect=True)
def test_stop_strings_end_a_run_and_are_part_of_it(scripted: Scripted) -> None:
    params = SamplingParams(max_new_tokens=20, stop=("</seg>", "</answer>"))
    said = scripted.engine.generate(*scripted.prompt, params)
    same(said, scripted.here.generate(*scripted.prompt, params))
    assert said.finish == "stop" and said.text.endswith("</seg>")


@pytest.mark.parametrize("scripted", [{"\n": "<think>", "<think>": "<|im_end|>"}], indirect=True)
def test_an_end_of_turn_ends_a_run(scripted: Scripted) -> None:
    said = scripted.engine.generate(*scripted.prompt, GREEDY)
    assert (said.finish, said.text) == ("eos", "<think>")
    same(said, scripted.here.generate(*scripted.prompt, GREEDY))


@pytest.mark.parametrize("scripted", [{"\n": "a dog", "a dog": "a dog"}], indirect=True)
def test_a_loop_ends_here_and_on_the_server(scripted: Scripted) -> None:
    params = SamplingParams(max_new_tokens=500, max_repeats=3)
    said = scripted.engine.generate(*scripted.prompt, params)
    assert said.finish == "loop" and said.ids == scripted.here.generate(*scripted.prompt, params).ids
    assert scripted.engine.stats()["decoded_tokens"] < 100, "what the server went on to say was not read"


@pytest.mark.parametrize(
    "scripted", [{**ASK_ONCE, "<think>": "</think>", "<answer>": "</answer>"}], indirect=True
)
def test_an_answer_is_held_to_its_choices(scripted: Scripted) -> None:
    """The policy would leave its answer empty; twin: left free, it does."""
    guided = SamplingParams(max_new_tokens=40, stop=("</answer>",), choices=("a dog", "a cat"))
    said = scripted.engine.generate(*scripted.prompt, guided)
    same(said, scripted.here.generate(*scripted.prompt, guided))
    assert said.text.endswith(ANSWERS) and said.steered > 0
    free = SamplingParams(max_new_tokens=40, stop=("</answer>",))
    assert scripted.engine.generate(*scripted.prompt, free).text.endswith("<answer></answer>")


@pytest.mark.parametrize("scripted", [UNSURE], indirect=True)
def test_sampled_answers_are_held_too(scripted: Scripted) -> None:
    params = SamplingParams(
        temperature=1.0, max_new_tokens=60, stop=("</answer>",), choices=("a dog", "a cat"), max_repeats=3
    )
    said = scripted.engine.generate(*scripted.prompt, params)
    assert said.finish in ("stop", "loop", "length", "eos")
    if "<answer>" in said.text:
        assert said.text.endswith(ANSWERS)


def test_pieces_of_text_put_together_are_the_text(served: Served) -> None:
    pieces: list[tuple[list[int], str]] = []
    said = served.engine().generate(
        *served.world.prompt(), GREEDY, lambda ids, text: pieces.append((ids, text))
    )
    assert [token for ids, _ in pieces for token in ids] == list(said.ids)
    assert "".join(text for _, text in pieces) == said.text and len(pieces) > 1


def test_pieces_may_hold_several_tokens(served: Served) -> None:
    served.server.piece = 3
    same(served.engine().generate(*served.world.prompt(), GREEDY), undisturbed(served))
    params = SamplingParams(max_new_tokens=7, max_repeats=1)  # it may end in the middle of one
    said, expected = (
        each.generate(*served.world.prompt(), params) for each in (served.engine(), served.world.engine())
    )
    assert (said.ids, said.finish) == (expected.ids, expected.finish)


def test_a_callback_that_raises_fails_its_run_alone(served: Served) -> None:
    def broken(ids: list[int], text: str) -> None:
        raise ValueError("mine")

    engine = served.engine()
    with pytest.raises(ValueError, match="mine"):
        engine.generate(*served.world.prompt(), GREEDY, broken)
    engine.generate(*served.world.prompt(), GREEDY)


def test_a_cancelled_run_ends_on_its_server(served: Served) -> None:
    begun, go = threading.Event(), threading.Event()

    def wait(number: int) -> None:
        begun.set()
        if number:
            go.wait()

    served.server.on_token = wait
    future = served.engine().submit(*served.world.prompt(), SamplingParams(max_new_tokens=2000))
    begun.wait()
    assert future.cancel()
    go.set()
    while not served.server.aborted:
        threading.Event().wait(0.01)


def test_what_is_waiting_fails_when_the_engine_is_closed(served: Served) -> None:
    begun, go = threading.Event(), threading.Event()
    served.server.on_token = lambda number: (begun.set(), go.wait())
    engine = served.engine()
    future = engine.submit(*served.world.prompt(), GREEDY)
    begun.wait()
    engine.close()
    go.set()
    with pytest.raises(EchoAgentError, match="closed"):
        future.result()
    with pytest.raises(EchoAgentError, match="closed"):
        engine.generate(*served.world.prompt(), GREEDY)


# --- silent faults, each switched on in turn ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        (Faults(deaf=True), r"read \d+ tokens where \d+ were meant; they part at token"),
        (Faults(shifted=True), r"put audio at \[\(\d+, 75\)\] .*but it belongs at \[\(\d+, 75\)\]"),
        (Faults(other_ids=True), r"they part at token \d+ \(\d+ in place of \d+\)"),
        (Faults(silent_ids=True), "does not say which tokens it read"),
        (Faults(bans_ignored=True), r"sampled token \d+ \('<\|AUDIO\|>'\), but it is banned"),
        (Faults(garbage=1), "gave back what cannot be read"),
    ],
    ids=lambda value: (
        ",".join(key for key, on in vars(value).items() if on) if isinstance(value, Faults) else ""
    ),
)
def test_a_silent_fault_is_an_error(served: Served, faults: Faults, said: str) -> None:
    engine = served.engine()
    served.server.faults = faults
    with pytest.raises(ServerError, match=said) as error:
        engine.generate(*served.world.prompt(), GREEDY)
    assert served.server.url in str(error.value)


def test_ids_that_are_already_expanded_would_be_expanded_again(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_client.wire, "unexpanded", lambda ids, ranges: list(ids))
    with pytest.raises(ServerError, match=r"read \d+ tokens where \d+ were meant"):
        served.engine().generate(*served.world.prompt(), GREEDY)


@pytest.mark.parametrize("honest", [True, False])
def test_a_name_stands_for_one_sound_only(
    served: Served, monkeypatch: pytest.MonkeyPatch, honest: bool
) -> None:
    """Twin: named by the span alone, another recording and another transform get what was heard before."""
    if not honest:
        monkeypatch.setattr(ServedAudio, "name", lambda self, ref: f"{ref.start}-{ref.end}")
    engine, here = served.engine(), served.world.engine()
    first, second = served.world.prompt(), served.world.prompt(0, served.world.twin)
    assert first[0] == second[0]
    engine.generate(*first, GREEDY)
    said, expected = engine.generate(*second, GREEDY), here.generate(*second, GREEDY)
    assert (said.logprobs == pytest.approx(expected.logprobs, abs=1e-4)) is honest


def test_audio_that_the_server_has_lost_is_sent_again(served: Served) -> None:
    engine, prompt = served.engine(), served.world.prompt()
    before = engine.generate(*prompt, GREEDY)
    served.server.heard.clear()
    same(engine.generate(*prompt, GREEDY), before)
    assert [body["content_parts"][0]["url"] is None for body in served.server.requests] == [
        False,
        True,
        False,
    ]


def test_scores_and_missing_log_probabilities_are_refused(served: Served) -> None:
    served.server.faults = Faults(scores=True)
    with pytest.raises(ServerError, match="--logprobs-mode raw_logprobs"):
        served.engine()
    served.server.faults = Faults(no_logprobs=True)
    with pytest.raises(ServerError, match="no log-probabilities"):
        served.engine()


def test_log_probabilities_at_other_temperatures_need_another_mode(served: Served) -> None:
    prompt, warm = served.world.prompt(), SamplingParams(temperature=0.7, max_new_tokens=4)
    with pytest.raises(ServerError, match="--logprobs-mode processed_logprobs"):
        served.engine().generate(*prompt, warm)
    with pytest.raises(QuestionError, match="between 0 and 0.01"):
        served.engine().generate(*prompt, SamplingParams(temperature=0.001))
    served.server.faults.processed = True
    engine = served.engine()
    said = engine.generate(*prompt, warm)
    # They leave out what is banned: on a random model a few hundredths, on a trained one nothing.
    assert said.logprobs == pytest.approx(served.world.forward(*prompt, said.ids, 0.7), abs=0.3)
    with pytest.raises(ServerError, match="use top_p 1"):
        engine.generate(*prompt, SamplingParams(temperature=1.0, top_p=0.9))
    opened = [*prompt[0], *served.world.family.tokenize("<answer>")]
    with pytest.raises(ServerError, match="leave the answer free"):
        engine.generate(opened, prompt[1], SamplingParams(choices=("a dog", "a cat")))


# --- servers that fail --------------------------------------------------------------------------------------------


def undisturbed(served: Served) -> Generation:
    return served.world.engine().generate(*served.world.prompt(), GREEDY)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(statuses=[(500, {}), (503, {})]),
        Faults(statuses=[(429, {"Retry-After": "0"}), (429, {})]),
        Faults(drop_after=[3, 0, 2]),
        Faults(error_after=[2]),
    ],
    ids=["5xx", "429", "dropped", "error in the stream"],
)
def test_a_server_that_fails_for_a_while_changes_nothing(served: Served, faults: Faults) -> None:
    """What came before a stream broke off is kept: nothing is sampled, sent on or counted twice."""
    pieces: list[int] = []
    engine = served.engine()
    served.server.faults = faults
    lost = len(faults.statuses + faults.drop_after + faults.error_after)
    said = engine.generate(*served.world.prompt(), GREEDY, lambda ids, text: pieces.extend(ids))
    same(said, undisturbed(served))
    assert pieces == list(said.ids)
    stats = engine.stats()
    assert (stats["attempts_lost"], stats["decoded_tokens"]) == (lost, len(said.ids))


@pytest.mark.parametrize("again", [True, False])
def test_a_connection_that_was_closed_while_it_was_idle_is_no_attempt(
    served: Served, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Twin: where the client opens no other connection by itself, the server seems to fail."""
    if not again:
        monkeypatch.setattr(connections, "CLOSED", ())
    engine, prompt = served.engine(), served.world.prompt()
    expected = undisturbed(served)
    for number in range(4):
        served.server.faults.idle = 1 + number % 2  # of either way
        same(engine.generate(*prompt, GREEDY), expected)
        assert served.server.faults.idle < 1 + number % 2, "connections serve more than one request"
    assert again is (engine.stats()["attempts_lost"] == 0)
    assert len(served.server.requests) == 4


def test_a_server_that_is_started_anew_in_the_middle_of_a_run(served: Served) -> None:
    engine, prompt = served.engine(), served.world.prompt()
    engine.generate(*prompt, GREEDY)  # it has the audio

    def restart(number: int) -> None:
        if number == 3:
            served.server.on_token = None
            threading.Thread(target=lambda: (served.server.stop(), served.server.start_again())).start()
            threading.Event().wait(0.2)

    served.server.on_token = restart
    said = engine.generate(*prompt, GREEDY)
    same(said, undisturbed(served))
    assert served.server.requests[-1]["content_parts"][0]["url"], "it knows no audio any more"
    assert engine.stats()["decoded_tokens"] == 16


def test_a_server_that_is_gone_is_an_error_that_names_it(served: Served) -> None:
    engine = served.engine(patience=0.05)
    served.server.stop()
    with pytest.raises(
        ServerError, match=rf"no server continues the run \({served.server.url}: .*tried for 0.05 s"
    ):
        engine.generate(*served.world.prompt(), GREEDY)


def test_a_server_that_is_silent_is_an_error_that_says_how_long(served: Served) -> None:
    engine = served.engine(timeout=0.1, patience=0.0)
    served.server.faults.hang = 0.4
    with pytest.raises(ServerError, match="gave no answer for 0.1 s"):
        engine.generate(*served.world.prompt(), GREEDY)


# --- several servers ----------------------------------------------------------------------------------------------


@pytest.fixture
def second(served: Served) -> Iterator[TokenServer]:
    server = TokenServer(served.world.family, name=str(served.folder))
    yield server
    server.stop()


def test_a_recording_stays_on_one_server(served: Served, second: TokenServer) -> None:
    engine = served.engine(second.url)
    refs = [served.world.store.add(Recording.from_array(sounds(0.5, seed=seed), 16000)) for seed in range(8)]
    for question in (0, 1):
        for ref in refs:
            engine.generate(*served.world.prompt(question, ref), SamplingParams(max_new_tokens=1))
    names = [
        {part["uuid"] for body in s.requests for part in body["content_parts"]}
        for s in (served.server, second)
    ]
    stats = engine.stats()
    assert stats["attempts_lost"] == 0, stats
    assert names[0] and names[1] and names[0].isdisjoint(names[1])
    assert stats["audio_sent"] == len(refs)
    replicas = engine._client.replicas
    homes = {ref.sha256: replicas.choose(ref.sha256).url for ref in refs}
    assert len(set(homes.values())) == 2
    assert all(replicas.choose(home).url == url for home, url in homes.items())


def test_runs_of_a_dead_server_go_on_elsewhere(served: Served, second: TokenServer) -> None:
    engine, prompt = served.engine(second.url), served.world.prompt()
    home, other = served.server, second
    engine.generate(*prompt, SamplingParams(max_new_tokens=1))
    if second.requests:
        home, other = other, home

    def die(number: int) -> None:
        if number == 3:
            threading.Thread(target=home.stop).start()
            threading.Event().wait(0.2)

    home.on_token = die
    same(engine.generate(*prompt, GREEDY), undisturbed(served))
    assert other.requests and other.requests[-1]["content_parts"][0]["url"]
    states = {state["url"]: state["trouble"] for state in engine.stats()["servers"]}
    assert states[home.url] and not states[other.url]
    home.start_again()
    home.on_token = None
    while engine.generate(*prompt, SamplingParams(max_new_tokens=1)) and len(home.requests) < 3:
        threading.Event().wait(0.01)  # it rests for a moment, and then its recordings come back to it


def test_one_of_two_servers_is_enough_to_begin(served: Served, second: TokenServer) -> None:
    second.stop()
    engine = served.engine(second.url)
    assert [state["up"] for state in engine.stats()["servers"]] == [True, False]


def test_most_recordings_stay_where_they_are_when_a_server_comes_or_goes() -> None:
    urls = [f"http://host{number}:8000" for number in range(4)]
    homes = [f"{number:064x}" for number in range(400)]
    four, three = Replicas(urls, "m", None, 1.0), Replicas(urls[:3], "m", None, 1.0)
    moved = [home for home in homes if four.choose(home).url != three.choose(home).url]
    assert all(four.choose(home).url == urls[3] for home in moved) and 60 < len(moved) < 140


# --- what a server is refused for ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda server: setattr(server, "name", "other/model"), "serves other/model, not .*--served-as"),
        (lambda server: setattr(server.faults, "no_endpoint", True), "start it with --enable-scale-out"),
        (lambda server: setattr(server.faults, "key", "secret"), f"asks for a key.*{KEY}"),
        (lambda server: server.stop(), "no server answers .*is it running"),
    ],
    ids=["another model", "no token endpoint", "a key", "nobody"],
)
def test_a_server_that_cannot_be_used(
    served: Served, change: Callable[[TokenServer], None], said: str
) -> None:
    change(served.server)
    with pytest.raises(ServerError, match=said):
        served.engine()


def test_a_key_comes_from_the_environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.server.faults.key = "secret"
    monkeypatch.setenv(KEY, "secret")
    served.engine().generate(*served.world.prompt(), GREEDY)


def test_a_model_may_have_another_name_or_folder_there(served: Served) -> None:
    served.server.name = f"/models/{served.folder.name}"
    served.engine()
    served.server.name = "mine"
    served.engine(served_as="mine").generate(*served.world.prompt(), GREEDY)
    assert served.server.requests[-1]["model"] == "mine"


def test_the_context_is_that_of_the_server(served: Served) -> None:
    served.server.max_model_len = 200
    engine = served.engine()
    assert engine.family.context_length == 200
    ids, audio = served.world.prompt()
    engine.family.context_length = 4000
    with pytest.raises(ContextError, match="too long for the server"):
        engine.generate([*ids, *ids[-20:] * 10], audio, GREEDY)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:8000", "is not the address of a server"),
        ("http://", "is not the address"),
        ("http://a:port", "is not the address"),
        ("ftp://a", "is not the address"),
        ("http://me:key@a", "holds no key"),
        ("http://a?key=1", "is not the address"),
    ],
)
def test_addresses_are_checked(served: Served, url: str, said: str) -> None:
    with pytest.raises(QuestionError, match=said):
        VLLMEngine(served.world.family, served.world.store, url)


def test_other_arguments_are_checked(served: Served) -> None:
    with pytest.raises(QuestionError, match="no server is named"):
        VLLMEngine(served.world.family, served.world.store, [])
    with pytest.raises(QuestionError, match="timeout must be"):
        served.engine(timeout=0.0)
    with pytest.raises(QuestionError, match="patience must be"):
        served.engine(patience=-1.0)
    ids, audio = served.world.prompt()
    with pytest.raises(PlaceholderError):
        served.engine().generate(ids, [], GREEDY)
    with pytest.raises(ModelError, match="which no server knows"):
        load_family("echo-nano", weights=False)
