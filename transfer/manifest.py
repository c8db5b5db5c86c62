"""The list of a content's chunks, stored by hash like a chunk. The codec is versioned, bounded and canonical.

A manifest is ``msgpack([version, size, chunk_bytes, ids])`` where ``ids`` are the 32-byte chunk ids in a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgpack

from base.errors import DamagedError
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, hash_bytes
from transfer.chunking import MAX_CHUNKS, MAX_CONTENT_BYTES, chunk_bytes_for, chunk_count, chunk_length, is_single

VERSION: Final = 1
ID_BYTES: Final = 32
MAX_MANIFEST_BYTES: Final = MAX_CHUNKS * ID_BYTES + 64


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a content consists of; for one chunk or none it is implied by the content's id and size."""

    size: int
    chunk_bytes: int
    chunks: tuple[ChunkId, ...]

    def length(self, index: int) -> int:
        """Return the bytes of the chunk at ``index``."""
        return chunk_length(index, self.size, self.chunk_bytes)


def implied(content: ContentId, size: int) -> Manifest | None:
    """Return the manifest of a content that needs none stored, or None when one must be read."""
    if not is_single(size):
        return None
    chunks = (ChunkId(content),) if size else ()
    return Manifest(size, chunk_bytes_for(size), chunks)


def encode(size: int, chunks: Sequence[ChunkId]) -> bytes:
    """Return the stored form for a content of several chunks."""
    chunk_bytes = chunk_bytes_for(size)
    assert len(chunks) == chunk_count(size, chunk_bytes) > 1
    packed: bytes = msgpack.packb([VERSION, size, chunk_bytes, b"".join(chunks)], use_bin_type=True)
    return packed


def decode(data: bytes, size: int | None = None) -> Manifest:
    """Read a stored manifest; raises `DamagedError` when it isn't one, or not of a content of ``size`` bytes."""
    problem = DamagedError("A list of chunks can't be read.", "Run `wormhole scrub` to repair it from other pods.")
    if len(data) > MAX_MANIFEST_BYTES:
        raise problem
    try:
        value = msgpack.unpackb(data, raw=False, max_bin_len=MAX_MANIFEST_BYTES, max_array_len=8, strict_map_key=True)
    except (ValueError, msgpack.UnpackException):
        raise problem from None
    match value:
        case [1, int(found), int(chunk_bytes), bytes(ids)] if 0 < found <= MAX_CONTENT_BYTES:
            pass
        case _:
            raise problem
    if (
        isinstance(found, bool)
        or is_single(found)
        or chunk_bytes != chunk_bytes_for(found)
        or len(ids) != ID_BYTES * chunk_count(found, chunk_bytes)
        or (size is not None and size != found)
    ):
        raise problem
    chunks = tuple(ChunkId(ids[start : start + ID_BYTES]) for start in range(0, len(ids), ID_BYTES))
    return Manifest(found, chunk_bytes, chunks)


def content_id(size: int, chunks: Sequence[ChunkId]) -> ContentId:
    """Return the name of the content that consists of these chunks."""
    if not chunks:
        return EMPTY_CONTENT
    if is_single(size):
        return ContentId(chunks[0])
    return ContentId(hash_bytes(encode(size, chunks)))
