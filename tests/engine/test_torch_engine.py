"""What must always hold of the engine, on a tiny random model of every architecture (DESIGN, section 5)."""

from __future__ import annotations

import random

import pytest
import torch

from echo_agent.audio.recording import Recording
from echo_agent.audio.references import AudioRef
from echo_agent.engine import Generation, SamplingParams
from echo_agent.errors import ContextError, ModelError, PlaceholderError, QuestionError, RecordingTooLongError
from tests.engine.conftest import QUESTIONS, World, held, same
from tests.tiny import sounds, tiny_family

GREEDY = SamplingParams(max_new_tokens=8)


def noisy(run: int = 0, tokens: int = 8, top_p: float = 1.0) -> SamplingParams:
    return SamplingParams(temperature=1.0, top_p=top_p, seed=3, run=run, max_new_tokens=tokens)


def next_turn(
    world: World, ids: list[int], audio: list[AudioRef], said: Generation, crop: AudioRef
) -> tuple[list[int], list[AudioRef]]:
    """The context after a re-listen to ``crop``."""
    return [*ids, *said.ids, *world.family.audio_ids(crop)], [*audio, crop]


# --- cached equals uncached -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_incremental_decoding_equals_one_full_forward_pass(world: World, temperature: float) -> None:
    engine = world.engine()
    params = SamplingParams(temperature=temperature, seed=1, max_new_tokens=8)
    ids, audio = world.prompt()
    for start in (0.5, 1.0, 0.0):
        said = engine.generate(ids, audio, params)
        expected = world.forward(ids, audio, said.ids, temperature or 1.0)
        assert said.logprobs == pytest.approx(expected, abs=1e-4)
        ids, audio = next_turn(world, ids, audio, said, world.whole.span(start, start + 1))
    assert said.cached_tokens > 0


def test_that_comparison_notices_other_audio_and_a_missing_token(world: World) -> None:
    ids, audio = world.prompt()
    said = world.engine().generate(ids, audio, GREEDY)
    other = world.forward(ids, [world.twin], said.ids)
    assert said.logprobs != pytest.approx(other, abs=1e-3)
    shorter = world.forward([*ids[:-2], ids[-1]], audio, said.ids)
    assert said.logprobs != pytest.approx(shorter, abs=1e-3)


def test_the_next_turn_computes_only_what_is_new(world: World) -> None:
    engine = world.engine()
    ids, audio = world.prompt()
    said = engine.generate(ids, audio, noisy())
    assert (said.prompt_tokens, said.cached_tokens) == (len(ids), 0)
    assert said.audio_tokens == world.family.audio_tokens(world.whole)
    crop = world.whole.span(1.0, 2.0)
    longer, heard = next_turn(world, ids, audio, said, crop)
    again = engine.generate(longer, heard, noisy())
    # All but the last sampled token, whose keys and values had not been needed.
    assert again.cached_tokens == len(ids) + len(said.ids) - 1
    assert engine.stats()["encoded_crops"] == 2
    same(again, world.alone(longer, heard, noisy()))


def test_the_same_context_again_computes_one_token(world: World) -> None:
    engine = world.engine()
    ids, audio = world.prompt()
    first, second = engine.generate(ids, audio, noisy()), engine.generate(ids, audio, noisy())
    same(first, second)
    assert second.cached_tokens == len(ids) - 1


@pytest.mark.parametrize("limits", [(0, 0), (20_000, 10_000), (60_000, 20_000)])
def test_eviction_changes_nothing(world: World, limits: tuple[int, int]) -> None:
    engine = world.engine(kv_bytes=limits[0], feature_bytes=limits[1])
    contexts = [world.prompt(0), world.prompt(1), world.prompt(1, world.other)]
    for _ in range(2):
        futures = [engine.submit(*context, noisy(run)) for run, context in enumerate(contexts)]
        said = [future.result() for future in futures]
        for run, (context, turn) in enumerate(zip(contexts, said, strict=True)):
            same(turn, world.alone(*context, noisy(run)))
            contexts[run] = next_turn(world, *context, turn, context[1][0].span(0.5, 1.5))
    stats = engine.stats()
    assert stats["kv"]["nbytes"] <= limits[0]
    assert stats["features"]["nbytes"] + stats["embeds"]["nbytes"] <= limits[1]
    assert stats["kv"]["evictions"] > 0


