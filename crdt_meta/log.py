"""The replicated log of metadata: pending local records become transactions; received ones are in `incoming`.

Everything here runs on the loop thread. Must never give a sequence number that was committed to anything else.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from base.errors import FileSystemError
from base.ids import PodId, WriterId
from crdt_meta.codec import encode
from crdt_meta.hlc import HybridClock
from crdt_meta.incoming import Incoming
from crdt_meta.logtable import LogTable, Stored
from crdt_meta.node import Delta
from crdt_meta.records import Body, Key
from crdt_meta.segments import RECORDS_PER_SEGMENT, Segment, Segments
from crdt_meta.store import Store
from crdt_meta.transaction import BLOB_LIMIT_BYTES, Gone, Part, Verify, header_of, join, make, merged
from crdt_meta.view import Changed, View
from mesh.api import Entry

TRANSACTION_BYTES: Final = BLOB_LIMIT_BYTES // 2
TRANSACTION_RECORDS: Final = 128
"""From so many records on a transaction is sealed: whoever receives it applies it whole, and its mount waits for that."""

logger = logging.getLogger(__name__)


class Committed(NamedTuple):
    """Everything up to this transaction of this writer is committed."""

    writer: WriterId
    sequence: int


class MetadataLog:
    """Implements `mesh.api.ReplicatedLog`; also the way in for local records."""

    def __init__(
        self,
        store: Store,
        view: View,
        clock: HybridClock,
        writer: WriterId,
        sign: Callable[[bytes], bytes],
        verify: Verify,
    ) -> None:
        self.on_delta: Callable[[Delta], None] = lambda _: None
        self.on_pending: Callable[[], None] = lambda: None
        """Told of every change that was made here,"""
        self.on_arrival: Callable[[], None] = lambda: None
        """and of those that came from others."""
        self.follows = False
        """Whether this is the log of a client pod, which writes nothing: every write is refused with EROFS."""
        self.table = LogTable(store)
        self._store = store
        self._view = view
        self._clock = clock
        self._sign = sign
        self._segments = Segments(self.table.parts)
        self._pending: dict[int, dict[str, bytes | None]] = {}
        self._pending_bytes = self._pending_records = 0
        self.incoming = Incoming(store, self.table, view, clock, self._segments, verify)
        self.incoming.hold, self.incoming.writer = self.hold, lambda: self.writer
        self.write_as(writer)

    def write_as(self, writer: WriterId) -> None:
        """Write under a writer id from now on; nothing may be pending."""
        self.writer = writer
        self._store.number_of(writer)
        self.table.undone(writer)
        self._durable = self.table.received[writer]
        last = self.table.last_segment(writer)
        self._open_segment = last or 0
        self._open_count = 0 if last is None else len(self._segments.get(writer, last))

    # -- local records ------------------------------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        """Whether records wait to be sealed."""
        return bool(self._pending)

    @property
    def open_segment(self) -> int:
        """The segment that new records go into."""
        return self._open_segment

    def write(self, records: Iterable[tuple[bytes, Body]], obsolete: Iterable[Key] = ()) -> Delta:
        """Write records of this pod, and remove obsolete ones: in the view at once, and in its next transaction."""
        return self.hold([(Key.of(body, node), encode(body, node), body) for node, body in records], obsolete)

    def hold(self, records: Iterable[tuple[Key, bytes, Body | None]], obsolete: Iterable[Key] = ()) -> Delta:
        """Write records given by their keys, adopted ones too; remove obsolete ones."""
        if self.follows:
            raise FileSystemError(errno.EROFS)
        self._store.begin()
        try:
            delta = self._view.apply(self._put(records, obsolete), remote=False)
        except sqlite3.OperationalError as error:
            raise self._store.failed(error) from error
        if self._pending_records >= TRANSACTION_RECORDS:
            self.seal()
        self.on_pending()
        return delta

    def _put(self, records: Iterable[tuple[Key, bytes, Body | None]], obsolete: Iterable[Key]) -> list[Changed]:
        changed: list[Changed] = []
        table = self._view.records
        for key, value, body in records:
            if not table.has(key.node):
                self._view.absent(key.node)
            new = self._open_segment + (self._open_count >= RECORDS_PER_SEGMENT)
            before = table.put(key, self.writer, new, value, body, stays=True)
            if before is None:
                self._open_count = self._open_count + 1 if new == self._open_segment else 1
                self._open_segment = new
            self._put_pending(new if before is None else before[0], key, value)
            changed.append(Changed(key, body))
            if self._pending_bytes > TRANSACTION_BYTES:
                self.seal()
        for key in obsolete:
            segment = table.segment_of(key, self.writer)
            if segment is not None:
                removed = table.body_of(key, self.writer)
                table.drop(key, self.writer)
                self._put_pending(segment, key, None)
                changed.append(Changed(key, None, removed if key.kind == "l" else None))
        return changed

    def _put_pending(self, segment: int, key: Key, value: bytes | None) -> None:
        of_segment = self._pending.get(segment)
        if of_segment is None:
            of_segment = self._pending[segment] = {}
        text = key.text()
        self._pending_records += text not in of_segment
        self._pending_bytes += len(value or b"")
        of_segment[text] = value

    def seal(self) -> None:
        """Turn the pending records into one transaction of the log (still to be committed)."""
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        self._pending_bytes = self._pending_records = 0
        found = [
            (number, self._segments.get(self.writer, number), values) for number, values in sorted(pending.items())
        ]
        self._append([Part(number, segment.epoch, segment.write(values)) for number, segment, values in found])

    def commit(self) -> Committed:
        """Seal and commit everything; return the own sequence that is committed now."""
        self.seal()
        self._store.commit()
        return Committed(self.writer, self.table.received[self.writer])

    def _append(self, parts: Sequence[Part], superseded: Sequence[int] = ()) -> None:
        sequence = self.table.received[self.writer] + 1
        gone: Sequence[Gone] = ()
        if superseded:
            self.table.remember(self.writer, superseded)
            gone = merged(self.table.gone(self.writer), superseded)
        tx = make(self.writer, sequence, self._clock.last, parts, self._sign, gone)
        self.table.append(tx, applied=True)

    def live(self, segment: int) -> int:
        """Return how many records an own segment has."""
        return len(self._segments.get(self.writer, segment))

    def compact(self, segment: int) -> None:
        """Write one of the own segments anew, as a transaction, so that nothing of what is gone remains."""
        self.seal()
        self._store.begin()
        old = self._segments.get(self.writer, segment)
        part = Part(segment, old.epoch + 1, old.whole(), whole=True)
        self._append([part], self.table.superseded(self.writer, [segment]))
        self._segments.replace(self.writer, segment, Segment([part]))
        self.on_pending()

    def set_aside(self, writer: WriterId, owed: int) -> None:
        """Have a writer's log fetched anew; what it shows stays until it is here up to ``owed``."""
        for segment in self.table.changed_since(writer, 0):
            self._segments.forget(writer, segment)
        self.table.set_aside(writer, owed)

    def forget(self, writer: WriterId, upto: int) -> None:
        """Forget a writer's log, which others hold up to a sequence."""
        for segment in self.table.changed_since(writer, 0):
            self._segments.forget(writer, segment)
        self.table.drop(writer, upto)

    def durable(self, committed: Committed) -> list[Entry]:
        """Note that what was committed is on the disk; return the own transactions that weren't before."""
        writer, sequence = committed
        if writer != self.writer:
            return []
        after, self._durable = self._durable, max(self._durable, sequence)
        return [entry for entry in self._entries(self.writer, after) if entry.sequence <= sequence]

    # -- mesh.api.ReplicatedLog ---------------------------------------------------------------------------------------

    def vector(self) -> Mapping[WriterId, int]:
        """Return the last sequence of each writer that is here; of this pod itself, that is durable."""
        vector = dict(self.table.received)
        vector[self.writer] = self._durable
        return {writer: sequence for writer, sequence in vector.items() if sequence}

    def read(self, writer: WriterId, after: int, limit_bytes: int) -> list[Entry]:
        """Return entries from behind ``after`` on, at least one if there is one; what is obsolete is left out."""
        found: list[Entry] = []
        size = 0
        for entry in self._entries(writer, after):
            size += len(entry.blob)
            if (found and size > limit_bytes) or (writer == self.writer and entry.sequence > self._durable):
                break
            found.append(entry)
        return found

    def _entries(self, writer: WriterId, after: int) -> Iterable[Entry]:
        """Yield entries with what proves that nothing is missing that counts, as far as that is here."""
        if writer not in self.table.received:
            return
        here = after
        for one in self.table.transactions(writer, after):
            if one.sequence > self.table.received[writer]:
                break
            updates: list[bytes | None] = []
            witnesses: dict[int, Stored | None] = {}
            for named in header_of(one.header).parts:
                update = self.table.update(writer, named.segment, one.sequence)
                updates.append(update)
                if update is None:
                    witness = self.table.witness(writer, named.segment, named.epoch)
                    witnesses[0 if witness is None else witness.sequence] = witness
            if one.sequence > here + 1:
                warrant = self.table.warrant(writer)
                witnesses[0 if warrant is None or warrant.sequence < one.sequence else warrant.sequence] = warrant
            if 0 in witnesses:
                break  # what was left out when it came hasn't come yet: others have it
            if writer == self.writer and max(witnesses, default=0) > self._durable:
                break  # a witness that a crash could take back is none
            proof = [(other.header, other.signature) for other in witnesses.values() if other and other != one]
            yield Entry(writer, one.sequence, join(one.header, one.signature, updates, proof))
            here = one.sequence

    async def receive(self, entries: Sequence[Entry], sender: PodId) -> list[Entry]:
        """Apply what follows what is here, in order and in slices; return those newly taken."""
        others = [entry for entry in entries if entry.writer != self.writer]
        applied = await self.incoming.receive(others, sender, self.on_delta, self.commit)
        if applied:
            self.commit()
            self.on_arrival()
        return applied
