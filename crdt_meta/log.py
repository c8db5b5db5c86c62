"""The replicated log of metadata: pending local records become transactions, received ones are verified and applied.

Everything here runs on the loop thread. Must never: apply a transaction in part or out of its writer's order; give a
sequence number that was committed to anything else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from anyio import lowlevel

from base.errors import DamagedError, WormholeError
from base.ids import PodId, WriterId
from crdt_meta.hlc import HybridClock
from crdt_meta.node import Delta
from crdt_meta.records import Body, Key, decode, encode
from crdt_meta.segments import RECORDS_PER_SEGMENT, Segments
from crdt_meta.store import Store
from crdt_meta.transaction import BLOB_LIMIT_BYTES, Part, Transaction, join, make, read, segments_of
from crdt_meta.view import Changed, View
from mesh.api import Entry

SLICE_S: Final = 0.005
"""Received transactions are applied for so long at a time, then the mount has its turn."""
COMMIT_S: Final = 0.05
"""What was received is committed that often: each time all pages that changed are written."""
TRANSACTION_BYTES: Final = BLOB_LIMIT_BYTES // 2
COMPLAINTS_LIMIT: Final = 64

logger = logging.getLogger(__name__)


class MetadataLog:
    """Implements `mesh.api.ReplicatedLog`; also the way in for local records."""

    def __init__(
        self,
        store: Store,
        view: View,
        clock: HybridClock,
        writer: WriterId,
        sign: Callable[[bytes], bytes],
        verify: Callable[[WriterId, bytes, bytes], bool],
    ) -> None:
        self.writer = writer
        self.on_delta: Callable[[Delta], None] = lambda _: None
        self.on_pending: Callable[[], None] = lambda: None
        self._store = store
        self._view = view
        self._clock = clock
        self._sign = sign
        self._verify = verify
        self._segments = Segments(store.parts)
        self._pending: dict[int, dict[str, bytes | None]] = {}
        self._pending_bytes = 0
        store.number_of(writer)
        self._durable = store.vector[writer]
        last = store.db.execute(
            "SELECT max(segment), count(*) FROM part WHERE writer = ?", (store.number_of(writer),)
        ).fetchone()
        self._open_segment: int = last[0] or 0
        self._open_count = len(self._segments.get(writer, self._open_segment)) if last[1] else 0
        self._complaints: set[tuple[PodId, str]] = set()

    # -- local records ------------------------------------------------------------------------------------------------

    @property
    def has_pending(self) -> bool:
        """Whether records wait to be sealed."""
        return bool(self._pending)

    def write(self, records: Iterable[tuple[bytes, Body]], obsolete: Iterable[Key] = ()) -> Delta:
        """Write records of this pod, and remove obsolete ones: in the view at once, and in its next transaction."""
        self._store.begin()
        changed: list[Changed] = []
        for node, body in records:
            key, value = Key.of(body, node), encode(body, node)
            if not self._view.records.has(node):
                self._view.absent(node)
            segment = self._view.records.segment_of(key, self.writer)
            if segment is None:
                if self._open_count >= RECORDS_PER_SEGMENT:
                    self._open_segment, self._open_count = self._open_segment + 1, 0
                segment, self._open_count = self._open_segment, self._open_count + 1
            self._view.records.put(key, self.writer, segment, value, body)
            self._pending.setdefault(segment, {})[key.text()] = value
            self._pending_bytes += len(value)
            changed.append(Changed(key, body))
        for key in obsolete:
            segment = self._view.records.segment_of(key, self.writer)
            if segment is not None:
                self._view.records.drop(key, self.writer)
                self._pending.setdefault(segment, {})[key.text()] = None
                changed.append(Changed(key, None))
        delta = self._view.apply(changed, remote=False)
        if self._pending_bytes > TRANSACTION_BYTES:
            self.seal()
        self.on_pending()
        return delta

    def seal(self) -> None:
        """Turn the pending records into one transaction of the log (still to be committed)."""
        if not self._pending:
            return
        pending, self._pending, self._pending_bytes = self._pending, {}, 0
        parts = tuple(
            Part(segment, 0, self._segments.get(self.writer, segment).write(values))
            for segment, values in sorted(pending.items())
        )
        sequence = self._store.vector[self.writer] + 1
        self._append(make(self.writer, sequence, self._clock.last, parts, self._sign))

    def commit(self) -> int:
        """Seal and commit everything; return the own sequence that is committed now."""
        self.seal()
        self._store.commit()
        return self._store.vector[self.writer]

    def _append(self, tx: Transaction) -> None:
        parts = [(part.segment, part.update) for part in tx.parts]
        self._store.append(tx.writer, tx.sequence, tx.header, tx.signature, parts)

    def durable(self, sequence: int) -> list[Entry]:
        """Note that own transactions up to ``sequence`` are on the disk; return those that weren't before."""
        after, self._durable = self._durable, max(self._durable, sequence)
        return [entry for entry in self._entries(self.writer, after) if entry.sequence <= sequence]

    # -- mesh.api.ReplicatedLog ---------------------------------------------------------------------------------------

    def vector(self) -> Mapping[WriterId, int]:
        """Return the last sequence of each writer that is here; of this pod itself, that is durable."""
        vector = dict(self._store.vector)
        vector[self.writer] = self._durable
        return {writer: sequence for writer, sequence in vector.items() if sequence}

    def read(self, writer: WriterId, after: int, limit_bytes: int) -> list[Entry]:
        """Return consecutive entries from ``after + 1`` on, at least one if there is one."""
        found: list[Entry] = []
        size = 0
        for entry in self._entries(writer, after):
            size += len(entry.blob)
            if (found and size > limit_bytes) or (writer == self.writer and entry.sequence > self._durable):
                break
            found.append(entry)
        return found

    def _entries(self, writer: WriterId, after: int) -> Iterable[Entry]:
        for sequence, header, signature in self._store.transactions(writer, after):
            updates = [self._store.part(writer, segment, sequence) for segment in segments_of(header)]
            yield Entry(writer, sequence, join(header, signature, updates))

    async def receive(self, entries: Sequence[Entry], sender: PodId) -> list[Entry]:
        """Apply what follows what is here, in order and in slices; return those newly applied."""
        applied: list[Entry] = []
        started = committed = time.perf_counter()
        for entry in entries:
            if entry.sequence != self._store.vector.get(entry.writer, 0) + 1 or entry.writer == self.writer:
                continue
            try:
                delta = self._receive(entry)
            except DamagedError as error:
                self._complain(sender, str(error))
                continue
            applied.append(entry)
            if delta:
                self.on_delta(delta)
            now = time.perf_counter()
            if now - committed > COMMIT_S:
                self.commit()
                now = committed = time.perf_counter()
            if now - started > SLICE_S:
                await lowlevel.checkpoint()
                started = time.perf_counter()
        if applied:
            self.commit()
            self.on_pending()
        return applied

    def _receive(self, entry: Entry) -> Delta:
        """Verify and apply one transaction, or leave everything as it was. Raises `DamagedError`."""
        tx = read(entry.blob, self._verify)
        if (tx.writer, tx.sequence) != (entry.writer, entry.sequence):
            raise DamagedError("A transaction is not what it was announced as.")
        self._store.number_of(tx.writer)  # outside of what may be rolled back: it is remembered in memory, too
        self._store.savepoint()
        try:
            found: list[tuple[Key, int, bytes | None]] = []
            for part in tx.parts:
                values = self._segments.get(tx.writer, part.segment).apply(part.update)
                keys = ((Key.parse(text), value) for text, value in values.items())
                found += [(key, part.segment, value) for key, value in keys if key is not None]
            self._view.expect(key for key, _, _ in found)
            changed = [self._take(tx.writer, segment, key, value) for key, segment, value in found]
            self._clock.observe(tx.clock)
            self._append(tx)
            delta = self._view.apply(changed, remote=True)
        except BaseException as error:
            self._undo(tx)
            if isinstance(error, WormholeError | OSError) or not isinstance(error, Exception):
                raise
            raise DamagedError(f"A transaction can't be applied: {type(error).__name__}: {error}.") from error
        self._store.release()
        return delta

    def _take(self, writer: WriterId, segment: int, key: Key, value: bytes | None) -> Changed:
        records, before = self._view.records, None
        if key.kind == "l":
            before = next((body for by, body in records.of(key.node, "l") if by == writer), None)
        if value is None:
            records.drop(key, writer)
            return Changed(key, None, before)
        body = decode(key, value)
        records.put(key, writer, segment, value, body)
        return Changed(key, body, before)

    def _undo(self, tx: Transaction) -> None:
        """Forget a transaction that could not be applied: in the file, in the view's memory, in the documents."""
        self._store.undo()
        self._store.vector[tx.writer] = min(self._store.vector.get(tx.writer, 0), tx.sequence - 1)
        for part in tx.parts:
            self._segments.forget(tx.writer, part.segment)
        self._view.reload()

    def _complain(self, sender: PodId, reason: str) -> None:
        """Log a refusal once for each sender and reason."""
        if (sender, reason) not in self._complaints and len(self._complaints) < COMPLAINTS_LIMIT:
            self._complaints.add((sender, reason))
            logger.warning("refused a transaction that pod %s sent: %s", sender, reason)
