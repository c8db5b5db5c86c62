"""The tree as the packages above see it: paths, nodes, and every operation with its POSIX errnos.

Reading is in `crdt_meta.reading`. Each operation writes its records at once into the view and into the pod's next
transaction. Before it does anything to a name or file that is shown with conflicting ones beside it, it writes those
down as nodes of their own, under the names that they are shown by: the loser survives whatever happens to the winner.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from base.errors import FileSystemError
from base.ids import ROOT_INODE, ContentId, Dot, InodeId, LinkId, PodId, WriterId, new_inode_id
from crdt_meta.derive import Written
from crdt_meta.display import Display, Entry
from crdt_meta.hlc import HybridClock
from crdt_meta.log import MetadataLog
from crdt_meta.node import Delta, Kind, Node
from crdt_meta.reading import Reading
from crdt_meta.records import (
    NAME_LIMIT_BYTES,
    TARGET_LIMIT_BYTES,
    XATTR_LIMIT_BYTES,
    Attributes,
    Birth,
    Body,
    Content,
    Deletion,
    LinkBirth,
    Name,
    Place,
    Settled,
    Strategy,
    Xattrs,
)
from crdt_meta.view import View

Records = list[tuple[bytes, Body]]
B = TypeVar("B", Settled, Attributes, Xattrs, Deletion)
XATTRS_LIMIT_BYTES = 512 * 1024
"""All extended attributes of one inode together."""


class Tree(Reading):
    """See the module. All methods are for the loop thread and raise `FileSystemError` with POSIX's errno."""

    def __init__(
        self,
        view: View,
        log: MetadataLog,
        clock: HybridClock,
        pod_of_writer: Callable[[WriterId], PodId | None],
        pod_name_of: Callable[[WriterId], str],
        strategy_for: Callable[[str], Strategy],
        has_room: Callable[[], bool],
    ) -> None:
        super().__init__(view, Display(view, pod_name_of), pod_of_writer)
        self._log = log
        self._clock = clock
        self._strategy_for = strategy_for
        self._has_room = has_room
        self._listeners: list[Callable[[Delta], None]] = []
        log.on_delta = self._deliver

    def on_delta(self, listener: Callable[[Delta], None]) -> None:
        """Call ``listener`` after every local operation and every applied remote transaction."""
        self._listeners.append(listener)

    def _deliver(self, delta: Delta) -> None:
        self.changed(delta)
        for listener in self._listeners:
            listener(delta)

    def _write(self, records: Records) -> None:
        self._deliver(self._log.write(records))

    def _need_room(self) -> None:
        if not self._has_room():
            raise FileSystemError(errno.ENOSPC)

    # -- making -------------------------------------------------------------------------------------------------------

    def create(
        self,
        parent: InodeId,
        name: bytes,
        kind: Kind,
        *,
        mode: int,
        uid: int,
        gid: int,
        mtime_ns: int,
        target: bytes = b"",
        rdev: int = 0,
    ) -> Node:
        """Make a file, directory, link or special file.

        Raises EEXIST, ENOENT, ENOTDIR, EINVAL, ENAMETOOLONG, ENOSPC.
        """
        self._check_new(parent, name)
        if len(target) > TARGET_LIMIT_BYTES:
            raise FileSystemError(errno.ENAMETOOLONG)
        self._need_room()
        inode, now = new_inode_id(), self._clock.tick()
        strategy = self._strategy_of(parent, name) if kind is Kind.FILE else Strategy.KEEP_BOTH
        birth = Birth(now, kind, mode & 0o7777, uid, gid, mtime_ns, target, rdev, strategy=strategy)
        place = self.display.group(parent)[0]
        self._write([(inode, birth), (inode, LinkBirth(now, inode, place, name))])
        return self._must(inode)

    def link(self, inode: InodeId, parent: InodeId, name: bytes) -> Node:
        """Make a second name of a file. Raises EPERM for directories, and as `create`."""
        node = self._must(inode)
        if node.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EPERM)
        self._check_new(parent, name)
        self._need_room()
        self._settle_siblings(inode)
        link = new_inode_id()
        self._write([(link, LinkBirth(self._clock.tick(), inode, self.display.group(parent)[0], name))])
        made = self.lookup(parent, name)
        if made is None:
            raise FileSystemError(errno.EIO)
        return made

    def _check_new(self, parent: InodeId, name: bytes) -> None:
        self._directory(parent)
        if len(name) > NAME_LIMIT_BYTES:
            raise FileSystemError(errno.ENAMETOOLONG)
        if not name or b"/" in name or b"\0" in name:
            raise FileSystemError(errno.EINVAL)
        if name in (b".", b"..") or self.display.lookup(parent, name) is not None:
            raise FileSystemError(errno.EEXIST)

    def _strategy_of(self, parent: InodeId, name: bytes) -> Strategy:
        path = self.path(parent)
        if path is None:
            return Strategy.KEEP_BOTH
        full = path.rstrip(b"/") + b"/" + name
        return self._strategy_for(full.decode("utf-8", "surrogateescape"))

    # -- removing -----------------------------------------------------------------------------------------------------

    def unlink(self, parent: InodeId, name: bytes) -> Node:
        """Remove a name; return the node as it is afterwards (``nlink`` 0: the last one). Raises ENOENT, EISDIR."""
        entry = self._settled_entry(parent, name)
        if entry.inode.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EISDIR)
        before = self.node_of(entry)
        self._write(self._deletions(entry))
        return self.get(before.inode) or self.gone(before)

    def rmdir(self, parent: InodeId, name: bytes) -> None:
        """Remove an empty directory. Raises ENOENT, ENOTDIR, ENOTEMPTY."""
        entry = self._settled_entry(parent, name)
        if entry.inode.kind is not Kind.DIRECTORY:
            raise FileSystemError(errno.ENOTDIR)
        if self.display.entries(entry.inode.id):
            raise FileSystemError(errno.ENOTEMPTY)
        self._write(self._deletions(entry))

    def _deletions(self, entry: Entry) -> Records:
        """Return the records that delete what an entry stands for, naming the contents that it showed."""
        now = self._clock.tick()
        return [
            (link.id, Deletion(now, self._named(link.id, link.inode)))
            for link in (entry.link, *entry.twins, *entry.hidden)
        ]

    def _named(self, link: LinkId, inode: InodeId) -> tuple[Dot, ...]:
        row = self.view.rows.inode(inode)
        if row is None or row.kind is Kind.DIRECTORY:
            return ()
        earlier = self._own(link, Deletion)
        dots = dict.fromkeys(() if earlier is None else earlier.dots)
        return tuple(dots | dict.fromkeys((row.dot, *row.more_dots)))

    # -- moving -------------------------------------------------------------------------------------------------------

    def rename(
        self,
        parent: InodeId,
        name: bytes,
        new_parent: InodeId,
        new_name: bytes,
        *,
        exchange: bool = False,
        no_replace: bool = False,
    ) -> Node | None:
        """Move a name; return the node that it replaced, as it is afterwards, if any.

        Raises ENOENT, ENOTDIR, EEXIST, EINVAL (into itself), EISDIR, ENOTEMPTY, ENAMETOOLONG, EBUSY.
        """
        self._directory(parent)
        self._directory(new_parent)
        if len(new_name) > NAME_LIMIT_BYTES:
            raise FileSystemError(errno.ENAMETOOLONG)
        if new_name in (b"", b".", b"..") or name in (b"", b".", b".."):
            raise FileSystemError(errno.EBUSY)
        source = self._settled_entry(parent, name)
        there = self.display.lookup(new_parent, new_name)
        if there is not None and no_replace:
            raise FileSystemError(errno.EEXIST)
        if there is None and exchange:
            raise FileSystemError(errno.ENOENT)
        self._check_loop(source, new_parent)
        if there is not None and there.inode.id == source.inode.id:
            return None
        if there is not None:
            there = self._settled_entry(new_parent, new_name)
            source = self._settled_entry(parent, name)
        if exchange and there is not None:
            self._check_loop(there, parent)
            self._write(self._heal() + self._moves(source, new_parent, new_name) + self._moves(there, parent, name))
            return None
        replaced = None if there is None else self._replaceable(source, there)
        records = [] if there is None else self._deletions(there)
        self._write(self._heal() + records + self._moves(source, new_parent, new_name))
        if replaced is None or replaced.kind is Kind.DIRECTORY:
            return None
        return self.get(replaced.inode) or self.gone(replaced)

    def _replaceable(self, source: Entry, there: Entry) -> Node:
        source_is, there_is = (one.inode.kind is Kind.DIRECTORY for one in (source, there))
        if there_is and not source_is:
            raise FileSystemError(errno.EISDIR)
        if source_is and not there_is:
            raise FileSystemError(errno.ENOTDIR)
        if there_is and self.display.entries(there.inode.id):
            raise FileSystemError(errno.ENOTEMPTY)
        return self.node_of(there)

    def _check_loop(self, moved: Entry, into: InodeId) -> None:
        """Refuse to move a directory below itself."""
        if moved.inode.kind is not Kind.DIRECTORY:
            return
        members = {moved.inode.id, *(link.inode for link in moved.twins)}
        at: InodeId | None = into
        for _ in range(self.DEPTH_LIMIT):
            if at is None or at == ROOT_INODE:
                return
            if at in members:
                raise FileSystemError(errno.EINVAL)
            at = self.view.parent(at)
        raise FileSystemError(errno.ELOOP)

    def _moves(self, entry: Entry, parent: InodeId, name: bytes) -> Records:
        """Return the records that move what an entry stands for; what hid behind it is deleted."""
        now = self._clock.tick()
        group = self.display.group(parent)
        records: Records = []
        for link in (entry.link, *entry.twins):
            if link.parent not in group:
                records.append((link.id, Place(now, group[0], link.parent)))
            if link.name != name:
                records.append((link.id, Name(now, name)))
        records += [(link.id, Deletion(now, self._named(link.id, link.inode))) for link in entry.hidden]
        return records

    def _heal(self) -> Records:
        """Write down the places of directories that a cycle changed, so that no later move revives a lost edge."""
        records: Records = []
        for inode in sorted(self.view.demoted):
            row = self.view.store.link(LinkId(inode))
            if row is not None:
                records.append((row.id, Place(self._clock.tick(), row.parent, row.parent)))
        return records

    # -- changing -----------------------------------------------------------------------------------------------------

    def set_attributes(
        self,
        inode: InodeId,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mtime_ns: int | None = None,
    ) -> Node:
        """Change attributes; those that are None stay. Raises ENOENT, ENOSPC."""
        self._must(inode)
        self._settle_siblings(inode)
        now = self._clock.tick()
        given = {"mode": mode, "uid": uid, "gid": gid, "mtime_ns": mtime_ns}
        earlier = self._own(inode, Attributes)
        values = dict(earlier.values) if earlier is not None else {}
        values |= {key: (now, value) for key, value in given.items() if value is not None}
        self._need_room()
        self._write([(inode, Attributes(now, values))])
        return self._must(inode)

    def set_xattr(self, inode: InodeId, name: bytes, value: bytes | None) -> None:
        """Set (None: remove) an extended attribute. Raises ENOENT, ENODATA, ERANGE, E2BIG, ENOSPC."""
        self._must(inode)
        if not 0 < len(name) <= 255:
            raise FileSystemError(errno.ERANGE)
        current = self.xattrs(inode)
        if value is None and name not in current:
            raise FileSystemError(errno.ENODATA)
        if value is not None:
            total = sum(len(k) + len(v) for k, v in current.items() if k != name) + len(name) + len(value)
            if len(value) > XATTR_LIMIT_BYTES or total > XATTRS_LIMIT_BYTES:
                raise FileSystemError(errno.E2BIG)
            self._need_room()
        self._settle_siblings(inode)
        now = self._clock.tick()
        earlier = self._own(inode, Xattrs)
        values = dict(earlier.values) if earlier is not None else {}
        self._write([(inode, Xattrs(now, values | {name: (now, value)}))])

    def publish(
        self, inode: InodeId, link: LinkId, content: ContentId, size: int, mtime_ns: int, replaces: Sequence[Dot]
    ) -> Node:
        """Give a file a content in place of the dots that its handle showed. Raises ENOENT when it is unknown."""
        self._settle_siblings(inode)
        if not self.view.store.records(inode, "i"):
            raise FileSystemError(errno.ENOENT)
        path = self.path(inode)
        strategy = Strategy.KEEP_BOTH if path is None else self._strategy_for(path.decode("utf-8", "surrogateescape"))
        via = link if link in self.view.store.links_to(inode) else LinkId(inode)
        now = self._clock.tick()
        self._write([(inode, Content(now, content, size, mtime_ns, via, tuple(replaces), strategy))])
        return self._must(inode)

    # -- conflicts ----------------------------------------------------------------------------------------------------

    def _settled_entry(self, parent: InodeId, name: bytes) -> Entry:
        """Return what a name shows, after what conflicts with it was written down. Raises ENOENT."""
        entry = self.display.lookup(parent, name)
        while entry is not None and (records := self._settling(entry)):
            self._write(records)
            entry = self.display.lookup(parent, name)
        if entry is None:
            raise FileSystemError(errno.ENOENT)
        return entry

    def _settling(self, entry: Entry) -> Records:
        """Return the records that give everything in conflict with an entry a name of its own."""
        records: Records = []
        if not self.view.twins and entry.inode.id not in self.view.contested:
            return records
        for other in self.display.entries(entry.link.parent):
            same_inode = other.sibling is not None and other.inode.id == entry.inode.id
            same_name = other.sibling is None and other.conflicting and other.link.name == entry.link.name
            if same_inode:
                records += self._own_inode(other)
            elif same_name:
                records.append((other.link.id, Name(self._clock.tick(), other.name)))
        return records

    def _settle_siblings(self, inode: InodeId) -> None:
        """Write down the siblings of a file (given by its own id or by a sibling's) as files of their own."""
        owner = self.view.sibling_owner.get(inode, inode)
        if owner not in self.view.contested:
            return
        link = self.display.first_link(owner)
        if link is None:
            return
        records: Records = []
        for other in self.display.entries(link.parent):
            if other.sibling is not None and other.inode.id == owner:
                records += self._own_inode(other)
        self._write(records)

    def _own_inode(self, entry: Entry) -> Records:
        """Return the records that make a sibling a file of its own; two pods that do it write the same file."""
        sibling, row = entry.sibling, entry.inode
        if sibling is None:
            return []
        now = self._clock.tick()
        birth = Birth(
            now,
            Kind.FILE,
            row.mode,
            row.uid,
            row.gid,
            sibling.mtime_ns,
            content=sibling.content,
            size=sibling.size,
            strategy=row.strategy,
            origin=sibling.dot,
        )
        settled = self._own(row.id, Settled)
        dots = dict.fromkeys(() if settled is None else settled.dots)
        dots |= dict.fromkeys((sibling.dot, *sibling.more_dots))
        parent = entry.link.parent
        return [
            (sibling.id, birth),
            (sibling.id, LinkBirth(now, sibling.id, parent, entry.name)),
            (row.id, Settled(now, tuple(dots))),
        ]

    def _own(self, node: bytes, kind: type[B]) -> B | None:
        """Return the record of a kind that this pod wrote of a node."""
        for writer, body in self._records_of(node):
            if writer == self._log.writer and isinstance(body, kind):
                return body
        return None

    def _records_of(self, node: bytes) -> Iterable[Written]:
        return self.view.store.records(node, "icsaxlpnd")
