"""The cache at work: completes contents worth a copy in the background, drops the least recently used.

A content is told to be here when its pieces are durable, and told to be gone before they go. Only pieces in the store's
cache area are ever removed here, so nothing that is kept can be hurt.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Final

import anyio

from base import beat
from base.errors import NoSpaceError, UnreachableError, WormholeError
from base.ids import ChunkId, ContentId, PodId
from transfer.access import Access
from transfer.api import Catalogue, ContentInfo
from transfer.batching import MAX_PIECES, Batches
from transfer.cache import ReadCounts, keep_copy
from transfer.fetcher import Urgency, Wanted
from transfer.gather import gather, is_whole, stored_pieces
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.manifest import Manifest, implied
from transfer.pieces import Area

log = logging.getLogger(__name__)

SLACK_BYTES: Final = 64 << 20
"""Room that the cache leaves below the store's limit for what must be kept."""
MAX_TOUCHED: Final = 10_000
FLUSH_EVERY_S: Final = 10.0
MAX_SMALL: Final = 5000
"""Contents of one chunk that wait to be cached."""
SMALL_BATCH: Final = 2000
SMALL_QUIET_S: Final = 0.5
SMALL_WAIT_S: Final = 3.0
SMALL_SHARE: Final = 4
"""They are stored once no more have come for a moment, or a part of the memory for chunks is full of them, or after a time:
each batch costs several writes and tells the other pods, and whoever reads the next ones waits for that."""
PUT_SLICE: Final = 64
"""Small pieces written in a thread at a time."""
MAX_FORESEEN: Final = 1024
"""Small contents that are being fetched because they may be read next."""
MAX_LARGE: Final = 8
"""Larger contents being completed at a time."""