def test_branches_from_one_prefix_leave_each_other_alone(world: World) -> None:
    engine = world.engine()
    ids, audio = world.prompt()
    root = engine.generate(ids, audio, noisy())
    branches = []
    for run, start in enumerate((0.0, 1.0, 2.0)):
        crop = world.whole.span(start, start + 1.0)
        context = next_turn(world, ids, audio, root, crop)
        branches.append((context, noisy(run), engine.generate(*context, noisy(run))))
        assert branches[-1][2].cached_tokens >= len(ids) + len(root.ids) - 1
    # ... and a branch in the middle of what was sampled
    middle = ([*ids, *root.ids[:4]], audio)
    branches.append((middle, noisy(9), engine.generate(*middle, noisy(9))))
    for context, params, said in branches:
        same(engine.generate(*context, params), said)
        same(said, world.alone(*context, params))


def test_equal_ids_over_other_audio_are_another_prefix(world: World) -> None:
    engine = world.engine()
    ids, _ = world.prompt()
    first = engine.generate(ids, [world.whole], GREEDY)
    second = engine.generate(ids, [world.twin], GREEDY)
    assert second.cached_tokens < ids.index(world.family.audio_id) + 1
    assert first.logprobs != pytest.approx(second.logprobs, abs=1e-3)
    same(second, world.alone(ids, [world.twin], GREEDY))


# --- batched equals single ------------------------------------------------------------------------------------------


def test_batched_equals_single(world: World) -> None:
    """Unequal lengths, unequal ends, greedy and sampled and top-p rows in one batch that is smaller than the queue."""
    engine = world.engine(max_batch=5)
    requests = []
    for run in range(12):
        ids, audio = world.prompt(run % len(QUESTIONS), (world.whole, world.other)[run % 2])
        params = (SamplingParams(max_new_tokens=3 + run), noisy(run, 14 - run), noisy(run, 6, 0.8))[run % 3]
        requests.append((ids, audio, params))
    batched = [future.result() for future in [engine.submit(*request) for request in requests]]
    assert engine.stats()["decode_steps"] < sum(len(said.ids) for said in batched) / 2  # they were batched
    for request, said in zip(requests, batched, strict=True):
        same(said, world.alone(*request))


def test_interleaved_runs_with_many_turns_equal_single_ones(world: World) -> None:
    engine = world.engine(max_batch=3, kv_bytes=60_000)
    draw = random.Random(0)
    runs = [(*world.prompt(q % 4), noisy(q, 4 + q)) for q in range(4)]
    live = {engine.submit(*run): run for run in runs}
    turns = []
    while live:
        future = draw.choice(list(live))
        ids, audio, params = live.pop(future)
        said = future.result()
        turns.append((ids, audio, params, said))
        if len(audio) < 3:
            start = draw.randrange(4) / 2
            ids, audio = next_turn(world, ids, audio, said, world.whole.span(start, start + 1))
            live[engine.submit(ids, audio, params)] = (ids, audio, params)
    assert len(turns) == 12
    for ids, audio, params, said in turns:
        same(said, world.alone(ids, audio, params))


