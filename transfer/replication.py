"""Carrying out what `surveying` finds: works through the queue, makes what came durable in batches, records it, tells others.

The order *must* be: all pieces in the store, fsync, holdings table (durable), then told. A crash in between leaves
bytes that nobody was promised.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final, NamedTuple

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
from transfer.gather import gather, is_whole_kept, missing_bytes
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.manifest import Manifest, implied
from transfer.pacing import Pacing
from transfer.pieces import Area
from transfer.replicator import Duty, WorkQueue
from transfer.surveying import Surveying

log = logging.getLogger(__name__)

WORKERS: Final = 6
MAX_BATCH: Final = 2000
COMPANY_S: Final = 0.01
"""What is complete waits so long for more, and lets its record, for which other pods wait, go before it."""
SPREAD: Final = 3
"""With fewer copies there is one target, which fetches all from the writer."""
WAIT_S: Final = 0.5
"""A small content that is on its way to who is to send it is looked at again after so long, or when it is there."""
MOVES: Final = 2
"""Contents that only change their place are fetched so many at a time: what lacks copies, and readers, go first."""


class _Task(NamedTuple):
    """What is to be done about a content."""

    info: ContentInfo
    what: Duty


class _Bench:
    """Where workers wait for work; each call wakes one of them."""

    def __init__(self) -> None:
        self._waiting: deque[anyio.Event] = deque()

    def call(self) -> None:
        """Wake who has waited longest, if anybody waits."""
        if self._waiting:
            self._waiting.popleft().set()

    def call_all(self) -> None:
        """Wake everybody."""
        while self._waiting:
            self.call()

    async def wait(self, until: float) -> None:
        """Wait to be called, until a time at most."""
        called = anyio.Event()
        self._waiting.append(called)
        with anyio.move_on_at(until):
            await called.wait()
        if not called.is_set():
            self._waiting.remove(called)


class Replication:
    """Sees that this pod keeps what it should."""

    def __init__(
        self,
        me: PodId,
        surveying: Surveying,
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
        self._surveying = surveying
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
        self._queue, self._bench = WorkQueue(), _Bench()
        self._moves, self._movers = WorkQueue(), _Bench()
        """What has its copies, and belongs here."""
        self.on_refused: Callable[[ContentId, int], Awaitable[None]] = _nothing
        """Called with a content, and its bytes, for which there was no room."""
        self._working: set[ContentId] = set()
        self._alone: set[ContentId] = set()
        """Small ones that a batch didn't bring."""
        self._done: dict[ContentId, Manifest] = {}
        self._done_wake = anyio.Event()
        self._done_taken = anyio.Event()
        self.pacing = Pacing()

    # -- what there is to look at

    def add(self, content: ContentId, what: Duty = Duty.FETCH) -> None:
        """Look soon what is to be fetched of a content."""
        if what is Duty.MOVE:
            self._moves.add(content)
            self._movers.call()
        else:
            self._queue.add(content)
            self._bench.call()

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
            self._surveying.promise(content)

    def _task(self, content: ContentId, queue: WorkQueue) -> _Task | None:
        """Return what is to be done about a content now; None: nothing, or later, when it comes up again."""
        if content in self._working or content in self._done:
            return None
        until = self.pacing.waits_until(content, anyio.current_time())
        if until is not None and not self._surveying.is_promised(content):
            queue.postpone(content, until)
            return None
        info = self._catalogue.info(content)
        what = Duty.NONE if info is None else self._surveying.duty(info)
        if info is None or what is Duty.NONE or what is Duty.DROP:
            self._surveying.settled(content)
            return None
        if what is Duty.MOVE and queue is not self._moves:
            self.add(content, Duty.MOVE)
            return None
        task = _Task(info, what)
        return None if self._waits(task, queue) else task

    def hurry(self) -> None:
        """Try again now what couldn't be done before: who is there, or who holds what, is known better."""
        self._queue.hurry()
        self._moves.hurry()
        self._bench.call_all()
        self._movers.call_all()

    def is_busy(self) -> Collection[ContentId]:
        """Return the contents that are being gathered, or are complete and not yet recorded."""
        return {*self._working, *self._done}

    def coming(self, content: ContentId) -> bool | None:
        """Tell whether a content is being fetched here: True when it gets on, False when it hardly does, None if not."""
        if self.fanning.gets_on(content, anyio.current_time()):
            return True
        return False if content in self._working or content in self._queue or content in self._moves else None

    # -- the work

    def start(self, group: TaskGroup) -> None:
        """Work within ``group``."""
        for _ in range(WORKERS):
            group.start_soon(self._work, self._queue, self._bench)
        for _ in range(MOVES):
            group.start_soon(self._work, self._moves, self._movers)
        group.start_soon(self._commit)

    async def _work(self, queue: WorkQueue, bench: _Bench) -> None:
        while True:
            content = queue.take(anyio.current_time())
            if content is None:
                if queue.overflowed:
                    queue.overflowed = False
                    self._surveying.look_at_all()
                next_at = queue.next_at()
                await bench.wait(float("inf") if next_at is None else next_at)
                continue
            await anyio.lowlevel.checkpoint()
            task = self._task(content, queue)
            if task is None:
                continue
            bench.call()  # meanwhile somebody looks after the rest, and what is to be looked at later
            if self._is_small(task):
                async with self._batches.gate:
                    await self._work_batch(content, queue)
            else:
                await self._work_one(task, queue)

    async def _work_one(self, task: _Task, queue: WorkQueue) -> None:
        content = task.info.content
        self._working.add(content)
        try:
            await self._carry_out(task, queue)
        except NoSpaceError as error:
            log.warning("a copy isn't kept here: %s", error)
            await self._caching.give_way()
            await self._access.find_room()
            queue.failed(content, anyio.current_time())
            info = self._catalogue.info(content)
            self._working.discard(content)
            if Holding.KEPT in self._database.others(content).values():
                self._surveying.settled(content)  # its first copy is elsewhere
            if info is not None:
                await self.on_refused(content, info.size)
        except WormholeError as error:
            log.debug("%s isn't replicated yet: %s", content.hex()[:16], error)
            queue.failed(content, anyio.current_time())
        finally:
            self._working.discard(content)
            self._alone.discard(content)

    def _is_small(self, task: _Task) -> bool:
        """Tell whether a content is fetched together with others."""
        content, size = task.info.content, task.info.size
        if content in self._alone or not 0 < size <= SMALL_BYTES or self._access.store.has(ChunkId(content)):
            return False
        return task.what is not Duty.ADOPT and self._access.settings.keeps and self._knows_holders()

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

    def _waits(self, task: _Task, queue: WorkQueue) -> bool:
        """Put off a small content that is to come from somebody who hasn't said yet that it is there."""
        info, content = task.info, task.info.content
        if info.copies < SPREAD or not 0 < info.size <= SMALL_BYTES or self._access.store.has(ChunkId(content)):
            return False
        found = None if task.what is Duty.ADOPT else self._plan(info)
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
            (self._bench if queue is self._queue else self._movers).call()

    def _take_batch(self, first: ContentId, queue: WorkQueue) -> tuple[dict[ContentId, ContentInfo], list[ContentId]]:
        """Take small contents from the queue, as many as fit into one answer, and return others that came up."""
        batch: dict[ContentId, ContentInfo] = {}
        others: list[ContentId] = []
        size, looked, now = 0, 0, anyio.current_time()
        content: ContentId | None = first
        while content is not None:
            task = self._task(content, queue)
            if task is not None and self._is_small(task):
                batch[content] = task.info
                size += task.info.size
            elif task is not None:
                others.append(content)
            looked += 1
            more = looked < MAX_PIECES and size + SMALL_BYTES <= MAX_BYTES
            content = queue.take(now) if more else None
        return batch, others

    def _put_all(self, found: Mapping[ChunkId, bytes]) -> None:
        for piece, data in found.items():
            self._access.store.put_hashed(piece, data, Area.KEPT)

    async def _carry_out(self, task: _Task, queue: WorkQueue) -> None:
        info, content = task.info, task.info.content
        is_adopted = task.what is Duty.ADOPT
        if not is_adopted and not self._surveying.is_promised(content) and not self._knows_holders():
            queue.failed(content, anyio.current_time())
            return
        if not self._access.settings.keeps:
            await self._caching.hold(info)
            return
        access = self._access
        manifest = implied(content, info.size)
        if is_adopted:
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

        store = self._access.store
        store.room.check(store.bytes_used, missing_bytes(store, info.content, manifest), store.waiting_bytes)
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
            await anyio.sleep(COMPANY_S)
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
                self._surveying.settled(content)
                await self._caching.became_kept(content)
            for content in batch.keys() - set(whole):
                self._queue.failed(content, anyio.current_time())
                self._bench.call()


async def _nothing(_content: ContentId, _size: int) -> None:
    """Take no notice."""
