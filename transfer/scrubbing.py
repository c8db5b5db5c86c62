"""Scrub: every stored piece is read from the disk and compared with its hash; what is damaged comes back from peers.

Reading goes on in short slices in a thread and rests in between, longer while the machine has other work. A damaged piece is
set aside (`pieces`). Of the contents that it belongs to everybody is told that they aren't complete here, then they are
fetched again; what nobody has now is left to `replication`, which tries again whenever somebody comes. The remains of a
damaged piece are removed once the piece is here again, never before.

What is said to be held and whose pieces are gone counts as damaged, and so does what was set aside earlier and never
came back: a scrub tells of a loss until it is repaired or nothing refers to it any more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel

from base.errors import DamagedError, RefusedError, WormholeError
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, PodId
from base.machine import OtherWork
from transfer.access import Access
from transfer.api import Catalogue, ContentInfo, Memory
from transfer.caching import Caching
from transfer.disk import plain_error
from transfer.fetcher import Urgency
from transfer.gather import gather, is_whole_kept, stored_pieces
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.manifest import MAX_MANIFEST_BYTES, decode, implied
from transfer.pieces import Area
from transfer.surveying import Surveying

log = logging.getLogger(__name__)

SLICE_S: Final = 0.05
REST: Final = 0.25
"""A slice is followed by a rest of so many times its length..."""
REST_BUSY: Final = 24.0
"""... and of so many while the machine does anything else, or when nobody waits for it: 4 % of a processor."""
PAGE: Final = 64
NOBODY: Final = PodId("")
REPAIRS: Final = 4
"""Contents fetched at a time."""


@dataclass(slots=True)
class Scrubbed:
    """What a scrub found, so far."""

    checked: int = 0
    """Pieces read."""
    bytes: int = 0
    total_bytes: int = 0
    """About what there is to read."""
    damaged: set[ChunkId] = field(default_factory=set)
    """Pieces that didn't match their hash, or are gone."""
    unrepaired: set[ChunkId] = field(default_factory=set)
    lost: list[ContentId] = field(default_factory=list)
    """Contents that couldn't be completed: no pod that answers has what is missing, or there is no room."""


class _Hurt(NamedTuple):
    """A content that isn't complete here, though it should be."""

    info: ContentInfo
    holding: Holding
    pieces: list[ChunkId]
    """What is missing of it."""
    published: bool


