"""Who has what: which pods hold a content, what of it is here, and waiting until there are enough copies."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

import anyio
import anyio.lowlevel

from base.errors import UnreachableError
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, PodId
from mesh.api import Mesh, Role, State
from transfer.access import Access
from transfer.api import Catalogue, ContentInfo, Holders
from transfer.fetcher import Urgency
from transfer.gather import stored_pieces
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.manifest import Manifest, implied
from transfer.pacing import Replicate
from transfer.replication import Replication
from transfer.store import ChunkStore
from transfer.surveying import Surveying

WAIT_PAUSE_S: Final = 0.01
WAIT_REST: Final = 4.0
"""Counting copies rests for so many times as long as it took."""
GONE: Final = frozenset({State.LEFT, State.EVICTED})


class Copies:
    """The part of `Transfer` that answers such questions."""

    _mesh: Mesh
    _catalogue: Catalogue
    _database: HoldingsDb
    _store: ChunkStore
    _access: Access
    _replication: Replication
    _surveying: Surveying
    _changed: anyio.Event
    """Set, and replaced, when something may have got another copy."""

    def holders(self, content: ContentId) -> Holders:
        """Return who has every chunk of a content, as far as known here."""
        me, alive = self._mesh.pod_id, self._mesh.alive()
        if content == EMPTY_CONTENT:
            full = self._full_pods()
            return Holders(frozenset(full & (alive | {me})), frozenset(), frozenset(full - alive - {me}))
        known = self._database.others(content)
        known[me] = self._database.own(content)
        here = {pod: holding for pod, holding in known.items() if pod == me or pod in alive}
        away = known.keys() - here.keys()
        if away:
            away -= {member.pod for member in self._mesh.members() if member.state in GONE}
        return Holders(
            kept=frozenset(pod for pod, holding in here.items() if holding is Holding.KEPT),
            cached=frozenset(pod for pod, holding in here.items() if holding is Holding.CACHED),
            absent=frozenset(away),
        )

    def known_holdings(self, content: ContentId) -> dict[PodId, Holding]:
        """Return what each pod said last that it has of a content, this one included, whether it answers or not."""
        return self._database.others(content) | {self._mesh.pod_id: self._database.own(content)}

    def local(self, content: ContentId) -> str:
        """Return ``kept``, ``cached`` (every chunk is here), ``partial`` or ``none``."""
        if content == EMPTY_CONTENT:
            return "kept"
        holding = self._database.own(content)
        if holding is not Holding.NONE:
            return "kept" if holding is Holding.KEPT else "cached"
        info = self._catalogue.info(content)
        manifest = self._access.manifest_now(content, info.size) if info is not None else None
        if manifest is not None and any(self._store.has(piece) for piece in manifest.chunks):
            return "partial"
        return "none"

    async def chunks(
        self, content: ContentId, size: int | None = None, author: PodId | None = None
    ) -> list[ChunkId] | None:
        """Return the chunks of a content in order; None when neither the caller nor the catalogue knows its size.

        Raises `UnreachableError` when its manifest can't be had, `DamagedError`.
        """
        if content == EMPTY_CONTENT:
            return []
        info = self._catalogue.info(content)
        if info is not None:
            size, author = info.size, info.author
        if size is None:
            return None
        manifest: Manifest | None = implied(content, size)
        if manifest is None:
            manifest = await self._access.manifest(content, size, author, Urgency.READ)
        return list(manifest.chunks)

    async def wait_copies(
        self,
        contents: Sequence[ContentId],
        copies: int | None,
        timeout_s: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Return when each content has enough kept copies on pods that can be reached, this one included.

        ``copies`` None: as many as the configuration wants, at most one on each full member. ``progress`` is told
        (done, all). Raises `UnreachableError` when that takes longer than ``timeout_s``.
        """
        waiting = [content for content in dict.fromkeys(contents) if content != EMPTY_CONTENT]
        total = len(waiting)
        self._surveying.consider(waiting)
        with anyio.move_on_after(timeout_s):
            while True:
                changed = self._changed
                started_at = anyio.current_time()
                waiting = await self._short_of_copies(waiting, copies)
                took_s = anyio.current_time() - started_at
                if progress is not None:
                    progress(total - len(waiting), total)
                if not waiting:
                    return
                await changed.wait()
                await anyio.sleep(max(WAIT_PAUSE_S, WAIT_REST * took_s))
        raise UnreachableError(
            f"{len(waiting)} of {total} contents don't have their copies yet.",
            "Check with `wormhole pods` that enough pods are alive and have room, then sync again.",
        )

    def pace(self, mode: Replicate, settle_s: float, interval_s: float) -> None:
        """Take over when new contents of others are copied to this pod (`transfer.pacing`)."""
        self._replication.pacing.configure(mode, settle_s, interval_s)
        self._replication.hurry()

    async def hold(self, contents: Collection[ContentId], timeout_s: float) -> list[ContentId]:
        """Keep contents here for good, now; return those that are, at the latest after a time."""
        known = [content for content in contents if self._catalogue.info(content) is not None]
        self._surveying.hold(known)
        with anyio.move_on_after(timeout_s):
            while not all(self._database.own(content) is Holding.KEPT for content in known):
                await self._changed.wait()
        return [content for content in known if self._database.own(content) is Holding.KEPT]

    async def reread(self, content: ContentId, size: int) -> bool:
        """Read a content that is here back from the disk, past the page cache; tell whether all of it is as it should be."""
        manifest = self._access.manifest_now(content, size) if content != EMPTY_CONTENT else None
        if manifest is None:
            return content == EMPTY_CONTENT
        pieces = stored_pieces(content, manifest)
        return await self._access.offload.run(lambda: all(map(self._store.verify, pieces)))

    def _has_copies(self, content: ContentId) -> bool:
        """Tell whether as many pods as should keep a content keep it."""
        info = self._catalogue.info(content)
        if info is None:
            return True
        holders = self._database.others(content)
        holders[self._mesh.pod_id] = self._database.own(content)
        return sum(holding is Holding.KEPT for holding in holders.values()) >= self.copies_wanted(info)

    async def _short_of_copies(self, contents: Sequence[ContentId], copies: int | None) -> list[ContentId]:
        """Return those without enough copies; looked at in slices, so that the mount isn't held up."""
        short: list[ContentId] = []
        for start in range(0, len(contents), 200):
            reachable = self._mesh.alive() | {self._mesh.pod_id}
            most = self._full_members()
            for content in contents[start : start + 200]:
                wanted = copies
                if wanted is None:
                    info = self._catalogue.info(content)
                    wanted = min(info.copies, most) if info is not None else 0
                holders = self._database.others(content)
                holders[self._mesh.pod_id] = self._database.own(content)
                kept = sum(holding is Holding.KEPT and pod in reachable for pod, holding in holders.items())
                if kept < wanted:
                    short.append(content)
            await anyio.lowlevel.checkpoint()
        return short

    def copies_wanted(self, info: ContentInfo) -> int:
        """Return how many kept copies there should be: at most one on each full member."""
        return min(info.copies, self._full_members())

    def _full_members(self) -> int:
        return max(1, len(self._full_pods()))

    def _full_pods(self) -> frozenset[PodId]:
        members = self._mesh.members()
        return frozenset(each.pod for each in members if each.role is Role.FULL and each.state not in GONE)
