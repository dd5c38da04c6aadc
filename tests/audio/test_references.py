from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from echo_agent.audio.recording import AudioRef, Transform
from echo_agent.errors import RecordingError

SHA = "ab" * 32


def _ref(**changes: object) -> AudioRef:
    fields: dict[str, object] = {
        "source": "/sounds/a.wav",
        "sha256": SHA,
        "duration": 12.3456,
        "start": 0.0,
        "end": 12.3456,
    }
    return AudioRef.model_validate(fields | changes)


def test_plain_json_both_ways() -> None:
    ref = _ref(start=1.25, end=2.5, transform=Transform(speed=0.5, low_hz=300.0, gain_db=6.0))
    text = json.dumps(ref.model_dump(mode="json"))
    assert AudioRef.model_validate(json.loads(text)) == ref
    assert AudioRef.model_validate_json(ref.model_dump_json()) == ref
    assert hash(AudioRef.model_validate_json(text)) == hash(ref)


def test_what_a_checkpoint_gives_back_is_the_same_reference() -> None:
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    serializer = JsonPlusSerializer()
    ref = _ref(start=0.1, end=0.3, transform=Transform(speed=0.75))
    state = serializer.loads_typed(serializer.dumps_typed({"recordings": [ref.model_dump(mode="json")]}))
    assert AudioRef.model_validate(state["recordings"][0]) == ref


def test_seconds_are_those_that_are_heard() -> None:
    assert _ref(start=2.0, end=4.0).seconds == 2.0
    assert _ref(start=2.0, end=4.0, transform=Transform(speed=0.5)).seconds == 4.0


def test_whole_means_all_of_it_and_as_it_is() -> None:
    whole = _ref()
    assert whole.is_whole
    assert not whole.span(0.0, 12.0).is_whole
    assert not whole.span(0.001).is_whole
    assert not whole.span(transform=Transform(gain_db=1.0)).is_whole
    assert whole.span(1.0, 2.0).span().is_whole


def test_the_key_tells_content_span_and_transform_apart() -> None:
    base = _ref(start=1.0, end=2.0)
    others = [
        _ref(start=1.0, end=2.0, sha256="ab" * 15 + "cd" + "ab" * 16),
        _ref(start=1.001, end=2.0),
        _ref(start=1.0, end=2.001),
        *(
            _ref(start=1.0, end=2.0, transform=transform)
            for transform in (
                Transform(speed=0.5),
                Transform(speed=0.500001),
                Transform(low_hz=300.0),
                Transform(high_hz=300.0),
                Transform(low_hz=300.0, high_hz=3400.0),
                Transform(low_hz=300.0, high_hz=3400.1),
                Transform(gain_db=6.0),
                Transform(gain_db=-6.0),
            )
        ),
    ]
    keys = [ref.key() for ref in [base, *others]]
    assert len(set(keys)) == len(keys)
    assert max(map(len, keys)) < 100


def test_the_key_is_the_same_for_the_same_sound() -> None:
    base = _ref(start=1.0, end=2.0)
    assert base.key() == _ref(start=1.0, end=2.0, source="/elsewhere/b.wav").key()
    assert base.key() == _ref(start=1.0002, end=1.9998).key()
    assert base.key() == _ref().span(1.0, 2.0, Transform()).key()


def test_spans_lie_on_milliseconds_or_end_with_the_recording() -> None:
    whole = _ref()
    assert (whole.span(1.00049, 2.0006).start, whole.span(1.00049, 2.0006).end) == (1.0, 2.001)
    assert whole.span(1.0, 12.346).end == 12.3456
    assert whole.span(1.0, 12.3459).end == 12.3456
    assert whole.span(1.0).end == 12.3456


@pytest.mark.parametrize(
    ("start", "end"),
    [(-0.1, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, 12.4), (12.3456, None), (1.0001, 1.0002), (13.0, 14.0)],
)
def test_spans_outside_the_recording_are_refused(start: float, end: float | None) -> None:
    with pytest.raises(RecordingError, match="span"):
        _ref().span(start, end)


@pytest.mark.parametrize(("start", "end"), [(float("nan"), 1.0), (0.0, float("nan")), (0.0, float("inf"))])
def test_spans_that_are_no_numbers_are_refused(start: float, end: float) -> None:
    with pytest.raises(RecordingError, match="cannot begin or end"):
        _ref().span(start, end)


@pytest.mark.parametrize(
    "changes",
    [
        {"start": 3.0, "end": 2.0},
        {"start": -1.0},
        {"end": 13.0},
        {"end": float("nan")},
        {"duration": float("inf")},
        {"sha256": "xyz"},
        {"source": ""},
        {"colour": "blue"},
        {"transform": {"speed": 3.0}},
    ],
)
def test_malformed_references_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        _ref(**changes)


def test_the_number_of_samples_follows_from_the_reference() -> None:
    assert _ref(start=1.0, end=2.0).samples(16_000) == 16_000
    assert _ref(start=1.0, end=2.0, transform=Transform(speed=0.5)).samples(16_000) == 32_000
    assert _ref().samples(16_000) == round(12.3456 * 16_000)
    assert _ref(duration=0.0001, end=0.0001).samples(1000) == 1
