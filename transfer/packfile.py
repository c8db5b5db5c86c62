"""The form of a pack: records one behind another, each a head and the bytes of a piece. Reading needs no index."""

# Paths are plain strings here: building Path objects costs more than the system calls.
# ruff: noqa: PTH112

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from base.ids import ChunkId, hash_bytes

MAGIC: Final = b"whP\x01"
HEAD: Final = struct.Struct("<4sI32sI4s")
"""Magic and version, bytes of the piece, the piece's id, CRC-32 of all that, mark (`LIVING` or `DEAD`)."""
LIVING: Final = b"LIVE"
DEAD: Final = b"DEAD"
MARK_AT: Final = HEAD.size - len(LIVING)


class Spot(NamedTuple):
    """Where the bytes of a piece lie."""

    pack: int
    at: int
    length: int

    @property
    def record_bytes(self) -> int:
        """Bytes of the record on the disk."""
        return HEAD.size + self.length


class Record(NamedTuple):
    """One record of a pack, as it was read."""

    piece: ChunkId
    spot: Spot
    data: bytes
    living: bool


def head_of(piece: ChunkId, length: int) -> bytes:
    """Return the head of a living record."""
    start = HEAD.pack(MAGIC, length, piece, 0, LIVING)[: MARK_AT - 4]
    return start + struct.pack("<I", zlib.crc32(start)) + LIVING


def records(path: str, number: int, start: int = 0) -> Iterator[Record]:
    """Read a pack from an offset on. What is no record, because it is torn or rotten, is skipped."""
    with open(path, "rb") as file:  # noqa: PTH123 - a plain string
        file.seek(start)
        data = file.read()
    at = data.find(MAGIC)
    while 0 <= at <= len(data) - HEAD.size:
        _, length, piece, checksum, mark = HEAD.unpack_from(data, at)
        body = at + HEAD.size
        whole = zlib.crc32(data[at : at + MARK_AT - 4]) == checksum and body + length <= len(data)
        if whole:
            yield Record(ChunkId(piece), Spot(number, start + body, length), data[body : body + length], mark != DEAD)
        at = data.find(MAGIC, body + length if whole else at + 1)


def numbers(root: str) -> list[int]:
    """Return the numbers of the packs of a store, ascending."""
    names = (name.partition(".") for name in os.listdir(f"{root}/packs")) if os.path.isdir(f"{root}/packs") else ()  # noqa: PTH208
    return sorted(int(stem) for stem, _, ending in names if ending == "pack" and stem.isdigit())


def path_of(root: str, number: int) -> str:
    """Return the path of a pack of the store below ``root``."""
    return f"{root}/packs/{number:08}.pack"


def listing(root: str) -> Iterator[tuple[str, int]]:
    """Read every packed piece from the disk, without the index: BLAKE3 of its bytes in hexadecimal, and their number."""
    seen: set[ChunkId] = set()
    for number in numbers(root):
        with contextlib.suppress(FileNotFoundError):
            for each in records(path_of(root, number), number):
                if each.living and each.piece not in seen:
                    seen.add(each.piece)
                    yield hash_bytes(each.data).hex(), len(each.data)
