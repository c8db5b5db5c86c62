"""Freeing what nothing refers to any more: purged from the trash, or overwritten where no versions are kept.

The order *must* be: durable that nothing refers to a content, the holdings told (durably) that it isn't kept here, and
only then its pieces go. A piece goes when no other content that this pod knows consists of it: whether it is one by
itself is looked at, all lists of chunks are, and what appears meanwhile as well. From the beginning of that the pieces
are listed in the store's ledger, so that one which anybody stores or claims meanwhile stays.

Must never: free what a file, the trash, the journal, an open file, or a sealed content that isn't published yet needs; or
what was overwritten before its successor has its copies.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import anyio
import anyio.lowlevel

from base.errors import DamagedError, WormholeError
from base.ids import EMPTY_CONTENT, ChunkId, ContentId
from transfer.access import Access
from transfer.api import Memory
from transfer.chunking import is_single
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.ledger import Owner
from transfer.recovery import SLICE, UNKNOWN_BYTES, listed_chunks

log = logging.getLogger(__name__)

GATHER_S: Final = 5.0
"""What became free is gathered for so long."""
REST: Final = 20.0
"""Freeing rests for so many times as long as it took."""
RETRY_S: Final = 60.0
"""What could not be freed is asked about again after so long."""
LOOK_FIRST_S: Final = 60.0
"""After the start; what is held and nobody refers to is searched for then."""
PAGE: Final = 1000
NOTICED: Final = 10_000
"""Changes remembered one by one."""
_NOTHING: Final = frozenset({EMPTY_CONTENT})

Record = Callable[[dict[ContentId, Holding]], Awaitable[None]]


class Releasing:
    """See the module. For the loop thread."""

    def __init__(
        self,
        access: Access,
        database: HoldingsDb,
        memory: Memory,
        record: Record,
        drop_cached: Callable[[ContentId], Awaitable[None]],
        has_copies: Callable[[ContentId], bool],
    ) -> None:
        """``has_copies``: whether a content has as many kept copies as it should have."""
        self._access = access
        self._database = database
        self._memory = memory
        self._record = record
        self._drop_cached = drop_cached
        self._has_copies = has_copies
        self.busy: Callable[[], Collection[ContentId]] = tuple
        """Contents that are just being gathered: their pieces are needed, though nothing says yet that they are here."""
        self.is_promised: Callable[[ContentId], bool] = lambda _: False
        """Tells whether a content is to be kept here, as this pod published it, say, and isn't noted as held yet."""
        self.may_free: Callable[[ContentId], bool] = lambda _: True
        """Asked right before a content is freed; one that may not be stays until it is asked about again."""
        self._noticed: list[frozenset[ContentId]] = []
        self._due: dict[ContentId, frozenset[ContentId]] = {}
        """What may be freed → what took its place, itself perhaps among it."""
        self._published: set[ContentId] = set()
        """What was published here during a round: it was sealed before, and may consist of what the round lists."""
        self._looked = False
        """Whether everything that is held and nobody refers to is due, or was."""
        self._wake = anyio.Event()
        self._lock = anyio.Lock()

    def noticed(self, contents: Collection[ContentId], *, lost: bool) -> None:
        """Note contents that gained or lost a reference at the same time: those that stay take the others' place.

        Where none lost one (``lost``) that matters to a round that runs only: a later one asks the tree.
        """
        if not (lost or self._lock.locked()):
            return
        if not _NOTHING.issuperset(contents) and self._concerns(contents):
            self._noticed.append(frozenset(contents))
            if len(self._noticed) > NOTICED:
                self._noticed = [frozenset().union(*self._noticed)]
            self._wake.set()

    def _concerns(self, contents: Collection[ContentId]) -> bool:
        """Tell whether any of these is here, or on its way: of a tree that is learned hardly any is."""
        busy, store = self.busy(), self._access.store
        return any(content in busy or store.has(ChunkId(content)) for content in contents)

    def published(self, content: ContentId) -> None:
        """Note a content that this pod has just published, perhaps without a word of it to `noticed`."""
        if self._lock.locked():
            self._published.add(content)

    def waits(self, content: ContentId) -> bool:
        """Tell whether a content is still to be freed."""
        return content in self._due

    def leaves_some(self) -> bool:
        """Tell whether of what waits something isn't held: a later start finds it only if it looks at all pieces."""
        return any(self._database.own(content) is Holding.NONE for content in self._due)

    async def _sort_out(self) -> None:
        """Find out which of the contents noticed lost their last reference. What is on its way goes once it has come."""
        noticed, self._noticed = self._noticed, []
        store, refers = self._access.store, self._memory.refers
        for contents in noticed:
            every = sorted(contents - _NOTHING)
            for start in range(0, len(every), SLICE):
                some = every[start : start + SLICE]
                lost = [content for content in some if not refers(content)]
                busy = self.busy() if lost else ()
                here = [content for content in lost if content in busy or store.has(ChunkId(content))]
                self._due |= dict.fromkeys(here, contents)
                await anyio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Free what is due, until cancelled."""
        await anyio.sleep(LOOK_FIRST_S)
        await self._look()
        while True:
            with anyio.move_on_after(RETRY_S if self._due else None):
                await self._wake.wait()
            self._wake = anyio.Event()
            await anyio.sleep(GATHER_S)
            started = time.monotonic()
            await self.free()
            await anyio.sleep(REST * (time.monotonic() - started))

    async def _look(self) -> None:
        """Find what is held and nobody refers to, once: a crash or a restart may have come between.

        By comparing pages, which takes a sixth of asking for each; what appears meanwhile is asked for when it is due.
        """
        if self._looked:
            return
        self._looked = True
        after: ContentId | None = None
        while page := self._memory.contents(after, PAGE):
            upto = page[-1][0]
            held = self._database.held_between(after, upto)
            self._due |= dict.fromkeys(held.difference(content for content, _ in page), _NOTHING)
            after = upto
            await anyio.lowlevel.checkpoint()
        self._due |= dict.fromkeys(self._database.held_between(after, None), _NOTHING)

    async def free(self) -> int:
        """Free now what may be freed; return the bytes that the store is smaller by."""
        await self._look()
        async with self._round():
            await self._sort_out()
            before = self._access.store.bytes_used
            try:
                await self._free()
            except (WormholeError, OSError) as error:
                log.warning("what nothing refers to can't be freed: %s", error)
            return max(0, before - self._access.store.bytes_used)

    @asynccontextmanager
    async def _round(self) -> AsyncIterator[None]:
        """Do it after, or before, everybody else who frees."""
        async with self._lock:
            try:
                yield
            finally:
                self._published.clear()

    # -- dropping -----------------------------------------------------------------------------------------------------

    async def drop(self, contents: Collection[ContentId]) -> None:
        """Let go of contents that others keep (verified by the caller), though the tree refers to them.

        Told to be gone first, durably; then the pieces go that nothing else that is held here consists of.
        """
        async with self._round():
            owner = Owner()
            pieces = await self._give_up(contents, owner)
            await self._let_go(owner, pieces, frozenset(contents))

    async def free_pieces(self, pieces: Collection[ChunkId]) -> None:
        """Let go of pieces that were held for another pod, but for those that something held here consists of."""
        async with self._round():
            owner = Owner()
            here = self._access.store.list_again(pieces, owner)
            await self._let_go(owner, here, _NOTHING)

    async def _let_go(self, owner: Owner, pieces: set[ChunkId], dropped: frozenset[ContentId]) -> int:
        """Remove listed pieces that nothing else needs; return how many. ``dropped`` as for `_needed`."""
        try:
            needed = await self._needed(pieces, dropped)
        except BaseException:
            self._access.store.settle(pieces)
            raise
        self._access.store.settle(pieces & needed)
        if self._access.store.let_go(owner, pieces - needed):
            await self._access.claims.collect()
        return len(pieces - needed)

    # -- one round ----------------------------------------------------------------------------------------------------

    async def _free(self) -> None:
        if not self._due:
            return
        due = list(self._due)
        journalled = await self._memory.settled_journal()  # and what was purged is durable
        if journalled is None:
            return
        ready: dict[int, bool] = {}
        spared = {*journalled, *self._opened()}
        free: set[ContentId] = set()
        for start in range(0, len(due), SLICE):
            free.update(content for content in due[start : start + SLICE] if self._is_free(content, spared, ready))
            await anyio.lowlevel.checkpoint()
        free -= {*self._opened(), *self._published, *(content for content, _ in self._memory.journalled())}
        free.difference_update(*self._noticed)  # what came to be used since it was looked at is looked at again
        if not free:
            return
        for content in free:
            del self._due[content]
        owner = Owner()
        pieces = await self._give_up(free, owner)
        if gone := await self._let_go(owner, pieces, frozenset()):
            log.info("freed %d contents, %d pieces", len(free), gone)

    def _is_free(self, content: ContentId, spared: Collection[ContentId], ready: dict[int, bool]) -> bool:
        """Tell whether a content can go. ``ready`` remembers of which changes all that took a place has its copies."""
        if self._memory.refers(content):
            del self._due[content]
            return False
        if content in spared:
            return False
        after = self._due[content]
        if id(after) not in ready:
            ready[id(after)] = all(self._has_copies(one) for one in after if self._memory.refers(one))
        return ready[id(after)] and self.may_free(content)

    async def _give_up(self, contents: Collection[ContentId], owner: Owner) -> set[ChunkId]:
        """Say that contents are not held here, and list their pieces; return these."""
        store, offload = self._access.store, self._access.offload
        for content in contents:
            if self._database.in_cache(content):
                await self._drop_cached(content)
        kept = [content for content in contents if self._database.own(content) is not Holding.NONE]
        if kept:
            await self._record(dict.fromkeys(kept, Holding.NONE))
        pieces: set[ChunkId] = set()
        every = list(contents)
        for start in range(0, len(every), SLICE):
            some = every[start : start + SLICE]
            pieces.update(await offload.run(listed_chunks, store, some, {}))
            pieces.update(ChunkId(content) for content in some)
        return store.list_again(pieces, owner)

    async def _needed(self, pieces: set[ChunkId], dropped: frozenset[ContentId] = frozenset()) -> set[ChunkId]:
        """Return those of the pieces that contents of the tree, of drafts or of the cache consist of.

        ``dropped``: contents of the tree that need them no longer; then only what is held here counts. Nothing is
        awaited after the last look at what there is. Raises `DamagedError` in doubt.
        """
        if await self._access.offload.run(self._access.store.has_damaged):
            raise DamagedError("A damaged piece was set aside, and it may have listed others.")
        needed = await self._needed_by_tree(pieces, dropped)
        seen: set[ContentId] = set(dropped.difference(self.busy()))
        while others := self._others() - seen:
            seen |= others
            needed |= await self._among(pieces, dict.fromkeys(others))
        return needed | {piece for piece in pieces if self._database.is_in_books(piece)}

    async def _needed_by_tree(self, pieces: set[ChunkId], dropped: frozenset[ContentId]) -> set[ChunkId]:
        """Return those of the pieces that contents of the tree consist of; ``dropped`` as for `_needed`.

        A content of one chunk goes by that chunk's name, so only those of more have to be looked through.
        """
        needed: set[ChunkId] = set()
        after: ContentId | None = None
        while page := self._memory.large_contents(after, PAGE):
            counted = {content: size for content, size in page if not dropped or self._stays(content, dropped)}
            needed |= await self._among(pieces, counted)
            after = page[-1][0]
        is_named = partial(self._stays, dropped=dropped) if dropped else self._memory.refers
        every = list(pieces - needed)
        for start in range(0, len(every), SLICE):
            needed.update(piece for piece in every[start : start + SLICE] if is_named(ContentId(piece)))
            await anyio.lowlevel.checkpoint()
        return needed

    def _stays(self, content: ContentId, dropped: Collection[ContentId]) -> bool:
        """Tell whether a content is held here, or about to be, and isn't among those dropped."""
        return content not in dropped and (self._database.own(content) is not Holding.NONE or self.is_promised(content))

    def _others(self) -> set[ContentId]:
        """Return the contents beside those of the tree that need their pieces, and those that came since."""
        journalled = (content for content, _ in self._memory.journalled())
        noticed = frozenset().union(*self._noticed)
        return {*journalled, *self._opened(), *self._due, *noticed, *self._published}

    def _opened(self) -> set[ContentId]:
        """Return the contents that are in use here, or on their way."""
        return {*self._access.claims.contents(), *self._access.pinned, *self.busy()}

    async def _among(self, pieces: set[ChunkId], contents: Mapping[ContentId, int | None]) -> set[ChunkId]:
        """Return those of the pieces that contents consist of (with their sizes; None: not known)."""
        found = {ChunkId(content) for content in contents} & pieces
        sizes = {content: size for content, size in contents.items() if size is not None}
        lists = [content for content in contents if not is_single(sizes.get(content, UNKNOWN_BYTES))]
        for start in range(0, len(lists), SLICE):
            chunks = await self._access.offload.run(
                listed_chunks, self._access.store, lists[start : start + SLICE], sizes
            )
            found |= chunks & pieces
        await anyio.lowlevel.checkpoint()
        return found
