"""The POSIX face of the tree, errno-exact: names, attributes and directories by inode number.

Handlers call it on the event loop. Everything that only concerns the tree is answered at once; what may wait is async.
Knows nothing of requests, replies or mounts (`vfs.operations` does), so another way in can stand on it.

Every failure is a `WormholeError` with the error number that POSIX names.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from base.errors import FileSystemError
from crdt_meta.node import Kind, Node
from vfs.changes import Listing
from vfs.entries import Caller, Entries
from vfs.inodes import Known
from vfs.nursery import Newborn
from vfs.openfiles import without_privileges
from vfs.xattrs import OWN

if TYPE_CHECKING:
    from base.ids import InodeId

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2


@dataclass(slots=True)
class Change:
    """What setattr is to change; None: leave it."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None


class FileSystem(Entries):
    """See the module, and `Entries` for how it is made."""

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """Give a node another name or place. With EXCHANGE both change places, with NOREPLACE an existing one wins."""
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
            raise FileSystemError(errno.EINVAL)
        old, new = self.inodes.find(parent).inode, self.inodes.find(new_parent).inode
        self.publisher.bury()
        name, called = self.changes.open_names.real(old, name), name
        await self._content_first(old, name)
        if flags & RENAME_EXCHANGE:
            await self._content_first(new, new_name)
        self.publisher.bury()
        self._deliver(old, name)
        self._deliver(new, new_name)
        there = self._tree.lookup(new, new_name)
        if there is not None and there.is_directory:
            self.publisher.deliver(self.nursery.within(there.inode))
        own = ((old, name), (new, new_name)) if name == called else ((new, new_name),)
        with self.changes.own(*own):
            replaced = self._tree.rename(
                old,
                name,
                new,
                new_name,
                exchange=bool(flags & RENAME_EXCHANGE),
                no_replace=bool(flags & RENAME_NOREPLACE),
            )
        self._committer.request()
        if replaced is not None:
            self._lost_name(replaced)
        elif there is not None and there.is_directory and self._tree.get(there.inode) is None:
            self._lost_name(there._replace(nlink=0))

    async def _content_first(self, parent: InodeId, name: bytes) -> None:
        if not len(self.files):
            return
        newborn = self.nursery.lookup(parent, name)
        node = self._tree.lookup(parent, name) if newborn is None else newborn.node
        if node is not None:
            await self.open_files.content_first(node)

    def _deliver(self, directory: InodeId, name: bytes) -> None:
        """Have a name in the tree, if it isn't yet."""
        newborn = self.nursery.lookup(directory, name)
        if newborn is not None:
            self.publisher.deliver((newborn,))

    async def link(self, number: int, new_parent: int, new_name: bytes) -> tuple[Known, Node]:
        """Give a file another name. EPERM for a directory, ENOENT for one whose last name is gone."""
        known = self.inodes.find(number)
        node = self.now(known.inode)
        if node is None:
            raise FileSystemError(errno.ENOENT)
        if node.is_directory:
            raise FileSystemError(errno.EPERM)
        await self.open_files.content_first(node)
        self.publisher.bury()
        directory = self.inodes.find(new_parent)
        if (newborn := self.nursery.get(known.inode)) is not None:
            self.publisher.deliver((newborn,))
        if self.nursery.lookup(directory.inode, new_name) is not None:
            raise FileSystemError(errno.EEXIST)
        with self.changes.own((directory.inode, new_name)):
            node = self._tree.link(known.inode, directory.inode, new_name)
        self._committer.request()
        known.attributes = None
        return self._told(node), node

    def readlink(self, number: int) -> bytes:
        """Return the target of a symlink. EINVAL for anything else."""
        node = self.node(self.inodes.find(number))
        if node.kind is not Kind.SYMLINK:
            raise FileSystemError(errno.EINVAL)
        return node.target

    # -- files --------------------------------------------------------------------------------------------------------

    async def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[int, Known, Node]:
        """Make a file and open it; one that came into being meanwhile is opened, unless O_EXCL. Returns a handle."""
        try:
            known, node = self._conceive(parent, name, stat.S_IFREG | stat.S_IMODE(mode), caller)
        except FileSystemError as error:
            found = self.lookup(parent, name) if error.errno == errno.EEXIST and not flags & os.O_EXCL else None
            if found is None:
                raise
            known, node = found
        else:
            flags &= ~os.O_TRUNC
        return await self._open(node, flags, caller), known, node

    async def open(self, number: int, flags: int, caller: Caller) -> int:
        """Open a file; returns a handle. EISDIR."""
        known = self.inodes.find(number)
        live = self.files.get(known.inode)
        node = live.node if live is not None else self.node(known)
        if node.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EISDIR)
        return await self._open(node, flags, caller)

    async def _open(self, node: Node, flags: int, caller: Caller) -> int:
        handle = await self.open_files.open(node, flags, caller.privileged)
        self.changes.open_names.opened(node.inode)
        return handle

    async def release(self, handle: int) -> None:
        """Forget a handle."""
        inode = self.open_files.inode_of(handle)
        try:
            await self.open_files.release(handle)
        finally:
            if inode is not None:
                self.changes.closed_file(inode)

    async def set_attributes(self, number: int, change: Change, handle: int | None, caller: Caller) -> None:
        """Change attributes, the size first. Raises what the tree or the byte store refuses."""
        known = self.inodes.find(number)
        if change.size is not None:
            node = self.node(known)
            if node.is_directory:
                raise FileSystemError(errno.EISDIR)
            await self.open_files.truncate(node, change.size, handle, caller.privileged)
        node = self.node(known)
        mode = change.mode
        if (change.uid is not None or change.gid is not None) and mode is None and not node.is_directory:
            cleared = without_privileges(node.mode)
            mode = cleared if cleared != node.mode else None
        mtime_ns = change.mtime_ns if change.size is None else None  # a new size has set it
        live = self.files.get(known.inode)
        if mtime_ns is not None and mtime_ns == change.atime_ns:
            self.clock.told(mtime_ns)
        if change.atime_ns is not None:
            known.atime_ns = change.atime_ns
        elif mtime_ns is not None and known.atime_ns is None:
            known.atime_ns = live.mtime_ns if live is not None and live.overlaid else node.mtime_ns
        known.attributes = None
        if live is not None:
            live.touched()
        if mtime_ns is not None and live is not None and live.overlaid:
            live.mtime_ns = mtime_ns
            self.publisher.moved(live)
            mtime_ns = None
        if mode is None and change.uid is None and change.gid is None and mtime_ns is None:
            if change.atime_ns is not None and (live is None or not live.overlaid):
                known.ctime_ns = max(time.time_ns(), known.ctime_ns + 1, node.ctime_ns + 1)
            return
        if (newborn := self.nursery.get(known.inode)) is not None:
            self._change_newborn(newborn, mode, change, mtime_ns)
            return
        if mtime_ns is not None:
            self.nursery.forget_time(known.inode)
        if self.now(known.inode) is None:
            self._change_orphan(known, node, mode, change, mtime_ns)
            return
        with self.changes.own():
            self._tree.set_attributes(known.inode, mode=mode, uid=change.uid, gid=change.gid, mtime_ns=mtime_ns)
        self._committer.request()

    def _change_newborn(self, newborn: Newborn, mode: int | None, change: Change, mtime_ns: int | None) -> None:
        newborn.change(mode=mode, uid=change.uid, gid=change.gid, mtime_ns=mtime_ns)
        live = self.files.get(newborn.node.inode)
        if live is not None:
            live.changed_outside(newborn.node)
        self.changes.count += 1

    def _change_orphan(self, known: Known, node: Node, mode: int | None, change: Change, mtime_ns: int | None) -> None:
        known.orphan = node._replace(
            mode=node.mode if mode is None else mode,
            uid=node.uid if change.uid is None else change.uid,
            gid=node.gid if change.gid is None else change.gid,
            mtime_ns=node.mtime_ns if mtime_ns is None else mtime_ns,
            ctime_ns=max(time.time_ns(), node.ctime_ns + 1),
        )

    async def published(self, number: int) -> None:
        """Return once what was closed of a file is in the tree. Raises what keeps it from getting there."""
        inode = self.inodes.find(number).inode
        live, newborn = self.files.get(inode), self.nursery.get(inode)
        if live is not None and live.queued:
            await self.open_files.patience.disk(self.publisher.settle(live))
        elif newborn is not None:
            self.publisher.deliver((newborn,))

    def get_xattr(self, number: int, name: bytes) -> bytes:
        """Return the value of an extended attribute. ENODATA, EOPNOTSUPP."""
        known = self.inodes.find(number)
        if self.nursery.get(known.inode) is not None and not name.startswith(OWN):
            self.xattrs.check(name, None)
            raise FileSystemError(errno.ENODATA)
        return self.xattrs.get(known, name, lambda: self.node(known))

    def set_xattr(self, number: int, name: bytes, value: bytes | None) -> None:
        """Store or remove (None) an extended attribute. ENODATA, EOPNOTSUPP, EPERM, EINVAL, EISDIR, E2BIG, ESTALE."""
        known = self.inodes.find(number)
        if (newborn := self.nursery.get(known.inode)) is not None:
            self.xattrs.accepted(name, value, newborn.node)
            self.publisher.deliver((newborn,))
        self.publisher.bury()
        node = self.node(known)
        with self.changes.own():
            self.xattrs.set(known, name, value, node)
        if known.xattrs is not None:
            known.orphan = node._replace(ctime_ns=max(time.time_ns(), node.ctime_ns + 1))
        known.attributes = None
        self._committer.request()

    # -- directories --------------------------------------------------------------------------------------------------

    def list(self, listing: Listing) -> list[tuple[bytes, Node]]:
        """Take a snapshot of a directory, ``.`` and ``..`` first. A removed directory is empty."""
        known = self.inodes.get(listing.inode)
        if known is None:
            raise FileSystemError(errno.ENOENT)
        here = self.node(known)
        above = self._tree.parent(listing.inode)
        parent = (above and self._tree.get(above[0])) or here
        children = self.changes.names.children(listing.inode) if here.nlink else []
        children = self.changes.open_names.shown(listing.inode, children)
        gone = self.graves.within(listing.inode)
        if gone:
            children = [child for child in children if child[0] not in gone]
        newborns = self.nursery.within(listing.inode)
        if newborns:
            names = {one.name for one in newborns}
            children = [child for child in children if child[0] not in names]
            children += [(one.name, one.node) for one in newborns]
        listing.touched.clear()
        listing.taken = self.changes.count
        return [(b".", here), (b"..", parent), *children]

    async def sync_directory(self, listing: Listing) -> None:
        """Return once the names of a directory are on the disk."""
        self.publisher.bury()
        self.publisher.deliver(self.nursery.within(listing.inode))
        await self.open_files.sync_names()

    def child_now(self, listing: Listing, name: bytes) -> Node | None:
        """Return what a name of a listing leads to now, after it changed."""
        return self.named(listing.inode, name)
