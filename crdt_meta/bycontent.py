"""Which files show a content: the start of each content's id with the inode, a table that is written in its order.

Contents' ids are random: of files that come one after the other each would change another page of an index over all.
So many changes are gathered in memory, in portions of neighbouring ids. One portion after the other is written once too
many wait, or nothing much comes any more; few changes go with their commit. While some wait, a mark says so in the file:
after a crash the table is then made anew from the rows of the inodes.

Must never: be asked without what waits; write within a savepoint, which may be taken back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from base.ids import EMPTY_CONTENT, ContentId, InodeId
from crdt_meta.store import Store

START_BYTES: Final = 6
PORTIONS: Final = 256
"""By the first byte of their ids."""
FEW: Final = 256
"""So many changes are written with the commit that they belong to."""
PORTION_LIMIT: Final = 1 << 10
"""So many of one portion, four times as many as there are in the mean: a question looks through all of it."""
WAITING_LIMIT: Final = 1 << 16
"""So many wait at most: 10 MB, and of a million files 6 to each page that is written."""
MARK: Final = "contents wait"
FORMER_INDEX: Final = "inode_by_content_start"
"""What earlier releases had instead, and make again when they open the file."""


class ByContent:
    """See the module. Contents of siblings aren't in it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[dict[bytes, bool]] = [{} for _ in range(PORTIONS)]
        """Portion → start and inode → whether that file shows such a content now."""
        self._count = 0
        self._left = 0
        """What the last commit left waiting."""
        self._large: set[int] = set()
        """Portions of which too much waits: somebody chose the ids."""
        self._next = 0
        """The portion to be written next."""
        self._is_marked = False
        self._undo: list[tuple[bytes, bool | None]] = []
        """What was changed since the savepoint, and what was said of it before."""
        former = store.db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (FORMER_INDEX,)).fetchone()
        if former is not None or store.get_meta(MARK) is not None:
            self._make_anew()
        store.on_commit.append(self._write_some)
        store.on_savepoint.append(self._undo.clear)
        store.on_undo.append(self._take_back)

    def _make_anew(self) -> None:
        self._store.begin()
        for statement in (
            "DELETE FROM content_start",
            "INSERT INTO content_start SELECT substr(content, 1, 6), id FROM inode WHERE content IS NOT NULL ORDER BY 1, 2",
            f"DROP INDEX IF EXISTS {FORMER_INDEX}",
            f"DELETE FROM meta WHERE key = '{MARK}'",  # noqa: S608 (fixed text)
        ):
            self._store.db.execute(statement)
        self._store.commit()

    def forget(self) -> None:
        """Forget what waits: the rows of all inodes were removed."""
        self._waiting = [{} for _ in range(PORTIONS)]
        self._count = 0

    # -- changes ------------------------------------------------------------------------------------------------------

    def changed(self, inode: InodeId, old: ContentId, new: ContentId) -> None:
        """Note that a file shows another content than before; the empty one stands for none."""
        if old != EMPTY_CONTENT:
            self._put(old[:START_BYTES] + inode, shows=False)
        if new != EMPTY_CONTENT:
            self._put(new[:START_BYTES] + inode, shows=True)

    @property
    def waits(self) -> bool:
        """Whether something waits to be written."""
        return self._count > 0

    def _put(self, key: bytes, *, shows: bool) -> None:
        portion = self._waiting[key[0]]
        before = portion.get(key)
        if self._store.has_savepoint:
            self._undo.append((key, before))
        portion[key] = shows
        self._count += before is None
        if len(portion) > PORTION_LIMIT:
            self._large.add(key[0])

    def _take_back(self) -> None:
        for key, before in reversed(self._undo):
            if before is not None:
                self._waiting[key[0]][key] = before
            elif self._waiting[key[0]].pop(key, None) is not None:
                self._count -= 1
        self._undo.clear()

    def _write_some(self, everything: bool) -> None:
        """Write all if that is little; else one portion when nothing much has come since, and more if too much waits."""
        self._write(self._large)
        self._large.clear()
        came, few = self._count - self._left, self._count <= FEW
        if everything or few:
            self._write(range(PORTIONS))
        elif came <= FEW:
            self._write_next()
        while self._count > WAITING_LIMIT:
            self._write_next()
        self._left = self._count
        if self._count and not self._is_marked:
            self._store.set_meta(MARK, b"")
        elif self._is_marked and not self._count:
            self._store.db.execute("DELETE FROM meta WHERE key = ?", (MARK,))
        self._is_marked = self._count > 0

    def _write_next(self) -> None:
        self._write(range(self._next, self._next + 1))
        self._next = (self._next + 1) % PORTIONS

    def _write(self, portions: Iterable[int]) -> None:
        changes: list[tuple[bytes, bool]] = []
        for at in portions:
            if self._waiting[at]:
                changes += sorted(self._waiting[at].items())
                self._waiting[at] = {}
        if changes:
            self._count -= len(changes)
            came = [(key[:START_BYTES], key[START_BYTES:]) for key, shows in changes if shows]
            gone = [(key[:START_BYTES], key[START_BYTES:]) for key, shows in changes if not shows]
            self._store.write_rows("content_start", came)
            self._store.db.executemany("DELETE FROM content_start WHERE start = ? AND inode = ?", gone)

    # -- questions: for what waits; the rest is in the table ----------------------------------------------------------

    def waiting_of(self, content: ContentId) -> list[InodeId]:
        """Return the files of which it waits that they show, or no longer show, such a content."""
        start = content[:START_BYTES]
        return [InodeId(key[START_BYTES:]) for key in self._waiting[start[0]] if key.startswith(start)]

    def waiting(self, after: bytes) -> Iterator[list[InodeId]]:
        """Yield the files that wait, by portions in the order of their contents, from one of these on or a little before."""
        for portion in self._waiting[after[0] if after else 0 :]:
            if portion:
                yield [InodeId(key[START_BYTES:]) for key, shows in portion.items() if shows]
