"""Whole directories in memory: what was listed or made lately is looked up and listed again without asking the tree.

A directory is here whole or not at all, so a name that isn't in it leads nowhere. `vfs.changes` says what changed: an
entry that did is asked for anew at its next use. A bounded number of names is kept, the directories used last.

Must never: answer for a directory that isn't here whole; keep a node past a change of its inode.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from crdt_meta.node import Node

if TYPE_CHECKING:
    from base.ids import InodeId
    from crdt_meta.node import Delta
    from crdt_meta.tree import Tree

NAMES_LIMIT: Final = 20_000
"""Names and directories kept in memory (about 600 B each)."""

ASK_ALL_SHARE: Final = 4
"""When more than this part of a directory's entries changed, all are asked for at once."""


Folder = dict[bytes, "Node | InodeId | None"]
"""By name: the node; its inode alone when only that changed; None when all may have, or it has several names."""


class Names:
    """The directories kept. For the loop thread."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._folders: OrderedDict[InodeId, Folder] = OrderedDict()
        self._places: dict[InodeId, tuple[InodeId, bytes]] = {}
        """Where the nodes are that are kept."""
        self._total = 0

    def slim(self) -> None:
        """Give memory back: keep no directory."""
        self._folders.clear()
        self._places.clear()
        self._total = 0

    # -- answers

    def lookup(self, directory: InodeId, name: bytes) -> Node | None:
        """Return what a name leads to, as `Tree.lookup` does."""
        folder = self._folders.get(directory)
        if folder is None:
            return self._tree.lookup(directory, name)
        if name not in folder:
            return None
        kept = folder[name]
        if isinstance(kept, Node):
            return kept
        node = self._tree.lookup(directory, name)
        if node is None:
            self._unplace(directory, folder, name)
            del folder[name]
            self._total -= 1
        else:
            self._keep(directory, folder, name, node)
        return node

    def children(self, directory: InodeId) -> list[tuple[bytes, Node]]:
        """Return the entries of a directory, as `Tree.children` does, in any order."""
        folder = self._folders.get(directory)
        if folder is not None:
            changed = [name for name, kept in folder.items() if not isinstance(kept, Node)]
            if len(changed) * ASK_ALL_SHARE <= len(folder):
                self._folders.move_to_end(directory)
                asked = {name: self.lookup(directory, name) for name in changed}
                found = ((name, kept if isinstance(kept, Node) else asked[name]) for name, kept in folder.items())
                return [(name, node) for name, node in found if node is not None]
            self._drop(directory)
        children = self._tree.children(directory)
        self._take(directory, children)
        return children

    # -- what becomes known

    def _take(self, directory: InodeId, children: list[tuple[bytes, Node]]) -> None:
        if len(children) >= NAMES_LIMIT or len(self._tree.display.group(directory)) > 1:
            return
        if directory in self._folders:
            self._drop(directory)
        while self._total + len(children) >= NAMES_LIMIT:
            self._drop(next(iter(self._folders)))
        folder = self._folders[directory] = {}
        self._total += len(children) + 1
        for name, node in children:
            self._keep(directory, folder, name, node)

    def _keep(self, directory: InodeId, folder: Folder, name: bytes, node: Node) -> None:
        if node.nlink == 1 or node.is_directory:  # else the same node may be kept under other names
            folder[name] = node
            self._places[node.inode] = directory, name
        else:
            self._unplace(directory, folder, name)
            folder[name] = None

    def _unplace(self, directory: InodeId, folder: Folder, name: bytes) -> None:
        """Forget where the node is that is kept under a name."""
        kept = folder.get(name)
        inode = kept.inode if isinstance(kept, Node) else kept
        if inode is not None and self._places.get(inode) == (directory, name):
            del self._places[inode]

    def _drop(self, directory: InodeId) -> None:
        folder = self._folders.pop(directory)
        self._total -= len(folder) + 1
        for name in folder:
            self._unplace(directory, folder, name)

    def made(self, directory: InodeId, name: bytes, node: Node) -> None:
        """Note a node that has just been made; a new directory is here whole: it is empty."""
        folder = self._folders.get(directory)
        if folder is not None and name in folder:
            self._keep(directory, folder, name, node)
        if node.is_directory:
            self._take(node.inode, [])

    def gone(self, directory: InodeId, name: bytes) -> None:
        """Note that a name leads nowhere any more."""
        folder = self._folders.get(directory)
        if folder is not None and name in folder:
            self._unplace(directory, folder, name)
            del folder[name]
            self._total -= 1

    def renewed(self, node: Node) -> None:
        """Take over a node after a change of its inode."""
        place = self._places.get(node.inode)
        folder = None if place is None else self._folders.get(place[0])
        if place is not None and folder is not None and folder.get(place[1]) == node.inode:
            self._keep(place[0], folder, place[1], node)

    # -- what changes

    def heard(self, delta: Delta) -> None:
        """Forget what a change concerns."""
        if not self._folders:
            return
        self._gone(delta)
        for directory, name in delta.entries:
            folder = self._folders.get(directory)
            if folder is None:
                continue
            self._unplace(directory, folder, name)
            self._total += name not in folder
            folder[name] = None
            if self._total > NAMES_LIMIT:
                self._drop(directory)

    def _gone(self, delta: Delta) -> None:
        folders, places = self._folders, self._places
        for inode in delta.inodes:
            # Directories of one name are shown as one, and that may have just come about.
            if inode in folders and (delta.remote or len(self._tree.display.group(inode)) > 1):
                self._drop(inode)
            place = places.get(inode)
            if place is not None:
                folder = folders.get(place[0])
                kept = None if folder is None else folder.get(place[1])
                if folder is not None and isinstance(kept, Node) and kept.inode == inode:
                    folder[place[1]] = inode
