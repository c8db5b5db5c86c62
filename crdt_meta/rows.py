"""Rows of the view about inodes: what each shows, its siblings, and what directories count."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

import msgpack

from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, WriterId
from crdt_meta.node import Kind
from crdt_meta.records import Strategy
from crdt_meta.store import Store


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
    """The SQL of inode, sibling, directory and twin."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._db: sqlite3.Connection = store.db

    def inode_row(self, row: tuple[Any, ...]) -> InodeRow:
        """Return a row of ``inode``."""
        inode, kind, mode, uid, gid, mtime, ctime, size, content, target, rdev, number, clock, more, strategy = row
        dot = Dot(self._store.writer_of(number), clock)
        content = EMPTY_CONTENT if content is None else content
        dots = () if more is None else unpack_dots(more)
        kind, strategy, target = Kind(kind), Strategy(strategy), target or b""
        return InodeRow(inode, kind, mode, uid, gid, mtime, ctime, size, content, target, rdev, dot, dots, strategy)

    def inode(self, inode: InodeId) -> InodeRow | None:
        """Return what an inode shows."""
        row = self._db.execute("SELECT * FROM inode WHERE id = ?", (inode,)).fetchone()
        return None if row is None else self.inode_row(row)

    def put_inode(self, row: InodeRow) -> None:
        """Write a row."""
        content = None if row.content == EMPTY_CONTENT else row.content
        self._db.execute(
            "INSERT OR REPLACE INTO inode VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(row.id, int(row.kind), row.mode, row.uid, row.gid, row.mtime_ns, row.ctime_ns, row.size, content),
                *(row.target or None, row.rdev, self._store.number_of(row.dot.writer), row.dot.clock),
                *(pack_dots(row.more_dots), int(row.strategy)),
            ),
        )

    def drop_inode(self, inode: InodeId) -> None:
        """Remove a row."""
        self._db.execute("DELETE FROM inode WHERE id = ?", (inode,))

    def _sibling_row(self, row: tuple[Any, ...]) -> SiblingRow:
        inode, number, clock, shown, content, size, mtime_ns, more = row
        dot = Dot(self._store.writer_of(number), clock)
        return SiblingRow(inode, dot, shown, content, size, mtime_ns, unpack_dots(more))

    def siblings(self, inode: InodeId) -> list[SiblingRow]:
        """Return the siblings of an inode, the latest first."""
        query = "SELECT * FROM sibling WHERE inode = ? ORDER BY clock DESC, writer"
        return [self._sibling_row(row) for row in self._db.execute(query, (inode,)).fetchall()]

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

    def has_children(self, inode: InodeId) -> bool:
        """Tell whether a directory has a living entry."""
        query = "SELECT 1 FROM link WHERE parent = ? AND alive = 1 LIMIT 1"
        return self._db.execute(query, (inode,)).fetchone() is not None

    def directory(self, inode: InodeId) -> tuple[int, int]:
        """Return (clock of the last change of its entries, number of subdirectories)."""
        row = self._db.execute("SELECT touched, subdirectories FROM directory WHERE id = ?", (inode,)).fetchone()
        return (0, 0) if row is None else (row[0], row[1])

    def touch_directory(self, inode: InodeId, clock: int, more_subdirectories: int) -> None:
        """Note that an entry changed."""
        self._db.execute(
            "INSERT INTO directory VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "touched = max(touched, excluded.touched), subdirectories = subdirectories + excluded.subdirectories",
            (inode, clock, more_subdirectories),
        )

    def set_twin(self, parent: InodeId, name: bytes, twin: bool) -> None:
        """Note whether several living links lay claim to a name."""
        query = "INSERT OR IGNORE INTO twin VALUES (?, ?)" if twin else "DELETE FROM twin WHERE parent = ? AND name = ?"
        self._db.execute(query, (parent, name))

    def twins(self) -> set[tuple[InodeId, bytes]]:
        """Return all (directory, name) to which several living links lay claim."""
        return {(InodeId(parent), name) for parent, name in self._db.execute("SELECT parent, name FROM twin")}

    def repaired(self) -> list[InodeId]:
        """Return the directories whose place a cycle changed."""
        return [InodeId(row[0]) for row in self._db.execute("SELECT id FROM link WHERE edge > 0").fetchall()]

    def kept(self) -> set[InodeId]:
        """Return the directories that are deleted and stay for the sake of a living entry."""
        rows = self._db.execute(
            "SELECT DISTINCT link.id FROM record JOIN link ON link.id = record.node "
            "WHERE record.kind = 'd' AND link.kind = ? AND link.alive = 1",
            (int(Kind.DIRECTORY),),
        )
        return {InodeId(row[0]) for row in rows}

    def totals(self) -> tuple[int, int, int]:
        """Count files, directories and bytes (slow: reads the whole table)."""
        files, size = self._db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM inode WHERE kind = ?", (int(Kind.FILE),)
        ).fetchone()
        more, more_size = self._db.execute("SELECT count(*), coalesce(sum(size), 0) FROM sibling").fetchone()
        (directories,) = self._db.execute(
            "SELECT count(*) FROM link WHERE kind = ? AND alive = 1", (int(Kind.DIRECTORY),)
        ).fetchone()
        return files + more, directories, size + more_size

    def contents(self, after: ContentId | None, limit: int) -> list[tuple[ContentId, int, WriterId]]:
        """Return (content, size, writer) of contents that files show, in the order of their ids."""
        query = (
            "SELECT content, size, writer FROM inode WHERE content > ?1 "
            "UNION SELECT content, size, writer FROM sibling WHERE content > ?1 ORDER BY content LIMIT ?2"
        )
        found: dict[ContentId, tuple[int, WriterId]] = {}
        for content, size, number in self._db.execute(query, (after or b"", limit)):
            found.setdefault(ContentId(content), (size, self._store.writer_of(number)))
        return [(content, size, writer) for content, (size, writer) in found.items()]

    def showing(self, content: ContentId) -> list[tuple[InodeId, int, WriterId]]:
        """Return (inode, size, writer) of what shows a content; siblings under their own ids."""
        rows = self._db.execute("SELECT id, size, writer FROM inode WHERE content = ?", (content,)).fetchall()
        rows += self._db.execute("SELECT id, size, writer FROM sibling WHERE content = ?", (content,)).fetchall()
        return [(InodeId(row[0]), row[1], self._store.writer_of(row[2])) for row in rows]
