"""How states are written to a checkpoint and read back: as data, from which no code is ever run.

LangGraph's serializers read a file as it asks to be read: an extension of msgpack may name any function of any module,
which is then called. A file of threads may have been made by somebody else. What a listening run saves are messages
and plain values, so nothing but these is made of what a checkpoint holds; whatever else is named in it stays the data
that it is, and is not looked up.

Most savers write the whole state at every step, so it is packed (:mod:`echo_agent.graphs.packing`).
"""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from echo_agent.graphs.packing import PACKED, PACKED_BEFORE, packed, unpacked

WRITTEN = ("null", "bytes", "bytearray", "msgpack")
"""Other kinds that are read; those of earlier LangGraphs (``json``, ``pickle``) can build more than messages."""
SMALL = 64
"""Bytes up to which nothing is packed."""


class _Serializer(JsonPlusSerializer):
    """Reads nothing but what it writes."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """The value as bytes, with their kind."""
        kind, data = super().dumps_typed(obj)
        return (PACKED, packed(data)) if kind == "msgpack" and len(data) > SMALL else (kind, data)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The value; raises ValueError where it was written by something else."""
        kind, content = data
        if kind in (PACKED, PACKED_BEFORE):
            kind, content = "msgpack", unpacked(kind, content)
        if kind not in WRITTEN:
            raise ValueError(f"a checkpoint of the kind {kind!r}, which is not read")
        return super().loads_typed((kind, content))


def checkpoint_serializer(*types: type) -> JsonPlusSerializer:
    """The serializer to give to a saver (``serde=``) that may read what others wrote.

    Args:
        *types: What else the states of a larger graph hold: dataclasses, pydantic models and enums by their class.
            They are built when a checkpoint names them, with whatever arguments it names.
    """
    return _Serializer(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=types)
