"""Saying of contents that lost a piece that they aren't complete here, and fetching it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from base.errors import DamagedError
from base.ids import ChunkId, ContentId
from transfer.access import Access
from transfer.api import Catalogue, ContentInfo
from transfer.gather import is_whole
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb


class Striking:
    """Follows what was found damaged and set aside."""

    def __init__(
        self,
        catalogue: Catalogue,
        database: HoldingsDb,
        access: Access,
        record: Callable[[dict[ContentId, Holding]], Awaitable[None]],
    ) -> None:
        self._catalogue = catalogue
        self._database = database
        self._access = access
        self._record = record
        self.repair: Callable[[ContentId], None] = lambda _: None
        """Called with what was kept here and isn't complete any more."""
        self._lost: set[ChunkId] = set()
        self._wake = anyio.Event()

    def damaged(self, _content: ContentId, piece: ChunkId) -> None:
        """Note that a piece was damaged and set aside."""
        self._lost.add(piece)
        self._wake.set()

    async def run(self) -> None:
        """Look for the contents of lost pieces, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            lost, self._lost = self._lost, set()
            after: ContentId | None = None
            while page := self._catalogue.page(after, 64):
                for info in page:
                    await self._strike(info, lost)
                after = page[-1].content
                await anyio.lowlevel.checkpoint()

    async def _strike(self, info: ContentInfo, lost: set[ChunkId]) -> None:
        holding = self._database.own(info.content)
        if holding is Holding.NONE:
            return
        try:
            manifest = self._access.manifest_now(info.content, info.size)
        except DamagedError:
            manifest = None
        if ChunkId(info.content) not in lost and manifest is not None and lost.isdisjoint(manifest.chunks):
            return
        if manifest is not None and is_whole(self._access.store, info.content, manifest):
            return
        await self._record({info.content: Holding.NONE})
        if holding is Holding.KEPT:
            self.repair(info.content)
