"""What a family says of its tokens and limits, and that what is heard at their edges is what one full pass hears."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from echo_agent.audio.recording import Recording
from echo_agent.conformance.claims import Made, claim
from echo_agent.conformance.sounds import lively
from echo_agent.conformance.story import SAME, Story, apart, by_steps, encode, native, tell
from echo_agent.errors import PlaceholderError, RecordingTooLongError
from echo_agent.families.base import Family, Piece


class TokenTests(Made):
    """Counts, limits, ids; see the module."""

    @claim("token accounting")
    def test_placeholders_agree_with_features_at_many_lengths(self, family: Family) -> None:
        draw = np.random.default_rng(7)
        recording = Recording.from_array(lively(20.0, 8), 16000)
        shortest = family.limits.shortest
        lengths = [shortest, shortest + 0.0001, 0.25, 1.0, 1.001, 2.0, 2.01, 19.99]
        lengths += [float(length) for length in draw.uniform(shortest, 12, size=8)]
        crops = [
            (ref, recording.crop(ref, family.sample_rate))
            for ref in (recording.ref(0.0, length) for length in lengths)
        ]
        for (ref, _), embeds in zip(crops, encode(family, crops), strict=True):
            ((first, size),) = family.placeholder_ranges(family.audio_ids(ref))
            assert len(embeds) == size == family.audio_tokens(ref) >= 1
            assert first + size < len(family.audio_ids(ref)), (
                "two listens side by side would be taken for one"
            )

    @claim("short and long crops")
    def test_a_recording_shorter_than_the_shortest_crop_can_be_heard(self, family: Family) -> None:
        recording = Recording.from_array(lively(0.05, 9), 16000)
        spoken = [[token] for token in family.tokenize("dog bell")]
        told = Story(
            recording, family.sample_rate, [family.audio_ids(recording.ref()), *spoken], [recording.ref()]
        )
        assert apart(by_steps(family, told), native(family, told)) < SAME

    @claim("token accounting")
    def test_a_wrong_number_of_features_is_an_error_that_names_both(self, family: Family) -> None:
        told = tell(family)
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
        with pytest.raises(
            PlaceholderError, match=rf"\b{wanted - 1} audio placeholders.*\b{wanted} features"
        ):
            family.forward_inputs(missing, told.crops)

    @claim("short and long crops")
    def test_a_recording_beyond_the_limit_is_refused_before_it_is_encoded(self, family: Family) -> None:
        limit = family.limits.longest_recording
        ref = Recording.from_array(np.zeros(1600, np.float32), 16000).ref()
        long = ref.model_copy(update={"duration": limit + 1, "end": limit + 1})
        fits = ref.model_copy(update={"duration": limit, "end": limit})
        assert family.audio_ids(fits).count(family.audio_id) == family.audio_tokens(fits)
        if family.streams:  # then only crops are refused
            assert family.audio_ids(long).count(family.audio_id) == family.audio_tokens(long)
            most = family.limits.longest_crop
            long = ref.model_copy(update={"duration": most + 2, "end": most + 1})
            limit = most
        with pytest.raises(RecordingTooLongError, match=rf"{limit:g} s.*cut it"):
            family.audio_ids(long)
        with pytest.raises(RecordingTooLongError):
            family.render(family.question_pieces([long], "What is this?", None))
        with pytest.raises(RecordingTooLongError):
            family.frozen_features([(long, np.zeros(10, np.float32))])

    @claim("short and long crops")
    def test_a_recording_in_a_stream_is_heard_as_it_is_at_once(self, family: Family) -> None:
        if not family.streams:
            pytest.skip("it hears nothing in a stream")
        recording = Recording.from_array(lively(17.3, 15), 16000)
        ref = recording.ref()
        whole = family.frozen_features([(ref, recording.crop(ref, family.sample_rate))])[0]
        pieces = recording.pieces(ref, family.sample_rate, seconds=4.0)
        for name, tensor in family.frozen_stream(ref, pieces).items():
            torch.testing.assert_close(tensor, whole[name], rtol=1e-4, atol=1e-4)

    @claim("token accounting")
    def test_media_placeholders_and_their_markers_are_banned_and_the_end_of_turn_is_not(
        self, family: Family
    ) -> None:
        listen = set(family.audio_ids(Recording.from_array(lively(1.0), 16000).ref()))
        tokenizer: Any = family.tokenizer  # the method is missing from the base class's types
        control = set(tokenizer.get_added_vocab().values())
        head: Any = family.model.get_output_embeddings()
        rows = head.weight.shape[0]
        assert family.audio_id in listen and listen & control <= set(family.banned_ids)
        assert family.eos_ids and not set(family.eos_ids) & set(family.banned_ids)
        assert len(set(family.banned_ids)) == len(family.banned_ids) and max(family.banned_ids) < rows
        words = set(family.tokenize("<think>bell 1.5</think><answer>dog</answer>"))
        assert not words & set(family.banned_ids)

    @claim("token accounting")
    def test_control_tokens_in_outside_text_are_harmless(self, family: Family) -> None:
        ref = Recording.from_array(lively(1.0), 16000).ref()
        tokenizer: Any = family.tokenizer
        added = tokenizer.get_added_vocab()
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

    @claim("token accounting")
    def test_tokens_and_text_agree(self, family: Family) -> None:
        text = "<think>the bell at 1.5</think><answer>dog</answer>"
        assert family.detokenize(family.tokenize(text)) == text
        assert family.audio_id not in family.tokenize(text)

    @claim("short and long crops")
    def test_the_shortest_and_the_longest_crop_are_heard_as_in_one_full_pass(self, family: Family) -> None:
        shortest, longest = family.limits.shortest, min(family.limits.longest_crop, 40.0)
        for spans in ([(1.0, 1.0 + shortest)], [(0.5, 0.5 + longest)]):
            told = (
                tell(family, 11, seconds=longest + 1, spans=spans)
                if longest + 1 <= family.limits.longest_recording
                else tell(family, 11, longest, [(0.0, longest - 0.5)])
            )
            assert apart(by_steps(family, told), native(family, told)) < SAME

    @claim("eight crops")
    def test_eight_crops_equal_one_full_pass(self, family: Family) -> None:
        spans = [(0.5 * i, 0.5 * i + 0.3 + 0.2 * i) for i in range(8)]
        told = tell(family, 12, seconds=8.0, spans=spans)
        assert len(told.audio) == 9
        assert apart(by_steps(family, told), native(family, told)) < SAME

    @claim("window edges")
    def test_listens_that_end_around_the_edge_of_a_window_equal_one_full_pass(self, family: Family) -> None:
        """Of 30 s, that most encoders have, and of a second; by a sample, a frame, and a token."""
        edges = [1.0] + ([30.0] if family.limits.longest_recording > 30.5 else [])
        for edge in edges:
            for beside in (-0.01, 0.0, 1 / 16000, 0.005, 0.045):
                recording = Recording.from_array(lively(edge + beside, 13), 16000)
                listen = family.render([Piece(audio=recording.ref())])[0]
                steps = [listen, *([token] for token in family.tokenize("dog bell"))]
                told = Story(recording, family.sample_rate, steps, [recording.ref()])
                assert apart(by_steps(family, told), native(family, told)) < SAME, edge + beside
