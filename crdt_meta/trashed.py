"""The view's rows of what is in the trash: what no file shows and nobody purged.

Like all of the view a pure function of the records: neither time nor configuration is asked. Files that live and never
lost anything pay for none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, LinkId, WriterId
from crdt_meta.derive import (
    InodeState,
    Version,
    Written,
    edges_of,
    is_named,
    more_dots,
    name_of,
    purged_dots,
    settled_dots,
)
from crdt_meta.node import Kind
from crdt_meta.records import Deletion, Overwritten, Strategy, Why
from crdt_meta.recordtable import Records
from crdt_meta.rows import InodeRow, pack_dots, unpack_dots
from crdt_meta.store import Store
from crdt_meta.table import Table

CACHED_INODES: Final = 4096


class Grave(NamedTuple):
    """Where and by whom a file was removed: what the latest deletion of its links says."""

    removed: int
    """Its clock."""
    by: WriterId
    link: LinkId
    parent: InodeId
    name: bytes
    why: Why


class TrashRow(NamedTuple):
    """A content in the trash."""

    inode: InodeId
    dot: Dot
    why: Why
    content: ContentId
    size: int
    mtime_ns: int
    removed: int
    """The clock of what put it there."""
    by: WriterId
    """Who put it there; of what lost a conflict, who wrote it."""
    more_dots: tuple[Dot, ...]
    """Further writes of the same content, as `SiblingRow.more_dots`."""
    link: LinkId | None
    """Of a file that is gone: its last link, and where that was."""
    parent: InodeId | None
    name: bytes | None

    @property
    def dots(self) -> tuple[Dot, ...]:
        """All dots that purging it has to name."""
        return (self.dot, *self.more_dots)

    @property
    def key(self) -> TrashKey:
        """Its place in the order of `Trashed.page`."""
        return TrashKey(self.removed, self.inode, self.dot)


class TrashKey(NamedTuple):
    """Orders the rows by time."""

    removed: int
    inode: InodeId
    dot: Dot


def grave_of(records: Records, links: Iterable[LinkId]) -> Grave | None:
    """Return where a file of these links went; None when no link is known."""
    deletions = [
        (body.clock, writer, link, body.why)
        for link in links
        for writer, body in records.of(link, "d")
        if isinstance(body, Deletion)
    ]
    removed, by, link, why = max(deletions, default=(0, WriterId(bytes(8)), min(links, default=None), Why.DELETED))
    if link is None:
        return None
    found = records.of(link, "lpn")
    name = name_of(found)
    return None if name is None else Grave(removed, by, link, edges_of(found)[0].parent, name, why)


def trash_rows(
    inode: InodeId,
    state: InodeState,
    versions: Sequence[Version],
    shows: bool,
    records: Sequence[Written],
    grave: Grave | None,
) -> tuple[TrashRow, ...]:
    """Return what is in the trash of a file; ``shows``: whether the file is shown at all, so that it isn't a grave."""
    if state.kind is not Kind.FILE or (grave is None and not shows):
        return ()
    place = (None, None, None) if shows or grave is None else grave[2:5]
    shown = state.versions if shows else ()
    hidden: list[Version] = []
    if shown and shown[0].strategy is Strategy.LAST_WRITER_WINS:
        hidden = [one for one in shown if one.content != shown[0].content]
    purged = purged_dots(records)
    rows: dict[Dot, TrashRow] = {}

    def add(group: list[Version], why: Why, removed: int, by: WriterId) -> None:
        dot, content, size, mtime_ns = group[0][:4]
        rows[dot] = TrashRow(inode, dot, why, content, size, mtime_ns, removed, by, more_dots(group), *place)

    for group in _by_content(hidden):
        add(group, Why.CONFLICT, shown[0].dot.clock, group[0].dot.writer)
    if grave is not None:
        hides = bool(versions) and versions[0].strategy is Strategy.LAST_WRITER_WINS
        gone = [one for one in versions if one not in shown and not is_named(one, purged)]
        for group in _by_content(gone):
            if hides and not shows and group[0].content != versions[0].content:
                add(group, Why.CONFLICT, grave.removed, group[0].dot.writer)
            else:
                add(group, grave.why, grave.removed, grave.by)
    named = {one.dot for one in versions} | settled_dots(records)
    for by, body in sorted(records, key=lambda one: (one[1].clock, one[0])):
        if isinstance(body, Overwritten) and body.dot not in named:
            author = body.dot.writer if body.why is Why.CONFLICT else by
            facts = (body.content, body.size, body.mtime_ns, body.clock, author, ())
            rows[body.dot] = TrashRow(inode, body.dot, body.why, *facts, *place)
    return tuple(rows[dot] for dot in sorted(rows))


def _by_content(versions: Iterable[Version]) -> Iterable[list[Version]]:
    groups: dict[ContentId, list[Version]] = {}
    for one in versions:
        groups.setdefault(one.content, []).append(one)
    return groups.values()


