"""The handlers of private files: their attributes and bytes (`vfs.layered` has names and directories).

Numbers of private inodes and handles are from `PRIVATE` on; anything below goes to the handlers of what is shared.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pyfuse3

from base.errors import FileSystemError
from vfs.boundary import guarded
from vfs.operations import Operations
from vfs.private import PRIVATE, PrivateTree, Spot, system

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfs.ignoring import Ignoring


class PrivateFiles(Operations):
    """See the module; `layered` sets what is private."""

    private: PrivateTree
    ignoring: Ignoring

    def layered(self, private: PrivateTree, ignoring: Ignoring) -> None:
        """Show private entries, too, from now on."""
        self.private, self.ignoring = private, ignoring
        self._moved: set[int] = set()
        """Shared files that became private: the kernel may still take a private name for one of them."""
        self._open_private: dict[int, list[int]] = {}
        """Private files → descriptors."""
        self._number_of: dict[int, int] = {}

    # -- attributes ---------------------------------------------------------------------------------------------------

    def _check_moved(self, number: int) -> None:
        """Have the kernel look a name up again that it takes for a shared file which is private by now."""
        if self._moved and number in self._moved:
            raise FileSystemError(errno.ESTALE)

    @guarded
    async def getattr(self, inode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Read attributes."""
        if inode < PRIVATE:
            return await super().getattr(inode, ctx)
        descriptor = self._open_private.get(inode)
        return self.private.attributes(self.private.spot(inode), descriptor[-1] if descriptor else None)

    @guarded
    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: Any
    ) -> pyfuse3.EntryAttributes:
        """Change attributes."""
        if inode < PRIVATE:
            self._check_moved(inode)
            return await super().setattr(inode, attr, fields, fh, ctx)
        spot = self.private.spot(inode)
        by_handle = fh is not None and fh >= PRIVATE and fields.update_size
        if fh is not None and by_handle:
            system(os.ftruncate, fh - PRIVATE, attr.st_size)
        self.private.change(spot, attr, fields, size=not by_handle)
        return await self.getattr(inode, ctx)

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        """Read an extended attribute."""
        if inode < PRIVATE:
            return await super().getxattr(inode, name, ctx)
        return system(os.getxattr, self.private.spot(inode).path, name, follow_symlinks=False)

    @guarded
    async def listxattr(self, inode: int, ctx: Any) -> Sequence[bytes]:
        """List extended attributes."""
        if inode < PRIVATE:
            return await super().listxattr(inode, ctx)
        found = system(os.listxattr, self.private.spot(inode).path, follow_symlinks=False)
        return [os.fsencode(name) for name in found]

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        """Store an extended attribute."""
        if inode < PRIVATE:
            return await super().setxattr(inode, name, value, ctx)
        return system(os.setxattr, self.private.spot(inode).path, name, value, follow_symlinks=False)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        """Remove an extended attribute."""
        if inode < PRIVATE:
            return await super().removexattr(inode, name, ctx)
        return system(os.removexattr, self.private.spot(inode).path, name, follow_symlinks=False)

    # -- files --------------------------------------------------------------------------------------------------------

    def _opened(self, spot: Spot, descriptor: int) -> pyfuse3.FileInfo:
        self._open_private.setdefault(spot.number, []).append(descriptor)
        self._number_of[descriptor] = spot.number
        return pyfuse3.FileInfo(PRIVATE + descriptor)

    @guarded
    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        """Open a file."""
        if inode < PRIVATE:
            self._check_moved(inode)
            return await super().open(inode, flags, ctx)
        spot = self.private.spot(inode)
        flags &= ~(os.O_CREAT | os.O_EXCL | os.O_APPEND)  # the kernel says where what is appended goes
        return self._opened(spot, system(os.open, spot.path, flags | os.O_CLOEXEC))

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read bytes."""
        if fh < PRIVATE:
            return await super().read(fh, off, size)
        return system(os.pread, fh - PRIVATE, size, off)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write bytes."""
        if fh < PRIVATE:
            return await super().write(fh, off, buf)
        return system(os.pwrite, fh - PRIVATE, buf, off)

    @guarded
    async def flush(self, fh: int) -> None:
        """Hand over what was written."""
        if fh < PRIVATE:
            await super().flush(fh)

    @guarded
    async def release(self, fh: int) -> None:
        """Forget a handle."""
        if fh < PRIVATE:
            return await super().release(fh)
        descriptor = fh - PRIVATE
        number = self._number_of.pop(descriptor)
        left = self._open_private[number]
        left.remove(descriptor)
        if not left:
            del self._open_private[number]
        return system(os.close, descriptor)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make a file's bytes durable."""
        if fh < PRIVATE:
            return await super().fsync(fh, datasync)
        return await anyio.to_thread.run_sync(system, os.fsync, fh - PRIVATE)
