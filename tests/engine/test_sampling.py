"""The choice of tokens: its law, its independence of the batch, and what is recorded of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from echo_agent.engine import SamplingParams
from echo_agent.engine.sampling import Rows, choose, log_uniform, noise_key
from echo_agent.errors import QuestionError

CPU = torch.device("cpu")
NONE = torch.empty(0, dtype=torch.int64)


def scores(rows: int, vocabulary: int, spread: float = 2.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * spread


def pick(
    logits: torch.Tensor, params: list[SamplingParams], positions: list[int], banned: torch.Tensor = NONE
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return choose(logits.clone(), Rows.of(params, CPU), torch.tensor(positions), banned)[:3]


def many(
    logits: torch.Tensor, params: SamplingParams, draws: int, banned: torch.Tensor = NONE
) -> torch.Tensor:
    """How often each token is chosen at ``draws`` positions of one run."""
    rows = Rows.of([params], CPU)
    rows = replace(
        rows,
        keys=rows.keys.expand(draws, 2),
        top_p=None if rows.top_p is None else rows.top_p.expand(draws, 1),
    )
    tokens, _, _, _ = choose(logits.expand(draws, -1).clone(), rows, torch.arange(draws), banned)
    return torch.bincount(tokens, minlength=logits.shape[-1]).double()


MIXED = [
    SamplingParams(),
    SamplingParams(temperature=1.0, seed=1, run=4),
    SamplingParams(temperature=0.6, seed=1, run=5, top_p=0.9),
    SamplingParams(temperature=1.7, seed=2, run=4, top_p=0.5),
    SamplingParams(temperature=1.0, seed=2, run=4),
]


def test_rows_do_not_know_of_each_other() -> None:
    logits, positions = scores(5, 700), [9, 9, 30, 4, 9]
    banned = torch.tensor([3, 17])
    tokens, logprobs, ties = pick(logits, MIXED, positions, banned)
    for row in range(5):
        alone = pick(logits[row : row + 1], [MIXED[row]], [positions[row]], banned)
        assert int(tokens[row]) == int(alone[0][0])
        assert float(logprobs[row]) == pytest.approx(float(alone[1][0]), abs=1e-5)
    order = [3, 0, 4, 2, 1]
    again, _, _ = pick(logits[order], [MIXED[i] for i in order], [positions[i] for i in order], banned)
    assert again.tolist() == tokens[order].tolist()
    assert not ties.any()


def test_noise_is_a_function_of_seed_run_and_position() -> None:
    seen: dict[tuple[int, int, int], tuple[int, ...]] = {}
    for seed, run, position in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (-1, 10**30, 2**31)):
        params = [SamplingParams(temperature=1.0, seed=seed, run=run)] * 8
        logits = scores(8, 300)
        tokens, _, _ = pick(logits, params, [position] * 8)
        seen[seed, run, position] = tuple(tokens.tolist())
        assert seen[seed, run, position] == tuple(pick(logits, params, [position] * 8)[0].tolist())
    assert len(set(seen.values())) == len(seen)


def test_noise_is_uniform_and_uncorrelated() -> None:
    """200 positions by 2000 tokens: chi-squared over 50 bins, and correlations of neighbours, within five sigma."""
    keys = torch.tensor([noise_key(3, 8)]).expand(200, 2)
    uniform = -torch.expm1(log_uniform(keys, torch.arange(200), 2000)).double()
    assert 0 < uniform.min() and uniform.max() < 1
    expected = uniform.numel() / 50
    counts = torch.histc(uniform, 50, 0, 1)
    assert ((counts - expected) ** 2 / expected).sum() < 49 + 5 * (2 * 49) ** 0.5
    for a, b in (
        (uniform[:, 1:], uniform[:, :-1]),
        (uniform[1:], uniform[:-1]),
        (uniform[:, 256:], uniform[:, :-256]),
    ):
        correlation = ((a - 0.5) * (b - 0.5)).mean() * 12
        assert abs(correlation) < 5 / a.numel() ** 0.5
    small = uniform.numel() * 1e-3
    assert abs((uniform < 1e-3).sum() - small) < 5 * small**0.5  # likely winners are decided by small values


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 0.7)])
def test_tokens_follow_the_law(temperature: float, top_p: float) -> None:
    logits, draws = scores(1, 40), 40_000
    law = (logits[0] / temperature).softmax(-1).double()
    order = law.argsort(descending=True)
    kept = order[(law[order].cumsum(0) - law[order]) < top_p]
    expected = torch.zeros(40, dtype=torch.float64)
    expected[kept] = law[kept] / law[kept].sum() * draws
    counts = many(logits, SamplingParams(temperature=temperature, top_p=top_p, seed=11), draws)
    assert counts[expected == 0].sum() == 0
    enough = expected > 5
    chi = ((counts - expected) ** 2 / expected)[enough].sum()
    degrees = int(enough.sum()) - 1
    assert chi < degrees + 5 * (2 * degrees) ** 0.5


def test_top_p_looks_beyond_the_likeliest_tokens() -> None:
    """A flat law over 500 tokens: the set is far larger than what is looked at first."""
    logits = scores(1, 500, spread=0.2)
    law = logits[0].softmax(-1)
    order = law.argsort(descending=True)
    kept = order[(law[order].cumsum(0) - law[order]) < 0.6]
    assert len(kept) > 200
    chosen = many(logits, SamplingParams(temperature=1.0, top_p=0.6), 4000).nonzero()[:, 0]
    assert set(chosen.tolist()) <= set(kept.tolist())
    assert len(chosen) > 0.9 * len(kept)


def test_logprobs_are_of_the_full_softmax_before_bans_and_top_p() -> None:
    logits, banned = scores(5, 60), torch.tensor([0, 1, 2, 3])
    logits[:, 1] = 9.0  # most of the mass is banned
    tokens, logprobs, _ = pick(logits, MIXED, [1, 2, 3, 4, 5], banned)
    for row, params in enumerate(MIXED):
        full = (logits[row] / (params.temperature or 1.0)).log_softmax(-1)
        assert float(logprobs[row]) == pytest.approx(float(full[tokens[row]]), abs=1e-5)
        assert int(tokens[row]) not in banned.tolist()


@pytest.mark.parametrize("height", [50.0, 1e4])
def test_banned_tokens_are_never_chosen_however_likely(height: float) -> None:
    logits = scores(5, 60)
    logits[:, 7] = height
    tokens, logprobs, _ = pick(logits, MIXED, [1, 2, 3, 4, 5], torch.tensor([7]))
    free, _, _ = pick(logits.index_fill(1, torch.tensor([7]), -1e30), MIXED, [1, 2, 3, 4, 5])
    assert tokens.tolist() == free.tolist()
    assert torch.isfinite(logprobs).all() and (logprobs < -20).all()


def test_greedy_takes_the_likeliest() -> None:
    logits = scores(4, 300)
    assert pick(logits, [SamplingParams(top_p=0.1)] * 4, [0] * 4)[0].tolist() == logits.argmax(1).tolist()
    mixed = [SamplingParams(), *MIXED[1:3], SamplingParams()]
    assert pick(logits, mixed, [0] * 4)[0][[0, 3]].tolist() == logits.argmax(1)[[0, 3]].tolist()


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=1.0, seed=4)])
def test_near_ties_are_noticed(params: SamplingParams) -> None:
    logits = scores(1, 100)
    winner = int(pick(logits, [params], [5])[0][0])
    assert not pick(logits, [params], [5])[2][0]
    # A second token, raised until its perturbed score is just below the winner's, and then further below.
    noise = (
        torch.zeros(100)
        if not params.temperature
        else -(-log_uniform(Rows.of([params], CPU).keys, torch.tensor([5]), 100)[0]).log()
    )
    rival = (winner + 1) % 100
    for gap, near in ((5e-5, True), (3e-4, False)):
        close = logits.clone()
        close[0, rival] = logits[0, winner] + noise[winner] - noise[rival] - gap
        tokens, _, ties = pick(close, [params], [5])
        assert (int(tokens[0]), bool(ties[0])) == (winner, near)


def test_a_winner_at_the_edge_of_the_top_p_set_is_a_near_tie() -> None:
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    at_edge = [
        SamplingParams(temperature=1.0, top_p=0.6 + shift, seed=0, run=run)
        for run in range(40)
        for shift in (-5e-5, 5e-5, 0.05)
    ]
    tokens, _, ties = pick(logits.expand(120, 3), at_edge, [1] * 120)
    by_case = tokens.view(40, 3), ties.view(40, 3)
    # Just below the edge the second token is out, just above it is in: where that decides, both are near ties.
    decided = by_case[0][:, 0] != by_case[0][:, 1]
    assert 5 < decided.sum() < 35
    assert by_case[1][decided][:, :2].all()
    assert not by_case[1][:, 2].any()
    assert not by_case[1][~decided].any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"max_new_tokens": 0},
        {"stop": ("",)},
        {"stop": "</seg>"},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(QuestionError, match=next(iter(wrong))):
        SamplingParams(**wrong)  # pyright: ignore[reportArgumentType]
