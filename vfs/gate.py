"""The gate in front of the tree: what may be changed, whoever asks in whatever way.

A rule ``read_only = true`` protects each path that it matches, and so everything in a folder that it matches: it can't be
written, made, removed, renamed, given another name or other attributes (EROFS). A folder above can be renamed only as
long as nothing in it is protected, since that would be a way out of the rule.

What was written before the rule came is published; from then on writes fail, through open files as well.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import anyio.lowlevel

from base.errors import FileSystemError

if TYPE_CHECKING:
    from base.ids import InodeId
    from crdt_meta.node import Node
    from crdt_meta.tree import Tree
    from policies.config import ClusterConfig

SLICE: Final = 128
"""Entries of a folder looked at between two turns of the other tasks."""


class Gate:
    """Says which changes of a tree the configuration in force allows. Methods raise `FileSystemError`: EROFS."""

    def __init__(self, tree: Tree, config: Callable[[], ClusterConfig]) -> None:
        self._tree = tree
        self._config = config

    @property
    def is_open(self) -> bool:
        """Whether everything may be changed, so that nothing needs to be asked."""
        return not self._config().protects

    def name(self, directory: InodeId, name: bytes, *, folder: bool = False) -> None:
        """Ask to make, replace or remove a name."""
        if self.is_open:
            return
        above = self._tree.path(directory)
        if above is not None:
            self._path(above.rstrip(b"/") + b"/" + name, folder)

    def inode(self, inode: InodeId) -> None:
        """Ask to change a file or folder: none of its names may be protected."""
        if self.is_open:
            return
        node = self._tree.get(inode)
        for path in self._tree.paths(inode):
            self._path(path, node is not None and node.is_directory)

    async def everything(self, node: Node) -> None:
        """Ask to move a file or folder away: nothing in it may be protected."""
        if self.is_open:
            return
        self.inode(node.inode)
        if node.is_directory:
            for count, (path, below) in enumerate(self._tree.walk(node), start=1):
                self._path(path, below.is_directory)
                if count % SLICE == 0:
                    await anyio.lowlevel.checkpoint()

    def path(self, path: bytes) -> None:
        """Ask to change what a path shows, or is to show."""
        if not self.is_open:
            self._path(path, folder=False)

    def _path(self, path: bytes, folder: bool) -> None:
        text = path.decode("utf-8", "surrogateescape")
        if self._config().for_path(f"{text}/" if folder and text != "/" else text).read_only:
            raise FileSystemError(errno.EROFS, f"A rule of the cluster makes {text} read only.")
