"""Reading the tree: nodes, names, paths, walks. A bounded number of nodes is kept in memory."""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from base.errors import FileSystemError
from base.ids import EMPTY_CONTENT, ROOT_INODE, ContentId, Dot, InodeId, LinkId, PodId, WriterId
from crdt_meta.derive import explicit_mtime, merged_xattrs
from crdt_meta.display import Display, Entry
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Conflict, Delta, JournalEntry, Kind, Node, Totals, Version
from crdt_meta.rows import InodeRow, pack_dots, unpack_dots
from crdt_meta.view import View

CACHED_NODES: Final = 16384
ROOT_MODE: Final = 0o755


class Reading:
    """The part of `Tree` that changes nothing but the local journal."""

    DEPTH_LIMIT: Final = 4096

    def __init__(self, view: View, display: Display, pod_of_writer: Callable[[WriterId], PodId | None]) -> None:
        self.view = view
        self.display = display
        self._pod_of_writer = pod_of_writer
        self._nodes: OrderedDict[InodeId, Node] = OrderedDict()
        self.root_owner = (0, 0)
        """uid and gid that the root shows until somebody changes them."""

    def changed(self, delta: Delta) -> None:
        """Forget cached nodes that a change concerns."""
        for inode in delta.inodes:
            self._nodes.pop(inode, None)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def get(self, inode: InodeId) -> Node | None:
        """Return a shown inode, through its first living link; None when it isn't shown."""
        node = self._nodes.get(inode)
        if node is not None:
            self._nodes.move_to_end(inode)
            return node
        node = self._read(inode)
        if node is not None:
            self._nodes[inode] = node
            if len(self._nodes) > CACHED_NODES:
                self._nodes.popitem(last=False)
        return node

    def _read(self, inode: InodeId) -> Node | None:
        if inode == ROOT_INODE:
            return self._root()
        row = self.view.rows.inode(inode)
        if row is None:
            entry = self.display.sibling(inode)
            return None if entry is None else self.node_of(entry)
        links = self.view.store.living_links(inode)
        if not links:
            return None
        return self._node(row, links[0].id, len(links))

    def _must(self, inode: InodeId) -> Node:
        node = self.get(inode)
        if node is None:
            raise FileSystemError(errno.ENOENT)
        return node

    def _directory(self, inode: InodeId) -> Node:
        node = self._must(inode)
        if node.kind is not Kind.DIRECTORY:
            raise FileSystemError(errno.ENOTDIR)
        return node

    def _node(self, row: InodeRow, link: LinkId, nlink: int) -> Node:
        mtime_ns, ctime_ns = row.mtime_ns, row.ctime_ns
        if row.kind is Kind.DIRECTORY:
            touched, subdirectories = self.view.rows.directory(row.id)
            for twin in self.display.group(row.id)[1:] if self.view.twins else ():
                more, count = self.view.rows.directory(twin)
                touched, subdirectories = max(touched, more), subdirectories + count
            nlink = 2 + subdirectories
            if touched and touched > explicit_mtime(self.view.store.records(row.id, "ia"))[0]:
                mtime_ns = nanoseconds(touched)
            ctime_ns = max(ctime_ns, nanoseconds(touched))
        return Node(
            row.id,
            link,
            row.kind,
            row.mode,
            row.uid,
            row.gid,
            mtime_ns,
            ctime_ns,
            row.size,
            nlink,
            row.content,
            row.target,
            row.rdev,
            (row.dot, *row.more_dots),
            self._pod_of_writer(row.dot.writer),
        )

    def _root(self) -> Node:
        uid, gid = self.root_owner
        values = {"mode": ROOT_MODE, "uid": uid, "gid": gid, "mtime_ns": 0}
        stamps: dict[str, tuple[int, bytes]] = {}
        changed = 0
        for writer, body in self.view.store.records(ROOT_INODE, "a"):
            changed = max(changed, body.clock)
            for key, (clock, value) in getattr(body, "values", {}).items():
                if (clock, writer) > stamps.get(key, (0, b"")):
                    stamps[key], values[key] = (clock, writer), value
        touched, subdirectories = self.view.rows.directory(ROOT_INODE)
        mtime_ns = values["mtime_ns"] if stamps.get("mtime_ns", (0, b""))[0] > touched else nanoseconds(touched)
        ctime_ns = nanoseconds(max(touched, changed))
        return Node(
            ROOT_INODE,
            LinkId(ROOT_INODE),
            Kind.DIRECTORY,
            values["mode"] & 0o7777,
            values["uid"],
            values["gid"],
            mtime_ns,
            ctime_ns,
            0,
            2 + subdirectories,
            EMPTY_CONTENT,
            b"",
            0,
            (),
            None,
        )

    def node_of(self, entry: Entry) -> Node:
        """Return the node of an entry."""
        if entry.sibling is None:
            node = self.get(entry.inode.id)
            if node is None:
                raise FileSystemError(errno.ENOENT)
            return node if node.link == entry.link.id else replace(node, link=entry.link.id)
        sibling = entry.sibling
        base = self._node(entry.inode, entry.link.id, 1)
        return replace(
            base,
            inode=sibling.id,
            mtime_ns=sibling.mtime_ns,
            size=sibling.size,
            nlink=1,
            content=sibling.content,
            shown=(sibling.dot, *sibling.more_dots),
            author=self._pod_of_writer(sibling.dot.writer),
        )

    @staticmethod
    def gone(node: Node) -> Node:
        """Return a node whose last name is gone."""
        return replace(node, nlink=0)

    # -- names and paths ----------------------------------------------------------------------------------------------

    def lookup(self, parent: InodeId, name: bytes) -> Node | None:
        """Return what a name shows."""
        entry = self.display.lookup(parent, name)
        return None if entry is None else self.node_of(entry)

    def children(self, parent: InodeId) -> list[tuple[bytes, Node]]:
        """Return the entries of a directory, sorted by name; no ``.`` and ``..``."""
        found: list[tuple[bytes, Node]] = []
        for entry in self.display.entries(parent):
            row = entry.inode
            simple = entry.sibling is None and row.kind is not Kind.DIRECTORY and bytes(entry.link.id) == bytes(row.id)
            if simple and row.id not in self._nodes and not self._has_hard_links(row.id):
                found.append((entry.name, self._node(row, entry.link.id, 1)))
            else:
                found.append((entry.name, self.node_of(entry)))
        return found

    def _has_hard_links(self, inode: InodeId) -> bool:
        query = "SELECT 1 FROM hardlink WHERE inode = ? LIMIT 1"
        return self.view.store.db.execute(query, (inode,)).fetchone() is not None

    def parent(self, inode: InodeId) -> tuple[InodeId, bytes] | None:
        """Return the directory and the name of an inode's first living link."""
        link = self.display.first_link(inode)
        if link is not None:
            return link.parent, self.display.shown_name(link)
        entry = self.display.sibling(inode)
        return None if entry is None else (entry.link.parent, entry.name)

    def path(self, inode: InodeId) -> bytes | None:
        """Return the path of an inode (``/a/b``; the root is ``/``); None when it isn't shown."""
        names: list[bytes] = []
        at = inode
        while at != ROOT_INODE:
            above = self.parent(at)
            if above is None or len(names) >= self.DEPTH_LIMIT:
                return None
            at, name = above
            names.append(name)
        return b"/" + b"/".join(reversed(names))

    def resolve(self, path: bytes) -> Node:
        """Return what a path shows, links not followed. Raises ENOENT, ENOTDIR."""
        node = self._must(ROOT_INODE)
        for name in path.split(b"/"):
            if name in (b"", b"."):
                continue
            if node.kind is not Kind.DIRECTORY:
                raise FileSystemError(errno.ENOTDIR)
            below = self.lookup(node.inode, name)
            if below is None:
                raise FileSystemError(errno.ENOENT)
            node = below
        return node

    def walk(self, node: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield (path, node) of a node and everything below it; directories before their entries."""
        path = self.path(node.inode)
        if path is None:
            return
        todo = [(path, node)]
        while todo:
            at, found = todo.pop()
            yield at, found
            if found.kind is Kind.DIRECTORY:
                base = at.rstrip(b"/") + b"/"
                todo += [(base + name, child) for name, child in reversed(self.children(found.inode))]

    # -- more ---------------------------------------------------------------------------------------------------------

    def xattrs(self, inode: InodeId) -> dict[bytes, bytes]:
        """Return the extended attributes of an inode."""
        return merged_xattrs(self.view.store.records(self.view.sibling_owner.get(inode, inode), "x"))

    def contents(self, after: ContentId | None, limit: int) -> list[tuple[ContentId, int, PodId | None]]:
        """Return (content, size, author) of the contents that files show, in the order of their ids."""
        rows = self.view.rows.contents(after, limit)
        return [(content, size, self._pod_of_writer(writer)) for content, size, writer in rows]

    def references(self, content: ContentId) -> list[InodeId]:
        """Return the inodes that show a content."""
        return [inode for inode, _, _ in self.view.rows.showing(content)]

    def totals(self) -> Totals:
        """Count what the tree shows."""
        return Totals(self.view.files, self.view.directories, self.view.bytes)

    def conflicts(self) -> list[Conflict]:
        """Return the files that are shown in several versions, and the names that several files want."""
        parents = {parent for parent, _ in self.view.twins}
        for inode in self.view.contested:
            link = self.display.first_link(inode)
            if link is not None:
                parents.add(link.parent)
        found: dict[tuple[bytes, bytes], list[Entry]] = {}
        bases: dict[bytes, bytes] = {}
        for parent in sorted(parents):
            path = self.path(parent)
            if path is None:
                continue
            group = self.display.group(parent)[0]
            bases[group] = path.rstrip(b"/") + b"/"
            for entry in self.display.entries(group):
                place = found.setdefault((group, entry.link.name), [])
                if entry not in place:
                    place.append(entry)
        return [
            Conflict(bases[group] + name, tuple(self._version(bases[group], entry) for entry in entries))
            for (group, name), entries in sorted(found.items())
            if len(entries) > 1
        ]

    def _version(self, base: bytes, entry: Entry) -> Version:
        node = self.node_of(entry)
        clock = max((dot.clock for dot in node.shown), default=0)
        return Version(node.inode, base + entry.name, node.author, nanoseconds(clock), node.size, node.content)

    # -- drafts that only this pod knows ------------------------------------------------------------------------------

    def journal(
        self,
        inode: InodeId,
        link: LinkId,
        content: ContentId,
        size: int,
        mtime_ns: int,
        replaces: tuple[Dot, ...],
    ) -> None:
        """Remember an unpublished content of an open file; durable with the next commit."""
        self.view.store.begin()
        self.view.store.db.execute(
            "INSERT OR REPLACE INTO journal VALUES (?, ?, ?, ?, ?, ?)",
            (inode, link, content, size, mtime_ns, pack_dots(replaces) or b"\x90"),
        )

    def journalled(self) -> list[JournalEntry]:
        """Return what was journalled and not forgotten."""
        rows = self.view.store.db.execute("SELECT * FROM journal ORDER BY inode").fetchall()
        return [JournalEntry(i, link, c, size, mtime, unpack_dots(dots)) for i, link, c, size, mtime, dots in rows]

    def forget_journal(self, inode: InodeId) -> None:
        """Forget a draft: it was published, or its file is gone."""
        self.view.store.begin()
        self.view.store.db.execute("DELETE FROM journal WHERE inode = ?", (inode,))
