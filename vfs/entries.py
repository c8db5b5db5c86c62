"""Names and nodes of a mounted tree: looking them up, making and removing them.

What was made or removed a moment ago is in the mount only (`nursery`, `graveyard`). Here both are put together with
what the tree says, so that nobody can tell.
"""

from __future__ import annotations

import errno
import stat
import time
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from base.errors import FileSystemError
from crdt_meta.node import Kind, Node
from policies.ignoring import NAME
from vfs.attributes import KIND_OF, Attributes
from vfs.changes import Changes
from vfs.clock import Clock
from vfs.graveyard import Graveyard
from vfs.inodes import Inodes, Known
from vfs.livefile import LiveFiles
from vfs.nursery import Newborn, Nursery
from vfs.openfiles import SETGID, OpenFiles
from vfs.publisher import SLICE, Publisher
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

RULES: Final = NAME.encode()
"""A file that says what stays here enters the tree at once, so that whoever remembers that there is none hears of it."""


class Caller(NamedTuple):
    """Who asks."""

    uid: int
    gid: int

    @property
    def privileged(self) -> bool:
        """Whether writing leaves setuid alone (root)."""
        return self.uid == 0


class Entries:
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
        self.nursery = Nursery(tree)
        self.files = LiveFiles(transfer, self.nursery)
        self.changes = Changes(tree, self.inodes, self.files, notifier)
        self.graves = Graveyard(tree)
        self.publisher = self.PUBLISHER(tree, committer, transfer, self.files, self.changes, self.nursery, self.graves)
        self.attributes = Attributes(self.files, self.nursery, self.graves, owner)
        self.open_files = OpenFiles(
            tree, committer, transfer, self.inodes, self.files, self.publisher, self.clock, deadline_s=deadline_s
        )
        self.xattrs = ExtendedAttributes(tree, xattr_info)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def node(self, known: Known) -> Node:
        """Return what the tree shows of an inode, or what it was when its last name went. ENOENT."""
        node = self.now(known.inode)
        if node is not None:
            return node
        if known.orphan is None:
            known.orphan = self._tree.departed(known.inode)
        if known.orphan is None:
            raise FileSystemError(errno.ENOENT)
        return known.orphan

    def now(self, inode: InodeId) -> Node | None:
        """Return what an inode is now; None when it has no name any more."""
        newborn = self.nursery.get(inode)
        if newborn is not None:
            return newborn.node
        return None if inode in self.graves else self._tree.get(inode)

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
            node = self.named(directory.inode, name)
        return None if node is None else (self._told(node), node)

    def named(self, directory: InodeId, name: bytes) -> Node | None:
        """Return what a name leads to in a directory."""
        newborn = self.nursery.lookup(directory, name)
        if newborn is not None:
            return newborn.node
        if self.graves.has(directory, name):
            return None
        return self.changes.names.lookup(directory, self.changes.open_names.real(directory, name))

    # -- making and removing names ------------------------------------------------------------------------------------

    def make(
        self, parent: int, name: bytes, mode: int, caller: Caller, *, target: bytes = b"", rdev: int = 0
    ) -> tuple[Known, Node]:
        """Make a file, directory, symlink or special file (``mode`` has the type bits). EEXIST and others."""
        self.publisher.bury()
        kind = KIND_OF.get(stat.S_IFMT(mode) or stat.S_IFREG)
        if kind is None:
            raise FileSystemError(errno.EINVAL)
        directory = self.inodes.find(parent)
        if self.nursery.lookup(directory.inode, name) is not None:
            raise FileSystemError(errno.EEXIST)
        bits, gid = stat.S_IMODE(mode), self._group(parent, directory, caller)
        if kind is Kind.DIRECTORY and self.attributes_of(parent).st_mode & SETGID:
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

    def _group(self, parent: int, directory: Known, caller: Caller) -> int:
        """Return the group of what is made in a directory."""
        return self.node(directory).gid if self.attributes_of(parent).st_mode & SETGID else caller.gid

    def _conceive(self, parent: int, name: bytes, mode: int, caller: Caller) -> tuple[Known, Node]:
        """Make a regular file that enters the tree when it is closed, or soon. EEXIST and others."""
        directory = self.inodes.find(parent)
        where = directory.inode
        if self.changes.open_names.exchanges or name == RULES or not self.nursery.may_hold(where):
            return self.make(parent, name, mode, caller)
        if self.named(where, name) is not None:
            raise FileSystemError(errno.EEXIST)
        if where in self.graves:
            raise FileSystemError(errno.ENOENT)
        gid = self._group(parent, directory, caller)
        newborn = self.nursery.make(where, name, stat.S_IMODE(mode), caller.uid, gid, self.clock.now_ns())
        self._nursery_changed(directory)
        self.publisher.expect()
        return self._told(newborn.node), newborn.node

    def _nursery_changed(self, directory: Known) -> None:
        """Give a directory's attributes the time of what was just made or removed in it."""
        told = directory.attributes
        if told is not None:
            told.st_mtime_ns = told.st_ctime_ns = self.nursery.time_ns(directory.inode)
            if directory.atime_ns is None:
                told.st_atime_ns = told.st_mtime_ns

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name. The bytes stay usable by those who have the file open."""
        directory = self.inodes.find(parent)
        newborn = self.nursery.lookup(directory.inode, name)
        if newborn is not None:
            self._drop(directory, newborn)
            return
        node = self._removable(directory, name)
        if node is not None and node.is_directory:
            raise FileSystemError(errno.EISDIR)
        if node is not None and node.nlink == 1 and self.files.get(node.inode) is None:
            self._bury(directory, name, node)
            return
        self.publisher.bury()
        told, real = directory.attributes, self.changes.open_names.real(directory.inode, name)
        own = ((directory.inode, name),) if real == name else ()
        with self.changes.own(*own):
            node = self._tree.unlink(directory.inode, real)
        self._entry_changed(directory, told)
        self._committer.request()
        self._lost_name(node)

    def _drop(self, directory: Known, newborn: Newborn) -> None:
        """Remove a file that isn't in the tree yet."""
        now_ns = self.nursery.drop(newborn)
        self._nursery_changed(directory)
        self.changes.vanished(directory.inode, newborn.name)
        self._lost_name(newborn.node._replace(nlink=0, ctime_ns=now_ns))

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory. ENOTEMPTY, ENOTDIR, ENOENT."""
        directory = self.inodes.find(parent)
        if self.nursery.lookup(directory.inode, name) is not None:
            raise FileSystemError(errno.ENOTDIR)
        node = self._removable(directory, name)
        if node is not None and not node.is_directory:
            raise FileSystemError(errno.ENOTDIR)
        if node is not None and not self._is_empty(node.inode):
            raise FileSystemError(errno.ENOTEMPTY)
        if node is not None:
            self._bury(directory, name, node)
            return
        self.publisher.bury()
        node = self._tree.lookup(directory.inode, name)
        if node is not None:
            self.publisher.deliver(self.nursery.within(node.inode))
        with self.changes.own((directory.inode, name)):
            self._tree.rmdir(directory.inode, name)
        self._committer.request()
        if node is not None and self._tree.get(node.inode) is None:
            self._lost_name(node._replace(nlink=0))

    def _removable(self, directory: Known, name: bytes) -> Node | None:
        """Return what a name leads to if it may be removed here first, and from the tree later; else None. ENOENT."""
        if self.changes.open_names.exchanges or not self.graves.takes or not self.nursery.may_hold(directory.inode):
            return None
        node = self.named(directory.inode, name)
        if node is None:
            raise FileSystemError(errno.ENOENT)
        return node if not node.is_directory or self.nursery.may_hold(node.inode) else None

    def _is_empty(self, directory: InodeId) -> bool:
        if self.nursery.within(directory):
            return False
        gone = self.graves.within(directory)
        return all(name in gone for name, _ in self.changes.names.children(directory))

    def _bury(self, directory: Known, name: bytes, node: Node) -> None:
        """Remove a name here; the tree hears of it soon."""
        if self.graves.is_full:
            self.publisher.bury(SLICE)
        left, now_ns = self.graves.put(directory.inode, name, node)
        self.nursery.changed(directory.inode, now_ns)
        self._nursery_changed(directory)
        if directory.attributes is not None and node.is_directory:
            directory.attributes.st_nlink -= 1
        self.changes.vanished(directory.inode, name)
        known = self.inodes.changed(node.inode)
        if known is not None:
            known.orphan = left
        self.publisher.expect()

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
            known.orphan = node._replace(nlink=0, ctime_ns=max(time.time_ns(), node.ctime_ns + 1))
        if live is not None:
            self.open_files.removed(live)
            live.removed()
