"""The view: rows that show the tree, kept equal to a pure function of the records, whatever the order of arrival.

`apply` is called with the keys of changed records, which are in the store already, and derives anew what they touch:
inodes first (contents, siblings, which links live), then the places of directories (cycles), then links, and upwards
the directories that stay only for the sake of a living entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from base.ids import ROOT_INODE, ContentId, InodeId, LinkId, WriterId
from crdt_meta.codec import decode
from crdt_meta.derive import (
    Edge,
    InodeState,
    Written,
    ctime_of,
    deletions_of,
    edges_of,
    inode_of,
    inode_state,
    is_link_alive,
    name_of,
    repaired,
    versions_of,
)
from crdt_meta.links import KEPT, LinkRow, Links
from crdt_meta.marks import Marks
from crdt_meta.naming import Naming
from crdt_meta.node import Delta, Kind
from crdt_meta.records import Body, Key, LinkBirth
from crdt_meta.recordtable import Found, Records
from crdt_meta.rows import InodeRow, Rows, SiblingRow
from crdt_meta.showing import Plain, inode_rows, plain
from crdt_meta.store import VIEW_TABLES, Store
from crdt_meta.trashed import Trashed

FEW: Final = 8
"""For more changes than this it pays to read what they touch with one query."""


class Changed(NamedTuple):
    """A record that was written."""

    key: Key
    body: Body | None
    """None: removed, or not readable by this release."""
    before: Body | None = None
    """Of births of links: what they said before (honest writers never write one twice)."""


@dataclass(slots=True)
class _Batch:
    """What one call of `apply` gathers."""

    delta: Delta
    inodes: set[InodeId] = field(default_factory=set)
    altered: set[InodeId] = field(default_factory=set)
    """Inodes with other contents, or of other links."""
    moved: set[InodeId] = field(default_factory=set)
    """Directories that came, went or moved."""
    look: set[InodeId] = field(default_factory=set)
    """Inodes of whose trash something may have changed."""
    marked: set[InodeId] = field(default_factory=set)
    """Inodes with other extended attributes."""
    links: set[LinkId] = field(default_factory=set)
    alive: dict[LinkId, bool] = field(default_factory=dict)
    edges: dict[InodeId, int] = field(default_factory=dict)


class View:
    """Applies changes; reading is in `display` and `tree`."""

    def __init__(self, store: Store, pod_name_of: Callable[[WriterId], str]) -> None:
        self.store = store
        self.records = Records(store)
        self.links = Links(store)
        self.rows = Rows(store)
        self.trash = Trashed(store, self.records)
        self.naming = Naming(self, pod_name_of)
        self.marks = Marks(store, self.records)
        self.moves = 0  # of directories: what was derived from their places holds until the next
        self.reload()
        store.on_flush.append(self._write_totals)

    def reload(self) -> None:
        """Read what is kept in memory anew from the rows."""
        self.moves += 1
        self.files, self.directories, self.bytes = self._written = self.rows.totals()  # first: queries write them
        self.marks.reload()
        self.twins = self.rows.twins()
        self.kept = self.links.kept()
        self.demoted = self.links.repaired()
        self.sibling_owner: dict[InodeId, InodeId] = {row.id: row.inode for row in self.rows.all_siblings()}
        self.contested: set[InodeId] = set(self.sibling_owner.values())
        self.naming.reload()

    def _write_totals(self) -> None:
        totals = (self.files, self.directories, self.bytes)
        if totals != self._written:
            self._written = totals
            self.rows.set_totals(*totals)

    def fresh(self, node: bytes) -> None:
        """Note that an id was just drawn: nobody knows it."""
        self.records.absent(node)
        self.links.fresh(InodeId(node))

    def absent(self, node: bytes) -> None:
        """Note that no record of a node was ever applied, which saves looking for its records and rows."""
        self.records.absent(node)
        self.links.absent(LinkId(node))
        self.rows.absent(InodeId(node))
        self.trash.absent(InodeId(node))

    def unknown(self, found: Iterable[Found]) -> set[bytes]:
        """Read at once what there is of the nodes that are about to change; return those of which there is nothing."""
        return set(self.records.expect({one.key.node for one in found}))

    def arrival(self, holder: WriterId, inode: InodeId, found: Sequence[Found]) -> Plain | None:
        """Write all records that there are of a node at once, and return what it shows, if it is a file without a past.

        Nearly all that a new pod learns is of that kind. Returns None, and does nothing, when it is anything else.
        """
        if inode == ROOT_INODE or len(self.links.to(inode)) > 1:
            return None
        said: list[Written] = []
        for (kind, _, clock, author), _, value in found:
            if value is None or kind in "xk" or author == holder:
                return None
            body = decode(kind, inode, clock, value)
            if body is not None:
                said.append((author or holder, body))
        shown = plain(inode, said, look=True)
        return shown if shown is not None and self.records.arrive(holder, inode, found) else None

    def apply(self, changed: Sequence[Changed], arrived: Sequence[Plain] = (), *, remote: bool) -> Delta:
        """Derive anew what changed records touch, and write the rows of what `arrival` returned; return what that altered."""
        if len(changed) + len(arrived) > FEW:
            places = {(body.parent, body.name) for _, body, _ in changed if isinstance(body, LinkBirth)}
            self.links.expect(places.union((one.parent, one.name) for one in arrived))
        batch = _Batch(Delta(remote, loses=bool(changed)))
        for one in arrived:
            self._put_plain(batch, None, one, is_new=True)
        for change in changed:
            self._mark(batch, change)
        for inode in batch.inodes:
            if not self._is_plain(batch, inode):
                self._refresh_inode(batch, inode)
        for inode in filter(self.marks.refresh, batch.marked):
            batch.delta.contents.update(self._contents(inode))
        self._repair(batch)
        self._refresh_links(batch)
        self.naming.update(batch.delta, batch.altered, batch.moved)
        return batch.delta

    def _contents(self, inode: InodeId) -> list[ContentId]:
        row = self.rows.inode(inode)
        siblings = self.rows.siblings(inode) if inode in self.contested else []
        return [one.content for one in (row, *siblings) if one is not None]

    def _mark(self, batch: _Batch, change: Changed) -> None:
        kind, node = change.key.kind, change.key.node
        if kind in "icsavx":
            inode = InodeId(node)
            batch.inodes.add(inode)
            if kind in "isv":
                batch.look.add(inode)
            elif kind in "ax":
                batch.delta.inodes.add(inode)
                if kind == "x":
                    batch.marked.add(inode)
        elif kind in "lpnd":
            batch.links.add(LinkId(node))
            self._mark_link(batch, LinkId(node), change.before, look=kind in "ld")

    def _mark_link(self, batch: _Batch, link: LinkId, before: Body | None, *, look: bool) -> None:
        """Have all inodes that a link points to, or did, looked at."""
        births = [body for _, body in self.records.of(link, "l")]
        for birth in births if before is None else (before, *births):
            if isinstance(birth, LinkBirth):
                batch.inodes.add(birth.inode)
                if look:
                    batch.look.add(birth.inode)
                if bytes(birth.inode) != bytes(link):
                    self.links.add_hard(birth.inode, link)

    # -- inodes -------------------------------------------------------------------------------------------------------

    def _refresh_inode(self, batch: _Batch, inode: InodeId) -> None:
        if inode == ROOT_INODE:
            batch.delta.inodes.add(inode)
            return
        records = self.records.of(inode, "icsavx")
        deletions, linked_ns = {}, 0
        for link in self.links.to(inode):
            found = self.records.of(link, "lpnd")
            if inode_of(found) == inode:
                deletions[link] = deletions_of(found)
                linked_ns = max(linked_ns, *(ctime_of(body) for _, body in found))
        versions = versions_of(inode, records)
        state = inode_state(records, versions, deletions, linked_ns)
        lives = state is not None
        if state is not None and state.kind is not Kind.DIRECTORY:
            for link, deleted in deletions.items():
                batch.alive[link] = is_link_alive(link, deleted, versions)
            lives = any(batch.alive[link] for link in deletions)
        old = self.rows.inode(inode)
        new = self._write_inode(batch, inode, state if lives else None)
        look = inode in batch.look
        batch.delta.contents.update(self.trash.refresh(inode, old, new, state, versions, records, deletions, look))
        for link in deletions:
            row = self.links.get(link)
            stays = row is not None and state is not None and (row.kind, row.inode) == (state.kind, inode)
            if not stays or not batch.alive.get(link, True) or new is None:
                batch.links.add(link)

    def _is_plain(self, batch: _Batch, inode: InodeId) -> bool:
        """Derive a file with one link, which nobody deleted, and one content: nearly all there are.

        Returns False, and does nothing, when it is anything else; then the rules for everything apply.
        """
        if inode in self.contested or inode == ROOT_INODE:
            return False
        look = inode in batch.look
        found = plain(inode, self.records.of(inode, "icsavxlpnd"), look)
        if found is None or len(self.links.to(inode)) > 1:
            return False
        old, row = self.rows.inode(inode), found.row
        if found.replaced and (old is None or old.dot != row.dot):
            return False  # what was replaced by this may be in the trash from now on
        if (old is None or old.more_dots or look) and self.trash.of(inode):
            return False
        self._put_plain(batch, old, found, is_new=False)
        return True

    def _put_plain(self, batch: _Batch, old: InodeRow | None, found: Plain, *, is_new: bool) -> None:
        row = found.row
        self._put_inode(batch, row.id, old, row)
        link = LinkRow(LinkId(row.id), row.id, int(row.kind), found.parent, found.name, 1, 0)
        self._put_link(batch, None if is_new else self.links.get(link.id), link, found.linked)

    def _put_link(self, batch: _Batch, old: LinkRow | None, new: LinkRow, clock: int) -> None:
        """Write the row of a file's link that lives."""
        batch.links.discard(new.id)
        if old != new:
            self.links.put(new.id, new, old)
            if old is None:
                self._count_link(batch, new, 1, clock)
            else:
                self._moved(batch, old, new, clock)
                if self._concerns_parent(old.parent, appears=False):
                    batch.links.add(LinkId(old.parent))
            if self._concerns_parent(new.parent, appears=True):
                batch.links.add(LinkId(new.parent))

    def _put_inode(self, batch: _Batch, inode: InodeId, old: InodeRow | None, new: InodeRow) -> None:
        """Write the row of an inode without siblings."""
        if old != new:
            batch.altered.add(inode)
            batch.delta.inodes.add(inode)
            self.rows.put_inode(inode, new, old)
            before = None if old is None or old.kind is not Kind.FILE else old
            after = new if new.kind is Kind.FILE else None
            self.files += (after is not None) - (before is not None)
            self.bytes += (0 if after is None else after.size) - (0 if before is None else before.size)
            contents = [one.content for one in (before, after) if one is not None]
            if len(contents) == 1 or len(set(contents)) == 2:
                batch.delta.contents.update(contents)

    def _write_inode(self, batch: _Batch, inode: InodeId, state: InodeState | None) -> InodeRow | None:
        old = self.rows.inode(inode)
        old_siblings = self.rows.siblings(inode) if inode in self.contested else []
        new, siblings = (None, []) if state is None or not state.versions else inode_rows(inode, state)
        if old != new:
            batch.altered.add(inode)
            batch.delta.inodes.add(inode)
            batch.delta.inodes.update(row.id for row in (*old_siblings, *siblings))
            self.rows.put_inode(inode, new, old)
        if old_siblings != siblings:
            self._write_siblings(batch, inode, old_siblings, siblings)
        self._count(batch, old, new, old_siblings, siblings)
        return new

    def _write_siblings(self, batch: _Batch, inode: InodeId, old: list[SiblingRow], new: list[SiblingRow]) -> None:
        self.rows.set_siblings(inode, new)
        for row in old:
            self.sibling_owner.pop(row.id, None)
        for row in new:
            self.sibling_owner[row.id] = inode
        batch.altered.add(inode)
        batch.delta.inodes.update(row.id for row in (*old, *new))
        if new:
            self.contested.add(inode)
        else:
            self.contested.discard(inode)

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
        if not (batch.links or self.demoted):
            return
        wanted: dict[InodeId, list[Edge]] = {}
        now: dict[InodeId, InodeId | None] = {}
        for link in (*batch.links, *(LinkId(inode) for inode in self.demoted)):
            inode = InodeId(link)
            row = self.rows.inode(inode)
            if row is None or row.kind is not Kind.DIRECTORY or inode in wanted:
                continue
            records = self.records.of(link, "lp")
            if inode_of(records) != inode:
                continue
            wanted[inode] = edges_of(records)
            shown = self.links.get(link)
            now[inode] = None if shown is None or shown.kind != Kind.DIRECTORY else shown.parent
        if wanted:
            batch.edges = repaired(wanted, now, self)
            batch.links.update(LinkId(inode) for inode in batch.edges)

    def parent(self, inode: InodeId) -> InodeId | None:
        """Return the directory in which a directory stands (for `repaired`)."""
        shown, row = self.rows.inode(inode), self.links.get(LinkId(inode))
        return None if shown is None or shown.kind is not Kind.DIRECTORY or row is None else row.parent

    def edges(self, inode: InodeId) -> list[Edge]:
        """Return the edges of a directory (for `repaired`)."""
        return edges_of(self.records.of(inode, "lp"))

    def exists(self, inode: InodeId) -> bool:
        """Tell whether a directory is known (for `repaired`)."""
        return inode == ROOT_INODE or self.rows.inode(inode) is not None

    def chosen(self, inode: InodeId) -> int:
        """Return which edge a directory shows (for `repaired`)."""
        row = self.links.get(LinkId(inode))
        return 0 if row is None else row.edge

    # -- links --------------------------------------------------------------------------------------------------------

    def _refresh_links(self, batch: _Batch) -> None:
        work = set(batch.links)
        while work:
            link = work.pop()
            old = self.links.get(link)
            new = self._derive_link(batch, link, old)
            if old == new:
                continue
            self.links.put(link, new, old)
            self._moved(batch, old, new, max((body.clock for _, body in self.records.of(link, "lpnd")), default=0))
            for row, appears in ((old, False), (new, True)):
                if row is not None and self._concerns_parent(row.parent, appears):
                    work.add(LinkId(row.parent))

    def _derive_link(self, batch: _Batch, link: LinkId, old: LinkRow | None) -> LinkRow | None:
        records = self.records.of(link, "lpnd")
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
        alive_as = 1
        if deletions_of(records):
            alive_as = KEPT if self.links.has_children(inode) else 0
        return LinkRow(link, inode, int(shown.kind), edges[edge].parent, name, alive_as, edge)

    def _concerns_parent(self, parent: InodeId, appears: bool) -> bool:
        """Tell whether a directory may come or go with an entry."""
        if parent == ROOT_INODE:
            return False
        if not appears:
            return parent in self.kept
        row = self.links.get(LinkId(parent))
        return row is not None and not row.alive

    def _moved(self, batch: _Batch, old: LinkRow | None, new: LinkRow | None, clock: int) -> None:
        """Keep the counts, twins and the delta true to a changed row."""
        for row in (old, new):
            if row is not None and row.kind == Kind.DIRECTORY:
                self.moves += 1
                self.demoted.discard(row.inode)
                self.kept.discard(row.inode)
        if new is not None and new.edge:
            self.demoted.add(new.inode)
        if new is not None and new.alive == KEPT:
            self.kept.add(new.inode)
        was = old if old is not None and old.alive else None
        now = new if new is not None and new.alive else None
        if was == now or (was and now and was[1:5] == now[1:5]):
            return
        for row, sign in ((was, -1), (now, 1)):
            if row is not None:
                self._count_link(batch, row, sign, clock)

    def _count_link(self, batch: _Batch, row: LinkRow, sign: int, clock: int) -> None:
        is_directory = row.kind == Kind.DIRECTORY
        (batch.moved if is_directory else batch.altered).add(row.inode)
        batch.delta.inodes.add(row.inode)
        if row.inode in self.contested:
            batch.delta.inodes.update(sibling.id for sibling in self.rows.siblings(row.inode))
        self.rows.touch_directory(row.parent, clock, sign * is_directory)
        self.directories += sign * is_directory
        batch.delta.entries.add((row.parent, row.name))
        batch.delta.inodes.add(row.parent)
        self._twin(row.parent, row.name)

    def _twin(self, parent: InodeId, name: bytes) -> None:
        place = (parent, name)
        several = len(self.links.named(parent, name)) > 1
        if several != (place in self.twins):
            self.rows.set_twin(parent, name, several)
            if several:
                self.twins.add(place)
            else:
                self.twins.discard(place)

    def rebuild(self) -> None:
        """Derive everything anew from the records (a check for tests, and a way out of a damaged view)."""
        self.store.savepoint()
        for table in VIEW_TABLES:
            self.store.db.execute(f"DELETE FROM {table}")  # noqa: S608 (fixed names)
        self.rows.by_content.forget()
        self.rows.set_totals(0, 0, 0)
        for forget in self.store.on_clear:
            forget()
        self.store.release()
        self.reload()
        keys = self.store.query("SELECT DISTINCT kind, node FROM record")
        self.apply([Changed(Key(kind, node, 0), None) for kind, node in keys], remote=False)
