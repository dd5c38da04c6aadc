"""What every family must do, on a tiny randomly initialised model of its architecture.

The central test: log-probabilities from incremental decoding with a crop appended to the cache equal those of one full
forward pass through the model's own ``forward`` over the same trajectory. Its twins break one thing each and must fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from echo_agent.errors import PlaceholderError, RecordingTooLongError
from echo_agent.families.base import Family, Piece
from echo_agent.recording import AudioRef, Recording
from tests.tiny import KINDS, sounds, tiny_family

SAME = 1e-4
"""Largest difference of log-probabilities that counts as equal (float32)."""
CHANGED = 10 * SAME
"""Smallest difference that counts as changed."""

Features = dict[str, torch.Tensor]


@pytest.fixture(scope="module", params=KINDS)
def family(request: pytest.FixtureRequest) -> Family:
    return tiny_family(request.param)


@dataclass
class Story:
    """A trajectory in steps: each is appended to the cache in one forward pass."""

    recording: Recording
    steps: list[list[int]]
    audio: list[AudioRef]

    @property
    def ids(self) -> list[int]:
        return [token for step in self.steps for token in step]

    @property
    def crops(self) -> list[tuple[AudioRef, np.ndarray]]:
        return [(ref, self.recording.crop(ref, 16000)) for ref in self.audio]


def story(
    family: Family, seed: int = 0, seconds: float = 6.0, span: tuple[float, float] = (1.5, 3.0)
) -> Story:
    """Prompt with the whole recording; a call, token by token; the crop at once; the answer, token by token."""
    recording = Recording.from_array(sounds(seconds, seed), 16000)
    whole, crop = recording.ref(), recording.ref(*span)
    prompt, _ = family.render(
        family.question_pieces([whole], f"Which sound is number {seed}?", ["bell", "dog"])
    )
    called = family.tokenize("<think>")[:8] + family.tokenize("bell dog bell")[:8]
    heard, _ = family.render([Piece(audio=crop)])
    answered = family.tokenize("dog bell dog dog bell")[:8]
    steps = [prompt, *([token] for token in called), heard, *([token] for token in answered)]
    return Story(recording, steps, [whole, crop])


@torch.no_grad()
def encode(family: Family, crops: Sequence[tuple[AudioRef, np.ndarray]]) -> list[torch.Tensor]:
    return family.audio_embeds([ref for ref, _ in crops], family.frozen_features(crops))


@torch.no_grad()
def embed(family: Family, ids: Sequence[int], audio: Sequence[torch.Tensor]) -> torch.Tensor:
    """Embeddings ``[1, n, hidden]`` of ids, the runs of placeholders replaced by ``audio``, in order."""
    embeds = family.token_embeds(torch.tensor([list(ids)])).clone()
    for (first, count), features in zip(family.runs(ids), audio, strict=True):
        embeds[0, first : first + count] = features
    return embeds


@torch.no_grad()
def native(family: Family, told: Story) -> torch.Tensor:
    """Log-probabilities ``[n, vocabulary]`` of one full pass through the model's own forward."""
    out = family.model(**family.forward_inputs(told.ids, told.crops))
    assert out.logits.shape[1] == len(told.ids)
    return out.logits[0].float().log_softmax(-1)


@torch.no_grad()
def stepwise(
    family: Family,
    told: Story,
    *,
    audio: Sequence[torch.Tensor] | None = None,
    position: Callable[[int, int], int] = lambda step, at: at,
) -> Iterator[torch.Tensor]:
    """Log-probabilities ``[new, vocabulary]`` of each step, computed from the cache of the ones before."""
    audio = list(encode(family, told.crops) if audio is None else audio)
    cache, done = None, 0
    for number, step in enumerate(told.steps):
        runs = len(family.runs(step))
        embeds = embed(family, step, audio[:runs])
        del audio[:runs]
        mask = torch.ones(1, done + len(step), dtype=torch.long)
        positions = torch.tensor([[position(number, done + i) for i in range(len(step))]])
        hidden, cache = family.forward_embeds(embeds, mask, positions, cache)
        assert cache.get_seq_length() == done + len(step)
        done += len(step)
        yield family.logits(hidden)[0].log_softmax(-1)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return (one - other).abs().max().item()


def crop_step(family: Family, told: Story) -> int:
    """Number of the step that appends the crop."""
    return next(i for i, step in enumerate(told.steps) if i and family.runs(step))


def after_crop(family: Family, told: Story) -> slice:
    """Positions whose predictions come after the crop."""
    return slice(sum(map(len, told.steps[: crop_step(family, told) + 1])), None)


