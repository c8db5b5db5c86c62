"""The view: rows that show the tree, kept equal to a pure function of the records, whatever the order of arrival.

`apply` is called with the keys of changed records, which are in the store already, and derives anew what they touch:
inodes first (contents, siblings, which links live), then the places of directories (cycles), then links, and upwards
the directories that stay only for the sake of a living entry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from base.ids import ROOT_INODE, ContentId, Dot, InodeId, LinkId
from crdt_meta.derive import (
    Edge,
    InodeState,
    Version,
    deletions_of,
    edges_of,
    inode_of,
    inode_state,
    is_link_alive,
    name_of,
    repaired,
    sibling_inode,
    versions_of,
)
from crdt_meta.node import Delta, Kind
from crdt_meta.records import Body, Key, LinkBirth, Strategy
from crdt_meta.rows import InodeRow, Rows, SiblingRow
from crdt_meta.store import LinkRow, Store

Changed = tuple[Key, Body | None]
"""The key of a record that was written (None: removed, or not readable by this release)."""


@dataclass
class _Batch:
    """What one call of `apply` gathers."""

    delta: Delta
    clock: int
    inodes: set[InodeId] = field(default_factory=set)
    links: set[LinkId] = field(default_factory=set)
    alive: dict[LinkId, bool] = field(default_factory=dict)
    edges: dict[InodeId, int] = field(default_factory=dict)


class View:
    """Applies changes; reading is in `display` and `tree`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rows = Rows(store)
        self.reload()

    def reload(self) -> None:
        """Read what is kept in memory anew from the rows."""
        self.twins = self.rows.twins()
        self.kept = self.rows.kept()
        self.demoted = set(self.rows.repaired())
        self.sibling_owner: dict[InodeId, InodeId] = {row.id: row.inode for row in self.rows.all_siblings()}
        self.contested: set[InodeId] = set(self.sibling_owner.values())
        self.files, self.directories, self.bytes = self.rows.totals()

    def apply(self, changed: Iterable[Changed], *, remote: bool) -> Delta:
        """Derive anew what changed records touch; return what that altered."""
        batch = _Batch(Delta(remote), 0)
        for key, body in changed:
            self._mark(batch, key, body)
        for inode in batch.inodes:
            self._refresh_inode(batch, inode)
        self._repair(batch)
        self._refresh_links(batch)
        return batch.delta

    def _mark(self, batch: _Batch, key: Key, body: Body | None) -> None:
        if body is not None:
            batch.clock = max(batch.clock, body.clock)
        if key.kind in "icsa":
            batch.inodes.add(InodeId(key.node))
        elif key.kind == "x":
            batch.delta.inodes.add(InodeId(key.node))
        elif key.kind in "lpnd":
            link = LinkId(key.node)
            batch.links.add(link)
            if isinstance(body, LinkBirth):
                batch.inodes.add(body.inode)
                if bytes(body.inode) != bytes(link):
                    self.store.db.execute("INSERT OR IGNORE INTO hardlink VALUES (?, ?)", (body.inode, link))
            elif key.kind == "d":
                inode = inode_of(self.store.records(link, "l"))
                if inode is not None:
                    batch.inodes.add(inode)

    # -- inodes -------------------------------------------------------------------------------------------------------

    def _refresh_inode(self, batch: _Batch, inode: InodeId) -> None:
        if inode == ROOT_INODE:
            batch.delta.inodes.add(inode)
            return
        records = self.store.records(inode, "icsa")
        links = self.store.links_to(inode)
        of_links = {link: self.store.records(link, "ld") for link in links}
        deletions = {link: deletions_of(found) for link, found in of_links.items() if inode_of(found) == inode}
        state = inode_state(inode, records, deletions)
        if state is None:
            return
        batch.links.update(deletions)
        if state.kind is not Kind.DIRECTORY:
            versions = versions_of(inode, records)
            for link, deleted in deletions.items():
                batch.alive[link] = is_link_alive(link, deleted, versions)
        lives = state.kind is Kind.DIRECTORY or any(batch.alive[link] for link in deletions)
        self._write_inode(batch, inode, state, lives)

    def _write_inode(self, batch: _Batch, inode: InodeId, state: InodeState, lives: bool) -> None:
        old = self.rows.inode(inode)
        old_siblings = self.rows.siblings(inode) if inode in self.contested else []
        new, siblings = (None, []) if not lives or not state.versions else inode_rows(inode, state)
        if old != new:
            batch.delta.inodes.add(inode)
            if new is None:
                self.rows.drop_inode(inode)
            else:
                self.rows.put_inode(new)
        if old_siblings != siblings:
            self._write_siblings(batch, inode, old_siblings, siblings)
        self._count(batch, old, new, old_siblings, siblings)

    def _write_siblings(self, batch: _Batch, inode: InodeId, old: list[SiblingRow], new: list[SiblingRow]) -> None:
        self.rows.set_siblings(inode, new)
        for row in old:
            self.sibling_owner.pop(row.id, None)
        for row in new:
            self.sibling_owner[row.id] = inode
        batch.delta.inodes.update(row.id for row in (*old, *new))
        if new:
            self.contested.add(inode)
        else:
            self.contested.discard(inode)
        batch.delta.entries.update((link.parent, link.name) for link in self.store.living_links(inode))

    def _count(
        self,
        batch: _Batch,
        old: InodeRow | None,
        new: InodeRow | None,
        old_siblings: list[SiblingRow],
        siblings: list[SiblingRow],
    ) -> None:
        before: list[ContentId] = [row.content for row in old_siblings]
        after: list[ContentId] = [row.content for row in siblings]
        size = sum(row.size for row in siblings) - sum(row.size for row in old_siblings)
        for row, contents, sign in ((old, before, -1), (new, after, 1)):
            if row is not None and row.kind is Kind.FILE:
                contents.append(row.content)
                size += sign * row.size
        self.files += len(after) - len(before)
        self.bytes += size
        batch.delta.contents.update(set(before) ^ set(after))

    # -- the places of directories ------------------------------------------------------------------------------------

    def _repair(self, batch: _Batch) -> None:
        wanted: dict[InodeId, list[Edge]] = {}
        now: dict[InodeId, InodeId | None] = {}
        for link in (*batch.links, *(LinkId(inode) for inode in self.demoted)):
            inode = InodeId(link)
            row = self.rows.inode(inode)
            if row is None or row.kind is not Kind.DIRECTORY or inode in wanted:
                continue
            wanted[inode] = edges_of(self.store.records(link, "lp"))
            shown = self.store.link(link)
            now[inode] = None if shown is None else shown.parent
        if wanted:
            batch.edges = repaired(wanted, now, self)
            batch.links.update(LinkId(inode) for inode in batch.edges)

    def parent(self, inode: InodeId) -> InodeId | None:
        """Return the directory in which a directory stands (for `repaired`)."""
        row = self.store.link(LinkId(inode))
        return None if row is None else row.parent

    def edges(self, inode: InodeId) -> list[Edge]:
        """Return the edges of a directory (for `repaired`)."""
        return edges_of(self.store.records(inode, "lp"))

    def chosen(self, inode: InodeId) -> int:
        """Return which edge a directory shows (for `repaired`)."""
        row = self.store.link(LinkId(inode))
        return 0 if row is None else row.edge

    # -- links --------------------------------------------------------------------------------------------------------

    def _refresh_links(self, batch: _Batch) -> None:
        work = set(batch.links)
        while work:
            link = work.pop()
            old = self.store.link(link)
            new = self._derive_link(batch, link, old)
            if old == new:
                continue
            if new is None:
                self.store.drop_link(link)
            else:
                self.store.put_link(new)
            self._moved(batch, old, new)
            for row, appears in ((old, False), (new, True)):
                if row is not None and self._concerns_parent(row.parent, appears):
                    work.add(LinkId(row.parent))

    def _derive_link(self, batch: _Batch, link: LinkId, old: LinkRow | None) -> LinkRow | None:
        records = self.store.records(link, "lpnd")
        inode, name = inode_of(records), name_of(records)
        if inode is None or name is None or bytes(link) == ROOT_INODE:
            return None
        shown = self.rows.inode(inode)
        if shown is None:
            return None
        edges = edges_of(records)
        if shown.kind is not Kind.DIRECTORY:
            alive = batch.alive.get(link, old is not None)
            return LinkRow(link, inode, int(shown.kind), edges[0].parent, name, 1, 0) if alive else None
        if bytes(inode) != bytes(link):
            return None  # a second link to a directory: nobody makes one
        edge = batch.edges.get(inode, 0 if old is None else old.edge)
        deleted = bool(deletions_of(records))
        alive = not deleted or self.rows.has_children(inode)
        if deleted and alive:
            self.kept.add(inode)
        else:
            self.kept.discard(inode)
        return LinkRow(link, inode, int(shown.kind), edges[edge].parent, name, int(alive), edge)

    def _concerns_parent(self, parent: InodeId, appears: bool) -> bool:
        """Tell whether a directory may come or go with an entry."""
        if parent == ROOT_INODE:
            return False
        if not appears:
            return parent in self.kept
        row = self.store.link(LinkId(parent))
        return row is not None and not row.alive

    def _moved(self, batch: _Batch, old: LinkRow | None, new: LinkRow | None) -> None:
        """Keep the counts, twins and the delta true to a changed row."""
        row = new or old
        if row is None:
            return
        inode = row.inode
        if row.kind == Kind.DIRECTORY:
            self.demoted.discard(inode)
            if new is not None and new.edge:
                self.demoted.add(inode)
        was = old if old is not None and old.alive else None
        now = new if new is not None and new.alive else None
        if (was and (was.parent, was.name)) == (now and (now.parent, now.name)):
            return
        batch.delta.inodes.add(inode)
        is_directory = int(row.kind == Kind.DIRECTORY)
        for place, sign in ((was, -1), (now, 1)):
            if place is None:
                continue
            self.rows.touch_directory(place.parent, batch.clock, sign * is_directory)
            self.directories += sign * is_directory
            batch.delta.entries.add((place.parent, place.name))
            batch.delta.inodes.add(place.parent)
            self._twin(place.parent, place.name)

    def _twin(self, parent: InodeId, name: bytes) -> None:
        place = (parent, name)
        several = len(self.store.links_named(parent, name)) > 1
        if several != (place in self.twins):
            self.rows.set_twin(parent, name, several)
            if several:
                self.twins.add(place)
            else:
                self.twins.discard(place)

    def rebuild(self) -> None:
        """Derive everything anew from the records (a check for tests, and a way out of a damaged view)."""
        self.store.begin()
        for table in ("link", "hardlink", "inode", "sibling", "directory", "twin"):
            self.store.db.execute(f"DELETE FROM {table}")  # noqa: S608 (fixed names)
        self.reload()
        keys = self.store.db.execute("SELECT kind, node, clock FROM record").fetchall()
        self.apply(self.readable(Key(kind, node, clock) for kind, node, clock in keys), remote=False)

    def readable(self, keys: Iterable[Key]) -> list[Changed]:
        """Return keys with one of the records that they name (births of links are what `apply` looks into)."""
        found: list[Changed] = []
        for key in keys:
            bodies = self.store.records(key.node, key.kind)
            found += [(key, body) for _, body in bodies] or [(key, None)]
        return found


