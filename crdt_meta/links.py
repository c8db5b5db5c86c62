"""The view's links: names in directories."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from base.ids import InodeId, LinkId
from crdt_meta.store import Store
from crdt_meta.table import Table

KEPT: Final = 2
"""`LinkRow.alive` of a deleted directory that stays for the sake of a living entry."""
CACHED_LINKS: Final = 16384
NAMES_A_QUERY: Final = 128
OFTEN: Final = 16
"""After so many names that were looked for in a directory, all of its names are read ..."""
NAMES_KNOWN: Final = 2048
"""... if they are less than half of this, and known until they are more."""
DIRECTORIES_KNOWN: Final = 64
FEW_INODES: Final = 10_000
"""Up to so many inodes of several links are known by heart."""
Place = tuple[InodeId, bytes]
"""A name in a directory."""


class LinkRow(NamedTuple):
    """A link as the view shows it. Those of files are there while they live, those of directories always."""

    id: LinkId
    inode: InodeId
    kind: int
    parent: InodeId
    name: bytes
    alive: int
    """0: dead, 1: alive, `KEPT`."""
    edge: int
    """Index of its edge; greater than 0 where a cycle was repaired."""


def link_row(row: tuple[Any, ...]) -> LinkRow:
    """Return a row of ``link``; the inode is stored only where it differs from the link's own id."""
    return LinkRow(row[0], row[1] or InodeId(row[0]), *row[2:])


