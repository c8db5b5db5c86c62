"""The name of an open file leads to it until it is closed, although a conflict gave the name to another one meanwhile.

The tree never depends on open files. What two pods made under one name it shows side by side, the later one under the
name. Here the two change places while this mount has the other one open: the name leads to the open file, and what has
the name in the tree is found under the name of the conflict. Requests by the one or the other are translated.

Must never: hide either of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from base.ids import InodeId
    from crdt_meta.node import Delta, Node
    from crdt_meta.tree import Tree

Entry = tuple["InodeId", bytes]


class OpenNames:
    """Which names are exchanged. For the loop thread."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._open: dict[InodeId, int] = {}
        """Files with handles → how many."""
        self._aside: set[InodeId] = set()
        """Those that had lost their name before they were opened."""
        self._pinned: dict[InodeId, tuple[InodeId, bytes, bytes]] = {}
        """Open file → directory, name that it was opened by, name that the tree shows it by."""
        self._exchanged: dict[Entry, bytes] = {}

    @property
    def exchanges(self) -> bool:
        """Whether any names are exchanged."""
        return bool(self._exchanged)

    # -- names --------------------------------------------------------------------------------------------------------

    def real(self, directory: InodeId, name: bytes) -> bytes:
        """Return the name in the tree of what a name leads to here; and the other way round."""
        if not self._exchanged:
            return name
        return self._exchanged.get((self._tree.display.group(directory)[0], name), name)

    def shown(self, directory: InodeId, children: list[tuple[bytes, Node]]) -> list[tuple[bytes, Node]]:
        """Return the entries of a directory under the names that they have here."""
        if not self._exchanged:
            return children
        return [(self.real(directory, name), node) for name, node in children]

    # -- what happens -------------------------------------------------------------------------------------------------

    def opened(self, inode: InodeId) -> None:
        """Note a new handle of a file."""
        count = self._open.get(inode, 0)
        self._open[inode] = count + 1
        if not count and inode not in self._pinned and self._tree.lost_name(inode) is not None:
            self._aside.add(inode)

    def closed(self, inode: InodeId) -> list[Entry]:
        """Note that a handle is gone; return the names that lead elsewhere from now on."""
        self._open[inode] -= 1
        if self._open[inode]:
            return []
        del self._open[inode]
        self._aside.discard(inode)
        return self._unpin(inode)

    def heard(self, delta: Delta) -> list[Entry]:
        """Follow a change of the tree; return the names that lead elsewhere by that."""
        found: list[Entry] = []
        if not self._open or not delta.entries or not (self._pinned or self._tree.has_conflicts):
            return found
        for inode in [one for one in self._open if one not in self._aside]:
            now, before = self._tree.lost_name(inode), self._pinned.get(inode)
            if now == before:
                continue
            found += self._unpin(inode)
            if now is not None:
                directory, name, aside = self._pinned[inode] = now
                self._exchanged[directory, name] = aside
                self._exchanged[directory, aside] = name
                found += self._everywhere(directory, (name, aside))
        return found

    def _unpin(self, inode: InodeId) -> list[Entry]:
        pinned = self._pinned.pop(inode, None)
        if pinned is None:
            return []
        directory, *names = pinned
        for name in names:
            self._exchanged.pop((directory, name), None)
        return self._everywhere(directory, names)

    def _everywhere(self, directory: InodeId, names: Iterable[bytes]) -> list[Entry]:
        return [(member, name) for name in names for member in self._tree.display.group(directory)]
