"""A recording whose events are known, in the names that people have for its sounds: what can be asked about it."""

from __future__ import annotations

from dataclasses import dataclass

from echo_agent.finetune.data.natural.sounds import NO_SOUND, sounds
from echo_agent.finetune.data.natural.timelines import heard
from echo_agent.finetune.data.records import Record
from echo_agent.finetune.small.listens import NOT_OF_SOUNDS_ALONE
from echo_agent.small.notes import Heard


@dataclass(frozen=True)
class NamedSounds:
    """See the module."""

    record: Record
    """With the sounds alone that have a name here: questions are asked about it."""
    events: tuple[Heard, ...]
    """All that perfect ears would name, voices too."""
    without: frozenset[str]
    """Kinds of questions that must not be asked: about all that is heard, where there is more than named sounds."""

    @classmethod
    def of(cls, record: Record) -> NamedSounds:
        """Sort what is heard in a recording."""
        named = [event for event in record.events if event.label in sounds()]
        of_sounds = tuple(event for event in named if event.label not in NO_SOUND)
        without = frozenset[str]() if len(of_sounds) == len(record.events) else NOT_OF_SOUNDS_ALONE
        return cls(record.model_copy(update={"events": of_sounds}), tuple(map(heard, named)), without)