def test_identical_prompts_are_computed_once(world: World) -> None:
    engine = world.engine()
    ids, audio = world.prompt()
    with held(engine, world):
        futures = [engine.submit(ids, audio, noisy(run)) for run in range(32)]
    said = [future.result() for future in futures]
    stats = engine.stats()
    assert stats["encoded_crops"] == 2  # the one that held the engine, and this
    assert stats["prefilled_tokens"] == stats["prompt_tokens"] - stats["cached_tokens"]
    assert sum(turn.prompt_tokens - turn.cached_tokens for turn in said) <= len(ids)
    assert len({turn.ids for turn in said}) > 16  # each with its own noise
    for run in (0, 13, 31):
        same(said[run], world.alone(ids, audio, noisy(run)))


def test_questions_about_one_recording_share_it(world: World) -> None:
    engine = world.engine()
    contexts = [world.prompt(q) for q in range(4)]
    with held(engine, world):
        futures = [engine.submit(*context, GREEDY) for context in contexts]
    said = [future.result() for future in futures]
    heard = world.family.audio_tokens(world.whole)
    assert sum(turn.cached_tokens >= heard for turn in said) >= 3
    for context, turn in zip(contexts, said, strict=True):
        same(turn, world.alone(*context, GREEDY))


def test_missing_crops_are_encoded_as_one_batch(world: World) -> None:
    engine = world.engine()
    crops = [world.whole.span(start, start + 1) for start in (0.0, 0.5, 1.0, 1.5, 1.5)]
    with held(engine, world):
        futures = [engine.submit(*world.prompt(0, crop), GREEDY) for crop in crops]
    for future in futures:
        future.result()
    stats = engine.stats()
    assert (stats["encoded_crops"], stats["encoder_batches"]) == (1 + 4, 1 + 1)


def test_a_token_budget_cuts_contexts_without_changing_them(world: World) -> None:
    engine = world.engine(prefill_tokens=17)
    contexts = [world.prompt(q, ref) for q in (0, 3) for ref in (world.whole, world.other)]
    futures = [engine.submit(*context, noisy()) for context in contexts]
    for context, future in zip(contexts, futures, strict=True):
        same(future.result(), world.alone(*context, noisy()))
    assert engine.stats()["prefill_batches"] >= engine.stats()["prefilled_tokens"] / 17


# --- sampling -------------------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_runs_and_others_do_not(qwen: World) -> None:
    ids, audio = qwen.prompt()
    texts = {}
    for seed in (0, 1):
        for run in (0, 1):
            params = SamplingParams(temperature=1.0, seed=seed, run=run, max_new_tokens=8)
            first, second = (
                qwen.engine().generate(ids, audio, params),
                qwen.engine().generate(ids, audio, params),
            )
            same(first, second)
            texts[seed, run] = first.ids
    assert len(set(texts.values())) == 4


def test_a_resumed_run_samples_what_the_unbroken_one_did(world: World) -> None:
    """The noise belongs to the position in the context, not to how often the engine was asked."""
    ids, audio = world.prompt()
    unbroken = world.engine().generate(ids, audio, noisy(5, 12))
    first = world.engine().generate(ids, audio, noisy(5, 5))
    rest = world.engine().generate([*ids, *first.ids], audio, noisy(5, 7))
    assert first.ids + rest.ids == unbroken.ids
    assert first.logprobs + rest.logprobs == pytest.approx(unbroken.logprobs, abs=1e-4)


@pytest.mark.parametrize("params", [GREEDY, noisy(), noisy(1, 8, 0.9)])
def test_placeholders_are_never_sampled_however_likely(params: SamplingParams) -> None:
    world = World(tiny_family("qwen2-audio"))
    ids, audio = world.prompt()
    end = world.family.banned_ids[-1]
    head = world.family.model.get_output_embeddings().weight
    with torch.no_grad():  # whatever the hidden state: one of these two has by far the highest score
        head[world.family.audio_id] = 30 * torch.randn(head.shape[1])
        head[end] = -head[world.family.audio_id]
    said = world.engine().generate(ids, audio, params)
    world.close()
    assert not set(said.ids) & set(world.family.banned_ids)
    assert sum(said.logprobs) < -20  # of the full softmax, in which the placeholder takes nearly all
    assert said.logprobs == pytest.approx(world.forward(ids, audio, said.ids), abs=1e-3)