# --- the central test and its twins -----------------------------------------------------------------------------


def test_steps_with_a_crop_in_the_cache_equal_one_full_pass(family: Family) -> None:
    told = story(family)
    full = native(family, told)
    assert apart(torch.cat(list(stepwise(family, told))), full) < SAME
    assert full.std() > 0.1, "a model whose scores hardly vary proves nothing"


def test_twin_with_features_zeroed_differs(family: Family) -> None:
    told = story(family)
    whole, crop = encode(family, told.crops)
    full, late = native(family, told), after_crop(family, told)
    for audio in ([whole, torch.zeros_like(crop)], [torch.zeros_like(whole), crop]):
        assert apart(torch.cat(list(stepwise(family, told, audio=audio)))[late], full[late]) > CHANGED


def test_twin_with_bare_placeholders_differs(family: Family) -> None:
    told = story(family)
    whole, crop = encode(family, told.crops)
    bare = family.token_embeds(torch.tensor([family.audio_id])).expand_as(crop)
    full, late = native(family, told), after_crop(family, told)
    assert apart(torch.cat(list(stepwise(family, told, audio=[whole, bare])))[late], full[late]) > CHANGED


def test_twin_with_positions_off_by_one_differs(family: Family) -> None:
    told = story(family)
    full, late = native(family, told), after_crop(family, told)
    begin = crop_step(family, told)
    shifted = stepwise(family, told, position=lambda step, at: at + (step >= begin))
    assert apart(torch.cat(list(shifted))[late], full[late]) > CHANGED
    restarted = stepwise(family, told, position=lambda step, at: at - 1 if step > begin else at)
    assert apart(torch.cat(list(restarted))[late], full[late]) > CHANGED


def test_twin_with_the_crop_dropped_differs(family: Family) -> None:
    told = story(family)
    full, late = native(family, told), after_crop(family, told)
    at = crop_step(family, told)
    without = Story(told.recording, told.steps[:at] + told.steps[at + 1 :], told.audio[:1])
    answered = len(told.ids) - (late.start or 0)
    assert apart(torch.cat(list(stepwise(family, without)))[-answered:], full[late]) > CHANGED


def test_another_crop_of_equal_length_is_heard_as_another(family: Family) -> None:
    told = story(family)
    other = Story(told.recording, told.steps, [told.audio[0], told.recording.ref(4.0, 5.5)])
    at, late = crop_step(family, told), after_crop(family, told)
    other.steps = [*told.steps[:at], family.audio_ids(other.audio[1]), *told.steps[at + 1 :]]
    assert apart(torch.cat(list(stepwise(family, other)))[late], native(family, told)[late]) > CHANGED
    assert apart(torch.cat(list(stepwise(family, other))), native(family, other)) < SAME


# --- batches, holes, several runs on one model ------------------------------------------------------------------


def test_rows_of_unequal_length_with_holes_equal_single_rows(family: Family) -> None:
    """Three runs share one padded cache; each keeps its own positions, and what is padding is masked."""
    told = [story(family), story(family, 1, 9.0, (0.5, 4.0)), story(family, 2, 2.0, (0.2, 0.9))]
    batch_audio = encode(family, [crop for one in told for crop in one.crops])
    audio = [batch_audio[2 * row : 2 * row + 2] for row in range(len(told))]
    width = [max(len(one.steps[n]) for one in told) for n in range(len(told[0].steps))]
    assert len({len(one.steps) for one in told}) == 1 and len({len(one.ids) for one in told}) == len(told)

    mask = torch.zeros(len(told), 0, dtype=torch.long)
    seen = [0] * len(told)
    got: list[list[torch.Tensor]] = [[] for _ in told]
    cache = None
    for number, columns in enumerate(width):
        left = number % 2  # padding on the right of one step, on the left of the next
        embeds, new_mask, positions = [], [], []
        for row, one in enumerate(told):
            step = one.steps[number]
            runs = len(family.runs(step))
            filled = embed(family, step, audio[row][:runs])
            audio[row] = audio[row][runs:]
            pad = columns - len(step)
            sides = (pad, 0) if left else (0, pad)
            embeds.append(torch.nn.functional.pad(filled, (0, 0, *sides)))
            new_mask.append(torch.nn.functional.pad(torch.ones(1, len(step), dtype=torch.long), sides))
            at = torch.arange(seen[row], seen[row] + len(step))[None]
            positions.append(torch.nn.functional.pad(at, sides))
            seen[row] += len(step)
        mask = torch.cat([mask, torch.cat(new_mask)], dim=1)
        with torch.no_grad():
            hidden, cache = family.forward_embeds(torch.cat(embeds), mask, torch.cat(positions), cache)
            logprobs = family.logits(hidden).log_softmax(-1)
        for row in range(len(told)):
            got[row].append(logprobs[row][torch.cat(new_mask)[row].bool()])
    for one, rows in zip(told, got, strict=True):
        assert apart(torch.cat(rows), native(family, one)) < SAME


