"""The tree as the packages above see it: paths, nodes, and every operation with its POSIX errnos.

Reading is in `crdt_meta.reading`, what all operations have in common in `crdt_meta.settling`, contents are in
`crdt_meta.publishing`, the trash in `crdt_meta.trash`, conflicts in
`crdt_meta.deciding`. Each operation writes its
records at once into the view and into the pod's next transaction.
"""

from __future__ import annotations

import errno

from base.errors import FileSystemError
from base.ids import ROOT_INODE, InodeId, LinkId, new_inode_id
from crdt_meta.bearing import Bearing
from crdt_meta.display import Entry
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Kind, Node
from crdt_meta.records import (
    NAME_LIMIT_BYTES,
    TARGET_LIMIT_BYTES,
    XATTR_LIMIT_BYTES,
    Attributes,
    Birth,
    Key,
    LinkBirth,
    Name,
    Place,
    Strategy,
    Why,
    Xattrs,
)
from crdt_meta.rows import InodeRow
from crdt_meta.settling import Records

XATTRS_LIMIT_BYTES = 512 * 1024
"""All extended attributes of one inode together."""


class Tree(Bearing):
    """See the module. All methods are for the loop thread and raise `FileSystemError` with POSIX's errno."""

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
        mtime_ns: int | None = None,
        target: bytes = b"",
        rdev: int = 0,
        inode: InodeId | None = None,
    ) -> Node:
        """Make a file, directory, link or special file; without ``mtime_ns`` all its times are that of this call.

        ``inode``: its id, fresh; None: a random one.

        Raises EEXIST, ENOENT, ENOTDIR, EINVAL, ENAMETOOLONG, ENOSPC.
        """
        self._check_new(parent, name)
        if len(target) > TARGET_LIMIT_BYTES:
            raise FileSystemError(errno.ENAMETOOLONG)
        self._need_room()
        inode, now = inode or new_inode_id(), self._clock.tick()
        self.view.fresh(inode)
        strategy = self._strategy_of(parent, name) if kind is Kind.FILE else Strategy.KEEP_BOTH
        modified_ns = nanoseconds(now) if mtime_ns is None else mtime_ns
        birth = Birth(now, kind, mode & 0o7777, uid, gid, modified_ns, target, rdev, strategy=strategy)
        place = self.display.group(parent)[0]
        self._write([(inode, birth), (inode, LinkBirth(now, inode, place, name)), *self._timed(parent)])
        return self._must(inode)

    def link(self, inode: InodeId, parent: InodeId, name: bytes, *, link: LinkId | None = None) -> Node:
        """Make a second name of a file; ``link``: its id, fresh (None: a random one).

        Raises EPERM for directories, and as `create`.
        """
        node = self._must(inode)
        if node.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EPERM)
        self._check_new(parent, name)
        self._need_room()
        self._settle(inode)
        link = link or LinkId(new_inode_id())
        self.view.fresh(link)
        born = LinkBirth(self._clock.tick(), inode, self.display.group(parent)[0], name)
        self._write([(link, born), *self._timed(parent)])
        made = self.lookup(parent, name)
        if made is None:
            raise FileSystemError(errno.EIO)
        return made

    def _check_new(self, parent: InodeId, name: bytes) -> None:
        self._need_directory(parent)
        if len(name) > NAME_LIMIT_BYTES:
            raise FileSystemError(errno.ENAMETOOLONG)
        if not name or b"/" in name or b"\0" in name:
            raise FileSystemError(errno.EINVAL)
        if name in (b".", b"..") or self.display.lookup(parent, name) is not None:
            raise FileSystemError(errno.EEXIST)

    # -- removing -----------------------------------------------------------------------------------------------------

    def unlink(self, parent: InodeId, name: bytes) -> Node:
        """Remove a name; return the node as it is afterwards (``nlink`` 0: the last one). Raises ENOENT, EISDIR."""
        entry = self._settled_entry(parent, name)
        if entry.inode.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EISDIR)
        before = self.node_of(entry)
        self._write(self._deletions(entry) + self._timed(parent))
        return self.get(before.inode) or self.gone(before)

    def rmdir(self, parent: InodeId, name: bytes) -> None:
        """Remove an empty directory. Raises ENOENT, ENOTDIR, ENOTEMPTY."""
        entry = self._settled_entry(parent, name)
        if entry.inode.kind is not Kind.DIRECTORY:
            raise FileSystemError(errno.ENOTDIR)
        if self.display.entries(entry.inode.id):
            raise FileSystemError(errno.ENOTEMPTY)
        self._write(self._deletions(entry) + self._timed(parent))

    def _deletions(self, entry: Entry) -> Records:
        """Return the records that delete what an entry stands for, naming the contents that it showed."""
        return self._deleted((entry.link, *entry.twins)) + self._buried(entry)

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
        self._need_directory(parent)
        self._need_directory(new_parent)
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
            moves = self._moves(source, new_parent, new_name) + self._moves(there, parent, name)
            self._write(self._heal() + moves + self._timed(parent, new_parent))
            return None
        replaced = None if there is None else self._replaceable(source, there)
        records, obsolete = ([], []) if there is None else self._replacing(there, source.inode)
        records += self._moves(source, new_parent, new_name)
        self._write(self._heal() + records + self._timed(parent, new_parent), obsolete)
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

    def _replacing(self, there: Entry, by: InodeRow) -> tuple[Records, list[Key]]:
        """Return the records that delete what something else is renamed over, and those that can go then."""
        if there.inode.kind is not Kind.FILE:
            return self._deletions(there), []
        records = self._deleted([there.link], Why.OVERWRITTEN) + self._buried(there)
        gone: list[Key] = []
        if self.view.links.living(there.inode.id) == [there.link]:
            for inode, dots in self._outlived(there, by.content).items():
                more, keys = self._purged(inode, dots)
                records += more
                gone += keys
        return records, gone

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
        group = self.display.group(parent)
        records: Records = []
        for link in (entry.link, *entry.twins):
            now = self._stamp(link.id)
            if link.parent not in group:
                records.append((link.id, Place(now, group[0], link.parent)))
            if link.name != name:
                records.append((link.id, Name(now, name)))
        return records + self._buried(entry)

    def heal(self) -> None:
        """Write down the places that cycles changed, so that nothing depends on what made them any more."""
        if records := self._heal():
            self._write(records)

    def _heal(self) -> Records:
        """Write down the places of directories that a cycle changed, so that no later move revives a lost edge."""
        records: Records = []
        for inode in sorted(self.view.demoted):
            row = self.view.links.get(LinkId(inode))
            if row is not None:
                records.append((row.id, Place(self._stamp(row.id), row.parent, row.parent)))
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
        node = self._must(inode)
        self._need_room()
        self._settle(inode)
        given = {"mode": mode, "uid": uid, "gid": gid, "mtime_ns": mtime_ns}
        records: Records = []
        group = self.display.group(inode)
        touched = self._touched(inode) if node.is_directory else 0
        for member in group:
            now = self._stamp(member, touched)
            earlier = self._own(member, Attributes)
            values = dict(earlier.values) if earlier is not None else {}
            values |= {key: (now, value) for key, value in given.items() if value is not None}
            records.append((member, Attributes(now, values)))
        self._write(records)
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
        self._settle(inode)
        self._write([(member, self._with_xattr(member, name, value)) for member in self.display.group(inode)])

    def _with_xattr(self, inode: InodeId, name: bytes, value: bytes | None) -> Xattrs:
        """Return this pod's record with a value changed; removals are remembered while others' values need them."""
        now = self._stamp(inode)
        values: dict[bytes, tuple[int, bytes | None]] = {}
        others: set[bytes] = set()
        for writer, body in self._records_of(inode, "x"):
            if isinstance(body, Xattrs) and writer == self._writer:
                values = dict(body.values)
            elif isinstance(body, Xattrs):
                others.update(body.values)
        values[name] = (now, value)
        return Xattrs(now, {key: one for key, one in values.items() if one[1] is not None or key in others})