def test_end_of_turn_ends_the_run_and_is_sampled_but_not_text() -> None:
    world = World(tiny_family("qwen2.5-omni"))
    ids, audio = world.prompt()
    head = world.family.model.get_output_embeddings().weight
    eos = world.family.eos_ids[0]
    free = world.alone(ids, audio, GREEDY)
    with torch.no_grad():  # the end of turn takes the place of the fourth token
        head[[eos, free.ids[3]]] = head[[free.ids[3], eos]]
    pieces: list[tuple[list[int], str]] = []
    said = world.engine().generate(ids, audio, GREEDY, lambda new, text: pieces.append((new, text)))
    world.close()
    first = free.ids.index(free.ids[3])
    assert said.finish == "eos" and said.stop is None
    assert said.ids == (*free.ids[:first], eos)
    assert said.text == world.family.detokenize(free.ids[:first])
    assert "".join(text for _, text in pieces) == said.text
    assert tuple(token for new, _ in pieces for token in new) == said.ids


# --- stop strings and streams ---------------------------------------------------------------------------------------


def test_a_stop_string_ends_the_run_with_its_token_kept_whole(world: World) -> None:
    engine = world.engine()
    ids, audio = world.prompt()
    free = engine.generate(ids, audio, noisy(2, 16))
    expected = []
    for at in range(1, len(free.ids)):
        before, text = (world.family.detokenize(free.ids[:end]) for end in (at, at + 1))
        for stop in {
            text[-3:],
            text[-3:-1],
            text[len(before) :][:1],
        }:  # over several tokens, inside one, its start
            if stop and "\ufffd" not in stop and stop not in before:
                params = SamplingParams(
                    temperature=1.0, seed=3, run=2, max_new_tokens=16, stop=("no such text", stop)
                )
                expected.append((engine.submit(ids, audio, params), stop, free.ids[: at + 1], text))
    for future, stop, sampled, text in expected:
        said = future.result()
        assert (said.finish, said.stop, said.ids, said.text) == ("stop", stop, sampled, text)
    assert len(expected) >= 4


def test_the_stream_is_the_result(world: World) -> None:
    engine = world.engine()
    streams: dict[int, list[tuple[list[int], str]]] = {run: [] for run in range(6)}
    futures = []
    for run, stream in streams.items():
        ids, audio = world.prompt(run % 4)
        params = noisy(run, 20) if run else SamplingParams(max_new_tokens=20)
        futures.append(engine.submit(ids, audio, params, lambda new, text, s=stream: s.append((new, text))))
    for stream, future in zip(streams.values(), futures, strict=True):
        said = future.result()
        assert tuple(token for new, _ in stream for token in new) == said.ids
        assert "".join(text for _, text in stream) == said.text
        assert len(stream) > 1
        assert not any(text.endswith("\ufffd") for _, text in stream[:-1])  # whole characters only


# --- errors ---------------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_context_is_said_with_its_numbers(world: World) -> None:
    engine = world.engine()
    ids, audio = world.prompt()
    with pytest.raises(PlaceholderError, match=r"1 .*2 "):
        engine.generate(ids, [*audio, world.other], GREEDY)
    with pytest.raises(PlaceholderError, match=f"{world.family.audio_tokens(world.whole)}"):
        engine.generate(ids, [world.whole.span(0.0, 1.0)], GREEDY)
    limit = world.family.context_length
    with pytest.raises(ContextError, match=rf"{limit + 5} tokens.* {limit} "):
        engine.generate((ids * limit)[: limit + 5], audio, GREEDY)
    with pytest.raises(ContextError, match="empty"):
        engine.generate([], [], GREEDY)
    with pytest.raises(ContextError, match="999999"):
        engine.generate([999999], [], GREEDY)
    assert engine.generate(ids, audio, GREEDY).ids


