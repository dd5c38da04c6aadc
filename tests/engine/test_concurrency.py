"""Callers: threads and event loops, those who give up, and those who are left when the engine is closed."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait

import pytest
import torch

from echo_agent.engine import Generation, SamplingParams, TorchEngine
from echo_agent.errors import EchoAgentError
from tests.engine.conftest import Pause, World, held, same
from tests.tiny import tiny_family

LONG = SamplingParams(max_new_tokens=3000)


def noisy(run: int, tokens: int = 10) -> SamplingParams:
    return SamplingParams(temperature=1.0, run=run, max_new_tokens=tokens)


def eventually(condition, seconds: float = 120.0) -> None:  # noqa: ANN001
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def endless() -> World:
    """A model that never ends a turn by itself."""
    world = World(tiny_family("qwen2.5-omni"))
    world.family.eos_ids = ()
    yield world  # pyright: ignore[reportReturnType]
    world.close()


def test_threads_share_batches_and_get_their_own_results(qwen: World) -> None:
    engine = qwen.engine(max_batch=8)

    def caller(number: int, turns: Sequence[int]) -> list[tuple[int, Generation]]:
        return [(turn, engine.generate(*qwen.prompt((number + turn) % 4), noisy(number))) for turn in turns]

    with ThreadPoolExecutor(8) as pool:
        with held(engine, qwen):
            first = [pool.submit(caller, number, [0]) for number in range(8)]
            eventually(lambda: engine.stats()["waiting_runs"] == 8)
        begun = [future.result() for future in first]
        stats = engine.stats()
        assert stats["decode_steps"] == stats["decoded_tokens"] / 8 == 9  # the first token is not decoded
        rest = list(pool.map(caller, range(8), [[1, 2]] * 8))
    for number, turns in enumerate(zip(begun, rest, strict=True)):
        turn, said = [*turns[0], *turns[1]][number % 3]
        same(said, qwen.alone(*qwen.prompt((number + turn) % 4), noisy(number)))


def test_several_event_loops_and_threads_at_once(qwen: World) -> None:
    engine = qwen.engine()

    async def gathered(first: int) -> list[Generation]:
        tasks = [engine.agenerate(*qwen.prompt(run % 4), noisy(run)) for run in range(first, first + 4)]
        return await asyncio.gather(*tasks)

    with ThreadPoolExecutor(4) as pool:
        loops = [pool.submit(asyncio.run, gathered(first)) for first in (0, 4)]
        plain = pool.submit(engine.generate, *qwen.prompt(0), noisy(8))
        said = [*loops[0].result(), *loops[1].result(), plain.result()]
    for run, turn in enumerate(said):
        same(turn, qwen.alone(*qwen.prompt(run % 4), noisy(run)))


async def test_cancelling_the_caller_frees_its_row(endless: World) -> None:
    engine = endless.engine(max_batch=1)
    pause = Pause()
    task = asyncio.create_task(engine.agenerate(*endless.prompt(), LONG, pause))
    await asyncio.to_thread(pause.wait_until_it_begins)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pause.let_go()
    said = await asyncio.wait_for(engine.agenerate(*endless.prompt(1), noisy(1)), 120)
    same(said, endless.alone(*endless.prompt(1), noisy(1)))
    assert engine.stats()["live_runs"] == 0
    assert engine.stats()["decoded_tokens"] < 3000


def test_a_cancelled_run_leaves_queue_and_batch_and_is_reported(endless: World) -> None:
    engine = endless.engine(max_batch=1)
    pause = Pause()
    live, queued = (engine.submit(*endless.prompt(), LONG, pause) for _ in range(2))
    pause.wait_until_it_begins()
    last = engine.submit(*endless.prompt(2), noisy(2))
    assert queued.cancel() and live.cancel()
    pause.let_go()
    done, _ = wait([live, queued], timeout=120)
    assert done == {live, queued}
    with pytest.raises(CancelledError):
        live.result()
    same(last.result(120), endless.alone(*endless.prompt(2), noisy(2)))


def test_a_callback_that_exits_ends_its_run_only(endless: World) -> None:
    engine = endless.engine()
    other = engine.submit(*endless.prompt(1), noisy(1))
    future = engine.submit(*endless.prompt(), LONG, lambda ids, text: exit(3))
    with pytest.raises(SystemExit):
        future.result(120)
    same(other.result(120), endless.alone(*endless.prompt(1), noisy(1)))


def test_a_failing_step_fails_its_runs_and_the_engine_goes_on(
    endless: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = endless.engine()
    pause = Pause(lambda: engine.stats()["live_runs"] == 2)
    live = [engine.submit(*endless.prompt(run), LONG, pause) for run in range(2)]
    pause.wait_until_it_begins()
    with monkeypatch.context() as patched:
        patched.setattr(endless.family, "logits", lambda hidden: 1 / 0)
        pause.let_go()
        for future in live:
            with pytest.raises(ZeroDivisionError):
                future.result(120)
    same(engine.generate(*endless.prompt(), noisy(0)), endless.alone(*endless.prompt(), noisy(0)))


def test_if_the_thread_dies_every_caller_hears_of_it(endless: World, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = endless.engine(max_batch=1)
    pause = Pause()
    futures = [engine.submit(*endless.prompt(), LONG, pause) for _ in range(3)]
    pause.wait_until_it_begins()

    def dies() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(engine._scheduler, "_decode", dies)
    pause.let_go()
    for future in futures:
        with pytest.raises(KeyboardInterrupt):
            future.result(120)
    with pytest.raises(EchoAgentError, match="thread has ended"):
        engine.generate(*endless.prompt(), noisy(0))
    engine.weights_changed()


def test_runs_are_let_in_in_the_order_in_which_they_came(endless: World) -> None:
    engine = endless.engine(max_batch=2)
    ended: list[int] = []
    futures = [engine.submit(*endless.prompt(), noisy(run, 6)) for run in range(10)]
    for run, future in enumerate(futures):
        future.add_done_callback(lambda _, run=run: ended.append(run))
    wait(futures)
    eventually(lambda: len(ended) == 10)
    assert all(abs(place - run) <= 1 for place, run in enumerate(ended))


def test_late_runs_join_and_early_ones_do_not_wait(endless: World) -> None:
    engine = endless.engine()
    late: list[Future[Generation]] = []
    ended: list[str] = []

    def submit_others(ids: list[int], text: str) -> None:
        if not late and engine.stats()["live_runs"] == 1:
            for run in range(3):
                late.append(engine.submit(*endless.prompt(run), noisy(run)))
                late[-1].add_done_callback(lambda _: ended.append("late"))

    long = engine.submit(*endless.prompt(), noisy(9, 300), submit_others)
    long.add_done_callback(lambda _: ended.append("long"))
    wait([long])
    assert ended == ["late", "late", "late", "long"]
    for run, future in enumerate(late):
        same(future.result(), endless.alone(*endless.prompt(run), noisy(run)))


def test_close_fails_what_waits_and_what_comes(endless: World) -> None:
    engine = endless.engine(max_batch=1)
    pause = Pause()
    futures = [engine.submit(*endless.prompt(), LONG, pause) for _ in range(3)]
    pause.wait_until_it_begins()
    closing = threading.Thread(target=engine.close)
    closing.start()
    eventually(lambda: engine._scheduler.inbox._closed)
    pause.let_go()
    closing.join()
    for future in futures:
        with pytest.raises(EchoAgentError, match="closed"):
            future.result(120)
    with pytest.raises(EchoAgentError, match="closed"):
        engine.generate(*endless.prompt(), noisy(0))
    engine.close()
    engine.weights_changed()
    assert engine.stats()["live_runs"] == 0


def test_an_engine_that_nobody_holds_ends_its_thread(qwen: World) -> None:
    before = threading.active_count()
    engine = TorchEngine(qwen.family, qwen.store)
    engine.generate(*qwen.prompt(), noisy(0))
    assert threading.active_count() == before + 1
    del engine
    gc.collect()
    eventually(lambda: threading.active_count() == before)


def test_generate_in_a_callback_is_refused_and_submit_is_not(qwen: World) -> None:
    engine = qwen.engine()
    inner: list[object] = []

    def on_token(ids: list[int], text: str) -> None:
        if not inner:
            inner.append(engine.submit(*qwen.prompt(1), noisy(1)))
            engine.generate(*qwen.prompt(2), noisy(2))

    with pytest.raises(EchoAgentError, match="callback"):
        engine.generate(*qwen.prompt(), noisy(0), on_token)
    same(inner[0].result(120), qwen.alone(*qwen.prompt(1), noisy(1)))  # pyright: ignore[reportAttributeAccessIssue]


def test_the_model_is_in_evaluation_mode_only_while_there_are_runs() -> None:
    world = World(tiny_family("qwen2-audio"))
    model = world.family.model
    model.train()
    frozen = model.get_submodule("model.audio_tower").eval()
    seen: list[bool] = []
    engine = world.engine()

    def look(ids: list[int], text: str) -> None:
        seen.append(any(module.training for module in model.modules()))

    for _ in range(3):
        engine.generate(*world.prompt(), noisy(0), look)
        assert model.training and model.get_submodule("model.language_model").training
        assert not any(module.training for module in frozen.modules())
    assert seen and not any(seen)
    with pytest.raises(ZeroDivisionError):
        engine.generate(*world.prompt(), noisy(0), lambda ids, text: 1 / 0)  # pyright: ignore[reportArgumentType]
    assert model.training
    world.close()


def test_gradients_of_the_callers_are_left_alone(qwen: World) -> None:
    """Grad mode belongs to a thread: the engine records no graph, and what it keeps can be used in one."""
    engine = qwen.engine()
    with torch.enable_grad():
        engine.generate(*qwen.prompt(), noisy(0))
        assert torch.is_grad_enabled()
    found = engine._scheduler.audio.embeddings([qwen.whole])[qwen.whole.key()]
    assert isinstance(found, torch.Tensor)
    assert not found.requires_grad and not found.is_inference()
