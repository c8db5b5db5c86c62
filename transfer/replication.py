"""Carrying out `replicator`: works through the queue, makes what came durable in batches, records it, tells others.

The order *must* be: all pieces in the store, fsync, holdings table (durable), then told. A crash in between leaves
bytes that nobody was promised.
"""

from __future__ import annotations

import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from base.errors import NoSpaceError, WormholeError
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, PodId
from transfer.access import Access
from transfer.api import Catalogue, ContentInfo
from transfer.batching import MAX_BYTES, MAX_PIECES, SMALL_BYTES, Batches
from transfer.caching import Caching
from transfer.chunking import is_single
from transfer.fanning import FRESH_S, Fanning, Plan, plan
from transfer.fetcher import Urgency, Wanted
from transfer.gather import gather, is_whole_kept
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.manifest import Manifest, implied
from transfer.pacing import Pacing
from transfer.pieces import Area
from transfer.replicator import Duty, Lull, WorkQueue, duty

log = logging.getLogger(__name__)

WORKERS: Final = 6
PAGE: Final = 32
MAX_BATCH: Final = 2000
CHANGE_PAUSE_S: Final = 0.3
"""Changes of members are gathered for this long before all contents are looked at."""
HELD_S: Final = 60.0
KEPT_PAUSE_S: Final = 1.0
"""What is kept is looked at so often, where something has changed."""
AGAIN_S: Final = (5.0, 20.0, 60.0)
"""What has too many copies, of which others should drop theirs, is looked at again after so long: whose it is goes by how
laden they are, and each hears of that at another time, so all may have looked at it when it was another's."""
PASS_SHARE: Final = 3.0
"""A pass over all contents rests for so many times as long as it works."""
PASS_REST: Final = 5.0
"""Passes rest for so many times as long as the last one took, where placement changes while time passes."""
MAX_PUBLISHED: Final = 100_000
SPREAD: Final = 3
"""With fewer copies there is one target, which fetches all from the writer."""
WAIT_S: Final = 0.5
"""A small content that is on its way to who is to send it is looked at again after so long, or when it is there."""
MOVES: Final = 2
"""Contents that only change their place are fetched so many at a time: what lacks copies, and readers, go first."""
BULK: Final = 32
"""While this pod catches up with the tree, contents that come in such numbers aren't looked at one by one, but in a pass
over all once they have come (`Lull`): both at once take several times as long."""


