"""Where what must not enter graph state lives: recordings, and bytes that can always be made again.

Graph state and checkpoints hold references (`AudioRef`); a `RecordingStore` turns them into samples, also in
another process after a resume. Features, embeddings and the like live in a `ByteStore`, which forgets what
was not used for longest when its limit is reached. Both may be used from any thread.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from echo_agent.audio.recording import AudioRef, Recording
from echo_agent.audio.transforms import Samples
from echo_agent.errors import RecordingError
from echo_agent.forks import Lock

__all__ = ["ByteStore", "RecordingStore", "StoreStats"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class StoreStats:
    """What a `ByteStore` has done since it was made."""

    hits: int
    misses: int
    evictions: int
    """Values that were dropped to make room, and values too large to be kept at all."""
    nbytes: int
    """Bytes held now."""
    items: int
    """Values held now."""
    limit: int
    """Most bytes that are held."""


class ByteStore(Generic[K, V]):
    """A least-recently-used store with a limit in bytes.

    Invariant: the sizes of the values held never add up to more than the limit, so every `get` may miss and
    every caller must be able to make its value again.

    Example:
        >>> store: ByteStore[str, bytes] = ByteStore(limit=8)
        >>> store.put("a", b"12345", 5), store.put("b", b"1234", 4), store.get("a")
        (True, True, None)
    """

    def __init__(self, limit: int) -> None:
        """Hold at most `limit` bytes; 0 holds nothing.

        Raises:
            ValueError: The limit is negative.
        """
        if limit < 0:
            raise ValueError(f"the limit of a store is a number of bytes, not {limit}")
        self._limit = limit
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._nbytes = self._hits = self._misses = self._evictions = 0
        self._lock = Lock()

    def get(self, key: K) -> V | None:
        """The value under `key`, which now counts as used; None if it is not held."""
        with self._lock:
            entry = self._held.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            self._held.move_to_end(key)
            return entry[0]

    def put(self, key: K, value: V, nbytes: int) -> bool:
        """Hold `value`, which is `nbytes` large, in place of what was under `key`; drop others to make room.

        Returns:
            Whether it is held; a value larger than the whole store is not.

        Raises:
            ValueError: `nbytes` is negative.
        """
        if nbytes < 0:
            raise ValueError(f"a value cannot have {nbytes} bytes")
        with self._lock:
            self._drop(key)
            if nbytes > self._limit:
                self._evictions += 1
                return False
            while self._held and self._nbytes + nbytes > self._limit:
                _, (_, freed) = self._held.popitem(last=False)
                self._nbytes -= freed
                self._evictions += 1
            self._held[key] = (value, nbytes)
            self._nbytes += nbytes
            return True

    def discard(self, key: K) -> bool:
        """Drop the value under `key`; whether there was one."""
        with self._lock:
            return self._drop(key)

    def clear(self) -> None:
        """Drop every value; the counters go on."""
        with self._lock:
            self._held.clear()
            self._nbytes = 0

    def __contains__(self, key: object) -> bool:
        """Whether a value is held under `key`; does not count as use."""
        with self._lock:
            return key in self._held

    def __len__(self) -> int:
        """Number of values held."""
        with self._lock:
            return len(self._held)

    @property
    def stats(self) -> StoreStats:
        """Counters and size, as they are now."""
        with self._lock:
            return StoreStats(
                self._hits, self._misses, self._evictions, self._nbytes, len(self._held), self._limit
            )

    def _drop(self, key: K) -> bool:
        entry = self._held.pop(key, None)
        if entry is None:
            return False
        self._nbytes -= entry[1]
        return True


class RecordingStore:
    """Turns references into recordings and samples.

    Recordings are found by their content. A file that is not at hand (after a resume in another process, or
    because many others were opened since) is opened again from the reference's path and must hash to what the
    reference says. Recordings given as samples are kept until they are discarded: nothing else could bring
    them back.
    """

    def __init__(self, *, reopen: bool = True, max_open: int = 64) -> None:
        """Make an empty store.

        Args:
            reopen: Whether files may be opened from a reference's path. A server says False: its clients
                write the references, and a client must not read the server's files.
            max_open: Most file recordings kept at hand; the others are opened again when asked for.

        Raises:
            ValueError: `max_open` is less than 1.
        """
        if max_open < 1:
            raise ValueError(f"max_open is a number of recordings from 1 on, not {max_open}")
        self._reopen, self._max_open = reopen, max_open
        self._files: OrderedDict[str, Recording] = OrderedDict()
        self._memory: dict[str, Recording] = {}
        self._lock = Lock()

    def add(self, recording: Recording) -> AudioRef:
        """Take a recording; the reference to the whole of it.

        Raises:
            RecordingError: Its file is gone, changed or cannot be read.
        """
        ref = recording.ref()
        self._take(ref.sha256, recording)
        return ref

    def get(self, ref: AudioRef) -> Recording:
        """The recording that `ref` refers to.

        Raises:
            RecordingError: It was in memory and is gone, or its file is gone, changed or may not be opened.
        """
        with self._lock:
            held = self._memory.get(ref.sha256) or self._files.get(ref.sha256)
            if ref.sha256 in self._files:
                self._files.move_to_end(ref.sha256)
        if held is not None:
            try:
                held.check_unchanged()
                return held
            except RecordingError:
                # The same content may still be at the path of the reference; if not, opening that says why.
                if ref.in_memory or not self._reopen:
                    raise
        if ref.in_memory:
            raise RecordingError(
                f"the recording {ref.source} ({ref.duration:.1f} s) was given as samples in memory and is "
                "not here any more; pass the same audio again, or give it as a file, so that a run can resume"
            )
        if not self._reopen:
            raise RecordingError(
                f"the recording {ref.source} was not given to this store, which opens no files itself"
            )
        opened = Recording.open(ref.source)
        if opened.sha256 != ref.sha256:
            raise RecordingError(
                f"the recording {ref.source} is not the one that this run began with: its content changed "
                f"(SHA-256 {opened.sha256[:12]}... instead of {ref.sha256[:12]}...). "
                "Put the original back, or begin a new run"
            )
        self._take(ref.sha256, opened)
        return opened

    def crop(self, ref: AudioRef, rate: int = 16_000) -> Samples:
        """The samples of what `ref` refers to: float32 mono `[ref.samples(rate)]`.

        Raises:
            RecordingError: As for `get`, or reading fails.
        """
        return self.get(ref).crop(ref, rate)

    def discard(self, ref: AudioRef) -> bool:
        """Let go of a recording; whether it was held."""
        with self._lock:
            file, memory = self._files.pop(ref.sha256, None), self._memory.pop(ref.sha256, None)
        return file is not None or memory is not None

    def __contains__(self, ref: object) -> bool:
        """Whether the recording of a reference is at hand."""
        with self._lock:
            return isinstance(ref, AudioRef) and (ref.sha256 in self._files or ref.sha256 in self._memory)

    def __len__(self) -> int:
        """Number of recordings at hand."""
        with self._lock:
            return len(self._files.keys() | self._memory.keys())

    @property
    def nbytes(self) -> int:
        """Bytes of samples that recordings in memory hold."""
        with self._lock:
            return sum(recording.nbytes for recording in self._memory.values())

    def _take(self, sha256: str, recording: Recording) -> None:
        with self._lock:
            if recording.nbytes:
                self._memory[sha256] = recording
                return
            self._files[sha256] = recording
            self._files.move_to_end(sha256)
            while len(self._files) > self._max_open:
                self._files.popitem(last=False)
