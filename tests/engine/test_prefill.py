"""How contexts that are let in together are laid out for computing."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from echo_agent.engine.kv import KV
from echo_agent.engine.prefill import Job, next_batch, plan
from echo_agent.engine.prefix_cache import Symbols


@dataclass(eq=False)
class Context:
    """As much of a run as planning looks at."""

    ids: tuple[int, ...]

    def context(self) -> tuple[int, ...]:
        return self.ids

    def symbols(self) -> Symbols:
        return np.array(self.ids, dtype=np.int64)


def lay_out(
    contexts: list[tuple[int, ...]], budget: int = 4096, cached: int = 0
) -> tuple[list[Context], list[Job]]:
    runs = [Context(ids) for ids in contexts]
    parts = [KV.of([torch.zeros(2, cached, 1, 1)])] if cached else []
    jobs = plan([(run, parts) for run in runs], budget)  # pyright: ignore[reportArgumentType]
    for job in jobs:
        job.kv = None
    return runs, jobs


def chain(run: Context, jobs: list[Job]) -> list[Job]:
    """The jobs that compute a run's context, first to last."""
    (last,) = [job for job in jobs if run in job.finishing]
    path = [last]
    while path[-1].parent is not None:
        path.append(path[-1].parent)
    return path[::-1]


def check(runs: list[Context], jobs: list[Job], start: int = 0) -> None:
    """Every run's context is computed once, in order, from its own ids."""
    for run in runs:
        path = chain(run, jobs)
        assert [job.start for job in path] == [start, *(job.end for job in path[:-1])]
        assert path[-1].end == len(run.ids)
        for job in path:
            assert job.ids[job.start : job.end] == run.ids[job.start : job.end]
            assert run in job.sharing
    assert sum(len(job.finishing) for job in jobs) == len(runs)


def computed(jobs: list[Job]) -> int:
    return sum(job.end - job.start for job in jobs)


def test_identical_contexts_are_one_job() -> None:
    runs, jobs = lay_out([tuple(range(10))] * 32)
    check(runs, jobs)
    assert len(jobs) == 1 and len(jobs[0].finishing) == 32


def test_a_long_common_beginning_is_a_job_of_its_own() -> None:
    recording = tuple(range(100))
    contexts = [(*recording, 1000 + question, *range(question)) for question in range(1, 9)]
    runs, jobs = lay_out(contexts)
    check(runs, jobs)
    assert computed(jobs) == 100 + sum(len(ids) - 100 for ids in contexts)
    assert len(jobs) == 9


def test_a_short_one_is_not_worth_a_forward_pass() -> None:
    runs, jobs = lay_out([(1, 2, *[10 + run] * 50) for run in range(8)])
    check(runs, jobs)
    assert len(jobs) == 8 and all(job.parent is None for job in jobs)


def test_groups_are_found_behind_a_short_common_beginning() -> None:
    contexts = [(1, 2, *[10 + run % 4] * 50) for run in range(8)]
    runs, jobs = lay_out(contexts)
    check(runs, jobs)
    assert sorted(len(job.finishing) for job in jobs) == [2, 2, 2, 2]


def test_a_context_may_end_where_others_go_on() -> None:
    recording = tuple(range(100))
    runs, jobs = lay_out([recording, (*recording, 7), recording])
    check(runs, jobs)
    assert computed(jobs) == 101
    runs, jobs = lay_out([(1, 2), (1, 2, 3), (1, 2)])
    check(runs, jobs)
    assert computed(jobs) == 5


def test_long_contexts_are_cut_to_the_budget() -> None:
    runs, jobs = lay_out([tuple(range(100)), tuple(range(1, 31))], budget=30)
    check(runs, jobs)
    assert max(job.end - job.start for job in jobs) == 30 and len(jobs) == 5


def test_what_is_cached_is_not_laid_out() -> None:
    runs, jobs = lay_out([tuple(range(100)), (*range(99), 5)], cached=60)
    check(runs, jobs, start=60)


def test_random_forests_are_covered() -> None:
    draw = random.Random(0)
    for _ in range(100):
        trunk = [draw.randrange(2) for _ in range(80)]
        contexts = []
        for _ in range(draw.randrange(1, 12)):
            kept = draw.randrange(1, 80)
            contexts.append((*trunk[:kept], *(draw.randrange(2) for _ in range(draw.randrange(30)))))
        budget = draw.choice([5, 40, 1000])
        runs, jobs = lay_out(contexts, budget)
        check(runs, jobs)
        assert computed(jobs) <= sum(map(len, contexts))
        order: list[Job] = []
        while jobs:
            batch = next_batch(jobs, budget)
            assert batch and all(job.ready for job in batch)
            assert len(batch) == 1 or len(batch) * max(job.end - job.start for job in batch) <= budget
            for job in batch:
                job.kv = KV.of([torch.zeros(2, job.end - job.start, 1, 1)])
                jobs.remove(job)
                order.append(job)


@pytest.mark.parametrize(("budget", "sizes"), [(100, [2, 1]), (49, [1, 1, 1]), (150, [3])])
def test_a_batch_keeps_to_the_budget(budget: int, sizes: list[int]) -> None:
    _, jobs = lay_out([tuple([10 + run] * 50) for run in range(3)], budget=50)
    got = []
    while jobs:
        batch = next_batch(jobs, budget)
        got.append(len(batch))
        jobs = [job for job in jobs if job not in batch]
    assert got == sizes
