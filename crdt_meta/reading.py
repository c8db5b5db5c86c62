"""Reading the tree: nodes, names, paths, walks. A bounded number of nodes is kept in memory."""

from __future__ import annotations

import errno
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from base.errors import FileSystemError
from base.ids import EMPTY_CONTENT, ROOT_INODE, ContentId, Dot, InodeId, LinkId, PodId, WriterId
from crdt_meta.derive import explicit_mtime, merged_xattrs
from crdt_meta.display import Display, Entry
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Conflict, Delta, JournalEntry, Kind, Node, Totals, Version
from crdt_meta.records import Attributes
from crdt_meta.rows import InodeRow, pack_dots, unpack_dots
from crdt_meta.store import LARGE_BYTES
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
        self._paths: dict[InodeId, bytes | None] = {}
        """Paths of directories, as long as none moves."""
        self._paths_at = -1
        self.root_owner = (0, 0)
        """uid and gid that the root shows until somebody changes them."""

    def changed(self, delta: Delta) -> None:
        """Forget cached nodes that a change concerns."""
        for inode in delta.inodes:
            self._nodes.pop(inode, None)

    def slim(self) -> None:
        """Give memory back: what is remembered of the tree is read again when it is needed."""
        self._nodes.clear()
        self._paths.clear()
        self.view.store.slim()

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
        links = self.view.links.living(inode)
        if not links:
            return None
        return self._node(row, links[0].id, len(links))

    def published_by(self, node: Node) -> set[PodId]:
        """Return the pods in whose logs the contents stand that a node shows, whoever wrote them."""
        dots = set(node.shown)
        held = (one for one in self.view.records.held(node.inode) if one.body is not None and one.key.kind in "ci")
        holders = {one.holder for one in held if one.body and Dot(one.author, one.body.clock) in dots}
        return {pod for pod in map(self._pod_of_writer, holders) if pod is not None}

    def departed(self, inode: InodeId) -> Node | None:
        """Return what a directory was that was removed, for those who still have it open; None when it isn't known."""
        row = self.view.rows.inode(inode)
        if row is None or row.kind is not Kind.DIRECTORY:
            return None
        return self._node(row, LinkId(inode), 0)._replace(nlink=0)

    def _must(self, inode: InodeId) -> Node:
        node = self.get(inode)
        if node is None:
            raise FileSystemError(errno.ENOENT)
        return node

    def _need_directory(self, inode: InodeId) -> None:
        """Raise ENOENT or ENOTDIR if that isn't a directory."""
        if inode != ROOT_INODE:
            row, link = self.view.rows.inode(inode), self.view.links.get(LinkId(inode))
            if row is None or link is None or not link.alive:
                self._must(inode)
            if row is None or row.kind is not Kind.DIRECTORY:
                raise FileSystemError(errno.ENOTDIR)

    def entries_changed(self, directory: InodeId) -> tuple[int, int] | None:
        """Return (time of the last change of a directory's entries (ns), subdirectories); None: read its node.

        Cheaper than the node, and the same after a change of an entry, which makes that the time of the directory.
        """
        if directory == ROOT_INODE or len(self.display.group(directory)) > 1:
            return None
        touched, subdirectories = self.view.rows.directory(directory)
        return nanoseconds(touched), subdirectories

    def _node(self, row: InodeRow, link: LinkId, nlink: int) -> Node:
        mtime_ns, ctime_ns = row.mtime_ns, row.ctime_ns
        if row.kind is Kind.DIRECTORY:
            touched, subdirectories = self.view.rows.directory(row.id)
            for twin in self.display.group(row.id):
                if twin != row.id:
                    more, count = self.view.rows.directory(twin)
                    touched, subdirectories = max(touched, more), subdirectories + count
            nlink = 2 + subdirectories
            if touched and touched > explicit_mtime(self.view.records.of(row.id, "ia"))[0]:
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
        for writer, body in self.view.records.of(ROOT_INODE, "ax"):
            changed = max(changed, body.clock)
            for key, (clock, value) in body.values.items() if isinstance(body, Attributes) else ():
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
            return node if node.link == entry.link.id else node._replace(link=entry.link.id)
        sibling = entry.sibling
        base = self._node(entry.inode, entry.link.id, 1)
        return base._replace(
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
        return node._replace(nlink=0)

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
            if simple and row.id not in self._nodes and len(self.view.links.to(row.id)) == 1:
                found.append((entry.name, self._node(row, entry.link.id, 1)))
            else:
                found.append((entry.name, self.node_of(entry)))
        return found

    def children_after(self, parent: InodeId, name: bytes, limit: int) -> list[tuple[bytes, Node]]:
        """Return some of the entries behind a name, in order: a guess, in which what is in conflict may be missing."""
        names = self.view.links.names_after(parent, name, limit)
        return [(each, node) for each in names if (node := self.lookup(parent, each)) is not None]

    def parent(self, inode: InodeId) -> tuple[InodeId, bytes] | None:
        """Return the directory and the name of an inode's first living link that is shown.

        When all are hidden behind other files, the name is that of the file which stands for it.
        """
        return next(self._parents(inode), None)

    def _parents(self, inode: InodeId) -> Iterator[tuple[InodeId, bytes]]:
        """Yield the directories and names of an inode's living links, those that are shown first."""
        links = self.view.links.living(inode)
        if len(links) > 1:
            links.sort(key=self.display.is_hidden)
        for link in links:
            yield self.display.group(link.parent)[0], self.display.shown_name(link)
        if not links and (entry := self.display.sibling(inode)) is not None:
            yield self.display.group(entry.link.parent)[0], entry.name

    def path(self, inode: InodeId) -> bytes | None:
        """Return a path of an inode (``/a/b``; the root is ``/``); None when it isn't shown."""
        links = self.view.links.living(inode)
        if len(links) != 1 or self.view.naming.shown:
            return next(self.paths(inode), None)
        above = self._directory_path(self.display.group(links[0].parent)[0])
        return None if above is None else above + b"/" + links[0].name

    def paths(self, inode: InodeId) -> Iterator[bytes]:
        """Yield all paths of an inode, as `path` gives one."""
        if inode == ROOT_INODE:
            yield b"/"
            return
        for parent, name in self._parents(inode):
            above = self._directory_path(parent)
            if above is not None:
                yield above + b"/" + name

    def _directory_path(self, directory: InodeId) -> bytes | None:
        """Return the path of a directory, nothing for the root; None when it isn't attached to it."""
        if self._paths_at != self.view.moves or len(self._paths) >= CACHED_NODES:
            self._paths.clear()
            self._paths_at = self.view.moves
        try:
            return self._paths[directory]
        except KeyError:
            path = self._paths[directory] = self._path_above(directory)
            return path

    def _path_above(self, directory: InodeId) -> bytes | None:
        names: list[bytes] = []
        at = directory
        while at != ROOT_INODE:
            link = self.view.links.get(LinkId(at))
            if link is None or link.kind != Kind.DIRECTORY or not link.alive or len(names) >= self.DEPTH_LIMIT:
                return None
            names.append(link.name)
            at = link.parent
        return b"".join(b"/" + name for name in reversed(names))

    def resolve(self, path: bytes) -> Node:
        """Return what a path shows, links not followed. Raises ENOENT, ENOTDIR."""
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        if not names:
            return self._must(ROOT_INODE)
        at = ROOT_INODE
        for name in names[:-1]:
            below = self.display.directory(at, name)
            if below is None:
                raise FileSystemError(errno.ENOENT if self.display.lookup(at, name) is None else errno.ENOTDIR)
            at = below
        entry = self.display.lookup(at, names[-1])
        if entry is None:
            raise FileSystemError(errno.ENOENT)
        return self.node_of(entry)

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
        return merged_xattrs(self.view.records.of(self.view.sibling_owner.get(inode, inode), "x"))

    def marks(self, inode: InodeId) -> dict[bytes, bytes]:
        """Return the extended attributes of an inode below ``user.wormhole.``, quickly; as a rule there are none."""
        return self.view.marks.of(self.view.sibling_owner.get(inode, inode))

    def contents(self, after: ContentId | None, limit: int) -> list[tuple[ContentId, int, PodId | None]]:
        """Return (content, size, author) of what files show and what is in the trash, in the order of the contents' ids."""
        pages = (self.view.trash.contents(after, limit), self.view.rows.contents(after, limit))
        upto = min((page[-1][0] for page in pages if page), default=b"")  # behind it one of the pages may miss some
        found = {content: (size, by) for page in pages for content, size, by in page if content <= upto}
        return [(content, size, self._pod_of_writer(by)) for content, (size, by) in sorted(found.items())]

    def large_contents(self, after: ContentId | None, limit: int) -> list[tuple[ContentId, int]]:
        """Return (content, size) of those of `contents` that have more than `LARGE_BYTES`, in the order of their ids."""
        rows: list[tuple[bytes, int]] = []
        for table in ("inode", "sibling", "trash"):
            query = (
                f"SELECT content, size FROM {table} "  # noqa: S608 (fixed names)
                f"WHERE size > {LARGE_BYTES} AND content > ? ORDER BY content, size LIMIT ?"
            )
            rows += self.view.store.query(query, (after or b"", limit))
        found: dict[ContentId, int] = {}
        for content, size in sorted(rows)[:limit]:  # behind them one of the tables may miss some
            found.setdefault(ContentId(content), size)
        return list(found.items())

    def references(self, content: ContentId) -> list[InodeId]:
        """Return the inodes that show a content, and those that have it in the trash only."""
        return list(dict.fromkeys((*self.showing(content), *(row.inode for row in self.view.trash.holding(content)))))

    def showing(self, content: ContentId) -> list[InodeId]:
        """Return the inodes that show a content."""
        return [inode for inode, _, _ in self.view.rows.showing(content)]

    def totals(self) -> Totals:
        """Count what the tree shows."""
        return Totals(self.view.files, self.view.directories, self.view.bytes)

    def conflicts(self) -> list[Conflict]:
        """Return the names that several versions or files want: who has it, and what is shown beside it."""
        found: list[Conflict] = []
        for directory, claims in self.view.naming.claims.items():
            path = self.path(directory)
            if path is None:
                continue
            base = path.rstrip(b"/") + b"/"
            for name, claim in claims.items():
                entry = self.display.lookup(directory, name)
                if entry is not None and claim.losers:
                    entries = [entry, *self.display.losers(entry.link)]
                    found.append(Conflict(base + name, tuple(self._version(base, one) for one in entries)))
        return sorted(found)

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
        self.forget_journal_writes(inode)

    def journal_writes(self, inode: InodeId, writes: Iterable[tuple[int, bytes]]) -> None:
        """Remember writes (offset, bytes) on top of a journalled content; durable with the next commit."""
        self.view.store.begin()
        self.view.store.db.executemany(
            "INSERT INTO journal_write VALUES (NULL, ?, ?, ?)", [(inode, offset, data) for offset, data in writes]
        )

    def journalled_writes(self, inode: InodeId) -> list[tuple[int, bytes]]:
        """Return the writes on top of a journalled content, in their order."""
        query = "SELECT at, bytes FROM journal_write WHERE inode = ? ORDER BY number"
        return self.view.store.db.execute(query, (inode,)).fetchall()

    def forget_journal_writes(self, inode: InodeId) -> None:
        """Forget writes: a later journalled content has them."""
        self.view.store.begin()
        self.view.store.db.execute("DELETE FROM journal_write WHERE inode = ?", (inode,))
