"""Rows of the view about inodes: what each shows, its siblings, and what directories count."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgpack

from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, WriterId
from crdt_meta.bycontent import START_BYTES, ByContent
from crdt_meta.node import Kind
from crdt_meta.records import Strategy
from crdt_meta.store import Store
from crdt_meta.table import Table

CACHED_INODES: Final = 16384
TOTALS: Final = "totals"
_KINDS: Final = {kind.value: kind for kind in Kind}
_STRATEGIES: Final = {strategy.value: strategy for strategy in Strategy}
"""Looking there takes a tenth of the time that calling an enumeration does, and every row has both."""


class InodeRow(NamedTuple):
    """What an inode shows. Those of files are there while a link lives, those of directories always."""

    id: InodeId
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    size: int
    content: ContentId
    target: bytes
    rdev: int
    dot: Dot
    more_dots: tuple[Dot, ...]
    strategy: Strategy

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        """Of two files of one name the greater has the name."""
        return self.dot.clock, self.dot.writer, self.id


class SiblingRow(NamedTuple):
    """A content of an inode that is shown beside it, under an id and name of its own."""

    inode: InodeId
    dot: Dot
    id: InodeId
    content: ContentId
    size: int
    mtime_ns: int
    more_dots: tuple[Dot, ...]


def pack_dots(dots: tuple[Dot, ...]) -> bytes | None:
    """Return dots as a column's value; none are NULL."""
    return msgpack.packb(dots) if dots else None


def unpack_dots(value: bytes | None) -> tuple[Dot, ...]:
    """Return the dots of a column."""
    return () if value is None else tuple(Dot(WriterId(w), c) for w, c in msgpack.unpackb(value))


