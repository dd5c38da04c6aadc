"""A family by itself: what is computed step by step equals one full pass, whatever else is computed beside it.

The central test: log-probabilities from incremental decoding with a crop appended to the cache equal those of one full
forward pass through the model's own ``forward`` over the same trajectory. Its twins break one thing each and must fail.
"""

from __future__ import annotations

import torch

from echo_agent.audio.recording import Recording
from echo_agent.conformance.claims import Made, claim
from echo_agent.conformance.sounds import lively
from echo_agent.conformance.story import (
    CHANGED,
    SAME,
    Story,
    after_crop,
    apart,
    by_steps,
    crop_step,
    embed,
    encode,
    native,
    stepwise,
    tell,
)
from echo_agent.families.base import Family


class CacheTests(Made):
    """Steps, rows and runs; see the module."""

    @claim("cached = uncached")
    def test_steps_with_a_crop_in_the_cache_equal_one_full_pass(self, family: Family) -> None:
        told = tell(family)
        full = native(family, told)
        assert apart(by_steps(family, told), full) < SAME
        assert full.std() > 0.1, "a model whose scores hardly vary proves nothing"

    @claim("cached = uncached")
    def test_twin_with_features_zeroed_differs(self, family: Family) -> None:
        told = tell(family)
        whole, crop = encode(family, told.crops)
        full, late = native(family, told), after_crop(family, told)
        for audio in ([whole, torch.zeros_like(crop)], [torch.zeros_like(whole), crop]):
            assert apart(by_steps(family, told, audio=audio)[late], full[late]) > CHANGED

    @claim("cached = uncached")
    def test_twin_with_bare_placeholders_differs(self, family: Family) -> None:
        told = tell(family)
        whole, crop = encode(family, told.crops)
        bare = family.token_embeds(torch.tensor([family.audio_id]))[:, : crop.shape[-1]].expand_as(crop)
        full, late = native(family, told), after_crop(family, told)
        assert apart(by_steps(family, told, audio=[whole, bare])[late], full[late]) > CHANGED

    @claim("cached = uncached")
    def test_twin_with_positions_off_by_one_differs(self, family: Family) -> None:
        told = tell(family)
        full, late = native(family, told), after_crop(family, told)
        begin = crop_step(family, told)
        shifted = stepwise(family, told, position=lambda step, at: at + (step >= begin))
        assert apart(torch.cat(list(shifted))[late], full[late]) > CHANGED
        restarted = stepwise(family, told, position=lambda step, at: at - 1 if step > begin else at)
        assert apart(torch.cat(list(restarted))[late], full[late]) > CHANGED

    @claim("cached = uncached")
    def test_twin_with_the_crop_dropped_differs(self, family: Family) -> None:
        told = tell(family)
        full, late = native(family, told), after_crop(family, told)
        at = crop_step(family, told)
        without = Story(told.recording, told.rate, told.steps[:at] + told.steps[at + 1 :], told.audio[:1])
        answered = len(told.ids) - (late.start or 0)
        assert apart(by_steps(family, without)[-answered:], full[late]) > CHANGED

    @claim("cached = uncached")
    def test_another_crop_of_equal_length_is_heard_as_another(self, family: Family) -> None:
        told = tell(family)
        other = Story(told.recording, told.rate, told.steps, [told.audio[0], told.recording.ref(4.0, 5.5)])
        at, late = crop_step(family, told), after_crop(family, told)
        other.steps = [*told.steps[:at], family.audio_ids(other.audio[1]), *told.steps[at + 1 :]]
        assert apart(by_steps(family, other)[late], native(family, told)[late]) > CHANGED
        assert apart(by_steps(family, other), native(family, other)) < SAME

    # --- batches, holes, several runs on one model ---

    @claim("batched = single")
    def test_rows_of_unequal_length_with_holes_equal_single_rows(self, family: Family) -> None:
        """Three runs share one padded cache; each keeps its own positions, and what is padding is masked."""
        told = [tell(family), tell(family, 1, 9.0, [(0.5, 4.0)]), tell(family, 2, 2.0, [(0.2, 0.9)])]
        batch_audio = encode(family, [crop for one in told for crop in one.crops])
        audio = [batch_audio[2 * row : 2 * row + 2] for row in range(len(told))]
        width = [max(len(one.steps[n]) for one in told) for n in range(len(told[0].steps))]
        assert len({len(one.steps) for one in told}) == 1
        prices = {family.audio_tokens(ref) for one in told for ref in one.audio}
        assert len({len(one.ids) for one in told}) == len(told) or len(prices) == 1

        mask = torch.zeros(len(told), 0, dtype=torch.long)
        seen = [0] * len(told)
        got: list[list[torch.Tensor]] = [[] for _ in told]
        cache = None
        for number, columns in enumerate(width):
            left = number % 2  # padding on the right of one step, on the left of the next
            embeds, new_mask, positions = [], [], []
            for row, one in enumerate(told):
                step = one.steps[number]
                runs = len(family.placeholder_ranges(step))
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

    @claim("batched = single")
    def test_interleaved_runs_do_not_disturb_each_other(self, family: Family) -> None:
        one, two = tell(family, 3), tell(family, 4, seconds=8.0, spans=[(2.0, 5.5)])
        alone = [native(family, one), native(family, two)]
        runs = [stepwise(family, one), stepwise(family, two)]
        got: list[list[torch.Tensor]] = [[], []]
        for number in range(len(one.steps)):
            for row, run in enumerate(runs):
                got[row].append(next(run))
            if number == 1:
                native(family, tell(family, 5, seconds=3.0))  # somebody else's full pass in between
        for row in range(2):
            assert apart(torch.cat(got[row]), alone[row]) < SAME

    @claim("batched = single")
    def test_crops_encoded_together_equal_crops_encoded_alone(self, family: Family) -> None:
        recording = Recording.from_array(lively(12.0, 6), 16000)
        crops = [
            (ref, recording.crop(ref, family.sample_rate))
            for ref in map(recording.ref, (0.0, 3.0, 7.5), (12.0, 3.7, 11.0))
        ]
        together = encode(family, crops)
        assert len({len(samples) for _, samples in crops}) == len(crops)
        assert [len(embeds) for embeds in together] == [family.audio_tokens(ref) for ref, _ in crops]
        for crop, embeds in zip(crops, together, strict=True):
            assert apart(encode(family, [crop])[0], embeds) < 1e-5
