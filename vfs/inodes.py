"""Which inode numbers the kernel knows, and what is remembered about each of them. Pure: no I/O, no FUSE calls.

A number is the first eight bytes of the inode id as a positive 63-bit integer, so it is the same after a restart and on
every pod. The kernel counts how often it was told a number (*lookups*) and gives the counts back by ``forget``; an
entry lives exactly as long as its count is above zero.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from base.errors import FileSystemError
from base.ids import ROOT_INODE, InodeId

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyfuse3

    from crdt_meta.node import Node

ROOT_NUMBER: Final = 1
"""The number of the root directory (``pyfuse3.ROOT_INODE``)."""

_MASK: Final = (1 << 63) - 1


def number_of(inode: InodeId) -> int:
    """Return the number that an inode id asks for: 63 bits, never 0; 1 for the root only."""
    if inode == ROOT_INODE:
        return ROOT_NUMBER
    number = int.from_bytes(inode[:8], "big") & _MASK
    return number if number > ROOT_NUMBER else number + 2


class Known:
    """One inode that the kernel knows."""

    __slots__ = ("atime_ns", "attributes", "ctime_ns", "inode", "lookups", "number", "orphan", "xattrs")

    def __init__(self, number: int, inode: InodeId) -> None:
        self.number = number
        self.inode = inode
        self.lookups = 0
        self.attributes: pyfuse3.EntryAttributes | None = None
        """What was told last; None when it has to be made anew."""
        self.atime_ns: int | None = None
        """The time of access, kept in memory only; None: the modification time."""
        self.ctime_ns = 0
        """The ctime is at least this: of changes that are kept in memory only."""
        self.orphan: Node | None = None
        """What it was when its last name went, while somebody still uses it."""
        self.xattrs: dict[bytes, bytes] | None = None
        """Of an orphan whose extended attributes were changed: what they are."""


class Inodes:
    """The table of known inodes. The root is always known."""

    def __init__(self) -> None:
        root = Known(ROOT_NUMBER, ROOT_INODE)
        self._by_number: dict[int, Known] = {ROOT_NUMBER: root}
        self._moved: dict[InodeId, int] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Known]:
        return iter(self._by_number.values())

    def number(self, inode: InodeId) -> int:
        """Return the number under which an inode is, or would be, known (two ids may share 63 bits: one gives way)."""
        number = self._moved.get(inode) if self._moved else None
        if number is not None:
            return number
        number = number_of(inode)
        while (known := self._by_number.get(number)) is not None and known.inode != inode:
            number = (number + 1) & _MASK or 2
        return number

    def known(self, number: int) -> Known | None:
        """Return the entry of a number, if there is one."""
        return self._by_number.get(number)

    def find(self, number: int) -> Known:
        """Return the entry of a number. Raises FileSystemError(ESTALE) when the kernel can't know it."""
        known = self._by_number.get(number)
        if known is None:
            raise FileSystemError(errno.ESTALE)
        return known

    def get(self, inode: InodeId) -> Known | None:
        """Return the entry of an inode id if the kernel knows it."""
        known = self._by_number.get(self.number(inode))
        return known if known is not None and known.inode == inode else None

    def entry(self, inode: InodeId) -> Known:
        """Return the entry of an inode, or a fresh one that becomes known with its first `looked_up`."""
        number = self.number(inode)
        known = self._by_number.get(number)
        return known if known is not None else Known(number, inode)

    def looked_up(self, known: Known) -> None:
        """Count one more reference by the kernel."""
        if known.lookups == 0 and known.number != ROOT_NUMBER:
            self._by_number[known.number] = known
            if known.number != number_of(known.inode):
                self._moved[known.inode] = known.number
        known.lookups += 1

    def forget(self, number: int, lookups: int) -> None:
        """Take back ``lookups`` references; at zero the entry goes. Unknown numbers are ignored."""
        known = self._by_number.get(number)
        if known is None:
            return
        known.lookups = max(0, known.lookups - lookups)
        if known.lookups == 0 and number != ROOT_NUMBER:
            del self._by_number[number]
            self._moved.pop(known.inode, None)

    def changed(self, inode: InodeId) -> Known | None:
        """Drop the attributes remembered for an inode; return its entry if it is known."""
        known = self.get(inode)
        if known is not None:
            known.attributes = None
        return known
