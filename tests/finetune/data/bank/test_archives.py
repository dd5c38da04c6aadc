"""Archives made here byte by byte, in the form the games write them, are read back."""

import gzip
import io
import struct
import zlib

import pytest

from echo_agent.errors import DataError
from echo_agent.finetune.data.bank.archives import read_archive, unscramble


def make_rcc(version: int) -> bytes:
    """A resource with a folder `sounds` that holds one stored and one zlib-compressed file."""
    names, name_offsets = b"", []
    for name in ("sounds", "a.wav", "b.ogg"):
        name_offsets.append(len(names))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    packed = struct.pack(">I", 300) + zlib.compress(b"b" * 300)
    payloads = struct.pack(">I", 5) + b"first" + struct.pack(">I", len(packed)) + packed
    stamp = b"\0" * 8 if version >= 2 else b""

    def folder(name: int, count: int, first: int) -> bytes:
        return struct.pack(">IHII", name, 2, count, first) + stamp

    def leaf(name: int, flags: int, offset: int) -> bytes:
        return struct.pack(">IHHHI", name, flags, 0, 0, offset) + stamp

    tree = folder(0, 1, 1) + folder(name_offsets[0], 2, 2)
    tree += leaf(name_offsets[1], 0, 0) + leaf(name_offsets[2], 1, 9)
    start = 20
    header = struct.pack(">4I", version, start, start + len(tree), start + len(tree) + len(payloads))
    return b"qres" + header + tree + payloads + names


def make_group(entries: list[tuple[str, bool, bytes]]) -> bytes:
    """One OpenClonk directory, scrambled but not compressed."""
    header = bytearray(204)
    header[:24] = b"RedWolf Design GrpFolder"
    struct.pack_into("<3i", header, 28, 1, 2, len(entries))
    table = contents = b""
    for name, is_group, data in entries:
        table += name.encode().ljust(260, b"\0")
        table += struct.pack("<5i", 1, is_group, len(data), 0, len(contents)).ljust(56, b"\0")
        contents += data
    return unscramble(bytes(header)) + table + contents


def make_ocg() -> bytes:
    """A packed group with a file and a nested group."""
    nested = make_group([("Dog.wav", False, b"woof")])
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write(make_group([("authors.txt", False, b"me"), ("Animals.ocg", True, nested)]))
    return b"\x1e\x8c" + packed.getvalue()[2:]


def make_cat(sounds: dict[str, bytes]) -> bytes:
    """A catalogue; the top bit of each offset is set, as the game does."""
    table, body = b"", b""
    for name, payload in sounds.items():
        riff = b"RIFF" + struct.pack("<I", len(payload)) + payload
        table += struct.pack("<2I", (8 * len(sounds) + len(body)) | 0x80000000, len(riff))
        body += bytes([len(name) + 1]) + name.encode() + b"\0" + riff
    return table + body


@pytest.mark.parametrize("version", [1, 2])
def test_rcc(version: int) -> None:
    assert list(read_archive(".rcc", make_rcc(version))) == [
        ("sounds/a.wav", b"first"),
        ("sounds/b.ogg", b"b" * 300),
    ]


def test_ocg() -> None:
    assert list(read_archive(".ocg", make_ocg())) == [
        ("authors.txt", b"me"),
        ("Animals.ocg/Dog.wav", b"woof"),
    ]


def test_cat() -> None:
    members = list(read_archive(".cat", make_cat({"Beep": b"WAVEbeep", '"Wind". By X.': b"WAVEwhoosh"})))
    assert [name for name, _ in members] == ["00 Beep", '01 "Wind". By X.']
    assert [data[8:] for _, data in members] == [b"WAVEbeep", b"WAVEwhoosh"]


def test_unscrambling_is_its_own_inverse() -> None:
    header = bytes(range(204))
    assert unscramble(header) != header
    assert unscramble(unscramble(header)) == header


@pytest.mark.parametrize(
    ("suffix", "data"),
    [
        (".zip", b""),
        (".rcc", b"not a resource"),
        (".rcc", make_rcc(2)[:60]),
        (".ocg", b"\x1f\x8b"),
        (".ocg", make_ocg()[:40]),
        (".cat", b"\x08\0\0"),
        (".cat", make_cat({"Beep": b"WAVE"})[:16]),
    ],
)
def test_damaged_archives_are_refused(suffix: str, data: bytes) -> None:
    with pytest.raises(DataError):
        list(read_archive(suffix, data))
