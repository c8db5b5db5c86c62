"""The trash: what was deleted, overwritten or lost a conflict, listed, restored and purged.

Most of it are rows of the view (`trashed`). Files that are hidden behind another one of their name live, but nobody sees
them: they are listed here, too.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from base.errors import FileSystemError
from base.ids import EMPTY_CONTENT, ROOT_INODE, ContentId, Dot, InodeId, LinkId, PodId, WriterId, hash_bytes
from crdt_meta.derive import versions_of
from crdt_meta.display import Entry
from crdt_meta.hlc import FRACTION_BITS, nanoseconds
from crdt_meta.links import LinkRow
from crdt_meta.naming import marked_name
from crdt_meta.node import Kind, Node
from crdt_meta.publishing import Publishing
from crdt_meta.records import Key, Name, Place, Why
from crdt_meta.rows import InodeRow
from crdt_meta.settling import Records
from crdt_meta.trashed import TrashKey, TrashRow
from crdt_meta.versions import is_young, listed

PAGE: Final = 256


class TrashEntry(NamedTuple):
    """A content that can be restored."""

    path: bytes
    """Where it was; of a file that lives, where that is now."""
    inode: InodeId
    reason: str
    """``deleted``, ``overwritten`` or ``conflict``."""
    content: ContentId
    size: int
    mtime_ns: int
    removed_ns: int
    """By the clock of its record, since the epoch."""
    pod: PodId | None
    """Who removed it; of a conflict, whose version it is. None when it isn't known."""
    dot: Dot
    """The write of the content; with the inode it names the entry."""
    hidden: LinkId | None = None
    """Set when it is a file of its own behind another one of its name."""

    @property
    def id(self) -> str:
        """A short name of the entry, the same on every pod."""
        return hash_bytes(self.inode + self.dot.writer + self.dot.clock.to_bytes(8, "big"))[:6].hex()


class Behind(NamedTuple):
    """A file that nobody sees: another one has its name."""

    link: LinkRow
    row: InodeRow
    entry: Entry
    """What is seen in its place."""