def test_a_recording_that_is_too_long_is_refused_before_it_is_read(world: World) -> None:
    engine = world.engine()
    longest = world.family.limits.longest_recording
    absent = AudioRef(source="memory:gone", sha256="0" * 64, duration=longest + 9, start=0, end=longest + 9)
    if world.family.streams:  # it hears a whole recording of any length, but no such crop
        absent = absent.model_copy(update={"duration": longest + 20})
    ids, _ = world.prompt()
    with pytest.raises(RecordingTooLongError, match=f"{longest:g}"):
        engine.generate(ids, [absent], GREEDY)


def test_one_run_that_fails_leaves_the_others_alone(world: World) -> None:
    engine = world.engine()
    gone = Recording.from_array(sounds(3.0, seed=7), 16000).ref()  # never added to the store
    calls: list[str] = []

    def broken(new: list[int], text: str) -> None:
        calls.append(text)
        if len(calls) == 3:
            raise ZeroDivisionError("a mistake of the caller")

    good = [engine.submit(*world.prompt(q), noisy(q)) for q in range(3)]
    missing = engine.submit(*world.prompt(0, gone), GREEDY)
    callback = engine.submit(*world.prompt(1), noisy(), broken)
    good += [engine.submit(*world.prompt(q), noisy(q)) for q in range(3)]
    with pytest.raises(Exception, match="memory"):
        missing.result()
    with pytest.raises(ZeroDivisionError):
        callback.result()
    for q, future in enumerate(good):
        same(future.result(), world.alone(*world.prompt(q % 3), noisy(q % 3)))


def test_scores_that_are_not_numbers_are_an_error() -> None:
    world = World(tiny_family("qwen2.5-omni"))
    with torch.no_grad():
        world.family.model.get_output_embeddings().weight.fill_(float("nan"))
    engine = world.engine()
    for params in (GREEDY, noisy()):
        with pytest.raises(ModelError, match="not numbers"):
            engine.generate(*world.prompt(), params)
    world.close()


def test_the_context_length_ends_a_run() -> None:
    family = tiny_family("qwen2-audio")
    world = World(family)
    ids, audio = world.prompt()
    family.context_length = len(ids) + 5
    said = world.engine().generate(ids, audio, SamplingParams(max_new_tokens=50))
    assert (said.finish, len(said.ids)) == ("length", 5)
    with pytest.raises(ContextError, match=str(len(ids) + 5)):
        world.engine().generate([*ids, *said.ids], audio, GREEDY)
    world.close()


def test_numbers_that_are_none_stay_in_their_row() -> None:
    """A run whose keys and values are not numbers leaves nothing behind for the run that takes its row."""
    world = World(tiny_family("qwen2.5-omni"))
    engine = world.engine(max_batch=2)
    free = world.alone(*world.prompt(2), SamplingParams(max_new_tokens=6))
    poison = free.ids[3]
    # A long run beside it, so that the bad slot is among those that are attended to, and short ones after it.
    good = [(*world.prompt(2), noisy(0, 30))]
    good += [(*world.prompt(3, world.other), noisy(run, 12)) for run in range(1, 3)]
    expected = [world.alone(*request) for request in good]
    assert not any(poison in (*ids, *said.ids) for (ids, _, _), said in zip(good, expected, strict=True))
    with torch.no_grad():
        world.family.model.get_input_embeddings().weight[poison] = float("nan")
    bad = (*world.prompt(2), SamplingParams(max_new_tokens=6))
    futures = [engine.submit(*request) for request in (good[0], bad, *good[1:])]
    with pytest.raises(ModelError, match="not numbers"):
        futures.pop(1).result()
    for said, future in zip(expected, futures, strict=True):
        same(future.result(), said)
    world.close()


