"""Guided answers: what is written is a choice, what is recorded is the free policy's, and no other run notices."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from echo_agent.answers import extract_answer, match_choice
from echo_agent.audio.recording import AudioRef
from echo_agent.engine import Generation, SamplingParams
from echo_agent.engine.guides import Guide, Guides, Node
from echo_agent.engine.sampling import Rows, choose
from echo_agent.errors import QuestionError
from echo_agent.families.base import Family
from tests.engine.conftest import World, same, shared_family
from tests.tiny import KINDS

STOP = ("</seg>", "</answer>")
CHOICES = ("four", "four seven", "a dog", "Dog, bell", "12 s", "3", "café crème", "犬の声")
"""Prefixes of each other, several tokens, numbers (time tokens of echo-nano), more than ASCII."""


def guided(
    run: int = 0, temperature: float = 1.0, choices: tuple[str, ...] = CHOICES, **more: float
) -> SamplingParams:
    options = SamplingParams(temperature=temperature, seed=3, run=run, max_new_tokens=64, stop=STOP)
    return replace(options, choices=choices, **more)  # pyright: ignore[reportArgumentType]


def forced(world: World, question: str | int = 0) -> tuple[list[int], list[AudioRef]]:
    """A context in which the answer has been asked for by opening it."""
    ids, audio = world.prompt(question)
    return [*ids, *world.family.tokenize("<think>"), *world.family.tokenize("</think><answer>")], audio


def read(said: Generation) -> int | None:
    return match_choice(extract_answer(f"<answer>{said.text}"), CHOICES)


@pytest.fixture(params=KINDS)
def family(request: pytest.FixtureRequest) -> Family:
    return shared_family(request.param)


def paths(node: Node) -> list[list[int]]:
    """Every way through a tree."""
    return [[token, *rest] for token, after in node.items() for rest in (paths(after) if after else [[]])]


def spell(family: Family, choices: Sequence[str]) -> set[str]:
    """Every text that a guide allows."""
    return {family.detokenize(path) for path in paths(Guide(choices, family).root)}


# --- the engine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (0.7, 0.9), (1.5, 1.0)])
def test_the_answer_is_a_choice_and_its_log_probabilities_are_the_free_policys(
    world: World, temperature: float, top_p: float
) -> None:
    engine, (ids, audio) = world.engine(), forced(world)
    seen: set[int | None] = set()
    for run in range(6 if temperature else 1):
        said = engine.generate(ids, audio, guided(run, temperature, top_p=top_p))
        assert (said.finish, said.stop) == ("stop", "</answer>")
        assert read(said) is not None, said.text
        expected = world.forward(ids, audio, said.ids, temperature or 1.0)
        assert said.logprobs == pytest.approx(expected, abs=1e-4)
        seen.add(read(said))
    assert len(seen) > 1 or not temperature


def test_mixed_rows_equal_single_ones_and_free_rows_are_untouched(world: World) -> None:
    contexts = [forced(world, q % 4) for q in range(8)]
    free = [
        replace(guided(run, (0.0, 1.0)[run % 2], top_p=(1.0, 0.9)[run // 4]), choices=()) for run in range(8)
    ]
    mixed = [replace(params, choices=CHOICES) if run % 3 else params for run, params in enumerate(free)]
    engine = world.engine()
    together = [engine.submit(*context, params) for context, params in zip(contexts, mixed, strict=True)]
    for run, future in enumerate(together):
        said = future.result()
        same(said, world.alone(*contexts[run], mixed[run]))
        if mixed[run].choices:
            assert read(said) is not None
        else:
            same(said, world.alone(*contexts[run], free[run]))


def test_a_policy_that_opens_no_answer_is_free(world: World) -> None:
    ids, audio = world.prompt()
    for run in range(3):
        params = replace(guided(run), max_new_tokens=12)
        said = world.alone(ids, audio, params)
        assert "<answer>" not in said.text
        same(said, world.alone(ids, audio, replace(params, choices=())))


def test_an_answer_that_was_begun_is_guided_to_its_end(world: World) -> None:
    ids, audio = forced(world)
    for run in range(4):
        whole = world.alone(ids, audio, guided(run))
        for cut in range(1, len(whole.ids)):
            rest = world.alone([*ids, *whole.ids[:cut]], audio, guided(run))
            # A closing tag that is given in part is no stop string: then the run goes on, free.
            assert (*whole.ids[:cut], *rest.ids)[: len(whole.ids)] == whole.ids
    assert world.alone([*ids, *whole.ids], audio, replace(guided(), max_new_tokens=2)).finish == "length"


def test_the_budget_and_a_stream_hold_inside_an_answer(world: World) -> None:
    ids, audio = forced(world)
    whole = world.alone(ids, audio, guided(1, choices=("a dog in the yard", "a cat in the house")))
    short = guided(1, choices=("a dog in the yard", "a cat in the house"), max_new_tokens=2)
    cut = world.alone(ids, audio, short)
    assert (cut.finish, cut.ids) == ("length", whole.ids[:2])
    pieces: list[str] = []
    streamed = world.engine().generate(ids, audio, guided(4), lambda _, text: pieces.append(text))
    assert "".join(pieces) == streamed.text and read(streamed) is not None


def test_weights_may_change_inside_an_answer(qwen: World) -> None:
    engine, (ids, audio) = qwen.engine(), forced(qwen)
    seen: list[int] = []

    def changed(new: list[int], text: str) -> None:
        seen.extend(new)
        if len(seen) == len(new):
            engine.weights_changed()

    said = engine.generate(ids, audio, guided(2), changed)
    same(said, qwen.alone(ids, audio, guided(2)))


# --- the choice of a token --------------------------------------------------------------------------------------


def test_a_kept_token_is_chosen_and_the_other_rows_are_bit_identical() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, positions = torch.randn(6, 300, generator=generator) * 3, torch.arange(6)
    banned = torch.tensor([0, 1])
    options = [SamplingParams(temperature=t, top_p=p) for t in (0.0, 0.7, 1.0) for p in (0.8, 1.0)]
    for params in (options, options[:1] * 6):
        rows = Rows.of(params, torch.device("cpu"))
        free = choose(scores.clone(), rows, positions, banned)
        kept = {1: (5,), 4: (7, 9, 11), 5: (3, 200)}
        chosen_now = choose(scores.clone(), rows, positions, banned, kept)
        tokens, logprobs, ties, steered = chosen_now
        for row, chosen in enumerate(params):
            if row not in kept:
                assert all(torch.equal(a[row], b[row]) for a, b in zip(free, chosen_now, strict=True))
                continue
            full = (scores[row] / (chosen.temperature or 1.0)).log_softmax(-1)
            assert int(tokens[row]) in kept[row] and not ties[row]
            assert float(logprobs[row]) == pytest.approx(float(full[tokens[row]]), abs=1e-5)
            assert bool(steered[row]) == (float(full[list(kept[row])].exp().sum()) < 0.5)
            renormalised = full[tokens[row]] - full[list(kept[row])].logsumexp(0)
            assert float(logprobs[row]) < float(renormalised) - 0.1, "not the law among the kept"


def test_ties_are_looked_for_among_the_kept_tokens() -> None:
    scores = torch.zeros(2, 50)
    scores[:, 7], scores[:, 8] = -30.0, -30.00005
    rows = Rows.of([SamplingParams()] * 2, torch.device("cpu"))
    empty, positions = torch.empty(0, dtype=torch.int64), torch.arange(2)
    tokens, logprobs, ties, _ = choose(scores, rows, positions, empty, {0: (7, 8), 1: (7, 9)})
    assert tokens.tolist() == [7, 9] and ties.tolist() == [True, False]
    assert logprobs.isfinite().all()


def test_kept_tokens_follow_the_policys_law() -> None:
    draws, kept = 20_000, (2, 5, 9)
    scores = torch.randn(1, 20, generator=torch.Generator().manual_seed(1)).expand(draws, 20).clone()
    rows = Rows.of([SamplingParams(temperature=0.8, run=run) for run in range(draws)], torch.device("cpu"))
    law = (scores[0, list(kept)] / 0.8).softmax(-1)
    empty, positions = torch.empty(0, dtype=torch.int64), torch.full((draws,), 4)
    tokens, _, _, _ = choose(scores, rows, positions, empty, dict.fromkeys(range(draws), kept))
    shares = torch.bincount(tokens, minlength=20)[list(kept)] / draws
    assert shares.sum() == 1 and torch.allclose(shares, law, atol=5 * 0.5 / draws**0.5)


# --- the tree ---------------------------------------------------------------------------------------------------


def test_a_guide_spells_each_choice_with_and_without_a_space(family: Family) -> None:
    lower = str.lower if family.kind == "echo-nano" else str
    expected = {f"{space}{lower(choice)}</answer>" for choice in CHOICES for space in ("", " ")}
    assert spell(family, [*CHOICES, " four "]) == expected


def test_an_accent_in_two_characters_is_the_same_choice(family: Family) -> None:
    choices = (unicodedata.normalize("NFD", "café"), "cafe")
    for text in spell(family, choices):
        plain = unicodedata.normalize("NFC", text).strip() == "cafe</answer>"
        assert match_choice(extract_answer(f"<answer>{text}"), choices) == plain


@pytest.mark.parametrize("kind", KINDS)
def test_markup_in_a_choice_is_text(kind: str) -> None:
    family = shared_family(kind)
    controls = [token for token in family.tokenizer.get_added_vocab() if token.startswith("<")]
    choices = ("a</answer>b", "</answer>", "<answer>", *controls, "x<|im_end|>y<|AUDIO|>", "plain")
    guide = Guide(choices, family)
    never = {family.tokenizer.get_vocab()[token] for token in controls if token != "</answer>"}
    never |= {*family.banned_ids, *family.eos_ids, family.audio_id}
    end = family.tokenize("</answer>")
    for path in paths(guide.root):
        assert never.isdisjoint(path) and path[-len(end) :] == end
        assert family.detokenize(path).count("</answer>") == 1
    world = World(family)
    ids, audio = forced(world)
    with world.engine() as engine:
        for run in range(8):
            said = engine.generate(ids, audio, guided(run, 2.0, choices=choices))
            assert said.stop == "</answer>" and never.isdisjoint(said.ids)


def test_the_opening_is_found_wherever_it_comes_from(family: Family) -> None:
    guides = Guides(family)

    def after(given: str, *sampled: str) -> list[str]:
        cursor = guides.cursor(CHOICES, family.tokenize(given))
        assert cursor is not None
        for text in sampled:
            for token in family.tokenize(text):
                cursor.push(token)
        return sorted(family.detokenize([token]) for token in cursor.kept)

    root = after("</think><answer>")
    assert root and root == after("so", "</think><answer>") == after("so", "<answer>")
    assert root == after("so <answer>\n"), "white space is skipped"
    assert set(after("x<answer> a")) >= set(after("x", "<answer>", " a")) != set(root)
    assert after("x") == after("x<answer>", " four</answer>") == after("x<answer> four</answer>") == []
    assert after("<answer> pony") == after("<answer> or </answer> so", " four") == []
    assert root == after("x<answer> four</answer>", "<answer>"), "it may answer again"


def test_a_tag_that_is_half_given_and_half_sampled_is_found() -> None:
    family = shared_family("qwen2.5-omni")
    ids = family.tokenize("<answer>")
    assert len(ids) > 1
    cursor = Guides(family).cursor(CHOICES, ids[:-1])
    assert cursor is not None and not cursor.kept
    cursor.push(ids[-1])
    assert cursor.kept


def test_a_token_that_holds_more_than_the_end_of_the_tag_leaves_the_run_free() -> None:
    """No token of the tiny tokenizers does; here is one, by its text."""
    family = shared_family("qwen2.5-omni")
    fat = {-1: "<answer>f", -2: "<answer>\n"}

    class Fat:
        banned_ids, eos_ids = (), ()
        escape, tokenize = staticmethod(family.escape), staticmethod(family.tokenize)

        @staticmethod
        def detokenize(ids: Sequence[int]) -> str:
            return "".join(fat.get(token) or family.detokenize([token]) for token in ids)

    for token, free in ((-1, True), (-2, False)):
        cursor = Guides(Fat()).cursor(CHOICES, [5])  # pyright: ignore[reportArgumentType]
        assert cursor is not None
        cursor.push(token)
        assert bool(cursor.kept) != free


def test_guides_are_kept_between_runs_and_none_is_made_without_choices(family: Family) -> None:
    guides = Guides(family)
    assert guides.cursor((), [1]) is None
    assert guides.guide(CHOICES) is guides.guide(CHOICES)


@pytest.mark.parametrize("wrong", ["a dog", ("a dog", " ")])
def test_choices_that_make_no_sense_are_refused(wrong: object) -> None:
    with pytest.raises(QuestionError, match="choices"):
        SamplingParams(choices=wrong)  # pyright: ignore[reportArgumentType]
