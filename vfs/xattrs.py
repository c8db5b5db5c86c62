"""Extended attributes: those stored in the tree, and the ones below ``user.wormhole.`` that tell about the file."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from base.errors import FileSystemError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_meta.node import Node
    from crdt_meta.tree import Tree
    from vfs.inodes import Known

    XattrInfo = Callable[[bytes, Node], bytes | None]

OWN: Final = b"user.wormhole."
"""Names below this are made up on reading, and never listed."""

STORED: Final = (b"user.", b"trusted.", b"security.")
"""What can be stored. Access control lists (``system.``) can't."""

VALUE_LIMIT_BYTES: Final = 65_536


class ExtendedAttributes:
    """Reads and writes them; ``info(name, node)`` gives the value of a ``user.wormhole.`` name, or None."""

    def __init__(self, tree: Tree, info: XattrInfo) -> None:
        self._tree = tree
        self._info = info

    def _all(self, known: Known) -> dict[bytes, bytes]:
        return self._tree.xattrs(known.inode) if known.xattrs is None else known.xattrs

    def get(self, known: Known, name: bytes, node: Callable[[], Node]) -> bytes:
        """Return a value. Raises FileSystemError: ENODATA, EOPNOTSUPP.

        The kernel asks for ``security.capability`` before every write, so ``node`` is only called when it is needed.
        """
        if not name.startswith(STORED):
            raise FileSystemError(errno.EOPNOTSUPP)
        value = self._info(name, node()) if name.startswith(OWN) else self._all(known).get(name)
        if value is None:
            raise FileSystemError(errno.ENODATA)
        return value

    def names(self, known: Known) -> list[bytes]:
        """Return the stored names."""
        return sorted(name for name in self._all(known) if not name.startswith(OWN))

    def check(self, name: bytes, value: bytes | None) -> None:
        """Raise FileSystemError if this name or value can't be stored: EOPNOTSUPP, EPERM, E2BIG."""
        if not name.startswith(STORED):
            raise FileSystemError(errno.EOPNOTSUPP)
        if name.startswith(OWN):
            raise FileSystemError(errno.EPERM)
        if value is not None and len(value) > VALUE_LIMIT_BYTES:
            raise FileSystemError(errno.E2BIG)

    def set(self, known: Known, name: bytes, value: bytes | None) -> None:
        """Store a value, or remove it (None). Raises FileSystemError as `check`, and ENODATA.

        Of a file without a name they are kept for those who have it open.
        """
        self.check(name, value)
        current = self._all(known)
        if value is None and name not in current:
            raise FileSystemError(errno.ENODATA)
        if self._tree.get(known.inode) is not None:
            self._tree.set_xattr(known.inode, name, value)
        else:
            known.xattrs = {key: one for key, one in (current | {name: value}).items() if one is not None}
