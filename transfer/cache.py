"""Cache policy, pure: what to keep of what is read, and which cached content goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from base.ids import ChunkId, ContentId
from transfer.settings import CacheMode, TransferSettings

MAX_COUNTED: Final = 4096


def keep_copy(settings: TransferSettings, size: int, reads: int, *, cacheable: bool) -> bool:
    """Tell whether a content being read here for the ``reads``-th time is to be cached whole, or only streamed."""
    if not cacheable or size > settings.cache_limit_bytes:
        return False
    match settings.cache_mode:
        case CacheMode.STREAM:
            return False
        case CacheMode.COPY:
            return True
        case CacheMode.AUTO:
            return size < settings.copy_below_bytes or reads >= settings.copy_after_reads


class ReadCounts:
    """How often contents that aren't here were read; the longest unread are forgotten first."""

    def __init__(self) -> None:
        self._counts: OrderedDict[ContentId, int] = OrderedDict()

    def count(self, content: ContentId) -> int:
        """Note one more read and return how many there were, this one included."""
        reads = self._counts.pop(content, 0) + 1
        self._counts[content] = reads
        if len(self._counts) > MAX_COUNTED:
            self._counts.popitem(last=False)
        return reads


class MemoryCache:
    """Verified chunks in memory, least recently used out first, for what is streamed."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._chunks: OrderedDict[ChunkId, bytes] = OrderedDict()
        self.bytes_used = 0

    def get(self, piece: ChunkId) -> bytes | None:
        """Return a whole chunk, or None."""
        data = self._chunks.get(piece)
        if data is not None:
            self._chunks.move_to_end(piece)
        return data

    def add(self, piece: ChunkId, data: bytes) -> None:
        """Keep a chunk for a while; the latest always fits."""
        if piece in self._chunks:
            return
        self._chunks[piece] = data
        self.bytes_used += len(data)
        while self.bytes_used > self._limit_bytes and len(self._chunks) > 1:
            self.bytes_used -= len(self._chunks.popitem(last=False)[1])