def inode_rows(inode: InodeId, state: InodeState) -> tuple[InodeRow, list[SiblingRow]]:
    """Return the row of an inode that lives and, under ``keep-both``, those of its siblings."""
    latest = state.versions[0]
    groups: dict[ContentId, list[Version]] = {}
    if state.kind is Kind.FILE and latest.strategy is Strategy.KEEP_BOTH:
        for version in state.versions:
            groups.setdefault(version.content, []).append(version)
    else:
        groups[latest.content] = list(state.versions)
    first, *others = groups.values()
    row = InodeRow(
        inode,
        *state[:6],
        latest.size if state.kind is Kind.FILE else len(state.target),
        latest.content,
        state.target,
        state.rdev,
        latest.dot,
        more_dots(first),
        latest.strategy,
    )
    siblings = []
    for group in others:
        top = group[0]
        shown_as = sibling_inode(inode, top.dot)
        siblings.append(SiblingRow(inode, top.dot, shown_as, top.content, top.size, top.mtime_ns, more_dots(group)))
    return row, siblings


def more_dots(versions: list[Version]) -> tuple[Dot, ...]:
    """Return the dots of versions shown as one, without the first one's, with what they were before."""
    dots = [version.dot for version in versions[1:]]
    return tuple(dots + [version.origin for version in versions if version.origin is not None])