class Names:
    """Which names the directories that work goes on in may have: for any other name no row has to be looked for."""

    def __init__(self, read: Callable[[InodeId, int], list[bytes]]) -> None:
        """``read`` returns the names of a directory's living links, and maybe others, up to a number."""
        self._read = read
        self._known: dict[InodeId, set[bytes]] = {}
        """Names that a directory has, or had a moment ago."""
        self._asked: dict[InodeId, int] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._asked.clear()

    def add(self, place: Place) -> None:
        """Note that there is a link of a name."""
        known = self._known.get(place[0])
        if known is not None:
            known.add(place[1])
            if len(known) > NAMES_KNOWN:
                del self._known[place[0]]

    def may_have(self, place: Place) -> bool:
        """Tell whether a link may have a name; where it was asked often, by all names of that directory."""
        directory, name = place
        known = self._known.get(directory)
        if known is None:
            asked = self._asked[directory] = self._asked.get(directory, 0) + 1
            if asked >= OFTEN and not asked & (asked - 1):  # seldom again where they were too many
                self._learn(directory)
            if len(self._asked) > DIRECTORIES_KNOWN:
                self._asked.clear()
        return known is None or name in known

    def _learn(self, directory: InodeId) -> None:
        names = self._read(directory, NAMES_KNOWN // 2)
        if len(names) < NAMES_KNOWN // 2:
            if len(self._known) >= DIRECTORIES_KNOWN:
                self._known.clear()
            self._known[directory] = set(names)


class Links:
    """Links by id, by name, and by inode."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: Table[LinkId, LinkRow] = Table(CACHED_LINKS, self._load, self._write)
        self._hard: Table[InodeId, tuple[LinkId, ...]] = Table(CACHED_LINKS, self._load_hard, self._write_hard)
        self._named: dict[Place, list[LinkRow]] = {}
        """Names asked for lately."""
        self._names = Names(self._some_names)
        self._waiting: dict[Place, dict[LinkId, LinkRow]] = {}
        """Living links that are not in the file yet."""
        self._several: set[InodeId] | None = None
        """The inodes of several links while they are few: for all others nothing has to be looked for."""
        self._are_few = False
        store.on_flush.append(self._flush)
        store.on_clear.append(self._clear)

    def _flush(self) -> None:
        self._rows.flush()
        self._hard.flush()

    def _clear(self) -> None:
        self._rows.clear()
        self._hard.clear()
        self._named.clear()
        self._names.clear()
        self._waiting.clear()
        self._several = None

    # -- by id --------------------------------------------------------------------------------------------------------

    def _load(self, link: LinkId) -> LinkRow | None:
        row = self._store.db.execute("SELECT * FROM link WHERE id = ?", (link,)).fetchone()
        return None if row is None else link_row(row)

    def _write(self, changes: Mapping[LinkId, LinkRow | None]) -> None:
        self._waiting.clear()
        gone = [(link,) for link, row in changes.items() if row is None]
        rows = [
            (row.id, None if bytes(row.inode) == bytes(row.id) else row.inode, *row[2:])
            for row in changes.values()
            if row is not None
        ]
        self._store.db.executemany("DELETE FROM link WHERE id = ?", gone)
        self._store.write_rows("link", rows)

    def get(self, link: LinkId) -> LinkRow | None:
        """Return a link's row."""
        return self._rows.get(link)

    def put(self, link: LinkId, row: LinkRow | None, old: LinkRow | None) -> None:
        """Write a link's row, which was ``old``; None removes it."""
        if old is not None and old.alive:
            place = (old.parent, old.name)
            if place in self._named:
                self._named[place] = [one for one in self._named[place] if one.id != link]
            if place in self._waiting:
                self._waiting[place].pop(link, None)
        if row is not None and row.alive:
            place = (row.parent, row.name)
            self._names.add(place)
            if place in self._named:
                self._named[place] = [*self._named[place], row]
            self._waiting.setdefault(place, {})[link] = row
        self._rows.put(link, row)

    def absent(self, link: LinkId) -> None:
        """Note that there is no row of a link."""
        self._rows.absent(link)

    def fresh(self, inode: InodeId) -> None:
        """Note that an id was just drawn: no link can point to it."""
        self._hard.absent(inode)

    # -- by name ------------------------------------------------------------------------------------------------------

    def named(self, parent: InodeId, name: bytes) -> list[LinkRow]:
        """Return the living links of a name in one directory."""
        place = (parent, name)
        found = self._named.get(place)
        if found is None:
            found = self._ask(place) if self._names.may_have(place) else []
            if len(self._named) >= CACHED_LINKS:
                self._named.clear()
            self._named[place] = found
        return found

    def _ask(self, place: Place) -> list[LinkRow]:
        query = "SELECT * FROM link WHERE parent = ? AND name = ? AND alive > 0"
        rows = self._store.db.execute(query, place).fetchall()
        found = [link_row(row) for row in rows if not self._rows.is_waiting(row[0])]
        for row in found:
            self._rows.known(row.id, row)
        return [*found, *self._waiting.get(place, {}).values()]

    def expect(self, places: Iterable[Place]) -> None:
        """Read who has many names with few queries."""
        unknown = [place for place in places if place not in self._named]
        if len(self._named) + len(unknown) >= CACHED_LINKS:
            self._named.clear()
        wanted: list[Place] = []
        for place in sorted(unknown):
            if self._names.may_have(place):
                wanted.append(place)
            else:
                self._named[place] = []
        for at in range(0, len(wanted), NAMES_A_QUERY):
            found: dict[Place, list[LinkRow]] = {place: [] for place in wanted[at : at + NAMES_A_QUERY]}
            query = (
                f"WITH wanted (parent, name) AS (VALUES {','.join(['(?, ?)'] * len(found))}) "  # noqa: S608
                "SELECT link.* FROM wanted CROSS JOIN link USING (parent, name) WHERE link.alive > 0"
            )
            for row in self._store.db.execute(query, [value for place in found for value in place]):
                if not self._rows.is_waiting(row[0]):
                    found[row[3], row[4]].append(link_row(row))
            for place, rows in found.items():
                self._named[place] = [*rows, *self._waiting.get(place, {}).values()]

    def names(self, directory: InodeId) -> list[bytes]:
        """Return the names of a directory's living links; one that several have comes several times."""
        query = "SELECT name FROM link WHERE parent = ? AND alive > 0"
        return [row[0] for row in self._store.query(query, (directory,))]

    def _some_names(self, directory: InodeId, limit: int) -> list[bytes]:
        """Return up to so many names that a directory's links have, or had in the file: nothing is written first."""
        query = "SELECT name FROM link WHERE parent = ? AND alive > 0 LIMIT ?"
        waiting = [name for parent, name in self._waiting if parent == directory]
        return [*waiting, *(row[0] for row in self._store.db.execute(query, (directory, limit)))]

    def names_after(self, directory: InodeId, name: bytes, limit: int) -> list[bytes]:
        """Return the first names of a directory's living links behind a name, in order."""
        query = "SELECT DISTINCT name FROM link WHERE parent = ? AND alive > 0 AND name > ? ORDER BY name LIMIT ?"
        return [row[0] for row in self._store.query(query, (directory, name, limit))]

    def subdirectory_names(self, directory: InodeId) -> list[bytes]:
        """Return the names of a directory's living subdirectories."""
        query = "SELECT name FROM link WHERE parent = ? AND alive > 0 AND kind = 2"
        return [row[0] for row in self._store.query(query, (directory,))]

    def has_children(self, directory: InodeId) -> bool:
        """Tell whether a directory has a living entry."""
        query = "SELECT 1 FROM link WHERE parent = ? AND alive > 0 LIMIT 1"
        return bool(self._store.query(query, (directory,)))

    def anything_in(self, directory: InodeId) -> bool:
        """Tell whether a directory has any entry that there are records of, living or not."""
        return bool(self._store.query("SELECT 1 FROM link WHERE parent = ? LIMIT 1", (directory,)))

    # -- by inode -----------------------------------------------------------------------------------------------------

    def _load_hard(self, inode: InodeId) -> tuple[LinkId, ...]:
        query = "SELECT link FROM hardlink WHERE inode = ? ORDER BY link"
        return tuple(LinkId(row[0]) for row in self._store.db.execute(query, (inode,)))

    def _write_hard(self, changes: Mapping[InodeId, tuple[LinkId, ...] | None]) -> None:
        rows = [(inode, link) for inode, links in changes.items() for link in links or ()]
        self._store.db.executemany("INSERT OR IGNORE INTO hardlink VALUES (?, ?)", rows)

    def add_hard(self, inode: InodeId, link: LinkId) -> None:
        """Note that a link other than its first one points to an inode."""
        links = self._hard.get(inode) or ()
        if link not in links:
            self._hard.put(inode, tuple(sorted((*links, link))))
            if self._several is not None and self._are_few:
                self._several.add(inode)
                self._are_few = len(self._several) <= FEW_INODES

    def to(self, inode: InodeId) -> list[LinkId]:
        """Return all links of an inode, living or not: its first and its hard links."""
        if self._several is None:
            rows = self._store.query("SELECT DISTINCT inode FROM hardlink LIMIT ?", (FEW_INODES + 1,))
            self._several, self._are_few = {InodeId(row[0]) for row in rows}, len(rows) <= FEW_INODES
        if self._are_few and inode not in self._several:
            return [LinkId(inode)]
        return [LinkId(inode), *(self._hard.get(inode) or ())]

    def living(self, inode: InodeId) -> list[LinkRow]:
        """Return the living links of an inode, the one that it was made with first."""
        rows = [self._rows.get(link) for link in self.to(inode)]
        return [row for row in rows if row is not None and row.alive and row.inode == inode]

    def first(self, inode: InodeId) -> LinkRow | None:
        """Return the first living link of an inode."""
        return next(iter(self.living(inode)), None)

    # -- of all -------------------------------------------------------------------------------------------------------

    def repaired(self) -> set[InodeId]:
        """Return the directories whose place a cycle changed."""
        return {InodeId(row[0]) for row in self._store.query("SELECT id FROM link WHERE edge > 0")}

    def kept(self) -> set[InodeId]:
        """Return the directories that are deleted and stay for the sake of a living entry."""
        return {InodeId(row[0]) for row in self._store.query("SELECT id FROM link WHERE alive = 2")}