def test_interleaved_runs_do_not_disturb_each_other(family: Family) -> None:
    one, two = story(family, 3), story(family, 4, seconds=8.0, span=(2.0, 5.5))
    alone = [native(family, one), native(family, two)]
    runs = [stepwise(family, one), stepwise(family, two)]
    got: list[list[torch.Tensor]] = [[], []]
    for number in range(len(one.steps)):
        for row, run in enumerate(runs):
            got[row].append(next(run))
        if number == 1:
            native(family, story(family, 5, seconds=3.0))  # somebody else's full pass in between
    for row in range(2):
        assert apart(torch.cat(got[row]), alone[row]) < SAME


def test_crops_encoded_together_equal_crops_encoded_alone(family: Family) -> None:
    recording = Recording.from_array(sounds(12.0, 6), 16000)
    crops = [
        (ref, recording.crop(ref, 16000)) for ref in map(recording.ref, (0.0, 3.0, 7.5), (12.0, 3.7, 11.0))
    ]
    together = encode(family, crops)
    assert len({len(embeds) for embeds in together}) == len(crops)
    for crop, embeds in zip(crops, together, strict=True):
        assert apart(encode(family, [crop])[0], embeds) < 1e-5


# --- counts, limits, ids ----------------------------------------------------------------------------------------


def test_placeholders_agree_with_features_at_many_lengths(family: Family) -> None:
    draw = np.random.default_rng(7)
    recording = Recording.from_array(sounds(20.0, 8), 16000)
    shortest = family.limits.shortest
    lengths = [shortest, shortest + 0.0001, 0.25, 1.0, 1.001, 2.0, 2.01, 19.99]
    lengths += [float(length) for length in draw.uniform(shortest, 12, size=8)]
    crops = [(ref, recording.crop(ref, 16000)) for ref in (recording.ref(0.0, length) for length in lengths)]
    for (ref, _), embeds in zip(crops, encode(family, crops), strict=True):
        ids = family.audio_ids(ref)
        assert family.runs(ids) == [(1, family.audio_tokens(ref))]
        assert len(embeds) == family.audio_tokens(ref) >= 1
        assert len(ids) == len(embeds) + 2


def test_a_recording_shorter_than_the_shortest_crop_can_be_heard(family: Family) -> None:
    recording = Recording.from_array(sounds(0.05, 9), 16000)
    spoken = [[token] for token in family.tokenize("dog bell")]
    told = Story(recording, [family.audio_ids(recording.ref()), *spoken], [recording.ref()])
    assert apart(torch.cat(list(stepwise(family, told))), native(family, told)) < SAME


