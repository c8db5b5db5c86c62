"""Transactions of other writers: verified, taken in their order, applied whole, in slices that let the mount have turns.

Where parts are missing because a later transaction has their segment whole, nothing of the writer is shown until that
one is here (catch-up is staged). Then the difference is applied in an order in which no step shows less than was known:
first what deletes, names and places, then contents and births, at last what its holder removed.

Must never: apply a transaction in part or out of its writer's order.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

import anyio
from anyio import lowlevel

from base.errors import DamagedError, WormholeError
from base.ids import InodeId, PodId, WriterId
from crdt_meta.bycontent import PORTIONS
from crdt_meta.codec import decode
from crdt_meta.hlc import HybridClock
from crdt_meta.logtable import LogTable
from crdt_meta.node import Delta
from crdt_meta.records import ADOPTED, Key
from crdt_meta.recordtable import Found
from crdt_meta.rescue import Record, rescued
from crdt_meta.segments import Segment, Segments, difference
from crdt_meta.showing import Plain
from crdt_meta.store import Store
from crdt_meta.transaction import Part, Transaction, Verify, owed, read
from crdt_meta.view import Changed, View
from mesh.api import Entry

SLICE_S: Final = 0.003
"""Received transactions are applied for so long at a time, then the mount has its turn."""
COMMIT_S: Final = 0.05
"""What was received is committed that often: each time all pages that changed are written."""
COMPLAINTS_LIMIT: Final = 64
RECORDS_A_SLICE: Final = 200
FIRST_KINDS: Final = "dsnpax"

logger = logging.getLogger(__name__)
Records = dict[str, bytes | None]
Change = tuple[str, bytes | None]
Step = Callable[[str, bool], bool]
"""Whether changes of a kind, removals or others, belong to a step."""


class Incoming:
    """See the module."""

    def __init__(
        self, store: Store, table: LogTable, view: View, clock: HybridClock, segments: Segments, verify: Verify
    ) -> None:
        self.is_retired: Callable[[WriterId], bool] = lambda _: False
        """Whether a writer's records were adopted by others, so that its own log isn't taken any more."""
        self.hold: Callable[[list[Record]], Delta] = lambda _: Delta(remote=False)
        """Adopts records for this pod's writer, `writer`."""
        self.writer: Callable[[], WriterId] = lambda: WriterId(b"")
        self._rescued: list[Record] = []
        self.on_acknowledged: Callable[[], None] = lambda: None
        """Told when somebody's acknowledgement arrived."""
        self._store = store
        self._table = table
        self._view = view
        self._clock = clock
        self._segments = segments
        self._verify = verify
        self._complaints: set[tuple[PodId, str]] = set()
        self.is_showing = False
        """Whether a log that was caught up with is being shown."""
        self._one_at_a_time = anyio.Lock()

    async def receive(
        self,
        entries: Sequence[Entry],
        sender: PodId,
        on_delta: Callable[[Delta], None],
        commit: Callable[[], object],
    ) -> list[Entry]:
        """Take what follows what is here; return that."""
        taken: list[Entry] = []
        started = committed = time.perf_counter()
        for entry in entries:
            if entry.sequence <= self._table.received.get(entry.writer, 0) or self.is_retired(entry.writer):
                continue
            try:
                delta = self._take(entry)
            except DamagedError as error:
                self._complain(sender, str(error))
                continue
            if delta is None:
                continue
            taken.append(entry)
            if delta:
                on_delta(delta)
            self._adopt_rescued(on_delta)
            if self._table.waits(entry.writer):
                await self.show(entry.writer, on_delta, commit)
            now = time.perf_counter()
            if now - started > SLICE_S:
                await lowlevel.checkpoint()
                if now - committed > COMMIT_S:
                    commit()
                    committed = now
                    await lowlevel.checkpoint()
                started = time.perf_counter()
        return taken

    def _take(self, entry: Entry) -> Delta | None:
        """Verify and apply one transaction, or leave everything as it was. Raises `DamagedError`."""
        here = self._table.received.get(entry.writer, 0)
        tx = read(entry.blob, self._verify)
        if (tx.header.writer, tx.header.sequence) != (entry.writer, entry.sequence):
            raise DamagedError("A transaction is not what it was announced as.")
        needed = owed(tx, here)
        if needed is None:
            return None  # what is between will be asked for
        self._store.number_of(entry.writer)  # outside of what may be rolled back: it is remembered in memory, too
        self._store.savepoint()
        try:
            waits = needed > entry.sequence or self._table.waits(entry.writer)
            delta = Delta(remote=True) if waits else self._apply(tx)
            self._clock.observe(tx.header.clock)
            self._table.append(tx, applied=not waits, owed=needed)
        except sqlite3.OperationalError as error:
            raise self._store.failed(error) from error
        except BaseException as error:
            self._undo(tx)
            if isinstance(error, WormholeError | OSError) or not isinstance(error, Exception):
                raise
            raise DamagedError(f"A transaction can't be applied: {type(error).__name__}: {error}.") from error
        self._store.release()
        if waits:
            for part in tx.header.parts:
                self._segments.forget(entry.writer, part.segment)
        return delta

    def _apply(self, tx: Transaction) -> Delta:
        writer = tx.header.writer
        found: list[Found] = []
        for part in tx.parts():
            found += self._found(part.segment, self._changed(writer, part).items())
        found.sort(key=_node)
        return self._write_all(writer, found)

    @staticmethod
    def _found(segment: int, changes: Iterable[Change]) -> list[Found]:
        keys = ((Key.parse(text), value) for text, value in changes)
        return [Found(key, segment, value) for key, value in keys if key is not None]

    def _write_all(self, holder: WriterId, found: list[Found]) -> Delta:
        """Write what a holder's segments say now, all of a node side by side; return what that alters."""
        view = self._view
        unknown = view.unknown(found)
        self._rescue(holder, (one.key for one in found if one.value is None))
        changed: list[Changed] = []
        arrived: list[Plain] = []
        for node, group in groupby(found, _node):
            records = list(group)
            if node in unknown:
                plain = view.arrival(holder, InodeId(node), records)
                if plain is not None:
                    arrived.append(plain)
                    continue
                view.absent(node)
            changed += [self._write(holder, *one) for one in records]
        return view.apply(changed, arrived, remote=True)

    def _rescue(self, holder: WriterId, removed: Iterable[Key]) -> None:
        self._rescued += rescued(self._view, removed, holder, self.writer())

    def _adopt_rescued(self, on_delta: Callable[[Delta], None]) -> None:
        """Adopt what would otherwise have gone from under this pod's own contents."""
        if self._rescued:
            kept, self._rescued = self._rescued, []
            on_delta(self.hold(kept))

    def _changed(self, writer: WriterId, part: Part) -> Records:
        """Bring a segment up to date; return the records that this changes. Raises `DamagedError`."""
        segment = self._segments.get(writer, part.segment)
        if part.whole:
            if part.epoch <= segment.epoch:
                raise DamagedError("A segment is written anew in an epoch that is over.")
            new = Segment([part])
            self._segments.replace(writer, part.segment, new)
            return difference(segment.records(), new.records())
        if part.epoch != segment.epoch:
            raise DamagedError("A part of a segment belongs to an epoch that is over, or not known.")
        return segment.apply(part)

    def _write(self, holder: WriterId, key: Key, segment: int, value: bytes | None) -> Changed:
        records, (kind, node, clock, _) = self._view.records, key
        if value is None:
            removed = records.body_of(key, holder) if kind == "l" else None
            records.drop(key, holder)
            return Changed(key, None, removed)
        body = decode(kind, node, clock, value)
        if kind == "k":
            self.on_acknowledged()
        before = records.put(key, holder, segment, value, body)
        return Changed(key, body, before[2] if before is not None and kind == "l" else None)

    def _undo(self, tx: Transaction) -> None:
        """Forget a transaction that could not be applied: in the file, in the view's memory, in the documents."""
        self._store.undo()
        self._rescued.clear()
        self._table.undone(tx.header.writer)
        for part in tx.header.parts:
            self._segments.forget(tx.header.writer, part.segment)
        self._view.reload()

    def _complain(self, sender: PodId, reason: str) -> None:
        """Log a refusal once for each sender and reason."""
        if (sender, reason) not in self._complaints and len(self._complaints) < COMPLAINTS_LIMIT:
            self._complaints.add((sender, reason))
            logger.warning("refused a transaction that pod %s sent: %s", sender, reason)

    # -- catching up --------------------------------------------------------------------------------------------------

    async def show(
        self,
        writer: WriterId,
        on_delta: Callable[[Delta], None],
        commit: Callable[[], object],
        *,
        as_it_is: bool = False,
    ) -> None:
        """Show what waits of a writer, if everything is here that it has to wait for. A crash meanwhile repeats it.

        ``as_it_is``: show what can be read though something is missing, since the writer is gone for good.
        """
        async with self._one_at_a_time:  # who adopts shows, too, while more comes
            if not self._table.waits(writer) or not (as_it_is or self._table.is_complete(writer)):
                return
            self.is_showing = True
            try:
                await self._show(writer, on_delta, commit)
            except sqlite3.OperationalError as error:
                raise self._store.failed(error) from error
            finally:
                self.is_showing = False

    async def _show(self, writer: WriterId, on_delta: Callable[[Delta], None], commit: Callable[[], object]) -> None:
        received, committed = self._table.received.get(writer, 0), time.perf_counter()
        segments = self._table.unshown_segments(writer)
        needed: dict[int, frozenset[Step]] = {}
        for segment in segments:
            needed[segment] = self._steps(writer, segment)
            await lowlevel.checkpoint()
        for step in STEPS:
            for segment in [segment for segment in segments if step in needed[segment]]:
                found = self._difference(writer, segment)
                if len(needed[segment]) > 1:
                    found = [(text, value) for text, value in found if step(_kind(text), value is None)]
                for delta in self._apply_step(writer, segment, found):
                    on_delta(delta)
                    self._adopt_rescued(on_delta)
                    if time.perf_counter() - committed > COMMIT_S:
                        for write in self._store.on_flush:  # table by table: together they take as long as anything
                            write()
                            await lowlevel.checkpoint()
                        commit()
                        committed = time.perf_counter()
                    await lowlevel.checkpoint()
        for segment in segments:
            self._table.prune(writer, segment)
            self._segments.forget(writer, segment)
            await lowlevel.checkpoint()
        self._table.shown(writer, received)
        commit()
        for _ in range(PORTIONS):  # so that a crash from now on doesn't cost the next start the table
            if self._view.rows.by_content.waits:
                await lowlevel.checkpoint()
                self._store.begin()
                commit()

    def _steps(self, writer: WriterId, segment: int) -> frozenset[Step]:
        """Return in which steps something of a segment changes."""
        if self._table.shown_parts(writer, segment):
            kinds = {(_kind(text), value is None) for text, value in self._difference(writer, segment)}
        else:  # as a rule: all of it is new, and its keys say enough
            keys = _in_order(self._table.readable_parts(writer, segment), Segment.take).keys()
            kinds = {(_kind(text), False) for text in keys}
        return frozenset(step for step in STEPS if any(step(*one) for one in kinds))

    def _difference(self, writer: WriterId, segment: int) -> list[Change]:
        old = self._loaded(self._table.shown_parts(writer, segment))
        new = self._loaded(self._table.readable_parts(writer, segment))
        return list(difference(old, new).items())

    def _apply_step(self, writer: WriterId, segment: int, changes: list[Change]) -> Iterator[Delta]:
        todo = sorted(self._found(segment, changes), key=_node)
        at = 0
        while at < len(todo):
            end = min(at + RECORDS_A_SLICE, len(todo))
            while end < len(todo) and _node(todo[end]) == _node(todo[end - 1]):
                end += 1
            self._store.begin()
            yield self._write_all(writer, todo[at:end])
            at = end

    @staticmethod
    def _loaded(parts: list[Part]) -> Records:
        """Return the records of a segment as far as its parts can be read: the same on every pod."""
        records = Records()
        _in_order(parts, lambda segment, part: records.update(segment.apply(part)))
        return {text: value for text, value in records.items() if value is not None}


def _node(one: Found) -> bytes:
    return one.key.node


def _in_order(parts: Iterable[Part], take: Callable[[Segment, Part], object]) -> Segment:
    """Return a segment after ``take`` applied its parts to it, up to the first that can't be read."""
    segment = Segment()
    for part in parts:
        try:
            take(segment, part)
        except DamagedError as error:
            logger.warning("a part of the metadata log can't be read: %s", error)
            break
    return segment


def _kind(text: str) -> str:
    return text[:1] if text[:1] != ADOPTED else text[1:2]


def _first(kind: str, is_removed: bool) -> bool:
    return not is_removed and kind in FIRST_KINDS


def _second(kind: str, is_removed: bool) -> bool:
    return not is_removed and kind not in FIRST_KINDS


def _third(kind: str, is_removed: bool) -> bool:
    return is_removed and kind != "d"


def _fourth(kind: str, is_removed: bool) -> bool:
    return is_removed and kind == "d"


STEPS: Final[tuple[Step, ...]] = (_first, _second, _third, _fourth)
"""Which changes are applied together while a log is shown; a later step's only after all of an earlier one's."""
