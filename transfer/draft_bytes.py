"""The bytes of a draft, chunk by chunk: in memory, on their way into the store, in a temporary file, or stored.

Of each chunk the latest of these counts, in that order; a chunk without any is a hole, and bytes behind what is written
down are zero. The memory of all drafts together is bounded.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from base.errors import NoSpaceError
from base.ids import ChunkId, ContentId, PodId
from transfer import disk
from transfer.access import Access
from transfer.chunking import chunk_bytes_for, spans
from transfer.fetcher import Urgency, Wanted
from transfer.lazylock import LazyLock
from transfer.ledger import Owner


@dataclass(slots=True)
class DraftMemory:
    """The unwritten bytes of all drafts of a pod, and their limit."""

    limit_bytes: int
    used: int = 0


class Stored(NamedTuple):
    """A piece in the store or elsewhere: its length, and how much of it still counts after truncation."""

    piece: ChunkId
    length: int
    valid: int


class Flying(NamedTuple):
    """A full chunk on its way into the store; the buffer isn't changed meanwhile."""

    future: Future[ChunkId]
    buffer: bytearray


class DraftBytes:
    """What was written to a draft and what it builds on; `Draft` gives it a size and a name."""

    def __init__(
        self, access: Access, memory: DraftMemory, content: ContentId, size: int, author: PodId | None
    ) -> None:
        self._access = access
        self._memory = memory
        self._base = content
        self._author = author
        self._chunk_bytes = chunk_bytes_for(size)
        self._chunks: list[Stored | None] = []
        self._buffers: dict[int, bytearray] = {}
        self._flying: dict[int, Flying] = {}
        self._spilled: dict[int, int] = {}
        self._file: BinaryIO | None = None
        self._away: dict[ChunkId, PodId] = {}
        """Pieces that another pod holds for this draft → which; they needn't be here."""
        self._lock = LazyLock()
        self._used = 0
        self._next = 0
        self._owner = Owner()
        """Owns the pieces that were written here, until they are let go or something else needs them."""

    # -- writing

    def _covers(self, index: int, start: int, stop: int) -> bool:
        return start == 0 and stop >= self._valid(index)

    def _patch(
        self, index: int, buffer: bytearray, offset: int, start: int, stop: int, data: bytes | memoryview
    ) -> None:
        """Put the part of ``data`` (which begins at ``offset``) that belongs to a chunk into its buffer."""
        before = len(buffer)
        if before < start:
            buffer.extend(bytes(start - before))
        at = index * self._chunk_bytes + start - offset
        part = data if not at and stop - start == len(data) else memoryview(data)[at : at + stop - start]
        if len(buffer) == start:
            buffer += part
        else:
            buffer[start:stop] = part
        self._count(len(buffer) - before)
        in_order = offset + at == self._next or at > 0
        if in_order and stop == self._chunk_bytes == len(buffer):
            self._launch(index)

    def _count(self, more: int) -> None:
        self._used += more
        self._memory.used += more

    def _more(self, index: int, start: int, stop: int) -> int:
        """Return how many bytes of memory it takes to write this: all of a chunk that is changed in part."""
        valid = self._valid(index)
        if index in self._buffers or index in self._flying:
            return max(0, stop - valid)
        return stop if self._covers(index, start, stop) else max(valid, stop)

    def _is_over(self, more: int) -> bool:
        least = 2 * self._chunk_bytes
        limit = max(self._access.settings.draft_bytes, least)
        total = self._memory.used + more > self._memory.limit_bytes
        return self._used + more > limit or (total and self._used + more > least)

    def _buffer_now(self, index: int, start: int, stop: int) -> bytearray | None:
        """Return the chunk's buffer, making one from what is at hand; None when that isn't in memory."""
        buffer = self._buffers.get(index)
        if buffer is not None:
            return buffer
        flying = self._flying.pop(index, None)
        if flying is not None:
            self._count(-len(flying.buffer))
            buffer = bytearray(flying.buffer)
        else:
            if self._covers(index, start, stop):
                buffer = bytearray()
            else:
                data = self._part_now(index, 0, self._valid(index))
                if data is None:
                    return None
                buffer = bytearray(data)
        self._adopt(index, buffer)
        return buffer

    def _adopt(self, index: int, buffer: bytearray) -> None:
        self._buffers[index] = buffer
        self._spilled.pop(index, None)
        self._count(len(buffer))

    def _launch(self, index: int) -> None:
        """Start to store a chunk that was filled in order: it will hardly change again."""
        buffer = self._buffers.pop(index)
        self._flying[index] = Flying(self._access.store.put_later(buffer, self._owner), buffer)

    def _land(self) -> None:
        """Note chunks that have reached the store; raise what went wrong with one, keeping its bytes."""
        for index in [index for index, flying in self._flying.items() if flying.future.done()]:
            self._landed(index)

    def _landed(self, index: int) -> None:
        flying = self._flying.pop(index)
        try:
            piece = flying.future.result()
        except BaseException:
            self._buffers[index] = flying.buffer
            raise
        self._set(index, piece, len(flying.buffer))
        self._count(-len(flying.buffer))

    def _set(self, index: int, piece: ChunkId, length: int) -> None:
        if index >= len(self._chunks):
            self._chunks.extend([None] * (index + 1 - len(self._chunks)))
        self._chunks[index] = Stored(piece, length, length)

    async def _make_room(self) -> None:
        """Wait for a chunk to reach the store, or move a buffer into the temporary file."""
        if self._flying:
            index = next(iter(self._flying))
            with suppress(NoSpaceError):  # then it goes into the temporary file, if there is room for that
                await self._arrival(index)
        elif self._buffers:
            index = next(iter(self._buffers))
            await self._access.offload.run(self._spill, index, self._buffers[index])
            buffer = self._buffers.pop(index)
            self._spilled[index] = len(buffer)
            self._count(-len(buffer))

    async def _arrival(self, index: int) -> None:
        try:
            await self._access.offload.result(self._flying[index].future)
        finally:
            if self._flying[index].future.done():
                self._landed(index)

    def _spill(self, index: int, buffer: bytearray) -> None:
        store = self._access.store
        store.room.check(store.bytes_used, len(buffer), store.waiting_bytes)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._access.store.path / "new")  # noqa: SIM115
            view, at = memoryview(buffer), index * self._chunk_bytes
            while view:
                done = os.pwrite(self._file.fileno(), view, at)
                view, at = view[done:], at + done
        except OSError as error:
            raise disk.plain_error(error, "a temporary file can't be written") from error

    def pieces(self) -> Iterable[ChunkId]:
        """Return the pieces on this pod that the draft builds on."""
        return (each.piece for each in self._chunks if each is not None and each.piece not in self._away)

    # -- reading back

    def _valid(self, index: int) -> int:
        """Return how many bytes of a chunk are written down; those behind are zero."""
        buffer = self._buffers.get(index)
        if buffer is None and index in self._flying:
            buffer = self._flying[index].buffer
        if buffer is not None:
            return len(buffer)
        if index in self._spilled:
            return self._spilled[index]
        stored = self._chunks[index] if index < len(self._chunks) else None
        return stored.valid if stored is not None else 0

    def _part_now(self, index: int, start: int, stop: int) -> bytes | None:
        upto = min(stop, self._valid(index))
        if upto <= start:
            return bytes(stop - start)
        data = self._written(index, start, upto)
        if data is None:
            stored = self._chunks[index]
            assert stored is not None
            data = self._access.range_now(stored.piece, start, upto - start)
        if data is None or len(data) < upto - start:
            return None
        return data if upto == stop else data + bytes(stop - upto)

    def _written(self, index: int, start: int, upto: int) -> bytes | None:
        """Return a range of a chunk that was changed and isn't a stored piece."""
        buffer = self._buffers.get(index)
        if buffer is None and index in self._flying:
            buffer = self._flying[index].buffer
        if buffer is not None:
            return bytes(memoryview(buffer)[start:upto])
        if index in self._spilled:
            assert self._file is not None
            return disk.pread_all(self._file.fileno(), upto - start, index * self._chunk_bytes + start)
        return None

    async def _part(self, index: int, start: int, stop: int) -> bytes:
        found = self._part_now(index, start, stop)
        if found is not None:
            return found
        stored = self._chunks[index]
        assert stored is not None
        upto = min(stop, stored.valid)
        data = await self._access.local(self._base, stored.piece, start, upto - start)
        if data is None or len(data) < upto - start:
            wanted = Wanted(self._base, stored.piece, stored.length, self._away.get(stored.piece, self._author))
            data = (await self._access.chunk(wanted, Urgency.READ, None))[start:upto]
        return data if upto == stop else data + bytes(stop - upto)

    def _is_hole(self, offset: int, length: int) -> bool:
        return not any(self._valid(index) > start for index, start, _ in spans(offset, length, self._chunk_bytes))

    def _release(self) -> None:
        """Let go of memory and of the temporary file."""
        self._count(-self._used)
        self._buffers.clear()
        self._flying.clear()
        self._spilled.clear()
        if self._file is not None:
            self._file.close()
