"""Names removed through the mount that the tree still has: for a moment they are gone here only.

Removing a tree is thousands of calls, and to write each of them down by itself takes longer than all the rest. The
publisher writes them down together (`Tree.bury`). Only the plain case is here: a file of one name that nobody has
open, or an empty directory. Before anything is done that may concern these names otherwise, they are written down.

A removal names the contents that it saw, so a change by another pod that comes in between keeps the file, as ever.

Must never: keep more than `LIMIT`; hold what is open, has other names, or is in conflict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from crdt_meta.bearing import Removal

if TYPE_CHECKING:
    from base.ids import InodeId
    from crdt_meta.node import Node
    from crdt_meta.tree import Tree

LIMIT: Final = 4096
"""Names; for each one beyond, some of the oldest are written down first."""


class Grave(NamedTuple):
    """One name that is gone."""

    directory: InodeId
    name: bytes
    node: Node
    """What it was."""
    removal: Removal


class Graveyard:
    """All of them, in order. For the loop thread."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._names: dict[InodeId, dict[bytes, Grave]] = {}
        self._graves: dict[InodeId, Grave] = {}
        self._directories: dict[InodeId, int] = {}
        """Directory → how many of its directories are gone."""

    def __len__(self) -> int:
        return len(self._graves)

    @property
    def takes(self) -> bool:
        """Whether names may be put here."""
        return not self._tree.has_claims

    @property
    def is_full(self) -> bool:
        """Whether some have to be written down before another one is put here."""
        return len(self._graves) >= LIMIT

    def __contains__(self, inode: InodeId) -> bool:
        return inode in self._graves

    def has(self, directory: InodeId, name: bytes) -> bool:
        """Tell whether a name of the tree is gone."""
        names = self._names.get(directory)
        return names is not None and name in names

    def within(self, directory: InodeId) -> dict[bytes, Grave]:
        """Return the names of a directory that are gone."""
        return self._names.get(directory, {})

    def directories(self, directory: InodeId) -> int:
        """Return how many directories of a directory are gone."""
        return self._directories.get(directory, 0)

    def put(self, directory: InodeId, name: bytes, node: Node) -> tuple[Node, int]:
        """Remove a name that leads to a node; return what is left of that, and the time (ns)."""
        stamp, now_ns = self._tree.stamp()
        removal = Removal(node.inode, node.link, directory, () if node.is_directory else node.shown, stamp)
        grave = Grave(directory, name, node, removal)
        self._graves[node.inode] = grave
        self._names.setdefault(directory, {})[name] = grave
        if node.is_directory:
            self._directories[directory] = self.directories(directory) + 1
        return node._replace(nlink=0, ctime_ns=now_ns), now_ns

    def take(self, most: int) -> list[Grave]:
        """Return the oldest graves."""
        return [grave for grave, _ in zip(self._graves.values(), range(most), strict=False)]

    def leave(self, grave: Grave) -> None:
        """Forget one: the tree knows."""
        del self._graves[grave.node.inode]
        names = self._names[grave.directory]
        del names[grave.name]
        if not names:
            del self._names[grave.directory]
        if grave.node.is_directory:
            left = self._directories.pop(grave.directory) - 1
            if left:
                self._directories[grave.directory] = left
