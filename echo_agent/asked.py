"""What is asked of an agent: the audio it is given, and the options of a run, checked before a model runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from echo_agent.audio.recording import Recording
from echo_agent.controls import Control
from echo_agent.errors import QuestionError
from echo_agent.graphs import Budget

if TYPE_CHECKING:
    from pydub import AudioSegment

Audio: TypeAlias = "str | os.PathLike[str] | tuple[Any, int] | AudioSegment | Recording"
"""What can be asked about: a path, samples with their rate in Hz, a segment of pydub, or an open recording."""
Audios: TypeAlias = "Audio | list[Audio]"
"""One recording, or several in the order in which they are heard first."""


def opened(audio: Any, longest: float | None = None) -> Recording:
    """Open what was given, hash it, and look whether it is silent: what reads the file must not in an event loop.

    A file of more than ``longest`` seconds, where that is given, is refused before it is decoded.
    """
    recording = _opened(audio, longest)
    recording.ref()
    _ = recording.is_silent
    return recording


def _opened(audio: Any, longest: float | None) -> Recording:
    if isinstance(audio, tuple) and len(audio) == 2:
        return Recording.from_array(*audio)
    if hasattr(audio, "get_array_of_samples"):  # pydub's class is not imported for those who do not use it
        segment: Any = audio
        return Recording.from_segment(segment)
    if not isinstance(audio, Recording | str | os.PathLike):
        raise QuestionError(
            f"audio must be a path, a pair (samples, rate), a Recording or pydub's AudioSegment, not "
            f"{type(audio).__name__}: "
            "samples alone do not say at which rate they were taken"
        )
    return audio if isinstance(audio, Recording) else Recording.open(audio, longest)


def opened_all(audio: Any, longest: float | None = None) -> list[Recording]:
    """Open one recording, or each of a list of them; as :func:`opened`."""
    if not isinstance(audio, list):
        return [opened(audio, longest)]
    if not audio:
        raise QuestionError("the list of recordings is empty: give at least one")
    return [opened(one, longest) for one in audio]


class AskOptions(BaseModel):
    """Options of :meth:`EchoAgent.ask <echo_agent.agent.EchoAgent.ask>`, which says what they mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_relistens: int = Field(default=8, ge=0)
    max_seconds: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    max_new_tokens: int = Field(default=1024, ge=1)
    relisten: bool = True
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    top_p: float = Field(default=1.0, gt=0, le=1)
    seed: int = 0
    run: int = 0
    guided: bool = True
    control: Control = "on"
    gold_spans: tuple[tuple[float, float], ...] = ()
    thread: str | None = Field(default=None, min_length=1)

    @classmethod
    def read(cls, options: Mapping[str, Any]) -> AskOptions:
        """Check options; raises QuestionError naming the first that is wrong."""
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            if first["type"] == "extra_forbidden":
                raise QuestionError(
                    f"there is no option {name!r}; there are {', '.join(cls.model_fields)}"
                ) from error
            raise QuestionError(f"{name}={options.get(name)!r}: {first['msg']}") from error

    def budget(self) -> Budget:
        """The budget of the run."""
        return Budget(
            max_relistens=self.max_relistens, max_seconds=self.max_seconds, max_new_tokens=self.max_new_tokens
        )
