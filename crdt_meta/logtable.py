"""The log's tables: transactions of all writers in parts, how far each is here, and how far it is shown.

A writer's transactions up to ``received`` are in the tables, those up to ``applied`` in the records and the view. They
differ while transactions wait for a later one, which has what was left out of them (``owed``: that one's sequence).
Parts with a sequence below zero are those of a log that is being fetched anew: what of it is shown already.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from base.ids import WriterId
from crdt_meta.store import Store
from crdt_meta.transaction import Gone, Part, Transaction, digest, header_of

SET_ASIDE: Final = 1 << 61
"""Taken off the sequences of parts whose log is fetched anew."""


REMEMBERED: Final = 1 << 16
"""Of so many last transactions of this pod it is known, when they are dropped, what they were (3 MB): others may have
others of these numbers, if this pod was set back to a backup."""

GAPS: Final = (*range(1, 8), *(base << shift for shift in range(2, 20) for base in (2, 3)))
"""How far behind a transaction those are that are named with it, so that two who don't have the same number of them can
compare what they have; 43 in all."""


class Stored(NamedTuple):
    """A transaction as it is in the table."""

    sequence: int
    header: bytes
    signature: bytes


class LogTable:
    """See the module. What is changed is in the store's open transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db
        self.received = store.vector
        self.applied: dict[WriterId, int] = {}
        self.owed: dict[WriterId, int] = {}
        self._warrant: dict[WriterId, int] = {}
        """The last transaction of each writer that names others which are gone."""
        for (writer,) in store.db.execute("SELECT writer FROM writer").fetchall():
            self.undone(WriterId(writer))

    def waits(self, writer: WriterId) -> bool:
        """Tell whether transactions of a writer are here that aren't shown."""
        return self.applied.get(writer, 0) < self.received.get(writer, 0) or bool(self.owed.get(writer, 0))

    def is_set_aside(self, writer: WriterId) -> bool:
        """Tell whether a writer's log is being fetched anew."""
        query = "SELECT 1 FROM part WHERE writer = ? AND sequence < 0"
        return self._db.execute(query, (self._store.number_of(writer),)).fetchone() is not None

    def is_complete(self, writer: WriterId) -> bool:
        """Tell whether everything is here that those have to wait for."""
        return self.received.get(writer, 0) >= self.owed.get(writer, 0)

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, tx: Transaction, *, applied: bool, owed: int = 0) -> None:
        """Add a transaction; ``applied``: what it says is in records and view with the same commit."""
        self._store.begin()
        writer, sequence = tx.header.writer, tx.header.sequence
        number = self._store.number_of(writer)
        self._db.execute("INSERT INTO tx VALUES (?, ?, ?, ?)", (number, sequence, tx.raw, tx.signature))
        self._db.executemany(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
            [(number, one.segment, sequence, one.epoch, one.whole, one.update) for one in tx.parts()],
        )
        owed = max(owed, self.owed.get(writer, 0))
        if tx.header.gone:
            self._warrant[writer] = sequence
        self._mark(writer, sequence, sequence if applied else self.applied.get(writer, 0), owed)
        if applied:
            for one in tx.header.parts:
                if one.whole:
                    self._prune(number, one.segment)
            self._drop_gone(number, tx.header.gone)

    def shown(self, writer: WriterId, upto: int) -> None:
        """Note that everything of a writer is in records and view up to a transaction; what came since waits."""
        self._store.begin()
        number, received = self._store.number_of(writer), self.received.get(writer, 0)
        self._db.execute("DELETE FROM part WHERE writer = ? AND sequence < 0", (number,))
        if self.is_complete(writer):
            self._drop_gone(number, self.gone(writer))
        self._mark(writer, received, upto, self.owed.get(writer, 0) if upto < received else 0)

    def prune(self, writer: WriterId, segment: int) -> None:
        """Drop parts of a segment that are obsolete, if all of the log is here that its last ones wait for."""
        if self.is_complete(writer):
            self._store.begin()
            self._prune(self._store.number_of(writer), segment)

    def _prune(self, number: int, segment: int) -> None:
        self._db.execute(
            "DELETE FROM part WHERE writer = ?1 AND segment = ?2 AND epoch < "
            "(SELECT max(epoch) FROM part WHERE writer = ?1 AND segment = ?2)",
            (number, segment),
        )

    def _drop_gone(self, number: int, gone: Iterable[Gone]) -> None:
        """Drop transactions without parts."""
        self._db.executemany(
            "DELETE FROM tx WHERE writer = ? AND sequence BETWEEN ? AND ?",
            [(number, one.first, one.last) for one in gone],
        )

    def set_aside(self, writer: WriterId, owed: int) -> None:
        """Forget a writer's log up to what it shows; it is fetched anew, and shown once it is here up to ``owed``."""
        self._store.begin()
        number = self._store.number_of(writer)
        self._db.execute("DELETE FROM tx WHERE writer = ?", (number,))
        if self.is_set_aside(writer):
            self._db.execute("DELETE FROM part WHERE writer = ? AND sequence > 0", (number,))
        self._db.execute(
            "UPDATE part SET sequence = sequence - ? WHERE writer = ? AND sequence > 0", (SET_ASIDE, number)
        )
        self._warrant[writer] = 0
        self._mark(writer, 0, 0, max(owed, 1))  # it waits, even if nobody has anything of it

    def drop(self, writer: WriterId, upto: int) -> None:
        """Forget a writer's log for good: others hold its records, up to a sequence."""
        self._store.begin()
        number = self._store.number_of(writer)
        self._db.execute("DELETE FROM tx WHERE writer = ?", (number,))
        self._db.execute("DELETE FROM part WHERE writer = ?", (number,))
        self._mark(writer, upto, upto, 0)

    def cut(self, writer: WriterId, upto: int) -> None:
        """Regard a writer's log as ending with a transaction; what is behind it is of no use to anybody."""
        self._store.begin()
        self._db.execute("DELETE FROM tx WHERE writer = ? AND sequence > ?", (self._store.number_of(writer), upto))
        self._mark(writer, min(upto, self.received[writer]), min(upto, self.received[writer]), 0)

    def remember(self, writer: WriterId, sequences: Iterable[int]) -> None:
        """Keep the clocks and digests of transactions that are dropped, the last ones."""
        number = self._store.number_of(writer)
        for sequence in sequences:
            query = "SELECT header FROM tx WHERE writer = ? AND sequence = ?"
            for (header,) in self._db.execute(query, (number, sequence)).fetchall():
                kept = (number, sequence, header_of(header).clock, digest(header))
                self._db.execute("INSERT OR REPLACE INTO dropped VALUES (?, ?, ?, ?)", kept)
        query = "DELETE FROM dropped WHERE writer = ? AND sequence < ?"
        self._db.execute(query, (number, self.received[writer] - REMEMBERED))

    def _mark(self, writer: WriterId, sequence: int, applied: int, owed: int) -> None:
        warrant = self._warrant.get(writer, 0)
        self._db.execute(
            "UPDATE writer SET sequence = ?, applied = ?, owed = ?, warrant = ? WHERE id = ?",
            (sequence, applied, owed, warrant, self._store.number_of(writer)),
        )
        self.received[writer], self.applied[writer], self.owed[writer] = sequence, applied, owed

    def undone(self, writer: WriterId) -> None:
        """Read a writer's marks anew: a change was rolled back."""
        query = "SELECT sequence, applied, owed, warrant FROM writer WHERE id = ?"
        row = self._db.execute(query, (self._store.number_of(writer),)).fetchone()
        self.received[writer], self.applied[writer], self.owed[writer], self._warrant[writer] = row

    # -- reading ------------------------------------------------------------------------------------------------------

    def transactions(self, writer: WriterId, after: int) -> Iterable[Stored]:
        """Yield a writer's transactions in order."""
        rows = self._db.execute(
            "SELECT sequence, header, signature FROM tx WHERE writer = ? AND sequence > ? ORDER BY sequence",
            (self._store.number_of(writer), after),
        )
        return (Stored(*row) for row in rows)

    def last(self, writer: WriterId) -> Stored | None:
        """Return a writer's last transaction."""
        row = self._db.execute(
            "SELECT sequence, header, signature FROM tx WHERE writer = ? ORDER BY sequence DESC LIMIT 1",
            (self._store.number_of(writer),),
        ).fetchone()
        return None if row is None else Stored(*row)

    def digest(self, writer: WriterId, sequence: int) -> bytes:
        """Return what tells a transaction from another one of its number; empty when it isn't kept here."""
        which = self._store.number_of(writer), sequence
        row = self._db.execute("SELECT header FROM tx WHERE writer = ? AND sequence = ?", which).fetchone()
        if row is not None:
            return digest(row[0])
        row = self._db.execute("SELECT digest FROM dropped WHERE writer = ? AND sequence = ?", which).fetchone()
        return b"" if row is None else bytes(row[0])

    def earlier(self, writer: WriterId, sequence: int) -> tuple[tuple[int, bytes], ...]:
        """Return (number, digest) of some transactions before one, the last first: many close to it, few far away."""
        found: dict[int, bytes] = {}
        for gap in GAPS:
            which = self._store.number_of(writer), sequence - gap
            query = "SELECT max(sequence) FROM {} WHERE writer = ? AND sequence <= ?"
            kept = [self._db.execute(query.format(table), which).fetchone()[0] or 0 for table in ("tx", "dropped")]
            if max(kept):
                found[max(kept)] = self.digest(writer, max(kept))
        return tuple(sorted(found.items(), reverse=True))

    def clock_at(self, writer: WriterId, upto: int) -> int:
        """Return the clock of a writer's last transaction up to one that is known still; 0 when none is."""
        which = self._store.number_of(writer), upto
        query = "SELECT header FROM tx WHERE writer = ? AND sequence <= ? ORDER BY sequence DESC LIMIT 1"
        kept = [header_of(header).clock for (header,) in self._db.execute(query, which)]
        query = "SELECT max(clock) FROM dropped WHERE writer = ? AND sequence <= ?"
        return max(*kept, 0, self._db.execute(query, which).fetchone()[0] or 0)

    def update(self, writer: WriterId, segment: int, sequence: int) -> bytes | None:
        """Return one part of a transaction; None when it was dropped."""
        row = self._db.execute(
            "SELECT data FROM part WHERE writer = ? AND segment = ? AND sequence = ?",
            (self._store.number_of(writer), segment, sequence),
        ).fetchone()
        return None if row is None else bytes(row[0])

    def witness(self, writer: WriterId, segment: int, epoch: int) -> Stored | None:
        """Return the transaction that wrote a segment anew, after an epoch; None while it isn't here."""
        row = self._db.execute(
            "SELECT tx.sequence, header, signature FROM part JOIN tx USING (writer, sequence) "
            "WHERE part.writer = ? AND segment = ? AND sequence > 0 AND whole AND epoch > ? ORDER BY epoch DESC LIMIT 1",
            (self._store.number_of(writer), segment, epoch),
        ).fetchone()
        return None if row is None else Stored(*row)

    def parts(self, writer: WriterId, segment: int) -> list[Part]:
        """Return the parts of a segment that count, in order: those of its last epoch."""
        return self._parts(writer, segment, "sequence > 0")

    def readable_parts(self, writer: WriterId, segment: int) -> list[Part]:
        """Return the parts of a segment that count of what is here, where its last epoch may have arrived in part."""
        parts = self.parts(writer, segment)
        if not parts or not parts[0].epoch or parts[0].whole:
            return parts
        query = "SELECT max(epoch) FROM part WHERE writer = ? AND segment = ? AND sequence > 0 AND whole"
        epoch = self._db.execute(query, (self._store.number_of(writer), segment)).fetchone()[0] or 0
        return self._parts(writer, segment, f"sequence > 0 AND epoch = {epoch}")

    def shown_parts(self, writer: WriterId, segment: int) -> list[Part]:
        """Return the parts of a segment that make up what records and view have of it."""
        if aside := self._parts(writer, segment, "sequence < 0"):
            return aside
        return self._parts(writer, segment, f"sequence BETWEEN 1 AND {self.applied.get(writer, 0)}")

    def parts_until(self, writer: WriterId, segment: int, sequence: int) -> list[Part]:
        """Return the parts of a segment up to a transaction, if it was not written anew since."""
        now, then = self.parts(writer, segment), self._parts(writer, segment, f"sequence BETWEEN 1 AND {sequence}")
        return then if then and now and then[-1].epoch == now[-1].epoch else []

    def _parts(self, writer: WriterId, segment: int, which: str) -> list[Part]:
        query = f"SELECT epoch, data, whole FROM part WHERE writer = ? AND segment = ? AND {which} ORDER BY sequence"  # noqa: S608 (fixed text)
        rows = self._db.execute(query, (self._store.number_of(writer), segment)).fetchall()
        last = max((epoch for epoch, _, _ in rows), default=0)
        return [Part(segment, epoch, bytes(data), bool(whole)) for epoch, data, whole in rows if epoch == last]

    def last_segment(self, writer: WriterId) -> int | None:
        """Return the number of a writer's last segment; None when there is none."""
        query = "SELECT max(segment) FROM part WHERE writer = ?"
        found: int | None = self._db.execute(query, (self._store.number_of(writer),)).fetchone()[0]
        return found

    def unshown_segments(self, writer: WriterId) -> list[int]:
        """Return the segments of which records and view may show something else than the log says."""
        number, applied, segment = self._store.number_of(writer), self.applied.get(writer, 0), -1
        found: list[int] = []
        following = "SELECT segment FROM part WHERE writer = ? AND segment > ? ORDER BY segment LIMIT 1"
        of_it = "EXISTS (SELECT 1 FROM part WHERE writer = ?1 AND segment = ?2 AND"
        differs = f"SELECT {of_it} sequence < 0) OR {of_it} sequence > ?3)"
        while (row := self._db.execute(following, (number, segment)).fetchone()) is not None:  # not through all parts
            segment = row[0]
            if self._db.execute(differs, (number, segment, applied)).fetchone()[0]:
                found.append(segment)
        return found

    def changed_since(self, writer: WriterId, after: int) -> list[int]:
        """Return the segments that transactions after one changed."""
        query = "SELECT DISTINCT segment FROM part WHERE writer = ? AND sequence > ? ORDER BY segment"
        return [row[0] for row in self._db.execute(query, (self._store.number_of(writer), after))]

    def superseded(self, writer: WriterId, segments: Sequence[int]) -> list[int]:
        """Return the transactions of which nothing is left once these segments are written anew."""
        number = self._store.number_of(writer)
        found: list[int] = []
        candidates: dict[int, bytes] = {}
        for segment in segments:
            query = (
                "SELECT sequence, header FROM part JOIN tx USING (writer, sequence) WHERE writer = ? AND segment = ?"
            )
            candidates.update(self._db.execute(query, (number, segment)).fetchall())
        for sequence, raw in sorted(candidates.items()):
            others = [one.segment for one in header_of(raw).parts if one.segment not in segments]
            if all(self.update(writer, segment, sequence) is None for segment in others):
                found.append(sequence)
        return found

    def warrant(self, writer: WriterId) -> Stored | None:
        """Return the last transaction of a writer that names those which are gone."""
        found = self._db.execute(
            "SELECT sequence, header, signature FROM tx WHERE writer = ? AND sequence = ?",
            (self._store.number_of(writer), self._warrant.get(writer, 0)),
        ).fetchone()
        return None if found is None else Stored(*found)

    def gone(self, writer: WriterId) -> tuple[Gone, ...]:
        """Return the transactions of a writer that are gone."""
        warrant = self.warrant(writer)
        return () if warrant is None else header_of(warrant.header).gone

    def weights(self, writer: WriterId, first: int, last: int) -> list[tuple[int, int, int, int]]:
        """Return (segment, parts, bytes, bytes of these written as a whole) of segments of a writer, in order."""
        return self._db.execute(
            "SELECT segment, count(*), sum(length(data)), sum(length(data) * whole) FROM part "
            "WHERE writer = ? AND segment BETWEEN ? AND ? AND sequence > 0 GROUP BY segment ORDER BY segment",
            (self._store.number_of(writer), first, last),
        ).fetchall()