class Scrubbing:
    """See the module."""

    def __init__(
        self,
        access: Access,
        database: HoldingsDb,
        catalogue: Catalogue,
        caching: Caching,
        surveying: Surveying,
        record: Callable[[dict[ContentId, Holding]], Awaitable[None]],
        has_copies: Callable[[ContentId], bool],
    ) -> None:
        self._access = access
        self._store = access.store
        self._database = database
        self._catalogue = catalogue
        self._caching = caching
        self._surveying = surveying
        self._record = record
        self._has_copies = has_copies
        self._running = False
        self.other_work: Callable[[], OtherWork] = OtherWork

    async def run(self, progress: Callable[[Scrubbed], Awaitable[None]], *, gently: bool = False) -> Scrubbed:
        """Verify everything and repair what can be repaired; ``progress`` is told after each slice.

        ``gently``: nobody waits for it.

        Raises `RefusedError` while another scrub is under way, `MachineError` when the disk can't be used.
        """
        if self._running:
            raise RefusedError("A scrub is under way on this pod.", "Wait for it.")
        self._running = True
        found = Scrubbed(total_bytes=self._store.bytes_used)
        try:
            await self._verify(found, progress, gently=gently)
            await self._repair(found, progress)
        except BaseException:
            for piece in found.damaged:  # whoever asked went away: what was found is repaired in the background
                self._access.on_damage(ContentId(piece), piece)
            raise
        finally:
            self._running = False
        return found

    # -- verifying

    async def _verify(self, found: Scrubbed, progress: Callable[[Scrubbed], Awaitable[None]], *, gently: bool) -> None:
        pieces, offload = self._store.on_disk(), self._access.offload
        other = self.other_work()
        try:
            more = True
            while more:
                started_at = time.monotonic()
                more = await offload.run(self._slice, pieces, found, other)
                took_s = time.monotonic() - started_at
                await progress(found)
                await anyio.sleep(took_s * (REST_BUSY if gently or other.is_busy() else REST))
        finally:
            pieces.close()

    def _slice(self, pieces: Generator[ChunkId], found: Scrubbed, other: OtherWork) -> bool:
        """Verify pieces for a while; tell whether there are more. Runs in a thread."""
        end, before_s = time.monotonic() + SLICE_S, time.thread_time()
        try:
            for piece in pieces:
                try:
                    size = self._store.reread(piece)
                except DamagedError as error:
                    log.warning("%s", error)
                    found.damaged.add(piece)
                    found.checked += 1
                else:
                    found.checked += size is not None
                    found.bytes += size or 0
                    if self._store.packs.mend(piece):
                        found.damaged.add(piece)
                if time.monotonic() >= end:
                    return True
        except OSError as error:
            raise plain_error(error, "the store can't be read") from error
        finally:
            other.own(time.thread_time() - before_s)
        return False

    # -- repairing

    async def _repair(self, found: Scrubbed, progress: Callable[[Scrubbed], Awaitable[None]]) -> None:
        aside = await self._access.offload.run(self._store.set_aside)
        hurt = await self._hurt(found.damaged | aside.keys())
        found.damaged.update(piece for each in hurt for piece in each.pieces)
        await self._record({each.info.content: Holding.NONE for each in hurt if each.holding is not Holding.NONE})
        waiting: list[_Hurt] = []
        for each in hurt:
            if each.holding is Holding.CACHED:
                await self._caching.drop(each.info.content)
            elif each.holding is Holding.KEPT or not each.published or not self._has_copies(each.info.content):
                waiting.append(each)
        try:
            await self._restore(waiting, found, progress)
        finally:
            for each in waiting:  # those that are kept again aren't looked at
                if each.published:
                    self._surveying.promise(each.info.content)
        if found.damaged or aside:
            await self._access.offload.run(self._clear, aside)

    async def _restore(
        self, hurt: Sequence[_Hurt], found: Scrubbed, progress: Callable[[Scrubbed], Awaitable[None]]
    ) -> None:
        """Fetch what is missing, and tell that it is kept here again."""
        waiting, restored = list(hurt), list[_Hurt]()
        gone: list[BaseException] = []

        async def work() -> None:
            while waiting and not gone:
                each = waiting.pop()
                if await self._fetched(each.info):
                    restored.append(each)
                elif not each.published or self._catalogue.info(each.info.content) is not None:
                    found.lost.append(each.info.content)
                    found.unrepaired.update(piece for piece in each.pieces if not self._store.has(piece))
                try:
                    await progress(found)
                except Exception as error:  # raised outside of the group, which would wrap it
                    gone.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(min(REPAIRS, len(waiting))):
                group.start_soon(work)
        await self._store.sync()
        await self._record({each.info.content: Holding.KEPT for each in restored if each.published})
        if gone:
            raise gone[0]

    async def _hurt(self, damaged: set[ChunkId]) -> list[_Hurt]:
        """Return the contents that aren't complete here though they are said to be, or were before damage was found."""
        hurt: list[_Hurt] = []
        if isinstance(self._catalogue, Memory):
            infos = [ContentInfo(*each, NOBODY, 1, False, False) for each in self._catalogue.journalled()]
            known = [(info, Holding.NONE, False) for info in infos if self._catalogue.info(info.content) is None]
            hurt += await self._access.offload.run(self._look, known, damaged)
        after: ContentId | None = None
        while page := self._catalogue.page(after, PAGE):
            known = [(info, self._database.own(info.content), True) for info in page]
            hurt += await self._access.offload.run(self._look, known, damaged)
            after = page[-1].content
            await anyio.lowlevel.checkpoint()
        return hurt

    def _look(self, contents: Sequence[tuple[ContentInfo, Holding, bool]], damaged: set[ChunkId]) -> list[_Hurt]:
        """Return those of the contents that are hurt. Runs in a thread."""
        hurt: list[_Hurt] = []
        for info, holding, published in contents:
            if info.content == EMPTY_CONTENT or (holding is Holding.NONE and not damaged):
                continue
            missing = [
                piece
                for piece in self._pieces(info)
                if (holding is not Holding.NONE or piece in damaged) and not self._store.has(piece)
            ]
            if missing:
                hurt.append(_Hurt(info, holding, missing, published))
        return hurt

    def _pieces(self, info: ContentInfo) -> list[ChunkId]:
        """Return what a content needs here, as far as that can be told from the disk."""
        manifest = implied(info.content, info.size)
        if manifest is None:
            try:
                data = self._store.read_blocking(ChunkId(info.content), 0, MAX_MANIFEST_BYTES)
                manifest = None if data is None else decode(data, info.size)
            except DamagedError as error:
                log.warning("%s", error)
        return [ChunkId(info.content)] if manifest is None else stored_pieces(info.content, manifest)

    async def _fetched(self, info: ContentInfo) -> bool:
        """Fetch what is missing of a content; tell whether all of it is here then, not yet durable."""
        access = self._access
        try:
            manifest = await access.manifest(info.content, info.size, info.author, Urgency.BACKGROUND)
            await gather(access, info.content, manifest, info.author, Area.KEPT)
        except WormholeError as error:
            log.warning("%s can't be repaired now: %s", info.content.hex()[:16], error)
            return False
        return is_whole_kept(self._store, info.content, manifest)

    def _clear(self, aside: dict[ChunkId, list[str]]) -> None:
        """Remove the remains of pieces that are here again, and count the store's bytes anew. Runs in a thread."""
        for piece, paths in aside.items():
            if self._store.has(piece):
                for path in paths:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)  # noqa: PTH108 - a plain string
        self._store.recount()
