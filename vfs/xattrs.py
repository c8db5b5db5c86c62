"""Extended attributes: those stored in the tree, and the ones below ``user.wormhole.`` that tell about the file."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from base.errors import FileSystemError

if TYPE_CHECKING:
    from collections.abc import Callable

    from base.ids import InodeId
    from crdt_meta.node import Node
    from crdt_meta.tree import Tree

    XattrInfo = Callable[[bytes, Node], bytes | None]

OWN: Final = b"user.wormhole."
"""Names below this are made up on reading, and never listed."""

KERNEL: Final = b"system."
"""Access control lists; not supported."""

VALUE_LIMIT_BYTES: Final = 65_536


class ExtendedAttributes:
    """Reads and writes them; ``info(name, node)`` gives the value of a ``user.wormhole.`` name, or None."""

    def __init__(self, tree: Tree, info: XattrInfo) -> None:
        self._tree = tree
        self._info = info

    def get(self, inode: InodeId, name: bytes, node: Callable[[], Node]) -> bytes:
        """Return a value. Raises FileSystemError: ENODATA, EOPNOTSUPP.

        The kernel asks for ``security.capability`` before every write, so ``node`` is only called when it is needed.
        """
        if name.startswith(KERNEL):
            raise FileSystemError(errno.EOPNOTSUPP)
        value = self._info(name, node()) if name.startswith(OWN) else self._tree.xattrs(inode).get(name)
        if value is None:
            raise FileSystemError(errno.ENODATA)
        return value

    def names(self, node: Node) -> list[bytes]:
        """Return the stored names."""
        return sorted(name for name in self._tree.xattrs(node.inode) if not name.startswith(OWN)) if node.nlink else []

    def check(self, name: bytes, value: bytes | None) -> None:
        """Raise FileSystemError if this name or value can't be stored: EOPNOTSUPP, EPERM, E2BIG."""
        if name.startswith(KERNEL):
            raise FileSystemError(errno.EOPNOTSUPP)
        if name.startswith(OWN):
            raise FileSystemError(errno.EPERM)
        if value is not None and len(value) > VALUE_LIMIT_BYTES:
            raise FileSystemError(errno.E2BIG)

    def set(self, inode: InodeId, name: bytes, value: bytes | None) -> None:
        """Store a value, or remove it (None). Raises FileSystemError as `check`, and ENODATA."""
        self.check(name, value)
        if value is None and name not in self._tree.xattrs(inode):
            raise FileSystemError(errno.ENODATA)
        self._tree.set_xattr(inode, name, value)
