"""Whether the mount takes changes at the moment, or answers at all: the one place where `freeze` and `stop` take effect.

*Frozen*: what would write is refused with EROFS: making, writing, truncating, renaming, changing attributes. Reading,
removing files and folders, and the attributes below ``user.wormhole.``, which are configuration, go on: they cure.
*Stopped*: everything is refused with ENODEV, except what an unmount and `df` need.

What was written before is published: flush, fsync and release are refused never, or a reaction would lose data.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, Final

from base.errors import FileSystemError
from vfs.xattrs import OWN

ROOT_NUMBER: Final = 1

ALWAYS: Final = frozenset({"flush", "fsync", "fsyncdir", "release", "releasedir", "statfs"})
WRITES: Final = frozenset({"mknod", "mkdir", "symlink", "rename", "link", "setattr", "create", "write"})
XATTRS: Final = frozenset({"setxattr", "removexattr"})


class Hold:
    """What is held up now; shared by everything that serves the tree of one pod."""

    def __init__(self) -> None:
        self.frozen = ""
        """Why nothing is written; empty: it is not frozen."""
        self.stopped = ""
        """Why nothing is answered; empty: it is not stopped."""

    @property
    def is_on(self) -> bool:
        """Whether anything is held up."""
        return bool(self.frozen or self.stopped)

    def set(self, *, frozen: str, stopped: str) -> None:
        """Hold up, for the reasons given, or let go."""
        self.frozen, self.stopped = frozen, stopped

    def check(self, handler: str, args: Sequence[Any]) -> None:
        """Let a request to a handler pass, or raise `FileSystemError`: EROFS or ENODEV. ``args`` begin with the handlers."""
        if self.stopped and handler not in ALWAYS and not (handler == "getattr" and args[1] == ROOT_NUMBER):
            raise FileSystemError(errno.ENODEV, self.stopped)
        if not self.frozen:
            return
        is_write = (
            handler in WRITES
            or (handler in XATTRS and not args[2].startswith(OWN))
            or (handler == "open" and args[2] & (os.O_ACCMODE | os.O_TRUNC))
        )
        if is_write:
            self.refuse()

    def refuse(self) -> None:
        """Refuse a write while it is frozen. Raises `FileSystemError` (EROFS)."""
        if self.frozen or self.stopped:
            raise FileSystemError(errno.EROFS, self.frozen or self.stopped)
