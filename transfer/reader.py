"""Reading a content that may be here, elsewhere, or partly so.

What is here answers at once. What isn't is fetched chunk by chunk in parallel, verified, and either stored (when the
cache policy wants a copy) or kept in memory only. Someone who reads on and on has the next chunks fetched ahead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

import anyio
import anyio.lowlevel

from base.errors import WormholeError
from base.ids import ChunkId, ContentId, PodId
from transfer.access import Access
from transfer.chunking import spans
from transfer.fetcher import Urgency, Wanted
from transfer.manifest import Manifest
from transfer.pieces import Area

AHEAD_FROM_CHUNKS: Final = 2
"""Reading on for this many chunks starts reading ahead: less would fetch too much for a glance at the middle."""
MAX_AHEAD_BYTES: Final = 8 << 20
REORDER_BYTES: Final = 1 << 20
"""The kernel sends the reads of a run out of order by this much."""


class Reader:
    """One opened content. Several may be open on the same; none changes it."""

    def __init__(self, access: Access, content: ContentId, size: int, author: PodId | None) -> None:
        self.content = content
        self.size = size
        self._access = access
        self._author = author
        self._manifest: Manifest | None = None
        self._store_in: Area | None = None
        self._remote = False
        self._used = False
        self._run_start = 0
        self._run_end = 0
        self._ahead: dict[int, anyio.CancelScope] = {}
        self._ahead_upto = 0
        self._streaming = False
        access.users.add(self)

    def pieces(self) -> Iterable[ChunkId]:
        """Return the pieces of the content, as far as they are known."""
        return self._manifest.chunks if self._manifest is not None else ()

    def read_now(self, offset: int, length: int) -> bytes | None:
        """Return a range from memory or the page cache, never waiting; None when something of it isn't there.

        Short at the end of the content. Raises `DamagedError`.
        """
        length = min(length, self.size - offset)
        if length <= 0:
            return b""
        manifest = self._manifest
        if manifest is None:
            manifest = self._manifest = self._access.manifest_now(self.content, self.size)
            if manifest is None:
                return None
        first, start = divmod(offset, manifest.chunk_bytes)
        if start + length <= manifest.chunk_bytes:
            data = self._access.range_now(manifest.chunks[first], start, length)
        else:
            parts: list[bytes] = []
            for index, begin, stop in spans(offset, length, manifest.chunk_bytes):
                part = self._access.range_now(manifest.chunks[index], begin, stop - begin)
                if part is None:
                    return None
                parts.append(part)
            data = b"".join(parts)
        if data is not None:
            self._note(offset, length)
        return data if data is None or len(data) == length else None

    async def read(self, offset: int, length: int) -> bytes:
        """Return a range, fetching what isn't here; short at the end of the content.

        Raises `UnreachableError` (EIO): at once when nobody who can be reached has it, else after the deadline without
        progress; `DamagedError` when only damaged copies are left.
        """
        found = self.read_now(offset, length)
        if found is not None:
            await anyio.lowlevel.checkpoint()
            return found
        length = min(length, self.size - offset)
        if self._manifest is None:
            self._manifest = await self._access.manifest(self.content, self.size, self._author, Urgency.READ)
        manifest = self._manifest
        ranges = spans(offset, length, manifest.chunk_bytes)
        if len(ranges) == 1:
            data = await self._part(manifest, *ranges[0])
        else:
            parts: dict[int, bytes] = {}
            failures: list[WormholeError] = []

            async def fetch(index: int, start: int, stop: int) -> None:
                try:
                    parts[index] = await self._part(manifest, index, start, stop)
                except WormholeError as error:
                    failures.append(error)
                    group.cancel_scope.cancel()

            for begin in range(0, len(ranges), 16):
                async with anyio.create_task_group() as group:
                    for each in ranges[begin : begin + 16]:
                        group.start_soon(fetch, *each)
                if failures:
                    raise failures[0]
            data = b"".join(parts[index] for index, _, _ in ranges)
        self._note(offset, length)
        return data

    async def _part(self, manifest: Manifest, index: int, start: int, stop: int) -> bytes:
        piece = manifest.chunks[index]
        data = self._access.range_now(piece, start, stop - start)
        if data is None:
            data = await self._access.local(self.content, piece, start, stop - start)
        if data is not None and len(data) == stop - start:
            return data
        self._first_remote()
        wanted = Wanted(self.content, piece, manifest.length(index), self._author)
        whole = await self._access.chunk(wanted, Urgency.READ, self._store_in)
        return whole if not start and stop >= len(whole) else whole[start:stop]

    def _first_remote(self) -> None:
        if not self._remote:
            self._remote = True
            if self._access.on_remote_read(self.content, self.size, self._author):
                self._store_in = Area.CACHED

    def _note(self, offset: int, length: int) -> None:
        """Follow the reader's way; when it reads on, fetch ahead."""
        if not self._used:
            self._used = True
            self._access.on_use(self.content)
        if abs(offset - self._run_end) <= REORDER_BYTES and offset >= self._run_start:
            self._run_end = max(self._run_end, offset + length)
        else:
            self._run_start, self._run_end = offset, offset + length
            self._ahead_upto = 0
        if self._remote:
            self._read_ahead()

    def _read_ahead(self) -> None:
        manifest = self._manifest
        if manifest is None:
            return
        chunk_bytes = manifest.chunk_bytes
        run_chunks = (self._run_end - self._run_start) // chunk_bytes
        if run_chunks < AHEAD_FROM_CHUNKS:
            return
        if not self._streaming:
            self._streaming = True
            self._access.streams += 1
        share = self._access.settings.memory_bytes // (2 * self._access.streams)
        window = max(1, min(MAX_AHEAD_BYTES, share) // chunk_bytes)
        first = -(-self._run_end // chunk_bytes)
        last = min(len(manifest.chunks), first + min(window, 2 ** min(run_chunks - 1, 10)))
        for index in range(max(first, self._ahead_upto), last):
            self._ahead_upto = index + 1
            if index not in self._ahead and not self._access.store.has(manifest.chunks[index]):
                scope = self._ahead[index] = anyio.CancelScope()
                wanted = Wanted(self.content, manifest.chunks[index], manifest.length(index), self._author)
                self._access.spawn(lambda scope=scope, index=index, wanted=wanted: self._fetch(scope, index, wanted))  # type: ignore[misc]

    async def _fetch(self, scope: anyio.CancelScope, index: int, wanted: Wanted) -> None:
        with scope, contextlib.suppress(WormholeError):
            await self._access.chunk(wanted, Urgency.AHEAD, self._store_in)
        self._ahead.pop(index, None)

    def close(self) -> None:
        """Stop reading ahead."""
        self._access.users.discard(self)
        if self._streaming:
            self._streaming = False
            self._access.streams -= 1
        for scope in list(self._ahead.values()):
            scope.cancel()
        self._ahead.clear()
