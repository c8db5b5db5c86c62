"""What happens to the trash by itself: it expires, and it gives way before the disk is full.

What is decided is pure (`Ageing`, `shortage`); the tasks look at clocks and disks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import anyio
from anyio import lowlevel
from anyio.abc import TaskGroup

from base import beat
from base.ids import ContentId, PodId
from crdt_meta.trash import TrashEntry
from operations.mount_facts import local_space
from operations.parts import Parts
from operations.trash import SLICE, batches
from transfer.making_room import Want

EXPIRE_FIRST_S: Final = 60.0
EXPIRE_EVERY_S: Final = 600.0
LOOK_EVERY_S: Final = 2.0
"""Between two looks at how much room is left."""
CONSENT_S: Final = 5.0
"""So long who needs room waits for the others to agree that what was purged may go."""
HAND_ON_S: Final = 20.0
HAND_ON_SHARE: Final = 0.8
"""So long, or such a part of the mount's deadline, a write waits for others to take over what this full pod wrote."""
NEWS_S: Final = 4.0
"""Where nobody else has room, either, it may only seem so: of what was written a moment ago there may be copies too many."""
LOOK_AGAIN_S: Final = 0.2
REST_S: Final = 30.0
"""Nothing is looked for again after nothing was found."""
LOW_BYTES: Final = 512 << 20
LOW_SHARE: Final = 20
"""The trash gives way when less than `LOW_BYTES`, or this share of a small store, is left; then twice as much is freed."""
LATE_LIMIT: Final = 100_000
META_EXPIRED: Final = "trash_expired"
Name = tuple[bytes, bytes, int]

logger = logging.getLogger(__name__)


class Ageing:
    """Which entries have been in the trash for long enough. Pure.

    An entry's time is the clock of whoever put it there. One that is old when it first arrives, from a pod that was away
    or whose clock is slow, gets the full time from then on.
    """

    def __init__(self, keep_ns: int, expired_before_ns: int | None) -> None:
        """``expired_before_ns``: up to where earlier rounds looked; None: there was none."""
        self.keep_ns = keep_ns
        self.expired_before_ns = expired_before_ns
        self._late: dict[Name, int] = {}
        """What came late → when it was first seen."""

    def before(self, now_ns: int) -> int:
        """Return the time before which entries are old."""
        return now_ns - self.keep_ns

    def due(self, old: Iterable[TrashEntry], now_ns: int) -> Iterator[TrashEntry]:
        """Yield those of all entries from before `before` that have expired."""
        seen = self.expired_before_ns
        still: dict[Name, int] = {}
        for entry in old:
            if seen is not None and entry.removed_ns >= seen:
                yield entry
                continue
            name = (entry.inode, entry.dot.writer, entry.dot.clock)
            since = self._late.get(name, now_ns)
            if now_ns - since >= self.keep_ns:
                yield entry
            elif len(still) < LATE_LIMIT:
                still[name] = since
        self._late = still
        self.expired_before_ns = max(seen or 0, self.before(now_ns))


