"""How a content of so many bytes is cut: a pure function of its size, so that equal bytes have equal ids everywhere.

Chunks are 1 MiB; above 16 GiB the next powers of two, so that a manifest lists at most 16,384 of them. A content of
one chunk has no manifest and is named by that chunk; the content of no bytes needs nothing at all.
"""

from __future__ import annotations

import errno
from typing import Final

from base.errors import FileSystemError
from base.ids import ChunkId, hash_bytes

CHUNK_BYTES: Final = 1 << 20
"""Size of a chunk of all but very large files."""

MAX_CHUNKS: Final = 16_384
"""Most chunks that a manifest lists."""

MAX_CHUNK_BYTES: Final = 64 << 20
"""Largest chunk: it must fit in memory to be verified before it is used."""

MAX_CONTENT_BYTES: Final = MAX_CHUNKS * MAX_CHUNK_BYTES
"""Largest file (1 TiB)."""


def chunk_bytes_for(size: int) -> int:
    """Return the chunk size for a content of ``size`` bytes; raises `FileSystemError` (EFBIG) above 1 TiB."""
    if size > MAX_CONTENT_BYTES:
        raise FileSystemError(errno.EFBIG, "The file would be larger than 1 TiB.")
    chunk_bytes = CHUNK_BYTES
    while chunk_bytes * MAX_CHUNKS < size:
        chunk_bytes *= 2
    return chunk_bytes


def chunk_count(size: int, chunk_bytes: int) -> int:
    """Return how many chunks ``size`` bytes need."""
    return -(-size // chunk_bytes)


def chunk_length(index: int, size: int, chunk_bytes: int) -> int:
    """Return the length of the chunk at ``index``: all are full but the last."""
    return min(chunk_bytes, size - index * chunk_bytes)


def is_single(size: int) -> bool:
    """Tell whether a content of ``size`` bytes is one chunk, or none: then it has no manifest."""
    return size <= CHUNK_BYTES


def spans(offset: int, length: int, chunk_bytes: int) -> list[tuple[int, int, int]]:
    """Return ``(index, start, stop)`` within each chunk that the range touches, in order."""
    parts: list[tuple[int, int, int]] = []
    end = offset + length
    while offset < end:
        index, start = divmod(offset, chunk_bytes)
        stop = min(chunk_bytes, start + end - offset)
        parts.append((index, start, stop))
        offset += stop - start
    return parts


_zero_ids: dict[int, ChunkId] = {}


def zero_chunk_id(length: int) -> ChunkId:
    """Return the id of ``length`` zero bytes (a hole); the full chunk sizes are remembered."""
    known = _zero_ids.get(length)
    if known is None:
        known = ChunkId(hash_bytes(bytes(length)))
        if length >= CHUNK_BYTES and length & (length - 1) == 0:
            _zero_ids[length] = known
    return known
