"""The wrong crop: elsewhere, as long, not silent, and the same for the same seed."""

import numpy as np
import pytest

from echo_agent.audio.recording import Recording, Transform, rms_db
from echo_agent.graphs.control import wrong_crop
from echo_agent.stores import RecordingStore

RATE = 8000


def recording(*parts):
    """Seconds of noise (positive) and of silence (negative) one after the other."""
    draw = np.random.default_rng(0)
    pieces = [
        draw.uniform(-0.5, 0.5, round(s * RATE)) if s > 0 else np.zeros(round(-s * RATE)) for s in parts
    ]
    store = RecordingStore()
    return store, store.add(Recording.from_array(np.concatenate(pieces), RATE))


def meets(crop, *spans):
    return any(crop.start < end and start < crop.end for start, end in spans)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_elsewhere_and_costs_the_same(seed):
    store, whole = recording(20.0)
    transform = Transform(speed=0.5, low_hz=300)
    asked = whole.span(4.0, 6.5, transform)
    crop, overlap = wrong_crop(asked, [(8.0, 12.0)], store, seed)
    assert overlap == 0 and not meets(crop, (4.0, 6.5), (8.0, 12.0))
    assert crop.seconds == pytest.approx(asked.seconds, abs=1e-9) and crop.transform == transform
    assert crop.samples(16000) == asked.samples(16000) and crop.sha256 == asked.sha256


def test_it_follows_from_the_seed():
    store, whole = recording(20.0)
    places = [wrong_crop(whole.span(4.0, 6.0), [], store, seed)[0].start for seed in range(8)]
    assert len(set(places)) > 4
    assert [wrong_crop(whole.span(4.0, 6.0), [], store, seed)[0].start for seed in range(8)] == places
    assert wrong_crop(whole.span(5.0, 7.0), [], store, 0)[0].start != places[0]


@pytest.mark.parametrize("seed", range(8))
def test_it_is_not_silent_where_there_is_sound(seed):
    store, whole = recording(4.0, -12.0, 1.0, -3.0)
    crop, overlap = wrong_crop(whole.span(0.0, 2.0), [(2.0, 4.0)], store, seed)
    assert rms_db(store.crop(crop, RATE)) > -60 and overlap == 0
    assert meets(crop, (16.0, 17.0))


def test_a_gain_does_not_make_silence_sound():
    store, whole = recording(4.0, -16.0)
    asked = whole.span(0.0, 2.0, Transform(gain_db=40))
    crop, overlap = wrong_crop(asked, [], store, 0)
    assert meets(crop, (0.0, 4.0)) and overlap == 0


def test_without_another_place_it_takes_the_least_overlap_and_says_so():
    store, whole = recording(10.0)
    crop, overlap = wrong_crop(whole.span(2.0, 8.0), [], store, 0)
    assert crop.seconds == pytest.approx(6.0) and overlap == pytest.approx(4.0, abs=0.06)
    crop, overlap = wrong_crop(whole.span(1.0, 3.0), [(0.0, 9.5)], store, 0)
    assert overlap == pytest.approx(1.5, abs=0.06) and crop.end == pytest.approx(10.0, abs=0.06)
    crop, overlap = wrong_crop(whole, [], store, 0)
    assert (crop.start, crop.end, overlap) == (0.0, 10.0, 10.0)


def test_sound_comes_before_distance():
    store, whole = recording(3.0, -7.0)
    crop, overlap = wrong_crop(whole.span(0.0, 2.0), [(2.0, 3.0)], store, 0)
    assert overlap > 0 and rms_db(store.crop(crop, RATE)) > -60


def test_in_a_silent_recording_something_is_delivered_anyway():
    store, whole = recording(-10.0)
    crop, overlap = wrong_crop(whole.span(0.0, 2.0), [], store, 0)
    assert crop.seconds == pytest.approx(2.0) and overlap == 0


def test_gold_spans_outside_the_recording_do_no_harm():
    store, whole = recording(10.0)
    crop, overlap = wrong_crop(whole.span(2.0, 4.0), [(-5.0, 1.0), (9.0, 99.0), (50.0, 60.0)], store, 1)
    assert overlap == 0 and not meets(crop, (2.0, 4.0), (0.0, 1.0), (9.0, 10.0))
