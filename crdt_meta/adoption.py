"""Records of writers that write no more are copied, author and dots unchanged, into the adopter's own segments.

From then on they are cared for (collected, written anew) by somebody. Two adopters make identical records. When the
copies are complete the writer is *retired*: everybody who has the adopter's log so far drops the writer's own. Who has
more of the writer than the adopter had, or what its pod wrote after it was set back to a backup, adopts that; who has
what went with an adopter before others heard of its copies adopts that again, since nothing is taken any more from the
log of a writer that is retired.

A log of which something is missing is waited for, until everybody has said that nobody has it (`Tidying`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from functools import partial
from typing import Final

from anyio import lowlevel

from base.ids import WriterId
from crdt_meta.codec import decode
from crdt_meta.coverage import copied
from crdt_meta.log import MetadataLog
from crdt_meta.peers import Peers, Retired
from crdt_meta.records import Key
from crdt_meta.rescue import rescued
from crdt_meta.segments import Segment
from crdt_meta.view import Changed, View

SLICE_S: Final = 0.005
BATCH: Final = 64
"""Records copied or dropped between two looks at the clock."""

logger = logging.getLogger(__name__)


class Adoption:
    """See the module."""

    def __init__(self, view: View, log: MetadataLog) -> None:
        self._view = view
        self._log = log
        self._held_before = False

    async def turn(self, peers: Peers) -> None:
        """Adopt what nobody cares for, and drop what others care for."""
        table = self._log.table
        await self.adopt([writer for writer in peers.orphans() if not table.waits(writer)], peers)
        for writer in sorted(peers.retired()):
            if writer == self._log.writer or table.last_segment(writer) is None:
                continue
            here = max(table.received[writer], table.owed.get(writer, 0))
            may_come = self._copied(peers, writer, may_come=True)
            if may_come < here and not self._has_adopted(peers, writer):
                await self.adopt([writer], peers)
            upto = self._copied(peers, writer, may_come=False)
            if upto >= here or self._has_adopted(peers, writer):
                await self._drop(writer, max(upto, here))

    def awaited(self, peers: Peers) -> dict[WriterId, int]:
        """Return the orphans of which something is missing here, each with the transaction that is waited for."""
        return {writer: self._log.table.owed[writer] for writer in peers.orphans() if self._log.table.waits(writer)}

    def _has_adopted(self, peers: Peers, writer: WriterId) -> bool:
        """Tell whether this pod's copies are of all that it has of a writer: nothing is taken from a retired one."""
        return any(one.by == self._log.writer for one in peers.retired()[writer])

    def _copied(self, peers: Peers, writer: WriterId, *, may_come: bool) -> int:
        """Return up to which transaction copies of all that a writer wrote are here, whoever made them.

        ``may_come``: or may still come. They may not when their adopter was adopted itself by others who never had them.
        """
        retired, table = peers.retired(), self._log.table

        def is_here(adopted: Retired) -> bool | None:
            by = adopted.by
            if by == self._log.writer or table.applied.get(by, 0) >= adopted.sequence:
                return True
            return None if by in retired else may_come

        return copied(writer, retired, is_here, self._is_of_this_life)

    def _is_of_this_life(self, writer: WriterId, adopted: Retired) -> bool:
        """Tell whether the adopter had these transactions: not if others, since the writer's pod was set back.

        Where the last one that both know is the same, what follows counts as the same, too.
        """
        table = self._log.table
        compared = adopted.compared(table.received.get(writer, 0), partial(table.digest, writer))
        return next((is_same for _, is_same in compared), True)

    async def adopt(self, writers: Collection[WriterId], peers: Peers) -> None:
        """Copy everything of some writers, as far as it is here, and retire them."""
        table = self._log.table
        for writer in sorted(writers):
            if writer == self._log.writer:
                continue
            marks = table.received if table.is_complete(writer) else table.applied
            upto, begun = marks.get(writer, 0), self._log.commit().sequence
            self._held_before = False
            if table.is_set_aside(writer):
                await self._in_slices(self._copy(writer, shown=True))
            await self._log.incoming.show(writer, self._log.on_delta, self._log.commit, as_it_is=True)
            last = table.received.get(writer, 0)
            await self._in_slices(self._copy(writer))
            done = self._log.commit()
            if table.received.get(writer, 0) == last and not table.waits(writer):  # nothing came meanwhile
                begun = 0 if self._held_before else begun
                lives = table.digest(writer, upto), table.earlier(writer, upto)
                await peers.retire(writer, Retired(upto, *done, 0, begun, *lives))
                logger.info("adopted the records of the writer %s", writer.hex())

    async def _in_slices(self, steps: Iterator[None]) -> None:
        started = time.perf_counter()
        for _ in steps:
            if time.perf_counter() - started > SLICE_S:
                self._log.commit()
                await lowlevel.checkpoint()
                started = time.perf_counter()

    def _copy(self, writer: WriterId, *, shown: bool = False) -> Iterator[None]:
        """Copy what the log says, or of one that is fetched anew what is ``shown`` and nobody else holds."""
        for batch in self._batches(writer, shown=shown):
            copies = []
            for key, value in batch:
                copy = key._replace(author=key.author or writer)
                if key.kind == "k" or value is None:
                    continue
                if self._holds(copy, value) or (shown and self._is_held_elsewhere(copy, writer)):
                    self._held_before = True
                else:
                    copies.append((copy, value, decode(*copy[:3], value)))
            self._log.on_delta(self._log.hold(copies))
            yield

    def _holds(self, key: Key, value: bytes) -> bool:
        """Tell whether this pod holds that very record, adopted or its own."""
        own = key._replace(author=None) if key.author == self._log.writer else key
        found = self._view.records.body_of(own, self._log.writer)
        return found is not None and found == decode(*key[:3], value)

    def _is_held_elsewhere(self, key: Key, writer: WriterId) -> bool:
        """Tell whether somebody else holds a record of that key: a pod that was set back may have changed its own."""
        held = self._view.records.held(key.node)
        return any(one.holder != writer and one.key._replace(author=one.author) == key for one in held)

    async def _drop(self, writer: WriterId, upto: int) -> None:
        """Drop the writer's own records and log."""
        await self._log.incoming.show(writer, self._log.on_delta, self._log.commit, as_it_is=True)
        await self._in_slices(self._forget(writer))
        self._log.forget(writer, upto)
        self._log.commit()

    def _forget(self, writer: WriterId) -> Iterator[None]:
        records = self._view.records
        for batch in self._batches(writer):
            kept = rescued(self._view, (key for key, _ in batch), writer, self._log.writer)
            changed = []
            for key, _ in batch:
                before = records.body_of(key, writer) if key.kind == "l" else None
                records.drop(key, writer)
                changed.append(Changed(key, None, before))
            self._log.on_delta(self._view.apply(changed, remote=True))
            if kept:
                self._log.on_delta(self._log.hold(kept))
            yield

    def _batches(self, writer: WriterId, *, shown: bool = False) -> Iterator[list[tuple[Key, bytes | None]]]:
        """Yield what a writer's segments hold, or what is ``shown`` of them."""
        table = self._log.table
        for segment in table.unshown_segments(writer) if shown else table.changed_since(writer, 0):
            held = Segment((table.shown_parts if shown else table.readable_parts)(writer, segment)).records()
            found = [(key, value) for text, value in held.items() if (key := Key.parse(text)) is not None]
            for first in range(0, len(found), BATCH):
                self._view.store.begin()
                yield found[first : first + BATCH]
