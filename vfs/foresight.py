"""Which small files will be read next: programs that read one file of a directory after the other, in the order of names.

A round trip for each small file that isn't here costs more than its bytes. So when two files of a directory had to be
fetched shortly after each other, those behind them are fetched in one go, ever more at a time, as long as the program
keeps up: opening a file in the middle of what was fetched fetches what comes behind it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from base.ids import InodeId
    from crdt_meta.node import Node
    from crdt_meta.tree import Tree
    from transfer.service import Transfer

MISSES: Final = 2
"""So many files fetched one by one before more are."""
FORGET_S: Final = 5.0
"""A directory in which nothing was fetched for so long is a new one."""
FIRST: Final = 32
MOST: Final = 256
"""Files fetched in one go."""
MOST_BYTES: Final = 4 << 20
"""About so many bytes."""
WIRE_AT: Final = 4
"""More are fetched once a program has read this share of the last ones: by its end the next are here."""
DIRECTORIES: Final = 16
"""Directories followed at a time."""


@dataclass(slots=True)
class _Walk:
    """How far a directory was read."""

    at_s: float
    misses: int = 0
    window: int = FIRST
    upto: bytes = b""
    """The last name that was asked for."""
    wire: InodeId | None = None
    """The file whose opening has more fetched."""


class Foresight:
    """Follows what is opened and what had to be fetched. For the loop thread."""

    def __init__(self, tree: Tree, transfer: Transfer, now_s: Callable[[], float] = time.monotonic) -> None:
        self._tree = tree
        self._transfer = transfer
        self._now_s = now_s
        self._walks: OrderedDict[InodeId, _Walk] = OrderedDict()
        self.wires: dict[InodeId, InodeId] = {}
        """Files whose opening is to be told (`opened`) → their directories."""

    def missed(self, node: Node) -> None:
        """Note that a file had to be fetched because a program reads it."""
        if not self._transfer.is_small(node.size):
            return
        place = self._tree.parent(node.inode)
        if place is None:
            return
        directory, name = place
        now = self._now_s()
        walk = self._walks.pop(directory, None)
        if walk is None or now - walk.at_s > FORGET_S:
            self._end(walk)
            walk = _Walk(now)
        self._walks[directory] = walk
        if len(self._walks) > DIRECTORIES:
            self._end(self._walks.popitem(last=False)[1])
        walk.at_s, walk.misses = now, walk.misses + 1
        if walk.misses >= MISSES and name > walk.upto:
            self._fetch(directory, walk, name)

    def opened(self, inode: InodeId) -> None:
        """Note that one of `wires` was opened."""
        directory = self.wires.pop(inode)
        walk = self._walks.get(directory)
        if walk is not None and walk.wire == inode:
            walk.at_s, walk.wire = self._now_s(), None
            self._fetch(directory, walk, walk.upto)

    def _end(self, walk: _Walk | None) -> None:
        if walk is not None and walk.wire is not None:
            self.wires.pop(walk.wire, None)

    def _fetch(self, directory: InodeId, walk: _Walk, after: bytes) -> None:
        found = self._tree.children_after(directory, after, walk.window)
        if not found:
            return
        self._end(walk)
        files: list[Node] = []
        left = MOST_BYTES
        for name, node in found:
            walk.upto = name
            if not node.is_directory and self._transfer.is_small(node.size):
                files.append(node)
                left -= node.size
                if left <= 0:
                    break
        walk.window = min(MOST, 2 * walk.window)
        if files:
            walk.wire = files[len(files) // WIRE_AT].inode
            self.wires[walk.wire] = directory
            self._transfer.foresee([(node.content, node.size, node.author) for node in files])