def test_the_live_batch_keeps_to_its_memory(qwen: World) -> None:
    ids, audio = qwen.prompt()
    roomy, tight = qwen.engine(), qwen.engine(live_bytes=1)
    said = []
    for engine in (roomy, tight):
        engine.generate(ids, audio, GREEDY)  # from now on it knows what a token takes
        with held(engine, qwen):
            futures = [engine.submit(ids, audio, noisy(run)) for run in range(4)]
        said.append([future.result() for future in futures])
    for first, second in zip(*said, strict=True):
        same(first, second)
    assert roomy.stats()["decode_steps"] < tight.stats()["decode_steps"]
    assert roomy.stats()["live_bytes"] > tight.stats()["live_bytes"]


def test_options_that_make_no_sense_are_refused(qwen: World) -> None:
    for name, value in (("max_batch", 0), ("prefill_tokens", 0), ("kv_bytes", -1), ("live_bytes", -1)):
        with pytest.raises(QuestionError, match=f"{name}.*{value}"):
            qwen.engine(**{name: value})


# --- weights --------------------------------------------------------------------------------------------------------


def test_changed_weights_drop_what_depends_on_them_and_keep_frozen_features() -> None:
    world = World(tiny_family("qwen2-audio"))
    world.family.freeze()
    engine = world.engine()
    ids, audio = world.prompt()
    before = engine.generate(ids, audio, GREEDY)
    with torch.no_grad():
        for name, parameter in world.family.model.named_parameters():
            if not name.startswith(world.family.frozen_modules):
                parameter.mul_(1.1)
    stale = engine.generate([*ids, *before.ids], audio, GREEDY)
    engine.weights_changed()
    stats = engine.stats()
    assert stats["kv"]["nbytes"] == stats["embeds"]["nbytes"] == 0
    assert stats["features"]["items"] == 1
    after = engine.generate([*ids, *before.ids], audio, GREEDY)
    assert after.cached_tokens == 0
    assert engine.stats()["encoded_crops"] == 1  # the frozen features were there
    assert after.logprobs == pytest.approx(world.forward([*ids, *before.ids], audio, after.ids), abs=1e-4)
    assert after.logprobs != pytest.approx(stale.logprobs, abs=1e-3)
    world.close()


def test_runs_that_have_begun_go_on_with_new_weights() -> None:
    world = World(tiny_family("qwen2.5-omni"))
    engine = world.engine()
    ids, audio = world.prompt()
    changed: list[int] = []

    def change(new: list[int], text: str) -> None:
        seen.extend(new)
        if len(seen) >= 4 and not changed:
            changed.append(len(seen))
            with torch.no_grad():
                world.family.model.get_output_embeddings().weight.mul_(0.5)
                world.family.model.get_submodule("model.language_model.layers.0.mlp.up_proj").weight.mul_(1.5)
            engine.weights_changed()

    seen: list[int] = []
    other = engine.submit(*world.prompt(1), noisy(1, 30))
    said = engine.submit(ids, audio, noisy(0, 12), change).result()
    assert tuple(seen) == said.ids
    # What came after the change is what the new weights say of the context.
    turn = changed[0]
    expected = world.forward(ids, audio, said.ids)
    assert said.logprobs[turn:] == pytest.approx(expected[turn:], abs=1e-4)
    assert said.logprobs[:turn] != pytest.approx(expected[:turn], abs=1e-3)
    assert len(other.result().ids) == 30
    world.close()


def test_timings_add_up_to_less_than_the_clock(qwen: World) -> None:
    import time

    engine = qwen.engine()
    began = time.perf_counter()
    futures = [engine.submit(*qwen.prompt(q), noisy(q)) for q in range(4)]
    timings = [future.result().timings for future in futures]
    elapsed = time.perf_counter() - began
    assert all(timing.prefill > 0 and timing.decode > 0 for timing in timings)
    assert sum(timing.encode for timing in timings) > 0
    assert sum(t.encode + t.prefill + t.decode for t in timings) <= elapsed
    assert engine.generate(*qwen.prompt(0), noisy(0)).timings.encode == 0
