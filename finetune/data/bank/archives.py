"""Readers for the three game archives in which some of the packages keep their sounds.

GCompris ships Qt resource files (``.rcc``), OpenClonk packed group files (``.ocg``) and OpenTTD sound
catalogues (``.cat``). Unpacking them here keeps three graphical programs out of the build. Each reader takes
the whole file as bytes and yields ``(name, payload)`` in the order of the archive; folders are joined with
``/``. Only reading is supported, only what the sound bank needs (no locales, no checksums), and a malformed
file raises `DataError`.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator

from echo_agent.errors import DataError

_RCC_FOLDER, _RCC_ZLIB, _RCC_ZSTD = 2, 1, 4
_OCG_HEADER, _OCG_ENTRY, _OCG_NAME, _OCG_KEY = 204, 316, 260, 237
_OCG_MAGIC, _OCG_SIGNATURE = b"\x1e\x8c", b"RedWolf Design"


def read_archive(suffix: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields the members of an archive; the suffix (``.rcc``, ``.ocg``, ``.cat``) says which kind it is."""
    readers = {".rcc": read_rcc, ".ocg": read_ocg, ".cat": read_cat}
    if suffix not in readers:
        raise DataError(f"no reader for {suffix!r} files")
    try:
        yield from readers[suffix](data)
    except (struct.error, IndexError, zlib.error, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"damaged {suffix} archive: {error}") from error


def read_rcc(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields the files of a Qt resource: a tree of big-endian nodes over a name table and a data table."""
    if data[:4] != b"qres":
        raise DataError("a Qt resource starts with 'qres'")
    version, tree, payloads, names = struct.unpack_from(">4I", data, 4)
    node_size = 22 if version >= 2 else 14

    def name_of(node: int) -> str:
        start = names + struct.unpack_from(">I", data, node)[0]
        length = struct.unpack_from(">H", data, start)[0]
        return data[start + 6 : start + 6 + 2 * length].decode("utf-16-be")

    def walk(index: int, prefix: str) -> Iterator[tuple[str, bytes]]:
        node = tree + index * node_size
        flags = struct.unpack_from(">H", data, node + 4)[0]
        path = prefix + name_of(node) if index else ""
        if flags & _RCC_FOLDER:
            count, first = struct.unpack_from(">2I", data, node + 6)
            for child in range(first, first + count):
                yield from walk(child, f"{path}/" if path else "")
        else:
            start = payloads + struct.unpack_from(">I", data, node + 10)[0]
            length = struct.unpack_from(">I", data, start)[0]
            yield path, _rcc_payload(data[start + 4 : start + 4 + length], flags)

    yield from walk(0, "")


def _rcc_payload(payload: bytes, flags: int) -> bytes:
    if flags & _RCC_ZLIB:
        return zlib.decompress(payload[4:])  # the first four bytes hold the inflated size
    if flags & _RCC_ZSTD:
        raise DataError("zstd-compressed Qt resources are not supported")
    return payload


def read_ocg(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields the files of an OpenClonk group: disguised gzip around nested, scrambled directories."""
    if data[:2] != _OCG_MAGIC:
        raise DataError("a packed OpenClonk group starts with 1E 8C")
    yield from _read_group(gzip.decompress(b"\x1f\x8b" + data[2:]), "")


def unscramble(header: bytes) -> bytes:
    """Undoes the header scrambling of OpenClonk groups; the operation is its own inverse."""
    plain = bytearray(byte ^ _OCG_KEY for byte in header)
    for i in range(0, len(plain) - 2, 3):
        plain[i], plain[i + 2] = plain[i + 2], plain[i]
    return bytes(plain)


def _read_group(data: bytes, prefix: str) -> Iterator[tuple[str, bytes]]:
    header = unscramble(data[:_OCG_HEADER])
    if not header.startswith(_OCG_SIGNATURE):
        raise DataError("the group header does not carry the OpenClonk signature")
    count = struct.unpack_from("<i", header, 36)[0]
    contents = _OCG_HEADER + count * _OCG_ENTRY
    for index in range(count):
        entry = _OCG_HEADER + index * _OCG_ENTRY
        name = data[entry : entry + _OCG_NAME].split(b"\0", 1)[0].decode("latin-1")
        _packed, is_group, size, _unused, offset = struct.unpack_from("<5i", data, entry + _OCG_NAME)
        payload = data[contents + offset : contents + offset + size]
        if len(payload) != size:
            raise DataError(f"{prefix}{name} runs past the end of its group")
        if is_group:
            yield from _read_group(payload, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", payload


def read_cat(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields the sounds of an OpenTTD catalogue; the name is the entry number and its description."""
    first = struct.unpack_from("<I", data, 0)[0] & 0x7FFFFFFF
    for index in range(first // 8):
        offset = (
            struct.unpack_from("<I", data, index * 8)[0] & 0x7FFFFFFF
        )  # the top bit only says that the entry is of the newer kind
        described = data[offset]
        name = data[offset + 1 : offset + 1 + described].split(b"\0", 1)[0].decode("latin-1").strip()
        start = data.find(b"RIFF", offset + 1 + described)
        if start < 0:
            raise DataError(f"entry {index} ({name}) holds no RIFF sound")
        size = struct.unpack_from("<I", data, start + 4)[0] + 8
        yield f"{index:02d} {name}", data[start : start + size]