class Rows:
    """Inodes, siblings, what directories count, twins."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._db: sqlite3.Connection = store.db
        self._inodes: Table[InodeId, InodeRow] = Table(CACHED_INODES, self._load_inode, self._write_inodes)
        self._directories: Table[InodeId, tuple[int, int]] = Table(
            CACHED_INODES, self._load_directory, self._write_directories
        )
        self.by_content = ByContent(store)
        store.on_flush += [self._inodes.flush, self._directories.flush]
        store.on_clear += [self._inodes.clear, self._directories.clear]

    def inode_row(self, row: tuple[Any, ...]) -> InodeRow:
        """Return a row of ``inode``."""
        inode, kind, mode, uid, gid, mtime, ctime, size, content, target, rdev, number, clock, more, strategy = row
        dot = Dot(self._store.writer_of(number), clock)
        content = EMPTY_CONTENT if content is None else content
        dots = () if more is None else unpack_dots(more)
        kind, strategy, target = _KINDS[kind], _STRATEGIES[strategy], target or b""
        return InodeRow(inode, kind, mode, uid, gid, mtime, ctime, size, content, target, rdev, dot, dots, strategy)

    def _load_inode(self, inode: InodeId) -> InodeRow | None:
        row = self._db.execute("SELECT * FROM inode WHERE id = ?", (inode,)).fetchone()
        return None if row is None else self.inode_row(row)

    def _write_inodes(self, changes: Mapping[InodeId, InodeRow | None]) -> None:
        gone = [(inode,) for inode, row in changes.items() if row is None]
        rows = [
            (
                *(row.id, int(row.kind), row.mode, row.uid, row.gid, row.mtime_ns, row.ctime_ns, row.size),
                *(None if row.content == EMPTY_CONTENT else row.content, row.target or None, row.rdev),
                *(self._store.number_of(row.dot.writer), row.dot.clock, pack_dots(row.more_dots), int(row.strategy)),
            )
            for row in changes.values()
            if row is not None
        ]
        self._db.executemany("DELETE FROM inode WHERE id = ?", gone)
        self._store.write_rows("inode", rows)

    def inode(self, inode: InodeId) -> InodeRow | None:
        """Return what an inode shows."""
        return self._inodes.get(inode)

    def put_inode(self, inode: InodeId, row: InodeRow | None, old: InodeRow | None) -> None:
        """Write a row, which was ``old``; None removes it."""
        self._inodes.put(inode, row)
        before, after = EMPTY_CONTENT if old is None else old.content, EMPTY_CONTENT if row is None else row.content
        if before != after:
            self.by_content.changed(inode, before, after)

    def absent(self, inode: InodeId) -> None:
        """Note that an id is new."""
        self._inodes.absent(inode)

    def _sibling_row(self, row: tuple[Any, ...]) -> SiblingRow:
        inode, number, clock, shown, content, size, mtime_ns, more = row
        dot = Dot(self._store.writer_of(number), clock)
        return SiblingRow(inode, dot, shown, content, size, mtime_ns, unpack_dots(more))

    def siblings(self, inode: InodeId) -> list[SiblingRow]:
        """Return the siblings of an inode, the latest first."""
        rows = self._db.execute("SELECT * FROM sibling WHERE inode = ?", (inode,)).fetchall()
        return sorted((self._sibling_row(row) for row in rows), key=lambda row: row.dot[::-1], reverse=True)

    def all_siblings(self) -> list[SiblingRow]:
        """Return all siblings that there are."""
        return [self._sibling_row(row) for row in self._db.execute("SELECT * FROM sibling ORDER BY inode").fetchall()]

    def set_siblings(self, inode: InodeId, rows: list[SiblingRow]) -> None:
        """Replace the siblings of an inode."""
        self._db.execute("DELETE FROM sibling WHERE inode = ?", (inode,))
        self._db.executemany(
            "INSERT INTO sibling VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    *(row.inode, self._store.number_of(row.dot.writer), row.dot.clock, row.id),
                    *(row.content, row.size, row.mtime_ns, pack_dots(row.more_dots)),
                )
                for row in rows
            ],
        )

    def _load_directory(self, inode: InodeId) -> tuple[int, int]:
        row = self._db.execute("SELECT touched, subdirectories FROM directory WHERE id = ?", (inode,)).fetchone()
        return (0, 0) if row is None else row

    def _write_directories(self, changes: Mapping[InodeId, tuple[int, int] | None]) -> None:
        rows = [(inode, *row) for inode, row in changes.items() if row is not None]
        self._store.write_rows("directory", rows)

    def directory(self, inode: InodeId) -> tuple[int, int]:
        """Return (clock of the last change of its entries, number of subdirectories)."""
        return self._directories.get(inode) or (0, 0)

    def touch_directory(self, inode: InodeId, clock: int, more_subdirectories: int) -> None:
        """Note that an entry changed."""
        touched, subdirectories = self.directory(inode)
        self._directories.put(inode, (max(touched, clock), subdirectories + more_subdirectories))

    def set_twin(self, parent: InodeId, name: bytes, twin: bool) -> None:
        """Note whether several living links lay claim to a name."""
        query = "INSERT OR IGNORE INTO twin VALUES (?, ?)" if twin else "DELETE FROM twin WHERE parent = ? AND name = ?"
        self._db.execute(query, (parent, name))

    def twins(self) -> set[tuple[InodeId, bytes]]:
        """Return all (directory, name) to which several living links lay claim."""
        return {(InodeId(parent), name) for parent, name in self._db.execute("SELECT parent, name FROM twin")}

    def totals(self) -> tuple[int, int, int]:
        """Return (files, directories, bytes) as they were written with the rows, or counted where they never were."""
        found = self._store.get_meta(TOTALS)
        if found is None:
            self.set_totals(*self._counted())
            return self.totals()
        files, directories, size = (int(one) for one in found.split())
        return files, directories, size

    def set_totals(self, files: int, directories: int, size: int) -> None:
        """Write the totals; in the transaction that changes the rows."""
        self._store.set_meta(TOTALS, b"%d %d %d" % (files, directories, size))

    def _counted(self) -> tuple[int, int, int]:
        count, high, low = 0, 0, 0
        for table, where in (("inode", "WHERE kind = 1"), ("sibling", "")):
            # in two halves: hostile sizes must not overflow the sum
            halves = "coalesce(sum(size >> 32), 0), coalesce(sum(size & 4294967295), 0)"
            query = f"SELECT count(*), {halves} FROM {table} {where}"  # noqa: S608 (fixed names)
            more, more_high, more_low = self._db.execute(query).fetchone()
            count, high, low = count + more, high + more_high, low + more_low
        (directories,) = self._db.execute("SELECT count(*) FROM link WHERE kind = 2 AND alive > 0").fetchone()
        return count, directories, (high << 32) + low

    def contents(self, after: ContentId | None, limit: int) -> list[tuple[ContentId, int, WriterId]]:
        """Return (content, size, writer) of contents that files show, but the empty one, in the order of their ids."""
        at = after or b""
        query = (
            "SELECT inode.content, size, writer FROM content_start CROSS JOIN inode ON inode.id = inode "
            "WHERE start >= ?1 AND content > ?2 AND substr(content, 1, 6) = start ORDER BY start, content LIMIT ?3"
        )
        rows = [
            (*row[:2], self._store.writer_of(row[2])) for row in self._store.query(query, (at[:START_BYTES], at, limit))
        ]
        query = "SELECT content, size, writer FROM sibling WHERE content > ? AND content != ? ORDER BY content LIMIT ?"
        others = self._store.query(query, (at, EMPTY_CONTENT, limit))
        rows += [(*row[:2], self._store.writer_of(row[2])) for row in others]
        waiting: list[tuple[bytes, int, WriterId]] = []
        for portion in self.by_content.waiting(at):
            found = (row for inode in portion if (row := self.inode(inode)) is not None)
            waiting += [(row.content, row.size, row.dot.writer) for row in found if row.content > at]
            if len(waiting) >= limit:
                break
        shown: dict[ContentId, tuple[int, WriterId]] = {}
        for content, size, writer in sorted((*rows, *waiting))[:limit]:
            shown.setdefault(ContentId(content), (size, writer))
        return [(content, *rest) for content, rest in shown.items()]

    def showing(self, content: ContentId) -> list[tuple[InodeId, int, WriterId]]:
        """Return (inode, size, writer) of what shows a content; siblings under their own ids."""
        query = (
            "SELECT id, size, writer FROM content_start CROSS JOIN inode ON id = inode WHERE start = ? AND content = ?"
        )
        rows = self._db.execute(query, (content[:START_BYTES], content)).fetchall()
        found = {InodeId(inode): (size, self._store.writer_of(number)) for inode, size, number in rows}
        for inode in (*filter(self._inodes.is_waiting, list(found)), *self.by_content.waiting_of(content)):
            row = self.inode(inode)
            if row is not None and row.content == content:
                found[inode] = row.size, row.dot.writer
            else:
                found.pop(inode, None)
        siblings = self._db.execute("SELECT id, size, writer FROM sibling WHERE content = ?", (content,)).fetchall()
        found.update((InodeId(shown), (size, self._store.writer_of(number))) for shown, size, number in siblings)
        return [(inode, *rest) for inode, rest in sorted(found.items())]