def shortage(total_bytes: int, free_bytes: int) -> int:
    """Return how much should be freed: nothing while enough is left."""
    low = min(LOW_BYTES, total_bytes // LOW_SHARE)
    return 0 if free_bytes >= low else 2 * low - free_bytes


class Housekeeping:
    """The tasks."""

    def __init__(self, parts: Parts, clock_agrees: Callable[[], bool], now_s: Callable[[], float] = time.time) -> None:
        self._parts = parts
        self._clock_agrees = clock_agrees
        self._now_s = now_s
        keep_ns = round(parts.cluster.trash.keep_s * 1e9)
        stored = parts.metadata.store.get_meta(META_EXPIRED)
        self._ageing = Ageing(keep_ns, None if stored is None else int.from_bytes(stored, "big"))
        self._purged: dict[ContentId, int] = {}
        self._lock = anyio.Lock()
        self._hand_on_again_at = {Want.COPY: 0.0, Want.WRITE: 0.0}
        self._agreed = anyio.Event()
        parts.metadata.tidying.consent.on_granted = self._hear

    def set_keep(self, keep_s: float) -> None:
        """Keep what is in the trash for so long from now on; what expired already is gone."""
        self._ageing.keep_ns = round(keep_s * 1e9)

    async def run(self) -> None:
        """Look after the trash, until cancelled."""
        self._parts.transfer.on_full(self._find_room, self._hand_on, self._hosts)
        async with anyio.create_task_group() as group:
            self._start(group)

    def _start(self, group: TaskGroup) -> None:
        group.start_soon(self._expire_often)
        group.start_soon(self._watch_room)

    # -- expiry -------------------------------------------------------------------------------------------------------

    async def _expire_often(self) -> None:
        await anyio.sleep(EXPIRE_FIRST_S)
        while True:
            await self.expire()
            await anyio.sleep(EXPIRE_EVERY_S)

    async def expire(self) -> int:
        """Purge what has expired; return how many entries. Nothing while the clock disagrees with the others'."""
        if not self._clock_agrees():
            return 0
        tree, now_ns = self._parts.metadata.tree, round(self._now_s() * 1e9)
        purged = 0
        old = tree.expired(self._ageing.before(now_ns))
        for batch in batches(self._ageing.due(old, now_ns)):
            purged += tree.purge(batch)
            await lowlevel.checkpoint()
        self._remember()
        if purged:
            logger.info("purged %d entries of the trash, which were older than trash.keep", purged)
        return purged

    def _remember(self) -> None:
        before = self._ageing.expired_before_ns
        if before is not None:
            self._parts.metadata.store.set_meta(META_EXPIRED, max(0, before).to_bytes(12, "big"))

    # -- giving way ---------------------------------------------------------------------------------------------------

    async def _watch_room(self) -> None:
        while True:
            await beat.rest(LOOK_EVERY_S)
            wanted = shortage(*local_space(self._parts))
            if wanted and not await self.give_way(wanted):
                await anyio.sleep(REST_S)

    async def _find_room(self) -> bool:
        """Free something at once: what is being written found no room."""
        total = local_space(self._parts)[0]
        return await self.give_way(max(1, shortage(total, 0))) > 0

    def _hosts(self) -> list[PodId]:
        """Return who has room for what is being written here, the most first."""
        me, pods = self._parts.mesh.pod_id, self._parts.catalogue.placing.pods().candidates
        able = {pod: one for pod, one in pods.items() if one.takes and not one.is_full and pod != me}
        return sorted(able, key=lambda pod: (able[pod].is_slow, -(able[pod].available_bytes or 0)))

    async def _hand_on(self, want: Want) -> bool:
        """Wait until this pod has dropped something that others took over, because it is full; tell whether it has."""
        dropping, now = self._parts.transfer.dropping, anyio.current_time()
        if dropping is None or now < self._hand_on_again_at[want]:
            return False
        with anyio.move_on_after(min(HAND_ON_S, HAND_ON_SHARE * self._parts.pod.network.deadline_s)):
            dropped = dropping.dropped
            while self._parts.is_short() or anyio.current_time() < now + NEWS_S:
                with anyio.move_on_after(LOOK_AGAIN_S):
                    await dropped.wait()
                    return True
        self._hand_on_again_at[want] = anyio.current_time() + REST_S  # nobody else waits in vain for the like
        return False

    async def give_way(self, wanted_bytes: int) -> int:
        """Free so many bytes of the store, if the trash has them: the oldest first; return how many it became.

        What was purged for that and can't be freed yet counts as freed, so that it isn't more than needed.
        """
        async with self._lock:
            transfer, tree = self._parts.transfer, self._parts.metadata.tree
            freed = await transfer.free()
            while (more := wanted_bytes - freed - self._waiting_bytes()) > 0 and (entries := self._oldest(more)):
                tree.purge(entries)
                self._purged |= {entry.content: entry.size for entry in entries}
                freed += await transfer.free()
                logger.info("purged the %d oldest entries of the trash: the disk is nearly full", len(entries))
            with anyio.move_on_after(CONSENT_S):
                while freed < wanted_bytes and self._waiting_bytes():
                    await self._agreed.wait()
                    self._agreed = anyio.Event()
                    freed += await transfer.free()
            return freed

    def _hear(self) -> None:
        self._agreed.set()

    def _waiting_bytes(self) -> int:
        """Return how much was purged for the sake of room and is still to be freed."""
        self._purged = {content: size for content, size in self._purged.items() if self._parts.transfer.waits(content)}
        return sum(self._purged.values())

    def _oldest(self, wanted_bytes: int) -> list[TrashEntry]:
        """Return the oldest entries, all of each content, that together free so many bytes here."""
        chosen: dict[ContentId, list[TrashEntry]] = {}
        size, tree = 0, self._parts.metadata.tree
        for entry in tree.oldest(self._is_worth):
            if size >= wanted_bytes or len(chosen) >= SLICE:
                break
            if entry.content not in chosen:
                chosen[entry.content] = tree.trash_with(entry.content)
                size += entry.size
        return [entry for entries in chosen.values() for entry in entries]

    def _is_worth(self, content: ContentId) -> bool:
        """Tell whether it frees something here when the trash lets a content go."""
        return self._parts.transfer.local(content) != "none" and not self._parts.metadata.tree.showing(content)