class Replication:
    """Sees that this pod keeps what it should."""

    def __init__(
        self,
        me: PodId,
        access: Access,
        database: HoldingsDb,
        catalogue: Catalogue,
        caching: Caching,
        record: Callable[[dict[ContentId, Holding]], Awaitable[None]],
        rng: random.Random,
        knows_holders: Callable[[], bool],
        batches: Batches,
        alive: Callable[[], Collection[PodId]],
    ) -> None:
        self._me = me
        self._access = access
        self._database = database
        self._catalogue = catalogue
        self._caching = caching
        self._record = record
        self._rng = rng
        self._knows_holders = knows_holders
        self._batches = batches
        self._alive = alive
        self.fanning = Fanning()
        """From whom what is new is fetched."""
        self.on_arrival: Callable[[], None] = lambda: None
        """Called after each piece of what is fetched here."""
        self._queue = WorkQueue()
        self._moves = WorkQueue()
        """What has its copies, and belongs here."""
        self._kept = WorkQueue()
        """What is kept here, and may be too much."""
        self._watched: dict[ContentId, int] = {}
        """What has too many copies, one of them here → how often it was looked at again."""
        self.on_surplus: Callable[[ContentId], None] = lambda _: None
        """Called with what is kept here and needn't be."""
        self.on_refused: Callable[[ContentId, int], Awaitable[None]] = _nothing
        """Called with a content, and its bytes, for which there was no room."""
        self._published: OrderedDict[ContentId, None] = OrderedDict()
        self._held: OrderedDict[ContentId, float] = OrderedDict()
        """What somebody asked this pod to keep → until when it isn't too much."""
        self._working: set[ContentId] = set()
        self._alone: set[ContentId] = set()
        """Small ones that a batch didn't bring."""
        self._wake = anyio.Event()
        self._done: dict[ContentId, Manifest] = {}
        self._done_wake = anyio.Event()
        self._done_taken = anyio.Event()
        self._pass_due = anyio.Event()
        self._lull = Lull()
        self.pass_every_s: Callable[[], float] = lambda: access.settings.pass_every_s
        self.pacing = Pacing()

    # -- what there is to look at

    def consider(self, contents: Collection[ContentId]) -> None:
        """Look at contents soon."""
        if len(contents) >= BULK and self._catalogue.is_behind() and self._lull.extend(anyio.current_time()):
            self._pass_due.set()
            return
        for content in contents:
            if content != EMPTY_CONTENT:
                is_kept = self._database.own(content) is Holding.KEPT
                (self._kept if is_kept else self._queue).add(content)
                self._watched.pop(content, None)
        self._wake.set()

    def published(self, content: ContentId, *, single: bool = False) -> None:
        """Keep the first copy of what this pod has just published; ``single``: a draft put it here as one piece."""
        if content == EMPTY_CONTENT:
            return
        size = self._access.store.packed_size(ChunkId(content)) if single else None
        manifest = None if size is None else implied(content, size)
        if manifest is not None and len(self._done) < MAX_BATCH:  # all of it is here for good: nothing to look for
            self._queue.drop(content)
            self._done[content] = manifest
            self._done_wake.set()
            return
        if self._database.own(content) is not Holding.KEPT:
            self._published[content] = None
            if len(self._published) > MAX_PUBLISHED:
                self._published.popitem(last=False)
            self.consider([content])

    def repair(self, content: ContentId) -> None:
        """Fetch again what was found damaged here."""
        self._published[content] = None
        self.consider([content])

    def hold(self, contents: Collection[ContentId]) -> None:
        """Keep contents here, whatever the placement says: somebody waits for that."""
        for content in contents:
            if content != EMPTY_CONTENT and self._database.own(content) is not Holding.KEPT:
                self.repair(content)
            self._held[content] = anyio.current_time() + HELD_S
            while len(self._held) > MAX_PUBLISHED:
                self._held.popitem(last=False)

    def _is_put_off(self, content: ContentId, queue: WorkQueue) -> bool:
        """Tell whether a content is too new to be copied, or is to come from who waits for it; it comes up again."""
        until = self.pacing.waits_until(content, anyio.current_time())
        if until is None or content in self._published:
            return self._waits(content, queue)
        queue.postpone(content, until)
        return True

    def hurry(self) -> None:
        """Try again now what couldn't be done before: who is there, or who holds what, is known better."""
        self._queue.hurry()
        self._moves.hurry()
        self._wake.set()

    def is_busy(self) -> Collection[ContentId]:
        """Return the contents that are being gathered, or are complete and not yet recorded."""
        return {*self._working, *self._done}

    def coming(self, content: ContentId) -> bool | None:
        """Tell whether a content is being fetched here: True when it gets on, False when it hardly does, None if not."""
        if self.fanning.gets_on(content, anyio.current_time()):
            return True
        return False if content in self._working or content in self._queue or content in self._moves else None

    def is_surplus(self, content: ContentId) -> bool:
        """Tell whether this pod keeps a content that belongs elsewhere, where enough keep it."""
        info = self._catalogue.info(content)
        if self._held.get(content, 0.0) > anyio.current_time():
            return False
        return info is not None and self._duty(info) is Duty.DROP

    def changed(self) -> None:
        """Say that members or placement have changed: look at everything."""
        self.pacing.clear()
        self._pass_due.set()

    # -- the work

    async def run(self, group: TaskGroup) -> None:
        """Pass over all contents now, after changes and now and then; the work is done within ``group``."""
        for _ in range(WORKERS):
            group.start_soon(self._work, self._queue)
        for _ in range(MOVES):
            group.start_soon(self._work, self._moves)
        group.start_soon(self._commit)
        group.start_soon(self._look_at_kept)
        while True:
            self._pass_due = anyio.Event()
            self._queue.hurry()
            self._moves.hurry()
            started_at = anyio.current_time()
            await self._look_at_all()
            rest_s = max(self.pass_every_s(), PASS_REST * (anyio.current_time() - started_at))
            with anyio.move_on_after(min(rest_s, self._access.settings.pass_every_s)):
                await self._pass_due.wait()
                await anyio.sleep(CHANGE_PAUSE_S)

    async def _look_at_all(self) -> None:
        after: ContentId | None = None
        while True:
            started_at = anyio.current_time()
            while started_at < self._lull.until:
                await anyio.sleep_until(self._lull.until)
                started_at = anyio.current_time()
            page = self._catalogue.page(after, PAGE)
            for info in page:
                self._take_up(info)
            self._wake.set()
            if len(page) == 0:
                return
            after = page[-1].content
            await anyio.sleep(PASS_SHARE * (anyio.current_time() - started_at))

    def _take_up(self, info: ContentInfo) -> None:
        """Have done what is to be done about a content."""
        what = self._duty(info)
        if what is Duty.DROP:
            self.on_surplus(info.content)
        elif what is Duty.MOVE:
            self._moves.add(info.content)
        elif what is not Duty.NONE:
            self._queue.add(info.content)

    async def _look_at_kept(self) -> None:
        """Look whether what is kept here is too much, where something has changed."""
        while True:
            started_at = anyio.current_time()
            for _ in range(PAGE):
                content = self._kept.take(started_at)
                if content is None:
                    break
                info = self._catalogue.info(content)
                if info is not None:
                    self._take_up(info)
                    self._watch(info, started_at)
            else:
                await anyio.sleep(PASS_SHARE * (anyio.current_time() - started_at))
                continue
            if self._kept.overflowed:
                self._kept.overflowed = False
                self._pass_due.set()
            await anyio.sleep(KEPT_PAUSE_S)

    def _watch(self, info: ContentInfo, now: float) -> None:
        """Have a content looked at again that has too many copies, one of them here."""
        content = info.content
        if self._database.own(content) is not Holding.KEPT or self._others_that_keep(content) < info.copies:
            self._watched.pop(content, None)
            return
        looks = self._watched.get(content, 0)
        if looks < len(AGAIN_S) and len(self._watched) < MAX_PUBLISHED:
            self._watched[content] = looks + 1
            self._kept.postpone(content, now + AGAIN_S[looks])

    def _duty(self, info: ContentInfo) -> Duty:
        holding = self._database.own(info.content)
        if not self._access.settings.keeps:
            return Duty.FETCH if info.keep and info.size and holding is Holding.NONE else Duty.NONE
        kept = self._others_that_keep(info.content)
        if holding is Holding.KEPT and kept < info.copies:
            return Duty.NONE  # nothing to decide: no copy is too much
        placed = tuple(self._catalogue.place(info))
        published = info.content in self._published
        enough = 0 < len(placed) <= kept
        return duty(info, self._me, placed, holding, published=published, has_copies=enough)

    def _others_that_keep(self, content: ContentId) -> int:
        alive = self._alive()
        return sum(holding is Holding.KEPT and pod in alive for pod, holding in self._database.others(content).items())

    async def _work(self, queue: WorkQueue) -> None:
        while True:
            content = queue.take(anyio.current_time())
            if content is None:
                if queue.overflowed:
                    queue.overflowed = False
                    self._pass_due.set()
                self._wake = self._wake if not self._wake.is_set() else anyio.Event()
                next_at = queue.next_at()
                with anyio.move_on_at(float("inf") if next_at is None else next_at):
                    await self._wake.wait()
                continue
            await anyio.lowlevel.checkpoint()
            if content in self._working or content in self._done or self._is_put_off(content, queue):
                continue
            if self._small(content, queue) is not None:
                async with self._batches.gate:
                    await self._work_batch(content, queue)
            else:
                await self._work_one(content, queue)

    async def _work_one(self, content: ContentId, queue: WorkQueue) -> None:
        self._working.add(content)
        try:
            await self._look_at(content, queue)
        except NoSpaceError as error:
            log.warning("a copy isn't kept here: %s", error)
            await self._caching.give_way()
            await self._access.find_room()
            queue.failed(content, anyio.current_time())
            info = self._catalogue.info(content)
            self._working.discard(content)
            if info is not None:
                await self.on_refused(content, info.size)
        except WormholeError as error:
            log.debug("%s isn't replicated yet: %s", content.hex()[:16], error)
            queue.failed(content, anyio.current_time())
        finally:
            self._working.discard(content)
            self._alone.discard(content)

    def _small(self, content: ContentId, queue: WorkQueue) -> ContentInfo | None:
        """Return what is wanted for a content when it is small and must be fetched, else None."""
        if content in self._alone or self._access.store.has(ChunkId(content)) or not self._access.settings.keeps:
            return None
        info = self._catalogue.info(content)
        if info is None or not 0 < info.size <= SMALL_BYTES:
            return None
        wanted = Duty.MOVE if queue is self._moves else Duty.FETCH
        return info if self._duty(info) is wanted and self._knows_holders() else None

    def _plan(self, info: ContentInfo) -> Plan | None:
        """Return from whom to fetch a content that was written lately; None: from anybody who has it."""
        if info.copies < SPREAD or time.time() - info.born_s >= FRESH_S:
            return None
        alive, now = self._alive(), anyio.current_time()
        holders = self._database.others(info.content)
        keepers = {pod for pod, holding in holders.items() if holding is Holding.KEPT and pod in alive}
        root = info.author
        if root not in keepers and (keepers or root not in alive):
            return None
        placed = self._catalogue.place(info)
        found = plan(info.content, self._me, root, placed, self.fanning.fan_out, now)
        return self.fanning.begin(info.content, found)

    def _waits(self, content: ContentId, queue: WorkQueue) -> bool:
        """Put off a small content that is to come from somebody who hasn't said yet that it is there."""
        info = self._catalogue.info(content)
        if (
            info is None
            or info.copies < SPREAD
            or not 0 < info.size <= SMALL_BYTES
            or self._access.store.has(ChunkId(content))
        ):
            return False
        found = self._plan(info) if self._duty(info) in {Duty.FETCH, Duty.MOVE} else None
        now = anyio.current_time()
        if found is None or not found.is_hopeful(now):
            return False
        source = found.source(ChunkId(content))
        if source == found.root or self._database.others(content).get(source, Holding.NONE) is not Holding.NONE:
            return False
        queue.postpone(content, now + WAIT_S)
        return True

    async def _work_batch(self, first: ContentId, queue: WorkQueue) -> None:
        """Fetch a small content together with others that wait; what doesn't come is fetched alone later."""
        batch, others = self._take_batch(first, queue)
        self._working.update(batch)
        found: dict[ChunkId, bytes] = {}
        try:
            wanted = [Wanted(each.content, ChunkId(each.content), each.size, each.author) for each in batch.values()]
            found = await self._batches.fetch(wanted)
            await self._access.offload.run(self._put_all, found)
        except WormholeError as error:
            log.debug("a batch isn't stored: %s", error)
            found = {}
        finally:
            self._working.difference_update(batch)
        for content, info in batch.items():
            manifest = implied(content, info.size)
            if manifest is not None and ChunkId(content) in found:
                await self._complete(content, manifest)
            else:
                self._alone.add(content)
                others.append(content)
        for content in others:
            queue.add(content)
        self._wake.set()

    def _take_batch(self, first: ContentId, queue: WorkQueue) -> tuple[dict[ContentId, ContentInfo], list[ContentId]]:
        """Take small contents from the queue, as many as fit into one answer, and return others that came up."""
        batch: dict[ContentId, ContentInfo] = {}
        others: list[ContentId] = []
        size, now = 0, anyio.current_time()
        content: ContentId | None = first
        while content is not None:
            if content not in self._working and content not in self._done and not self._is_put_off(content, queue):
                info = self._small(content, queue)
                if info is None:
                    others.append(content)
                else:
                    batch[content] = info
                    size += info.size
            more = len(batch) + len(others) < MAX_PIECES and size + SMALL_BYTES <= MAX_BYTES
            content = queue.take(now) if more else None
        return batch, others

    def _put_all(self, found: Mapping[ChunkId, bytes]) -> None:
        for piece, data in found.items():
            self._access.store.put_hashed(piece, data, Area.KEPT)

    async def _look_at(self, content: ContentId, queue: WorkQueue) -> None:
        info = self._catalogue.info(content)
        if info is None:
            self._published.pop(content, None)
            return
        what = self._duty(info)
        if what is Duty.NONE or what is Duty.DROP:
            self._published.pop(content, None)
            return
        if what is Duty.MOVE and queue is not self._moves:
            self._moves.add(content)
            self._wake.set()
            return
        if what is not Duty.ADOPT and content not in self._published and not self._knows_holders():
            queue.failed(content, anyio.current_time())
            return
        if not self._access.settings.keeps:
            await self._caching.hold(info)
            return
        access = self._access
        manifest = implied(content, info.size)
        if what is Duty.ADOPT:
            manifest = manifest or access.manifest_now(content, info.size)
            if manifest is None or not is_whole_kept(access.store, content, manifest):
                return
        else:
            if manifest is None:
                manifest = await access.manifest(content, info.size, info.author, Urgency.BACKGROUND)
            await self._gather(info, manifest)
        if not is_single(info.size):
            access.remember(content, manifest)
        await self._complete(content, manifest)

    async def _gather(self, info: ContentInfo, manifest: Manifest) -> None:
        """Fetch what is missing of a content."""

        def arrived() -> None:
            self.fanning.progressed(info.content, anyio.current_time())
            self.on_arrival()

        found = self._plan(info)
        try:
            await gather(self._access, info.content, manifest, info.author, Area.KEPT, self._rng, found, arrived)
        finally:
            self.fanning.end(info.content)

    async def _complete(self, content: ContentId, manifest: Manifest) -> None:
        """Hand over a content whose pieces are all in the store, to be made durable and recorded."""
        while len(self._done) >= MAX_BATCH:
            await self._done_taken.wait()
        self._done[content] = manifest
        self._done_wake.set()

    async def _commit(self) -> None:
        """Make what is complete durable, record it and tell; as much at a time as has gathered."""
        while True:
            await self._done_wake.wait()
            self._done_wake = anyio.Event()
            batch = dict(self._done)
            try:
                await self._access.store.sync()
                store = self._access.store
                whole = [content for content, manifest in batch.items() if is_whole_kept(store, content, manifest)]
                await store.sync()
                await self._record(dict.fromkeys(whole, Holding.KEPT))
            finally:
                for content in batch:
                    self._done.pop(content, None)
                    self.fanning.end(content)
                self._done_taken.set()
                self._done_taken = anyio.Event()
            for content in whole:
                self._queue.succeeded(content)
                self._moves.succeeded(content)
                self._published.pop(content, None)
                await self._caching.became_kept(content)
            for content in batch.keys() - set(whole):
                self._queue.failed(content, anyio.current_time())


async def _nothing(_content: ContentId, _size: int) -> None:
    """Take no notice."""