class Trashed:
    """Keeps the rows. Follows a `View`, which calls `refresh` for each inode that it derives anew."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store = store
        self._records = records
        self._rows: Table[InodeId, tuple[TrashRow, ...]] = Table(CACHED_INODES, self._load, self._write)
        self._bytes: int | None = None
        """Counted when first asked for; followed from then on."""
        store.on_flush.append(self._rows.flush)
        store.on_clear.append(self._clear)

    def _clear(self) -> None:
        self._rows.clear()
        self._bytes = None

    def absent(self, inode: InodeId) -> None:
        """Note that no record of an inode was ever applied."""
        self._rows.absent(inode)

    def refresh(
        self,
        inode: InodeId,
        old: InodeRow | None,
        new: InodeRow | None,
        state: InodeState | None,
        versions: Sequence[Version],
        records: Sequence[Written],
        deletions: Mapping[LinkId, Sequence[Deletion]],
        look: bool,
    ) -> set[ContentId]:
        """Derive the rows of an inode anew; return the contents that came or went.

        ``look``: other records of it changed than its contents and attributes.
        """
        deleted = any(deletions.values())
        plain = not (look or deleted or old is None or new is None or old.more_dots or new.more_dots)
        if plain and not any(isinstance(body, Overwritten) for _, body in records):
            return set()
        rows: tuple[TrashRow, ...] = ()
        if state is not None:
            grave = grave_of(self._records, deletions) if deleted or new is None else None
            rows = trash_rows(inode, state, versions, new is not None, records, grave)
        before = self._rows.get(inode) or ()
        if rows == before:
            return set()
        self._rows.put(inode, rows or None)
        if self._bytes is not None:
            self._bytes += sum(row.size for row in rows) - sum(row.size for row in before)
        return {row.content for row in before} ^ {row.content for row in rows}

    # -- the table ----------------------------------------------------------------------------------------------------

    def _row(self, row: tuple[Any, ...]) -> TrashRow:
        inode, dot, why, content, size, mtime_ns, removed, by, more, link, parent, name = row
        if link is None and name is not None:
            link = LinkId(inode)
        content = ContentId(content) if content is not None else EMPTY_CONTENT
        rest = (size, mtime_ns, removed, by, unpack_dots(more), link, parent, name)
        return TrashRow(inode, _dot(dot), Why(why), content, *rest)

    def _load(self, inode: InodeId) -> tuple[TrashRow, ...] | None:
        found = self._store.db.execute("SELECT * FROM trash WHERE inode = ? ORDER BY dot", (inode,)).fetchall()
        return tuple(self._row(row) for row in found) or None

    def _write(self, changes: Mapping[InodeId, tuple[TrashRow, ...] | None]) -> None:
        self._store.db.executemany("DELETE FROM trash WHERE inode = ?", [(inode,) for inode in changes])
        rows = [
            (
                *(row.inode, _packed(row.dot), int(row.why), None if row.content == EMPTY_CONTENT else row.content),
                *(row.size, row.mtime_ns, row.removed, row.by, pack_dots(row.more_dots)),
                *(None if row.link is None or bytes(row.link) == row.inode else row.link, row.parent, row.name),
            )
            for found in changes.values()
            for row in found or ()
        ]
        self._store.db.executemany("INSERT INTO trash VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def of(self, inode: InodeId) -> tuple[TrashRow, ...]:
        """Return what is in the trash of one file."""
        return self._rows.get(inode) or ()

    def page(self, after: TrashKey | None, limit: int, *, oldest_first: bool = False) -> list[TrashRow]:
        """Return rows in the order of their removal, the latest first, from the one behind ``after`` on."""
        sign, order = (">", "ASC") if oldest_first else ("<", "DESC")
        where, given = "", tuple[bytes | int, ...]()
        if after is not None:
            where, given = f"WHERE (removed, inode, dot) {sign} (?, ?, ?)", (*after[:2], _packed(after.dot))
        query = f"SELECT * FROM trash {where} ORDER BY removed {order}, inode {order}, dot {order} LIMIT ?"  # noqa: S608 (fixed words)
        return [self._row(row) for row in self._store.query(query, (*given, limit))]

    def named(self, name: bytes, parent: InodeId | None = None) -> Iterator[TrashRow]:
        """Yield the rows of files that are gone and had a name, in one directory or anywhere."""
        where, given = ("", (name,)) if parent is None else (" AND parent = ?", (name, parent))
        query = f"SELECT * FROM trash WHERE name = ?{where} ORDER BY parent, inode, dot"  # noqa: S608 (fixed words)
        return (self._row(row) for row in self._store.query(query, given))

    def anything_in(self, directory: InodeId) -> bool:
        """Tell whether a file that is gone was in a directory."""
        return bool(self._store.query("SELECT 1 FROM trash WHERE parent = ? LIMIT 1", (directory,)))

    def contents(self, after: ContentId | None, limit: int) -> list[tuple[ContentId, int, WriterId]]:
        """Return (content, size, writer) of contents in the trash, but the empty one, in the order of their ids."""
        query = "SELECT content, size, dot FROM trash WHERE content > ? ORDER BY content, size, dot LIMIT ?"
        found: dict[ContentId, tuple[int, WriterId]] = {}
        at: bytes = after or b""
        while len(found) < limit and (rows := self._store.query(query, (at, limit))):
            for content, size, dot in rows:
                found.setdefault(ContentId(content), (size, _dot(dot).writer))
            at = rows[-1][0]
        return [(content, *rest) for content, rest in list(found.items())[:limit]]

    def holding(self, content: ContentId) -> list[TrashRow]:
        """Return the rows of one content."""
        query = "SELECT * FROM trash WHERE content = ? ORDER BY inode, dot"
        return [self._row(row) for row in self._store.query(query, (content,))]

    @property
    def bytes(self) -> int:
        """The sizes of all contents in the trash, also of those that files show as well."""
        if self._bytes is None:
            # in two halves: hostile sizes must not overflow the sum
            query = "SELECT coalesce(sum(size >> 32), 0), coalesce(sum(size & 4294967295), 0) FROM trash"
            ((high, low),) = self._store.query(query)
            self._bytes = (high << 32) + low
        return self._bytes


def _packed(dot: Dot) -> bytes:
    return dot.writer + dot.clock.to_bytes(8, "big")


def _dot(packed: bytes) -> Dot:
    return Dot(WriterId(packed[:8]), int.from_bytes(packed[8:], "big"))
