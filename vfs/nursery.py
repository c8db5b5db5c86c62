"""Files made through the mount that aren't in the tree yet: for a moment they are here only, with what is done to them.

Most files are made, written, given a mode and a time, and closed, within milliseconds. Here all that costs no record.
The publisher lets them enter the tree together, each with its content (`Tree.bear`); one that stays open enters it
empty soon. Whatever is more than that (another name, extended attributes, fsync) makes a file enter it first.

Must never: hold a directory, or anything of which the tree has a record; answer for a name that the tree may show
under another one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from base.ids import EMPTY_CONTENT, InodeId, LinkId
from crdt_meta.bearing import Unborn
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Kind, Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from crdt_meta.tree import Tree
    from vfs.livefile import SealedContent

TIMES_LIMIT: Final = 1024
"""Directories whose time of change is remembered although nothing in the tree says it."""


class Newborn:
    """One file that isn't in the tree yet."""

    __slots__ = ("_tree", "changed", "directory", "made", "made_at_s", "name", "node")

    def __init__(self, tree: Tree, directory: InodeId, name: bytes, node: Node, made: int) -> None:
        self._tree = tree
        self.directory = directory
        self.name = name
        self.node = node
        """What it is, but for what its live file knows better."""
        self.made = self.changed = made
        self.made_at_s = time.monotonic()

    def touch(self) -> int:
        """Note a change; return its time (ns)."""
        self.changed, now_ns = self._tree.stamp()
        return now_ns

    def change(
        self, *, mode: int | None = None, uid: int | None = None, gid: int | None = None, mtime_ns: int | None = None
    ) -> None:
        """Change attributes; those that are None stay."""
        node = self.node
        self.node = node._replace(
            mode=node.mode if mode is None else mode,
            uid=node.uid if uid is None else uid,
            gid=node.gid if gid is None else gid,
            mtime_ns=node.mtime_ns if mtime_ns is None else mtime_ns,
            ctime_ns=self.touch(),
        )

    def unborn(self, sealed: SealedContent | None, mtime_ns: int) -> Unborn:
        """Return what is to be written of it."""
        node = self.node
        content, size = (EMPTY_CONTENT, 0) if sealed is None else (sealed.content, sealed.size)
        return Unborn(
            *(node.inode, self.directory, self.name, node.mode, node.uid, node.gid, mtime_ns),
            *(content, size, self.made, self.changed),
        )


class Nursery:
    """All of them. For the loop thread."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._by_inode: dict[InodeId, Newborn] = {}
        self._by_name: dict[InodeId, dict[bytes, Newborn]] = {}
        self._times_ns: dict[InodeId, int] = {}

    def __len__(self) -> int:
        return len(self._by_inode)

    def __iter__(self) -> Iterator[Newborn]:
        return iter(list(self._by_inode.values()))

    def get(self, inode: InodeId) -> Newborn | None:
        """Return the file of an inode id if it is here."""
        return self._by_inode.get(inode)

    def lookup(self, directory: InodeId, name: bytes) -> Newborn | None:
        """Return the file of a name if it is here."""
        names = self._by_name.get(directory)
        return None if names is None else names.get(name)

    def within(self, directory: InodeId) -> Sequence[Newborn]:
        """Return the files here that are in a directory."""
        names = self._by_name.get(directory)
        return () if names is None else list(names.values())

    def may_hold(self, directory: InodeId) -> bool:
        """Tell whether files of a directory may be made here: not where several directories are shown as one."""
        return len(self._tree.display.group(directory)) == 1

    def make(self, directory: InodeId, name: bytes, mode: int, uid: int, gid: int, mtime_ns: int) -> Newborn:
        """Make a file; the caller knows that nothing has the name. Raises as `Tree.conceive`."""
        inode, made = self._tree.conceive(directory, name)
        now_ns = nanoseconds(made)
        node = Node(
            *(inode, LinkId(inode), Kind.FILE, mode & 0o7777, uid, gid, mtime_ns, now_ns, 0, 1),
            *(EMPTY_CONTENT, b"", 0, (), None),
        )
        newborn = Newborn(self._tree, directory, name, node, made)
        self._by_inode[inode] = newborn
        self._by_name.setdefault(directory, {})[name] = newborn
        self.changed(directory, now_ns)
        return newborn

    def drop(self, newborn: Newborn) -> int:
        """Forget a file that was removed; return the time of that (ns), which is its directory's now."""
        self.leave(newborn)
        _, now_ns = self._tree.stamp()
        self.changed(newborn.directory, now_ns)
        return now_ns

    def leave(self, newborn: Newborn) -> None:
        """Forget a file: it is in the tree now, or nowhere."""
        inode = newborn.node.inode
        if self._by_inode.get(inode) is newborn:
            del self._by_inode[inode]
            names = self._by_name[newborn.directory]
            del names[newborn.name]
            if not names:
                del self._by_name[newborn.directory]

    # -- directories --------------------------------------------------------------------------------------------------

    def changed(self, directory: InodeId, now_ns: int) -> None:
        """Note when something was made or removed in a directory, though not in the tree."""
        times = self._times_ns
        if directory not in times and len(times) >= TIMES_LIMIT:
            del times[next(iter(times))]
        times[directory] = now_ns

    def time_ns(self, directory: InodeId) -> int:
        """Return when a file was last made or removed here in a directory (ns); 0: not lately."""
        return self._times_ns.get(directory, 0)

    def forget_time(self, directory: InodeId) -> None:
        """Note that a directory was given a time."""
        self._times_ns.pop(directory, None)
