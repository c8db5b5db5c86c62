"""The metadata's housekeeping: acknowledging, writing segments anew, collecting what is dead, adopting what is orphaned.

`Tidying.turn` does what is due, in slices. It is called every few seconds; nothing in here waits for time to pass.

Must never: collect anything before everybody who counts has acknowledged, since this start, a state in which it was of
no use; write a segment anew before others were asked whether this pod is a restored copy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from enum import Enum
from typing import Final

from anyio import lowlevel

from base.ids import WriterId
from crdt_meta.acknowledgement import Acknowledgements, Vector
from crdt_meta.adoption import Adoption
from crdt_meta.collection import removable
from crdt_meta.consent import Consent
from crdt_meta.log import MetadataLog
from crdt_meta.peers import Peers
from crdt_meta.records import Key
from crdt_meta.segments import RECORDS_PER_SEGMENT
from crdt_meta.store import Store
from crdt_meta.view import View

SLICE_S: Final = 0.002
SEGMENTS_A_TURN: Final = 20
CANDIDATES_LIMIT: Final = 20_000
FREEING_S: Final = 0.005
"""How long a turn gives unused pages of the file back (s)."""
CHANGES_LIMIT_BYTES: Final = 4096
"""A full segment is written anew when the changes since it was last written as a whole are larger than this, and..."""
CHANGES_SHARE: Final = 0.5
"""... than this share of it."""
PARTS_LOOKED_AT: Final = 5
"""A segment of so many parts is looked into, whether half of its records are gone."""
OPEN_PARTS_LIMIT: Final = 256
"""The segment that new records go into is written anew when it has so many parts."""
REST_S: Final = 300.0
"""Between two searches for what is dead or forgotten, when the last one found nothing; never longer than a pod may be
absent."""
FRESH_START_S: Final = 3600.0
"""A pod forgets nobody before it has run for so long."""

logger = logging.getLogger(__name__)


class _Stage(Enum):
    IDLE = "idle"
    SEARCHING = "searching"
    WAITING = "waiting"


class Tidying:
    """See the module."""

    def __init__(
        self,
        store: Store,
        view: View,
        log: MetadataLog,
        acks: Acknowledgements,
        adoption: Adoption,
        heal: Callable[[], None],
    ) -> None:
        """``heal`` writes down the places that cycles changed (`Tree.heal`)."""
        self._store = store
        self._view = view
        self._log = log
        self._acks = acks
        self._adoption = adoption
        self._heal = heal
        self.consent = Consent(acks)
        self._stage = _Stage.IDLE
        self._candidates: list[bytes] = []
        self._vector: Vector = {}
        self._rest_until = 0.0
        self.rest: Callable[[], Awaitable[None]] = lowlevel.checkpoint
        """Called between two slices; a pod rests longer (`operations.tidying`)."""
        self._weighed = -1
        self._live: dict[int, int] = {}
        """Own segments that were written anew since the start → how many records they had then."""
        self._started: float | None = None

    async def turn(self, peers: Peers, now: float) -> None:
        """Do what is due. ``now``: seconds since the epoch."""
        self.answer(peers, now)
        if peers.is_caught_up():
            await self._compact()
            await self._adoption.turn(peers)
            await self._collect(peers, now)
        self._store.free_pages(FREEING_S)
        self._log.commit()

    def answer(self, peers: Peers, now: float) -> None:
        """Acknowledge what others ask for, look at their answers, and ask what may go."""
        self._started = now if self._started is None else self._started
        counted = peers.counted()
        if self._acks.wanted(counted):
            self._acknowledge(counted, asks=False)
        pressed = peers.is_short_of_room()
        needed = [one for one, heard in counted.items() if heard is None] if pressed else self._counting(peers, now)
        self.consent.turn(needed, peers.retired(), lambda: self._acknowledge(counted, asks=True))

    def _acknowledge(self, counted: Mapping[WriterId, float | None], *, asks: bool) -> Vector:
        away = {writer: self._last_heard(writer, heard) for writer, heard in counted.items() if heard is not None}
        return self._acks.write(away, asks=asks)

    def _last_heard(self, writer: WriterId, heard: float) -> float:
        """Return when a writer was last heard of here; at the start of this pod, if nothing else is known."""
        own = self._acks.of(self._log.writer)
        remembered = 0.0 if own is None else own.seen.get(writer, 0) / 1000
        return max(heard, remembered) or self._started or 0.0

    # -- compaction ---------------------------------------------------------------------------------------------------

    async def _compact(self) -> None:
        """Write some of the own segments anew that are worth it, going round."""
        first = self._weighed + 1
        weights = self._log.table.weights(self._log.writer, first, first + SEGMENTS_A_TURN - 1)
        self._weighed = first + SEGMENTS_A_TURN - 1 if first + SEGMENTS_A_TURN <= self._log.open_segment else -1
        for segment, parts, size, whole in weights:
            if self._is_heavy(segment, parts, size - whole, whole):
                self._log.compact(segment)
                self._log.commit()
                self._live[segment] = self._log.live(segment)
            await self.rest()

    def _is_heavy(self, segment: int, parts: int, changes_bytes: int, whole_bytes: int) -> bool:
        if segment == self._log.open_segment:
            return parts > OPEN_PARTS_LIMIT
        if parts < 2 or not whole_bytes:
            return parts > 1
        if changes_bytes > max(CHANGES_LIMIT_BYTES, CHANGES_SHARE * whole_bytes):
            return True
        # removals take hardly any room: what they leave of the segment must be looked at
        before = self._live.get(segment, RECORDS_PER_SEGMENT)
        return parts >= PARTS_LOOKED_AT and self._log.live(segment) < CHANGES_SHARE * before

    # -- collection ---------------------------------------------------------------------------------------------------

    def _counting(self, peers: Peers, now: float) -> dict[WriterId, float | None]:
        """Return those whose acknowledgement is needed: all who count, but whom nobody has heard of for too long."""
        counted = dict(peers.counted())
        limit_s = peers.forget_after_s
        if not peers.clock_agrees() or now - (self._started or now) < min(FRESH_START_S, limit_s):
            return counted
        away = {writer: self._last_heard(writer, heard) for writer, heard in counted.items() if heard is not None}
        late = {writer for writer, heard in away.items() if now - heard > limit_s}
        while late:
            others = counted.keys() - late
            again = {writer for writer in late if now - self._acks.seen(writer, others) <= limit_s}
            if not again:
                break
            late -= again
        return {writer: heard for writer, heard in counted.items() if writer not in late}

    async def _collect(self, peers: Peers, now: float) -> None:
        if self._stage is _Stage.IDLE and now >= self._rest_until:
            await self._search(peers, now)
        if self._stage is _Stage.WAITING:
            await self._finish(peers, now)

    async def _search(self, peers: Peers, now: float) -> None:
        """Look for what seems dead, and ask whether everybody has seen that."""
        self._stage = _Stage.SEARCHING
        self._heal()
        may_come_back = self._acks.may_come_back(())
        started = time.perf_counter()
        self._candidates = []
        for node in self._marked():
            if len(self._candidates) >= CANDIDATES_LIMIT:
                break
            if removable(self._view, node, self._log.writer, may_come_back):
                self._candidates.append(node)
            if time.perf_counter() - started > SLICE_S:
                await self.rest()
                started = time.perf_counter()
        late = [writer for writer, heard in peers.counted().items() if heard is not None]
        wanting = self._adoption.awaited(peers) or (late and self._forgettable(peers, now))
        if not self._candidates and not wanting:
            self._stage, self._rest_until = _Stage.IDLE, now + min(REST_S, peers.forget_after_s)
            return
        self._vector = self._acknowledge(peers.counted(), asks=True)
        self._stage = _Stage.WAITING

    def _forgettable(self, peers: Peers, now: float) -> set[WriterId]:
        return set(peers.counted()) - set(self._counting(peers, now))

    def _marked(self) -> Iterator[bytes]:
        """Yield the nodes with deletions or settled dots, in order."""
        after = b""
        while True:
            rows = self._store.query(
                "SELECT DISTINCT node FROM record WHERE kind IN ('d', 's') AND node > ? ORDER BY node LIMIT 256",
                (after,),
            )
            for (node,) in rows:
                yield bytes(node)
            if not rows:
                return
            after = rows[-1][0]

    def _in_vain(self, awaited: Mapping[WriterId, int], counting: Collection[WriterId]) -> list[WriterId]:
        """Return the writers whose logs nobody shows up to the transaction waited for, by everybody's answers."""
        me = self._log.writer
        said = [ack.vector for one in counting if (ack := self._acks.of(one)) is not None]
        if any(vector.get(me, 0) < self._vector[me] for vector in said) or len(said) < len(counting):
            return []
        return [writer for writer, upto in awaited.items() if all(vector.get(writer, 0) < upto for vector in said)]

    async def _finish(self, peers: Peers, now: float) -> None:
        """Once everybody has acknowledged: forget who is long gone, and drop what is still dead."""
        if self._log.writer not in self._vector:  # this pod took a new writer since it asked
            self._stage = _Stage.IDLE
            return
        counting = self._counting(peers, now)
        await self._adoption.adopt(self._in_vain(self._adoption.awaited(peers), counting), peers)
        if not self._acks.have(self._vector, counting, peers.retired()):
            return
        self._stage = _Stage.IDLE
        if forgotten := set(peers.counted()) - counting.keys():
            await self._adoption.adopt(forgotten & set(peers.orphans(forgotten)), peers)
            return
        candidates, self._candidates = self._candidates, []
        may_come_back = self._acks.may_come_back(counting)
        dropped, started = 0, time.perf_counter()
        for node in candidates:
            keys: list[Key] = removable(self._view, node, self._log.writer, may_come_back)
            if keys:
                self._log.on_delta(self._log.hold([], keys))
                dropped += len(keys)
            if time.perf_counter() - started > SLICE_S:
                self._log.commit()
                await self.rest()
                started = time.perf_counter()
        if dropped:
            logger.info("collected %d records of what was deleted", dropped)
