"""Recordings of a request: decoded within limits, and held in memory for as long as the run that they belong to.

An encoded file passes through a temporary file without a name, which is gone before the run begins; nothing that a
client sends is kept, and no path that it sends is opened. Times are seconds.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Sequence

from echo_agent.audio.recording import Recording
from echo_agent.errors import RecordingError
from echo_agent.serve.downloads import fetch
from echo_agent.serve.protocol import AudioURLPart, InputAudioPart
from echo_agent.serve.settings import Settings

_DATA = re.compile(r"data:[\w.+/-]{0,60}(?:;[\w.+=-]{0,60})*;base64,")


async def recordings_of(
    parts: Sequence[InputAudioPart | AudioURLPart], settings: Settings, rate: int
) -> list[Recording]:
    """Decode the recordings of a request.

    Args:
        parts: What the client sent.
        settings: Limits of bytes and seconds.
        rate: Samples per second that are kept, in Hz: what the model hears.

    Raises:
        RecordingTooLongError: One is longer than is taken.
        RecordingError: One cannot be decoded or fetched, or there are too many.
    """
    if len(parts) > settings.max_recordings:
        raise RecordingError(
            f"{len(parts)} recordings are more than the {settings.max_recordings} that are taken"
        )
    found: list[Recording] = []
    for number, part in enumerate(parts, start=1):
        name = f"audio {number}"
        if isinstance(part, InputAudioPart):
            given: str | bytes = part.input_audio.data
        elif begun := _DATA.match(part.audio_url.url):
            given = part.audio_url.url[begun.end() :]
        else:
            given = await fetch(part.audio_url.url, settings.hosts, settings.max_bytes)
        found.append(await asyncio.to_thread(_opened, given, name, settings.max_seconds, rate))
    return found


def _opened(given: str | bytes, name: str, longest: float, rate: int) -> Recording:
    """Decode one recording: the bytes of a sound file, or these as base64."""
    try:
        data = base64.b64decode(given, validate=True) if isinstance(given, str) else given
    except ValueError:  # binascii's error is one, and so is text that is no ASCII
        raise RecordingError(f"{name} is not base64: send the bytes of a sound file in that form") from None
    return Recording.from_bytes(data, name, longest, rate)
