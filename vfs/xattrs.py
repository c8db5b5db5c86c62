"""Extended attributes: those stored in the tree, and the ones below ``user.wormhole.`` that tell about the file.

Of the latter some can be set; they are stored in the tree like others, and never listed.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Protocol

from base.errors import FileSystemError

if TYPE_CHECKING:
    from collections.abc import Callable

    from crdt_meta.node import Node
    from crdt_meta.tree import Tree
    from vfs.inodes import Known

OWN: Final = b"user.wormhole."
"""Names below this are answered by `XattrInfo`, and never listed."""

STORED: Final = (b"user.", b"trusted.", b"security.")
"""What can be stored. Access control lists (``system.``) can't."""

VALUE_LIMIT_BYTES: Final = 65_536


class XattrInfo(Protocol):
    """What the names below ``user.wormhole.`` say, and which of them can be set."""

    def value(self, name: bytes, node: Node) -> bytes | None:
        """Return the value of such a name, or None when there is none."""
        ...

    def accepted(self, name: bytes, value: bytes | None, node: Node) -> bytes | None:
        """Return what is to be stored for a value (None: remove it). Raises FileSystemError: EPERM, EINVAL, EISDIR."""
        ...


class ExtendedAttributes:
    """Reads and writes them."""

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
        value = self._info.value(name, node()) if name.startswith(OWN) else self._all(known).get(name)
        if value is None:
            raise FileSystemError(errno.ENODATA)
        return value

    def names(self, known: Known) -> list[bytes]:
        """Return the stored names."""
        return sorted(name for name in self._all(known) if not name.startswith(OWN))

    def check(self, name: bytes, value: bytes | None) -> None:
        """Raise FileSystemError if this name or value can't be stored: EOPNOTSUPP, E2BIG."""
        if not name.startswith(STORED):
            raise FileSystemError(errno.EOPNOTSUPP)
        if value is not None and len(value) > VALUE_LIMIT_BYTES:
            raise FileSystemError(errno.E2BIG)

    def accepted(self, name: bytes, value: bytes | None, node: Node) -> bytes | None:
        """Return what is to be stored. Raises FileSystemError as `check`, and EPERM, EINVAL, EISDIR for names of our own."""
        self.check(name, value)
        return self._info.accepted(name, value, node) if name.startswith(OWN) else value

    def set(self, known: Known, name: bytes, value: bytes | None, node: Node) -> None:
        """Store a value, or remove it (None). Raises FileSystemError as `accepted`, and ENODATA.

        Of a file without a name they are kept for those who have it open.
        """
        value = self.accepted(name, value, node)
        current = self._all(known)
        if value is None and name not in current:
            raise FileSystemError(errno.ENODATA)
        if self._tree.get(known.inode) is not None:
            self._tree.set_xattr(known.inode, name, value)
        else:
            known.xattrs = {key: one for key, one in (current | {name: value}).items() if one is not None}
