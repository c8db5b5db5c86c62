"""A file being changed: copy-on-write over an old content, cut into chunks as it is written.

What is written in order goes chunk by chunk into the store as soon as a chunk is full; the rest stays in memory, or in
a temporary file when there is much of it. Sealing hashes only what changed since the last time; a draft that nobody
touched costs nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

from base.errors import FileSystemError, NoSpaceError
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, PodId
from transfer.access import Access
from transfer.chunking import (
    MAX_CONTENT_BYTES,
    chunk_bytes_for,
    chunk_count,
    chunk_length,
    is_single,
    spans,
    zero_chunk_id,
)
from transfer.draft_bytes import DraftMemory, Stored
from transfer.draft_lodging import DraftLodging
from transfer.fetcher import Urgency
from transfer.ledger import Seal
from transfer.manifest import Manifest, encode
from transfer.offload import INLINE_BYTES
from transfer.pieces import Area

T = TypeVar("T")
ROOM_TRIES: Final = 8
"""So often room is looked for until one call succeeds."""


class Sealed(NamedTuple):
    """What a draft was when it was sealed."""

    content: ContentId
    size: int


class Draft(DraftLodging):
    """One file being written. Calls that wait exclude each other; those that don't refuse (None, False) meanwhile."""

    def __init__(
        self,
        access: Access,
        memory: DraftMemory,
        content: ContentId,
        size: int,
        author: PodId | None,
        expect_bytes: int,
    ) -> None:
        super().__init__(access, memory, content, size or expect_bytes, author)
        self.size = size
        self._base_size = size
        self._loaded = size == 0
        self._sealed: Sealed | None = Sealed(content, size)
        self._closed = False
        self._seal: Seal | None = None
        access.users.add(self)
        access.pinned[content] += 1

    # -- writing

    def write_now(self, offset: int, data: bytes | memoryview) -> bool:
        """Write without waiting; False when something must be fetched or moved out of memory first.

        Raises `MachineError` when earlier bytes couldn't be stored, `FileSystemError` (EFBIG).
        """
        if not data:
            return True
        if self._lock.locked() or not self._load_now():
            return False
        self._check_size(offset + len(data))
        try:
            self._land()
        except NoSpaceError:
            return False  # `write` looks for room
        ranges = spans(offset, len(data), self._chunk_bytes)
        if self._is_over(sum(self._more(*span) for span in ranges)):
            return False
        self._sealed = None
        for index, start, stop in ranges:
            if not self._covers(index, start, stop) and self._buffer_now(index, start, stop) is None:
                return False
        for index, start, stop in ranges:
            buffer = self._buffer_now(index, start, stop)
            assert buffer is not None
            self._patch(index, buffer, offset, start, stop, data)
        self._grow(offset, len(data))
        return True

    async def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write, fetching what is only partly overwritten. Raises as `write_now`, and `UnreachableError`.

        After an error some of the beginning may have been written.
        """
        await self._finding_room(lambda: self._write(offset, data))

    async def _finding_room(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do something, and again when there was no room for it and some was found: nothing is lost by a failure."""
        for _ in range(ROOM_TRIES):
            try:
                return await work()
            except NoSpaceError:
                if not await self._access.make_room():
                    raise
        return await work()

    async def _write(self, offset: int, data: bytes | memoryview) -> None:
        async with self._lock:
            self._check_size(offset + len(data))
            await self._load()
            self._sealed = None
            for index, start, stop in spans(offset, len(data), self._chunk_bytes):
                while self._is_over(self._more(index, start, stop)):
                    await self._make_room()
                buffer = self._buffer_now(index, start, stop)
                if buffer is None:
                    buffer = bytearray(await self._part(index, 0, self._valid(index)))
                    self._adopt(index, buffer)
                self._patch(index, buffer, offset, start, stop, data)
                self._grow(index * self._chunk_bytes + start, stop - start)

    def _check_size(self, size: int) -> None:
        if size > MAX_CONTENT_BYTES:
            raise FileSystemError(errno.EFBIG, "The file would be larger than 1 TiB.")
        self._access.quota.grow(self, max(size, self.size) - self._base_size)

    def _grow(self, offset: int, length: int) -> None:
        self._next = offset + length
        self.size = max(self.size, self._next)
        self._sealed = None

    # -- reading back

    def read_now(self, offset: int, length: int) -> bytes | None:
        """Return a range as written, from memory or the page cache; None when something isn't there.

        Short at the end.
        """
        if self._lock.locked() or not self._load_now():
            return None
        parts: list[bytes] = []
        for index, start, stop in spans(offset, max(0, min(length, self.size - offset)), self._chunk_bytes):
            part = self._part_now(index, start, stop)
            if part is None:
                return None
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read(self, offset: int, length: int) -> bytes:
        """Return a range as written, fetching what isn't here. Raises `UnreachableError`, `DamagedError`."""
        async with self._lock:
            await self._load()
            return await self._range(offset, length)

    async def _range(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        parts = [await self._part(*span) for span in spans(offset, length, self._chunk_bytes)]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # -- the base

    def _load_now(self) -> bool:
        if not self._loaded:
            manifest = self._access.manifest_now(self._base, self._base_size)
            if manifest is None:
                return False
            self._take(manifest)
        return True

    async def _load(self) -> None:
        if not self._loaded:
            self._take(await self._access.manifest(self._base, self._base_size, self._author, Urgency.READ))

    def _take(self, manifest: Manifest) -> None:
        lengths = (manifest.length(index) for index in range(len(manifest.chunks)))
        self._chunks = [Stored(piece, length, length) for piece, length in zip(manifest.chunks, lengths, strict=True)]
        self._loaded = True

    # -- truncating

    async def truncate(self, size: int) -> None:
        """Cut, or lengthen by a hole. Raises `FileSystemError` (EFBIG), and what loading the old content raises."""
        async with self._lock:
            self._check_size(size)
            if size == self.size:
                return
            if size == 0:
                self._loaded = True
            await self._load()
            if size < self.size:
                await self._cut(size)
            self.size = size
            self._sealed = None
            if not (self._chunks or self._buffers or self._flying or self._spilled):
                self._chunk_bytes = chunk_bytes_for(size)

    async def _cut(self, size: int) -> None:
        for index in list(self._flying):
            await self._arrival(index)
        count = chunk_count(size, self._chunk_bytes)
        del self._chunks[count:]
        for index in [index for index in self._buffers if index >= count]:
            self._count(-len(self._buffers.pop(index)))
        for index in [index for index in self._spilled if index >= count]:
            del self._spilled[index]
        if not count:
            return
        last = count - 1
        left = chunk_length(last, size, self._chunk_bytes)
        buffer = self._buffers.get(last)
        if buffer is not None and len(buffer) > left:
            self._count(left - len(buffer))
            del buffer[left:]
        if last in self._spilled:
            self._spilled[last] = min(left, self._spilled[last])
        stored = self._chunks[last] if last < len(self._chunks) else None
        if stored is not None:
            self._chunks[last] = stored._replace(valid=min(left, stored.valid))

    # -- sealing

    async def seal(self) -> Sealed:
        """Write what changed into the store (not yet durable: `Transfer.sync`) and name the whole.

        The draft stays usable and goes on over what was sealed. Raises `NoSpaceError`, `MachineError`, and what
        fetching a partly overwritten chunk raises; nothing is lost then.
        """
        return await self._finding_room(self._sealing)

    async def _sealing(self) -> Sealed:
        async with self._lock:
            if self._sealed is not None:
                return self._sealed
            await self._load()
            for index in list(self._flying):
                with suppress(NoSpaceError):  # it is stored below
                    await self._arrival(index)
            if chunk_bytes_for(self.size) != self._chunk_bytes:
                await self._cut_anew()
            pieces = await self._settle()
            size = self.size
            if not pieces:
                content = EMPTY_CONTENT
            elif is_single(size):
                content = ContentId(pieces[0])
            else:
                content = ContentId(await self._put(encode(size, pieces)))
                self._access.remember(content, Manifest(size, self._chunk_bytes, tuple(pieces)))
            lodged = await self._hand_all(content, size, pieces)
            self._sealed = Sealed(content, size)
            self._note_seal(content, set() if lodged else {*pieces, ChunkId(content)})
            return self._sealed

    def seal_now(self) -> Sealed | None:
        """Do what `seal` does without waiting, for a small content that is in memory; None: `seal` has to.

        Raises `MachineError`; nothing is lost then.
        """
        if self._lock.locked():
            return None
        if self._sealed is not None:
            return self._sealed
        buffer, size = self._buffers.get(0), self.size
        if buffer is None or not 0 < size == len(buffer) <= INLINE_BYTES or self._chunk_bytes != chunk_bytes_for(size):
            return None
        if not self._loaded or len(self._buffers) + len(self._flying) + len(self._spilled) > 1:
            return None
        try:
            piece = self._access.store.put(buffer, Area.KEPT, self._owner)
        except NoSpaceError:
            return None  # `seal` looks for room
        del self._buffers[0]
        self._count(-size)
        del self._chunks[1:]
        self._set(0, piece, size)
        self._sealed = Sealed(ContentId(piece), size)
        self._note_seal(self._sealed.content, {piece})
        return self._sealed

    def _note_seal(self, content: ContentId, needed: set[ChunkId]) -> None:
        """Let the sealed content own what it needs of what was written here, and let go of the rest."""
        self._access.quota.sealed(self, content)
        claims, before = self._access.claims, self._seal
        self._seal = claims.sealed(content, self._owner.pieces & needed, single=len(needed) == 1)
        unneeded = self._owner.pieces - needed
        if before is not None:
            claims.supersede(before)
        if unneeded:
            claims.let_go(self._owner, unneeded)

    async def _put(self, data: bytes | bytearray) -> ChunkId:
        store = self._access.store
        if len(data) <= INLINE_BYTES:
            return store.put(data, Area.KEPT, self._owner)
        return await self._access.offload.run(store.put, data, Area.KEPT, self._owner)

    async def _settle(self) -> list[ChunkId]:
        """See that each chunk is a stored piece of its exact length; return them."""
        pieces: list[ChunkId] = []
        holes: dict[int, ChunkId] = {}
        for index in range(chunk_count(self.size, self._chunk_bytes)):
            length = chunk_length(index, self.size, self._chunk_bytes)
            stored = self._chunks[index] if index < len(self._chunks) else None
            dirty = index in self._buffers or index in self._spilled
            if dirty or (stored is not None and not stored.length == stored.valid == length):
                stored = Stored(await self._store_chunk(index, length), length, length)
                self._set(index, stored.piece, length)
            elif stored is None:
                if length not in holes:
                    holes[length] = await self._store_hole(length)
                stored = Stored(holes[length], length, length)
                self._set(index, stored.piece, length)
            pieces.append(stored.piece)
        return pieces

    async def _store_chunk(self, index: int, length: int) -> ChunkId:
        buffer = self._buffers.get(index)
        if buffer is not None and len(buffer) == length:
            piece = await self._put(buffer)
        else:
            piece = await self._put(await self._part(index, 0, length))
        buffer = self._buffers.pop(index, None)
        if buffer is not None:
            self._count(-len(buffer))
        self._spilled.pop(index, None)
        return piece

    async def _store_hole(self, length: int) -> ChunkId:
        piece = zero_chunk_id(length)
        here = self._access.store.claim(piece, Area.KEPT, self._owner)
        return piece if here else await self._put(bytes(length))

    async def _cut_anew(self) -> None:
        """Cut all into chunks of the size that the content's size asks for: it passed 16 GiB, or fell below."""
        chunk_bytes = chunk_bytes_for(self.size)
        fresh: list[Stored | None] = []
        for index in range(chunk_count(self.size, chunk_bytes)):
            length = chunk_length(index, self.size, chunk_bytes)
            if self._is_hole(index * chunk_bytes, length):
                fresh.append(None)
                continue
            piece = await self._put(await self._range(index * chunk_bytes, length))
            fresh.append(Stored(piece, length, length))
        for buffer in self._buffers.values():
            self._count(-len(buffer))
        self._buffers.clear()
        self._spilled.clear()
        self._chunks = fresh
        self._chunk_bytes = chunk_bytes

    def discard(self, *, abandon: bool = False) -> None:
        """Let go of memory, temporary files and pieces that no seal needs; the draft isn't used any more.

        What was sealed last and isn't published stays until `Transfer.abandon` says that it won't be. With
        ``abandon`` it goes as well, unless it is journalled or just being published.
        """
        if self._closed:
            return
        self._closed = True
        self._release()
        self._access.users.discard(self)
        if abandon and self._seal is not None:
            self._access.claims.supersede(self._seal)
        self._access.quota.done(self)
        self._access.claims.close(self._owner)
        self._access.handing.done(self)
        self._access.unpin(self._base)