class Trash(Publishing):
    """See the module."""

    # -- listing ------------------------------------------------------------------------------------------------------

    def trash(self) -> Iterator[TrashEntry]:
        """Yield everything in the trash, the latest removed first; what is hidden behind other files at the end.

        It may be changed between two steps: rows are read `PAGE` at a time.
        """
        after: TrashKey | None = None
        while rows := self.view.trash.page(after, PAGE):
            for row in rows:
                yield self._entry(row)
            after = rows[-1].key
        for one in self._behind():
            yield self._hidden(one)

    def trash_of(self, path: bytes) -> list[TrashEntry]:
        """Return what is in the trash of one path, the latest first: versions of the file there, and files that were."""
        rows = self.view.trash.named(path.rpartition(b"/")[2])
        found = [self._entry(row) for row in rows if self._place(row) == path]
        above, _, name = path.rpartition(b"/")
        directory = self._directory_at(above)
        entry = None if directory is None else self.display.lookup(directory, name)
        if entry is not None and entry.sibling is None:
            inodes = dict.fromkeys(link.inode for link in (entry.link, *entry.hidden))
            found += [self._entry(row) for inode in inodes for row in self.view.trash.of(inode) if row.name is None]
        found += [hidden for one in self._behind() if (hidden := self._hidden(one)).path == path]
        return sorted(found, key=lambda one: (one.removed_ns, one.dot), reverse=True)

    def trash_of_inode(self, inode: InodeId) -> list[TrashEntry]:
        """Return what is in the trash of one file, living or gone."""
        return [self._entry(row) for row in self.view.trash.of(inode)]

    def trash_with(self, content: ContentId) -> list[TrashEntry]:
        """Return the entries of one content."""
        behind = (self._hidden(one) for one in self._behind() if one.row.content == content)
        return [*(self._entry(row) for row in self.view.trash.holding(content)), *behind]

    def trashed(self, content: ContentId) -> tuple[int, PodId | None] | None:
        """Return (size, author) of a content in the trash."""
        row = next(iter(self.view.trash.holding(content)), None)
        return None if row is None else (row.size, self._pod_of_writer(row.dot.writer))

    def trash_bytes(self) -> int:
        """Return the sizes of all contents in the trash together, also of those that files show as well."""
        return self.view.trash.bytes + sum(one.row.size for one in self._behind())

    def expired(self, before_ns: int, after_ns: int = 0) -> Iterator[TrashEntry]:
        """Yield the entries removed from one time on (ns since the epoch) until before another, the oldest first.

        They may be purged between two steps.
        """
        first, end = (max(0, time_ns) << FRACTION_BITS for time_ns in (after_ns, before_ns))
        first, end = -(-first // 1_000_000), -(-end // 1_000_000)
        after = TrashKey(first - 1, InodeId(b"\xff" * 17), Dot(WriterId(bytes(8)), 0))
        while rows := self.view.trash.page(after, PAGE, oldest_first=True):
            for row in rows:
                if row.removed >= end:
                    break
                yield self._entry(row)
            else:
                after = rows[-1].key
                continue
            break
        for one in list(self._behind()):
            if first <= one.entry.inode.dot.clock < end:
                yield self._hidden(one)

    def oldest(self, is_worth: Callable[[ContentId], bool] = lambda _: True) -> Iterator[TrashEntry]:
        """Yield the entries with bytes, the oldest first, of contents worth it; they may be purged between two steps."""
        after: TrashKey | None = None
        while rows := self.view.trash.page(after, PAGE, oldest_first=True):
            after = rows[-1].key
            yield from (self._entry(row) for row in rows if row.size and is_worth(row.content))
        yield from (self._hidden(one) for one in list(self._behind()) if is_worth(one.row.content))

    def _entry(self, row: TrashRow) -> TrashEntry:
        pod = self._pod_of_writer(row.by)
        facts = (row.inode, row.why.name.lower(), row.content, row.size, row.mtime_ns, nanoseconds(row.removed), pod)
        return TrashEntry(self._place(row), *facts, row.dot)

    def _place(self, row: TrashRow) -> bytes:
        """Return the path of a row."""
        if row.parent is None or row.name is None:
            return self.path(row.inode) or b"/" + row.inode.hex().encode()
        return self._former_path(row.parent) + b"/" + row.name

    def _former_path(self, directory: InodeId) -> bytes:
        """Return the path that a directory has or had, nothing for the root."""
        names: list[bytes] = []
        at = directory
        while at != ROOT_INODE and len(names) < self.DEPTH_LIMIT:
            link = self.view.links.get(LinkId(at))
            if link is None or link.kind != Kind.DIRECTORY:
                break
            names.append(link.name)
            at = link.parent
        return b"".join(b"/" + name for name in reversed(names))

    def _behind(self) -> Iterator[Behind]:
        """Yield the files that nobody sees because they are hidden behind others of their name."""
        for directory, claims in list(self.view.naming.claims.items()):
            for name, claim in list(claims.items()):
                entry = self.display.lookup(directory, name) if claim.links > 1 else None
                if entry is None or self.path(directory) is None:
                    continue
                found: dict[InodeId, Behind] = {}
                for link in entry.hidden:
                    row = self.view.rows.inode(link.inode)
                    if row is not None and self._is_lost(row, entry.inode):
                        found.setdefault(row.id, Behind(link, row, entry))
                yield from found.values()

    def _is_lost(self, row: InodeRow, winner: InodeRow) -> bool:
        """Tell whether nobody sees the content of a file behind another one."""
        if row.kind is not Kind.FILE or row.content in (EMPTY_CONTENT, winner.content) or row.id == winner.id:
            return False
        return all(self.display.is_hidden(link) for link in self.view.links.living(row.id))

    def _hidden(self, one: Behind) -> TrashEntry:
        row, path = one.row, (self._directory_path(one.link.parent) or b"") + b"/" + one.link.name
        pod, removed = self._pod_of_writer(row.dot.writer), nanoseconds(one.entry.inode.dot.clock)
        facts = (row.content, row.size, row.mtime_ns, removed, pod)
        return TrashEntry(path, row.id, Why.CONFLICT.name.lower(), *facts, row.dot, one.link.id)

    # -- restoring ----------------------------------------------------------------------------------------------------

    def restore(self, entry: TrashEntry) -> Node:
        """Bring a content back: into its file if that lives, else the file with it, under its old path.

        Where that is taken now it gets a name beside it. What a living file showed becomes a version. Raises ENOENT when
        the entry is in the trash no more, ENOSPC.
        """
        self._need_room()
        if entry.hidden is not None:
            return self._restore_over(self.node_of(self._still_behind(entry).entry), entry)
        row, node = self._still_there(entry), self.get(entry.inode)
        versions = {one.dot for one in versions_of(row.inode, self._records_of(row.inode, "ics"))}
        if node is None:
            return self._revive(row, versions)
        links = self.view.links.living(row.inode)
        if all(self.display.is_hidden(link) for link in links):
            seen = self.lookup(links[0].parent, links[0].name)
            if seen is not None and seen.kind is Kind.FILE:
                return self._restore_over(seen, entry)
        return self._restore_over(node, entry, row.dots if row.dot in versions else ())

    def _restore_over(self, node: Node, entry: TrashEntry, dots: Iterable[Dot] = ()) -> Node:
        """Publish what an entry has in place of what a file shows, and of ``dots``."""
        replaces = tuple(dict.fromkeys((*node.shown, *dots)))
        self._settle(node.inode, replaces)
        facts = (entry.content, entry.size, entry.mtime_ns)
        return self._publish(node.inode, node.link, *facts, replaces, always=Why.OVERWRITTEN)

    def _revive(self, row: TrashRow, versions: Iterable[Dot]) -> Node:
        """Publish a content through the last link of its file, which comes back by that."""
        if row.link is None or row.parent is None or row.name is None:
            raise FileSystemError(errno.ENOENT)
        records: Records = []
        parent, name = row.parent, row.name
        if self._directory_path(parent) is None and (now := self._directory_at(self._former_path(parent))) is not None:
            records.append((row.link, Place(self._stamp(row.link), self.display.group(now)[0], parent)))
            parent = now
        if self._directory_path(parent) is not None:
            name = self._free_name(parent, name)
        if name != row.name:
            records.append((row.link, Name(self._stamp(row.link), name)))
        path = self._former_path(parent) + b"/" + name
        facts = (row.content, row.size, row.mtime_ns, tuple(sorted({*row.dots, *versions})))
        return self._publish(row.inode, row.link, *facts, path=path, with_records=records, always=Why.OVERWRITTEN)

    def _directory_at(self, path: bytes) -> InodeId | None:
        """Return the directory that a path shows now."""
        try:
            node = self.resolve(path)
        except FileSystemError:
            return None
        return node.inode if node.is_directory else None

    def _free_name(self, parent: InodeId, name: bytes) -> bytes:
        """Return a name for something restored: its own, or one beside what has it now."""
        moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(nanoseconds(self._clock.tick()) // 1_000_000_000))
        tried, again = name, 1
        while self.display.lookup(parent, tried) is not None:
            middle = f".restored-{moment}" + (f"-{again}" if again > 1 else "")
            tried, again = marked_name(name, middle.encode()), again + 1
        return tried

    def _still_there(self, entry: TrashEntry) -> TrashRow:
        for row in self.view.trash.of(entry.inode):
            if row.dot == entry.dot:
                return row
        raise FileSystemError(errno.ENOENT)

    def _still_behind(self, entry: TrashEntry) -> Behind:
        for one in self._behind():
            if (one.link.id, one.row.dot) == (entry.hidden, entry.dot):
                return one
        raise FileSystemError(errno.ENOENT)

    # -- purging ------------------------------------------------------------------------------------------------------

    def purge(self, entries: Iterable[TrashEntry]) -> int:
        """Remove entries for good, on all pods; return how many. Those that are in the trash no more are left."""
        dots: dict[InodeId, list[Dot]] = {}
        behind: set[InodeId] = set()
        records: Records = []
        gone: list[Key] = []
        number = 0
        for entry in entries:
            try:
                if entry.hidden is None:
                    dots.setdefault(entry.inode, []).extend(self._still_there(entry).dots)
                else:
                    records += self._purged_behind(self._still_behind(entry).link, dots)
                    behind.add(entry.inode)
            except FileSystemError:
                continue
            number += 1
        for inode, named in dots.items():
            row = self.view.rows.inode(inode) if inode not in behind else None
            shown = () if row is None else (row.dot, *row.more_dots)
            more, keys = self._purged(inode, dict.fromkeys(named), shown)
            records += more
            gone += keys
        if records or gone:
            self._write(records, gone)
        return number

    def _purged_behind(self, link: LinkRow, dots: dict[InodeId, list[Dot]]) -> Records:
        """Delete the links of a file that is hidden behind another one, and have its contents purged."""
        named = [row.dots for row in self.view.trash.of(link.inode)]
        row = self.view.rows.inode(link.inode)
        if row is not None:
            named.append((row.dot, *row.more_dots))
        dots.setdefault(link.inode, []).extend(dot for some in named for dot in some)
        return self._deleted(self.view.links.living(link.inode))

    # -- replacing by renaming ----------------------------------------------------------------------------------------

    def _outlived(self, there: Entry, by: ContentId) -> dict[InodeId, list[Dot]]:
        """Return what to purge when a file with a content ``by`` is renamed over another one.

        As with contents that are overwritten: one an hour at most, so many in all, none that is empty or the same.
        """
        row, now, limit = there.inode, self._clock.tick(), self._versions()
        earlier = [
            (one.removed, one.inode, one.dots)
            for one in self.view.trash.named(there.link.name, there.link.parent)
            if one.why is Why.OVERWRITTEN
        ]
        earlier += [(body.clock, row.id, (body.dot,)) for body in listed(self._records_of(row.id, "sv"))]
        found: dict[InodeId, list[Dot]] = {}
        recent = any(is_young(removed, now) for removed, _, _ in earlier)
        if limit and not recent and row.content not in (EMPTY_CONTENT, by):
            for _, inode, dots in sorted(earlier, reverse=True)[limit - 1 :]:
                found.setdefault(inode, []).extend(dots)
            return found
        lost = [dot for one in self.view.trash.of(row.id) for dot in one.dots]
        found[row.id] = [dot for dot in (row.dot, *row.more_dots) if dot not in lost]
        return found