def test_a_wrong_number_of_features_is_an_error_that_names_both(family: Family) -> None:
    told = story(family)
    (ref, samples), _ = told.crops
    features = family.frozen_features([(ref, samples[: len(samples) // 3])])
    long = {key: torch.cat([value, value, value, value]) for key, value in features[0].items()}
    with pytest.raises(PlaceholderError, match=rf"\b{family.audio_tokens(ref)}\b.*\b\d+\b"):
        family.audio_embeds([ref], [long])
    with pytest.raises(PlaceholderError, match=r"\b2 runs.*\b1 pieces"):
        family.forward_inputs(told.ids, told.crops[:1])
    missing = list(told.ids)
    missing.remove(family.audio_id)
    wanted = family.audio_tokens(ref)
    with pytest.raises(PlaceholderError, match=rf"\b{wanted - 1} audio placeholders.*\b{wanted} features"):
        family.forward_inputs(missing, told.crops)


def test_a_recording_beyond_the_limit_is_refused_before_it_is_encoded(family: Family) -> None:
    limit = family.limits.longest_recording
    ref = Recording.from_array(np.zeros(1600, np.float32), 16000).ref()
    long = ref.model_copy(update={"duration": limit + 1, "end": limit + 1})
    fits = ref.model_copy(update={"duration": limit, "end": limit})
    with pytest.raises(RecordingTooLongError, match=rf"{limit:g} s.*cut it"):
        family.audio_ids(long)
    with pytest.raises(RecordingTooLongError):
        family.render(family.question_pieces([long], "What is this?", None))
    with pytest.raises(RecordingTooLongError):
        family.frozen_features([(long, np.zeros(10, np.float32))])
    assert len(family.audio_ids(fits)) == family.audio_tokens(fits) + 2


def test_media_placeholders_and_their_markers_are_banned_and_the_end_of_turn_is_not(family: Family) -> None:
    begin, *_, end = family.audio_ids(Recording.from_array(sounds(1.0), 16000).ref())
    rows = family.model.get_output_embeddings().weight.shape[0]
    assert {begin, end, family.audio_id} <= set(family.banned_ids)
    assert family.eos_ids and not set(family.eos_ids) & set(family.banned_ids)
    assert len(set(family.banned_ids)) == len(family.banned_ids) and max(family.banned_ids) < rows
    words = set(family.tokenize("<think>bell 1.5</think><answer>dog</answer>"))
    assert not words & set(family.banned_ids)


def test_control_tokens_in_outside_text_are_harmless(family: Family) -> None:
    ref = Recording.from_array(sounds(1.0), 16000).ref()
    added = family.tokenizer.get_added_vocab()
    control = {
        token: i for token, i in added.items() if not token.strip().isdigit()
    }  # whole seconds are plain text
    assert family.audio_id in control.values()

    def counts(text: str) -> dict[int, int]:
        ids, audio = family.render(family.question_pieces([ref], text, [text, "dog"]))
        assert len(audio) == 1
        return {token: ids.count(token) for token in control.values()}

    harmless = counts("Which bell?")
    for token in control:
        for evil in (token, f"a{token}{token}b", f"{token[:2]}{token}{token[2:]}", f" {token}\n"):
            if len(token) > 1 and evil.strip():
                assert counts(f"What{evil}now") == harmless, evil
                assert family.escape(family.escape(evil)) == family.escape(evil)
    assert family.escape("Is it a dog < 3 | or > 4 bells?") == "Is it a dog < 3 | or > 4 bells?"


def test_tokens_and_text_agree(family: Family) -> None:
    text = "<think>the bell at 1.5</think><answer>dog</answer>"
    assert family.detokenize(family.tokenize(text)) == text
    assert family.audio_id not in family.tokenize(text)


# --- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_features_depend_on_frozen_weights_only(kind: str) -> None:
    family = tiny_family(kind)
    family.freeze()
    recording = Recording.from_array(sounds(2.0, 10), 16000)
    crop = (recording.ref(), recording.crop(recording.ref(), 16000))
    before = family.frozen_features([crop])[0]
    frozen = {id(p) for name in family.frozen_modules for p in family.model.get_submodule(name).parameters()}
    assert frozen
    with torch.no_grad():
        for parameter in family.model.parameters():
            assert parameter.requires_grad != (id(parameter) in frozen)
            if id(parameter) not in frozen:
                parameter.add_(torch.randn_like(parameter))
    after = family.frozen_features([crop])[0]
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert not any(value.requires_grad for value in after.values())
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as a trainer computes
        beside = family.frozen_features([crop])[0]
    assert all(torch.equal(before[key], beside[key]) for key in before)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_projector_and_the_decoder_in_training(kind: str) -> None:
    family = tiny_family(kind)
    family.freeze()
    told = story(family)
    out = family.model(**family.forward_inputs(told.ids, told.crops))
    torch.nn.functional.cross_entropy(out.logits[0, :-1], torch.tensor(told.ids[1:])).backward()
    frozen = {id(p) for name in family.frozen_modules for p in family.model.get_submodule(name).parameters()}
    assert all(parameter.grad is None for parameter in family.model.parameters() if id(parameter) in frozen)
    family.model.zero_grad()
    embeds = family.audio_embeds(told.audio, family.frozen_features(told.crops))
    sum(each.square().sum() for each in embeds).backward()
    learning = [parameter for parameter in family.model.parameters() if parameter.grad is not None]
    assert learning and all(
        parameter.grad.abs().sum() > 0 for parameter in learning if parameter.grad is not None
    )
    assert not any(id(parameter) in frozen for parameter in learning)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_runs_and_scores_in_float32(kind: str) -> None:
    family = tiny_family(kind)
    family.model.to(torch.bfloat16)
    told = story(family)
    *_, last = stepwise(family, told)
    full = native(family, told)
    assert last.dtype == torch.float32 and torch.isfinite(last).all()
    assert (last[-1] - full[-1]).abs().mean() < 0.1
