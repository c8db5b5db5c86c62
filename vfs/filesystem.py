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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from base.errors import FileSystemError
from crdt_meta.node import Kind, Node
from vfs.attributes import KIND_OF, Attributes
from vfs.changes import Changes, Listing
from vfs.clock import Clock
from vfs.inodes import Inodes, Known
from vfs.livefile import LiveFiles
from vfs.openfiles import SETGID, OpenFiles, without_privileges
from vfs.publisher import Publisher
from vfs.xattrs import ExtendedAttributes

if TYPE_CHECKING:
    import pyfuse3

    from base.ids import InodeId
    from crdt_meta.committer import Committer
    from crdt_meta.tree import Tree
    from transfer.service import Transfer
    from vfs.notify import Notifier
    from vfs.xattrs import XattrInfo

NAME_LIMIT_BYTES: Final = 255

RENAME_NOREPLACE: Final = 1
RENAME_EXCHANGE: Final = 2


class Caller(NamedTuple):
    """Who asks."""

    uid: int
    gid: int

    @property
    def privileged(self) -> bool:
        """Whether writing leaves setuid alone (root)."""
        return self.uid == 0


@dataclass(slots=True)
class Change:
    """What setattr is to change; None: leave it."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None


class FileSystem:
    """One mounted tree. ``owner`` is (uid, gid) when all files belong to who mounts, None: as stored."""

    PUBLISHER: ClassVar[type[Publisher]] = Publisher

    def __init__(
        self,
        tree: Tree,
        committer: Committer,
        transfer: Transfer,
        notifier: Notifier,
        xattr_info: XattrInfo,
        *,
        owner: tuple[int, int] | None,
        deadline_s: float,
    ) -> None:
        self._tree = tree
        self._committer = committer
        self.clock = Clock()
        self.inodes = Inodes()
        self.files = LiveFiles(transfer)
        self.changes = Changes(tree, self.inodes, self.files, notifier)
        self.publisher = self.PUBLISHER(tree, committer, transfer, self.files, self.changes)
        self.attributes = Attributes(self.files, owner)
        self.open_files = OpenFiles(
            tree, committer, transfer, self.inodes, self.files, self.publisher, self.clock, deadline_s=deadline_s
        )
        self.xattrs = ExtendedAttributes(tree, xattr_info)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def node(self, known: Known) -> Node:
        """Return what the tree shows of an inode, or what it was when its last name went. ENOENT."""
        node = self._tree.get(known.inode)
        if node is not None:
            return node
        if known.orphan is None:
            known.orphan = self._tree.departed(known.inode)
        if known.orphan is None:
            raise FileSystemError(errno.ENOENT)
        return known.orphan

    def attributes_of(self, number: int) -> pyfuse3.EntryAttributes:
        """Return the attributes of an inode. ENOENT, ESTALE."""
        known = self.inodes.find(number)
        return known.attributes or self.attributes.of(known, self.node(known))

    def _told(self, node: Node) -> Known:
        """Return the entry of a node that the kernel is being told of."""
        known = self.inodes.entry(node.inode)
        self.inodes.looked_up(known)
        return known

    def _entry_changed(self, directory: Known, told: pyfuse3.EntryAttributes | None) -> None:
        """Bring what was told of a directory up to date after a change of an entry, instead of making it anew."""
        changed = None if told is None or directory.attributes else self._tree.entries_changed(directory.inode)
        if told is not None and changed is not None:
            told.st_mtime_ns, told.st_nlink = changed[0], 2 + changed[1]
            told.st_ctime_ns = max(told.st_ctime_ns, changed[0], directory.ctime_ns)
            if directory.atime_ns is None:
                told.st_atime_ns = changed[0]
            directory.attributes = told

    def lookup(self, parent: int, name: bytes) -> tuple[Known, Node] | None:
        """Return what a name leads to; None when nothing has it. ENAMETOOLONG, ENOENT for a removed parent."""
        if len(name) > NAME_LIMIT_BYTES:
            raise FileSystemError(errno.ENAMETOOLONG)
        directory = self.inodes.find(parent)
        if name == b".":
            node: Node | None = self.node(directory)
        elif name == b"..":
            above = self._tree.parent(directory.inode)
            node = self._tree.get(above[0] if above else directory.inode)
        else:
            node = self.changes.names.lookup(directory.inode, self.changes.open_names.real(directory.inode, name))
        return None if node is None else (self._told(node), node)

    # -- making and removing names ------------------------------------------------------------------------------------

    def make(
        self, parent: int, name: bytes, mode: int, caller: Caller, *, target: bytes = b"", rdev: int = 0
    ) -> tuple[Known, Node]:
        """Make a file, directory, symlink or special file (``mode`` has the type bits). EEXIST and others."""
        kind = KIND_OF.get(stat.S_IFMT(mode) or stat.S_IFREG)
        if kind is None:
            raise FileSystemError(errno.EINVAL)
        directory = self.inodes.find(parent)
        bits, gid = stat.S_IMODE(mode), caller.gid
        if self.attributes_of(parent).st_mode & SETGID:
            gid = self.node(directory).gid
            if kind is Kind.DIRECTORY:
                bits |= SETGID
        told = directory.attributes
        with self.changes.own((directory.inode, name)):
            node = self._tree.create(
                directory.inode,
                name,
                kind,
                mode=bits,
                uid=caller.uid,
                gid=gid,
                mtime_ns=self.clock.now_ns(),
                target=target,
                rdev=rdev,
            )
        self._entry_changed(directory, told)
        self.changes.names.made(directory.inode, name, node)
        self._committer.request()
        return self._told(node), node

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name. The bytes stay usable by those who have the file open."""
        directory = self.inodes.find(parent)
        told, real = directory.attributes, self.changes.open_names.real(directory.inode, name)
        own = ((directory.inode, name),) if real == name else ()
        with self.changes.own(*own):
            node = self._tree.unlink(directory.inode, real)
        self._entry_changed(directory, told)
        self._committer.request()
        self._lost_name(node)

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory. ENOTEMPTY, ENOTDIR, ENOENT."""
        directory = self.inodes.find(parent)
        node = self._tree.lookup(directory.inode, name)
        with self.changes.own((directory.inode, name)):
            self._tree.rmdir(directory.inode, name)
        self._committer.request()
        if node is not None and self._tree.get(node.inode) is None:
            self._lost_name(replace(node, nlink=0))

    def _lost_name(self, node: Node) -> None:
        """Keep what is left of a node that lost a name: ``node`` is what it is now, by one of its other names if any."""
        live = self.files.get(node.inode)
        if node.nlink:
            if live is not None:
                live.link = node.link  # A publication by way of the removed name would bring that back.
                self.publisher.moved(live)
            return
        known = self.inodes.changed(node.inode)
        if known is not None:
            known.orphan = replace(node, nlink=0, ctime_ns=max(time.time_ns(), node.ctime_ns + 1))
        if live is not None:
            self.open_files.removed(live)
            live.removed()

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """Give a node another name or place. With EXCHANGE both change places, with NOREPLACE an existing one wins."""
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
            raise FileSystemError(errno.EINVAL)
        old, new = self.inodes.find(parent).inode, self.inodes.find(new_parent).inode
        name, called = self.changes.open_names.real(old, name), name
        await self._content_first(old, name)
        if flags & RENAME_EXCHANGE:
            await self._content_first(new, new_name)
        there = self._tree.lookup(new, new_name)
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
            self._lost_name(replace(there, nlink=0))

    async def _content_first(self, parent: InodeId, name: bytes) -> None:
        if not len(self.files):
            return
        node = self._tree.lookup(parent, name)
        if node is not None:
            await self.open_files.content_first(node)

    async def link(self, number: int, new_parent: int, new_name: bytes) -> tuple[Known, Node]:
        """Give a file another name. EPERM for a directory, ENOENT for one whose last name is gone."""
        known = self.inodes.find(number)
        node = self._tree.get(known.inode)
        if node is None:
            raise FileSystemError(errno.ENOENT)
        if node.is_directory:
            raise FileSystemError(errno.EPERM)
        await self.open_files.content_first(node)
        directory = self.inodes.find(new_parent)
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
            known, node = self.make(parent, name, stat.S_IFREG | stat.S_IMODE(mode), caller)
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
            if change.atime_ns is not None:
                known.ctime_ns = max(time.time_ns(), known.ctime_ns + 1, node.ctime_ns + 1)
            return
        if self._tree.get(known.inode) is None:
            self._change_orphan(known, node, mode, change, mtime_ns)
            return
        with self.changes.own():
            self._tree.set_attributes(known.inode, mode=mode, uid=change.uid, gid=change.gid, mtime_ns=mtime_ns)
        self._committer.request()

    def _change_orphan(self, known: Known, node: Node, mode: int | None, change: Change, mtime_ns: int | None) -> None:
        known.orphan = replace(
            node,
            mode=node.mode if mode is None else mode,
            uid=node.uid if change.uid is None else change.uid,
            gid=node.gid if change.gid is None else change.gid,
            mtime_ns=node.mtime_ns if mtime_ns is None else mtime_ns,
            ctime_ns=max(time.time_ns(), node.ctime_ns + 1),
        )

    def get_xattr(self, number: int, name: bytes) -> bytes:
        """Return the value of an extended attribute. ENODATA, EOPNOTSUPP."""
        known = self.inodes.find(number)
        return self.xattrs.get(known, name, lambda: self.node(known))

    def set_xattr(self, number: int, name: bytes, value: bytes | None) -> None:
        """Store or remove (None) an extended attribute. ENODATA, EOPNOTSUPP, EPERM, E2BIG, ESTALE."""
        known = self.inodes.find(number)
        node = self.node(known)
        with self.changes.own():
            self.xattrs.set(known, name, value)
        if known.xattrs is not None:
            known.orphan = replace(node, ctime_ns=max(time.time_ns(), node.ctime_ns + 1))
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
        listing.touched.clear()
        listing.taken = self.changes.count
        return [(b".", here), (b"..", parent), *children]

    def child_now(self, listing: Listing, name: bytes) -> Node | None:
        """Return what a name of a listing leads to now, after it changed."""
        return self.changes.names.lookup(listing.inode, self.changes.open_names.real(listing.inode, name))
