"""Audio on its way to a server: sent once, and spoken of by its name from then on.

A server keeps what it has processed under the ``uuid`` that came with it, and does not look at the audio again: under a
name that was used before, it hears what it heard then. So a name stands for exactly one sequence of samples: content of
the recording, span, transform, rate, and length.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_agent.audio.recording import wav_bytes
from echo_agent.stores import ByteStore

if TYPE_CHECKING:
    from echo_agent.audio.recording import AudioRef
    from echo_agent.families.base import Family
    from echo_agent.stores import RecordingStore

KEPT_BYTES = 64 << 20
"""Most bytes of written audio that are kept: runs of one recording, and other servers, want the same."""


class ServedAudio:
    """Writes listens as parts of a request."""

    def __init__(self, family: Family, recordings: RecordingStore) -> None:
        """Write for ``family``, from ``recordings``."""
        self._family, self._recordings = family, recordings
        self._written: ByteStore[str, str] = ByteStore(KEPT_BYTES)

    def name(self, ref: AudioRef) -> str:
        """The uuid of a listen."""
        family = self._family
        heard = f"{ref.key()} {family.sample_rate} {family.limits.shortest} {family.limits.longest_recording}"
        return hashlib.sha256(heard.encode()).hexdigest()

    async def parts(self, refs: Sequence[AudioRef], known: Container[str]) -> list[dict[str, Any]]:
        """One part per listen, in order; without the audio where the server knows its name.

        Raises:
            RecordingError: A recording cannot be read.
        """
        named = [(ref, self.name(ref)) for ref in refs]
        return [
            {
                "type": "audio_url",
                "url": None if name in known else await asyncio.to_thread(self._url, ref, name),
                "uuid": name,
            }
            for ref, name in named
        ]

    def _url(self, ref: AudioRef, name: str) -> str:
        """The audio itself: a wav file with the samples as they are, as the model hears them."""
        url = self._written.get(name)
        if url is None:
            rate = self._family.sample_rate
            samples = self._recordings.crop(ref, rate)
            limits = self._family.limits
            missing = round(limits.shortest * rate) - len(samples)
            if missing > 0:  # silence after it, as in this process
                samples = np.concatenate([samples, np.zeros(missing, dtype=samples.dtype)])
            samples = samples[: round(limits.longest_recording * rate)]
            data = base64.b64encode(wav_bytes(samples, rate, exact=True)).decode()
            url = f"data:audio/wav;base64,{data}"
            self._written.put(name, url, len(url))
        return url