class Caching:
    """Decides and carries out what this pod caches."""

    def __init__(
        self,
        access: Access,
        database: HoldingsDb,
        catalogue: Catalogue,
        record: Callable[[dict[ContentId, Holding]], Awaitable[None]],
        batches: Batches,
    ) -> None:
        self._access = access
        self._database = database
        self._catalogue = catalogue
        self._record = record
        self._batches = batches
        self._reads = ReadCounts()
        self._touched: dict[ContentId, float] = {}
        self._completing: set[ContentId] = set()
        self._large = 0
        self._small: dict[ContentId, tuple[Manifest, PodId | None]] = {}
        self._small_wake = anyio.Event()
        access.on_remote_read = self.first_read
        access.on_use = self.touch

    def first_read(self, content: ContentId, size: int, author: PodId | None) -> bool:
        """Note that a content which isn't wholly here is being read; tell whether to store what is fetched."""
        if content in self._completing:
            return True
        info = self._catalogue.info(content)
        reads = self._reads.count(content)
        cacheable = info is not None and info.cache
        if not keep_copy(self._access.settings, size, reads, cacheable=cacheable):
            return False
        if self._database.own(content) is not Holding.NONE:
            return False
        manifest = implied(content, size)
        if manifest is not None and len(self._small) < MAX_SMALL:
            self._small[content] = manifest, author
            self._small_wake.set()
        elif manifest is None and self._large < MAX_LARGE:
            self._large += 1
            self._access.spawn(lambda: self._complete_large(content, size, author))
        else:
            return False
        self._completing.add(content)
        return True

    def touch(self, content: ContentId) -> None:
        """Note that a content is being read."""
        if len(self._touched) < MAX_TOUCHED:
            self._touched[content] = time.time()

    async def sweep(self) -> None:
        """After a kill: remove from the cache what its books don't know; before anything is fetched."""
        store = self._access.store
        for piece in await self._access.offload.run(store.cached_pieces):
            if not self._database.is_in_books(piece):
                store.remove_cached(piece)

    async def run(self) -> None:
        """Write down uses and keep within the limits, until cancelled."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._complete_small)
            while True:
                await beat.rest(FLUSH_EVERY_S)
                touched, self._touched = self._touched, {}
                if touched:
                    await self._database.cache_used(touched)
                await self.trim()

    async def _complete_large(self, content: ContentId, size: int, author: PodId | None) -> None:
        try:
            manifest = await self._access.manifest(content, size, author, Urgency.READ)
            await self._complete({content: (manifest, author)})
        except WormholeError as error:
            log.debug("%s isn't cached: %s", content.hex()[:16], error)
        finally:
            self._large -= 1
            self._completing.discard(content)

    async def _complete_small(self) -> None:
        while True:
            await self._small_wake.wait()
            await self._pause()
            batch = dict(islice(self._small.items(), SMALL_BATCH))
            try:
                await self._complete(batch)
            except WormholeError as error:
                log.debug("%d contents aren't cached: %s", len(batch), error)
            for content in batch:
                del self._small[content]
                self._completing.discard(content)
            if not self._small:
                self._small_wake = anyio.Event()

    async def _pause(self) -> None:
        """Wait for more small contents."""
        until, count = anyio.current_time() + SMALL_WAIT_S, 0
        most_bytes = self._access.settings.memory_bytes // SMALL_SHARE
        while count < len(self._small) < SMALL_BATCH and anyio.current_time() < until:
            count = len(self._small)
            if sum(manifest.size for manifest, _ in self._small.values()) > most_bytes:
                return
            await anyio.sleep(SMALL_QUIET_S)

    def foresee(self, contents: Collection[tuple[ContentId, int, PodId | None]]) -> None:
        """Start to fetch small contents that aren't here, many at a time; whoever reads one meanwhile waits for that."""
        access, wanted = self._access, list[Wanted]()
        for content, size, author in contents:
            piece = ChunkId(content)
            known = piece in access.foreseen or access.memory.get(piece) is not None or access.store.has(piece)
            if not known and len(access.foreseen) + len(wanted) < MAX_FORESEEN:
                wanted.append(Wanted(content, piece, size, author))
        for start in range(0, len(wanted), MAX_PIECES):
            some, done = wanted[start : start + MAX_PIECES], anyio.Event()
            access.foreseen |= dict.fromkeys((each.piece for each in some), done)
            access.spawn(partial(self._foresee, some, done))

    async def _foresee(self, wanted: Sequence[Wanted], done: anyio.Event) -> None:
        access = self._access
        try:
            for piece, data in (await self._batches.fetch(wanted)).items():
                access.memory.add(piece, data)
        finally:
            done.set()
            for each in wanted:
                access.foreseen.pop(each.piece, None)
        for each in wanted:
            if access.memory.get(each.piece) is not None:
                self.first_read(each.content, each.max_bytes, each.author)

    async def _complete(self, contents: Mapping[ContentId, tuple[Manifest, PodId | None]]) -> None:
        """Fetch what is missing of contents into the cache, then tell that they are here."""
        access, now_s = self._access, time.time()
        pieces = {content: stored_pieces(content, manifest) for content, (manifest, _) in contents.items()}
        sizes = {content: manifest.size for content, (manifest, _) in contents.items()}
        await self._database.cache_begin(pieces, sizes, now_s)
        await self._store_small(piece for some in pieces.values() if len(some) == 1 for piece in some)
        for content, (manifest, author) in contents.items():
            try:
                await gather(access, content, manifest, author, Area.CACHED)
            except WormholeError as error:
                log.debug("%s isn't cached: %s", content.hex()[:16], error)
        await access.store.sync()
        whole = [content for content, (manifest, _) in contents.items() if is_whole(access.store, content, manifest)]
        await self._record(
            {content: Holding.CACHED for content in whole if self._database.own(content) is Holding.NONE}
        )
        await self.trim()

    async def _store_small(self, pieces: Iterable[ChunkId]) -> None:
        """Write those of the pieces that are in memory, in threads: one by one they would hold up the mount."""
        access = self._access
        found = [(piece, data) for piece in pieces if (data := access.memory.get(piece)) is not None]

        def put(some: Sequence[tuple[ChunkId, bytes]]) -> None:
            with contextlib.suppress(NoSpaceError):  # the cache goes without
                for piece, data in some:
                    access.store.put_hashed(piece, data, Area.CACHED)

        for start in range(0, len(found), PUT_SLICE):
            await access.offload.run(put, found[start : start + PUT_SLICE])

    async def hold(self, info: ContentInfo) -> None:
        """Have a content that this pod must hold in the cache, where it stays: a client pod keeps nothing else.

        Raises `NoSpaceError` when all that must be held doesn't fit into the cache, `UnreachableError`, `DamagedError`.
        """
        content, access = info.content, self._access
        manifest = implied(content, info.size)
        if manifest is None:
            manifest = await access.manifest(content, info.size, info.author, Urgency.BACKGROUND)
        await self._complete({content: (manifest, info.author)})
        if self._excess() > 0:
            await self.drop(content)
            raise NoSpaceError("The cache is full of what must be held.", "Raise cache.limit, or unpin something.")
        if self._database.own(content) is Holding.NONE:
            raise UnreachableError("A content that must be held isn't here yet.")

    async def trim(self) -> None:
        """Drop cached contents, the longest unread first, until the limits hold."""
        excess = self._excess()
        spared: set[ContentId] = set()
        while excess > 0:
            oldest = [one for one in self._database.cache_oldest(64) if one[0] not in spared]
            if not oldest:
                return
            must_stay = [content for content, _ in oldest if self._must_stay(content)]
            for content, size in oldest:
                if content not in must_stay:
                    await self.drop(content)
                    excess -= size
                    if excess <= 0:
                        return
            spared.update(must_stay)
            await self._database.cache_used(dict.fromkeys(must_stay, time.time()))  # so that others come up

    def _must_stay(self, content: ContentId) -> bool:
        if content in self._access.pinned or content in self._completing:
            return True
        info = self._catalogue.info(content)
        return info is not None and info.keep

    async def give_way(self) -> None:
        """Drop some of the cache: something that must be kept found no room."""
        for content, _ in self._database.cache_oldest(16):
            if not self._must_stay(content):
                await self.drop(content)

    async def drop(self, content: ContentId) -> None:
        """Drop a cached content."""
        if self._database.own(content) is Holding.CACHED:
            await self._record({content: Holding.NONE})
        pieces = await self._database.cache_forget(content)
        for piece in pieces:
            self._access.store.remove_cached(piece)
        if not self._access.settings.keeps:  # a client's own writes lie where drafts put them
            self._access.claims.free(pieces)

    async def adopt(self, content: ContentId) -> None:
        """Take a content that is wholly here, written on this client pod and published by a full one, into the cache."""
        info = self._catalogue.info(content)
        manifest = None if info is None else self._access.manifest_now(content, info.size)
        if manifest is None or not is_whole(self._access.store, content, manifest):
            return
        pieces = {content: stored_pieces(content, manifest)}
        await self._database.cache_begin(pieces, {content: manifest.size}, time.time())
        if self._database.own(content) is Holding.NONE:
            await self._record({content: Holding.CACHED})

    async def became_kept(self, content: ContentId) -> None:
        """Strike a content from the cache's books: its pieces are kept now."""
        if self._database.in_cache(content):
            await self._database.cache_forget(content)

    def _excess(self) -> int:
        cached = self._database.cache_bytes()
        settings, store = self._access.settings, self._access.store
        excess = cached - settings.cache_limit_bytes
        room = settings.room
        if room.limit_bytes is not None:
            excess = max(excess, store.bytes_used + min(SLACK_BYTES, room.limit_bytes // 8) - room.limit_bytes)
        if room.full_share is not None:
            found = os.statvfs(store.path)
            free = found.f_bavail * found.f_frsize
            excess = max(excess, int((1 - room.full_share) * found.f_blocks * found.f_frsize) + SLACK_BYTES - free)
        return min(excess, cached)
