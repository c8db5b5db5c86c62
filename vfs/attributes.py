"""Makes the attributes that the kernel is told out of a node, and keeps them until something changes."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

import pyfuse3

from crdt_meta.node import Kind

if TYPE_CHECKING:
    from crdt_meta.node import Node
    from vfs.graveyard import Graveyard
    from vfs.inodes import Known
    from vfs.livefile import LiveFiles
    from vfs.nursery import Nursery

TIMEOUT_S: Final = 86_400.0
"""How long the kernel may keep attributes and names; every change from elsewhere is notified."""

BLOCK_BYTES: Final = 131_072
"""The size of reads and writes that programs are advised to use."""

DIRECTORY_BYTES: Final = 4096

TYPE_BITS: Final = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
    Kind.CHARACTER: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
}

KIND_OF: Final = {bits: kind for kind, bits in TYPE_BITS.items()}


def absent() -> pyfuse3.EntryAttributes:
    """Return the answer "no such name, and you may remember that"."""
    attributes = pyfuse3.EntryAttributes()
    attributes.st_ino = 0
    attributes.entry_timeout = TIMEOUT_S
    return attributes


class Attributes:
    """Builds and caches ``EntryAttributes``. ``owner`` is (uid, gid) when everything belongs to who mounts."""

    def __init__(self, files: LiveFiles, nursery: Nursery, graves: Graveyard, owner: tuple[int, int] | None) -> None:
        self._files = files
        self._nursery = nursery
        self._graves = graves
        self._owner = owner

    def of(self, known: Known, node: Node) -> pyfuse3.EntryAttributes:
        """Return the attributes of a known inode: the cached ones, or made from ``node`` and what lies over it."""
        attributes = known.attributes
        if attributes is None:
            attributes = known.attributes = self._make(known, node)
        return attributes

    def _make(self, known: Known, node: Node) -> pyfuse3.EntryAttributes:
        size, mtime_ns, ctime_ns, nlink = node.size, node.mtime_ns, node.ctime_ns, node.nlink
        kind = node.kind
        if kind is Kind.FILE:
            live = self._files.get(node.inode)
            if live is not None and (live.overlaid or live.beside):
                size, mtime_ns = live.size, live.mtime_ns
                ctime_ns = max(ctime_ns, live.ctime_ns)
        elif kind is Kind.DIRECTORY:
            size = DIRECTORY_BYTES
            nlink -= self._graves.directories(node.inode)
            changed_ns = self._nursery.time_ns(node.inode)
            mtime_ns, ctime_ns = max(mtime_ns, changed_ns), max(ctime_ns, changed_ns)
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = known.number
        attributes.entry_timeout = TIMEOUT_S
        attributes.attr_timeout = TIMEOUT_S
        attributes.st_mode = TYPE_BITS[kind] | node.mode
        attributes.st_nlink = nlink
        attributes.st_uid, attributes.st_gid = (node.uid, node.gid) if self._owner is None else self._owner
        attributes.st_rdev = node.rdev
        attributes.st_size = size
        attributes.st_blksize = BLOCK_BYTES
        attributes.st_blocks = (size + 511) // 512
        attributes.st_mtime_ns = mtime_ns
        attributes.st_ctime_ns = max(ctime_ns, known.ctime_ns)
        attributes.st_atime_ns = mtime_ns if known.atime_ns is None else known.atime_ns
        return attributes
