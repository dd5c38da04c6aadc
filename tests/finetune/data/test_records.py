"""Records and samples: what they refuse, and that they survive JSON."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from echo_agent.finetune.data.records import Event, Record, Sample

BELL = Event("bell", "sound", 3.0, 4.0)


def test_events_are_put_in_order_and_survive_json() -> None:
    late = Event("voice", "digits", 5.0, 6.0, ("one", "two"), voice="kal", gender="man", level_db=-20.0)
    record = Record(id="r", audio="r.wav", duration=10, events=(late, BELL), labels=("bell",))
    assert [event.label for event in record.events] == ["bell", "voice"]
    assert Record.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"label": "bell", "kind": "sound", "onset": 4, "offset": 3}, "not after its onset"),
        ({"label": "bell", "kind": "sound", "onset": 9, "offset": 12}, "but the recording at 10"),
        ({"label": "bell", "kind": "sound", "onset": -1, "offset": 2}, "greater than or equal"),
        ({"label": "bell", "kind": "sound", "onset": float("nan"), "offset": 2}, "finite"),
        ({"label": "bell", "kind": "noise", "onset": 1, "offset": 2}, "kind"),
        ({"label": "bell", "kind": "sound", "onset": 1, "offset": 2, "colour": "red"}, "colour"),
    ],
)
def test_events_that_cannot_be_are_refused(event: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Record.model_validate({"id": "r", "audio": "r.wav", "duration": 10, "events": [event]})


def sample(**fields: object) -> Sample:
    given = {"id": "s", "audio": "a.wav", "duration": 10, "question": "Which?", "choices": ["a b", "c d"],
             "answer": "a b", "gold_spans": [[3, 4]]}  # fmt: skip
    return Sample.model_validate(given | fields)


def test_a_sample_says_whether_it_listens() -> None:
    assert sample(reasoning="The bell <seg>3, 5</seg> rings.").listens
    assert not sample(reasoning="The bell rings.").listens


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"gold_spans": [[3, 40]]}, "outside"),
        ({"answer": "e"}, "none of the choices"),
        ({"choices": ["a b", "A b."]}, "are the same"),
        ({"use": "later"}, "use"),
        ({"mood": "good"}, "mood"),
    ],
)
def test_samples_that_cannot_be_are_refused(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        sample(**fields)
