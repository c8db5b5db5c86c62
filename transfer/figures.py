"""What the byte store counts: bytes, pieces on their way, speed."""

from __future__ import annotations

import anyio

from base.ids import PodId
from transfer.fetcher import Fetcher
from transfer.holdings_db import HoldingsDb
from transfer.holdings_sync import HoldingsSync
from transfer.serve import ChunkServer
from transfer.store import ChunkStore


class Figures:
    """The part of `Transfer` that answers such questions."""

    _database: HoldingsDb
    _store: ChunkStore
    _fetcher: Fetcher
    _server: ChunkServer
    _holdings: HoldingsSync

    @property
    def joined_s(self) -> int:
        """When this store was made, in seconds since the epoch."""
        return self._database.made_s

    def bytes_used(self) -> int:
        """Return the bytes of all pieces in the store."""
        return self._store.bytes_used

    async def room_changed(self) -> None:
        """Return when there is so much more or less in the store that others are to know."""
        await self._store.room_news.changed()

    def bytes_cached(self) -> int:
        """Return those of them that give way to anything else."""
        return min(self._database.cache_bytes(), self._store.bytes_used)

    def bytes_kept(self) -> int:
        """Return those of them that don't."""
        return self._store.bytes_used - self.bytes_cached()

    def moving(self) -> tuple[int, int]:
        """Return how many pieces are coming in and going out at this moment."""
        return self._fetcher.running, self._server.running

    def bytes_moved(self) -> tuple[int, int]:
        """Return the bytes of pieces that came in and went out since the start."""
        return self._fetcher.bytes_in, self._server.bytes_out

    def rate_in(self, recent_s: float) -> float | None:
        """Return the bytes a second that the best source sent in the last seconds; None when nothing much came."""
        return self._fetcher.sources.best_rate(anyio.current_time() - recent_s)

    def trouble(self) -> str | None:
        """Return why nothing can be written into the store; None when all is well. Asks the file system."""
        return self._store.trouble()

    def exchanged(self) -> frozenset[PodId]:
        """Return the pods whose holdings were followed to their end since the start."""
        return frozenset(self._holdings.exchanged)
