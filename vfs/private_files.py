"""The handlers of private files: their attributes and bytes (`vfs.layered` has names and directories).

Numbers of private inodes and handles are from `PRIVATE` on; anything below goes to the handlers of what is shared.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import anyio.to_thread
import pyfuse3

from vfs.boundary import guarded
from vfs.operations import Operations
from vfs.private import PRIVATE, PrivateTree, Spot, system

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vfs.ignoring import Ignoring


P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[Concatenate[Any, int, P], Coroutine[Any, Any, T]]


def of_private(handler: Handler[P, T]) -> Handler[P, T]:
    """Have a handler called for private numbers, and for others that of what is shared, at no cost worth speaking of.

    Its second argument is the number. What the kernel takes for a shared file, and is private by now, it has to look up
    again (ESTALE).
    """
    name, inner = handler.__name__, guarded(handler)

    @functools.wraps(handler)
    def route(self: Any, number: int, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        if number >= PRIVATE or number in self._moved:
            return inner(self, number, *args, **kwargs)
        shared: Coroutine[Any, Any, T] = getattr(super(PrivateFiles, self), name)(number, *args, **kwargs)
        return shared

    return route


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

    @of_private
    async def getattr(self, inode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Read attributes."""
        descriptor = self._open_private.get(inode)
        return self.private.attributes(self.private.spot(inode), descriptor[-1] if descriptor else None)

    @of_private
    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: Any
    ) -> pyfuse3.EntryAttributes:
        """Change attributes."""
        spot = self.private.spot(inode)
        by_handle = fh is not None and fh >= PRIVATE and fields.update_size
        if fh is not None and by_handle:
            system(os.ftruncate, fh - PRIVATE, attr.st_size)
        self.private.change(spot, attr, fields, size=not by_handle)
        return await self.getattr(inode, ctx)

    @of_private
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        """Read an extended attribute."""
        return system(os.getxattr, self.private.spot(inode).path, name, follow_symlinks=False)

    @of_private
    async def listxattr(self, inode: int, ctx: Any) -> Sequence[bytes]:
        """List extended attributes."""
        found = system(os.listxattr, self.private.spot(inode).path, follow_symlinks=False)
        return [os.fsencode(name) for name in found]

    @of_private
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        """Store an extended attribute."""
        return system(os.setxattr, self.private.spot(inode).path, name, value, follow_symlinks=False)

    @of_private
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        """Remove an extended attribute."""
        return system(os.removexattr, self.private.spot(inode).path, name, follow_symlinks=False)

    # -- files --------------------------------------------------------------------------------------------------------

    def _opened(self, spot: Spot, descriptor: int) -> pyfuse3.FileInfo:
        self._open_private.setdefault(spot.number, []).append(descriptor)
        self._number_of[descriptor] = spot.number
        return pyfuse3.FileInfo(PRIVATE + descriptor)

    @of_private
    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        """Open a file."""
        spot = self.private.spot(inode)
        flags &= ~(os.O_CREAT | os.O_EXCL | os.O_APPEND)  # the kernel says where what is appended goes
        return self._opened(spot, system(os.open, spot.path, flags | os.O_CLOEXEC))

    @of_private
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read bytes."""
        return system(os.pread, fh - PRIVATE, size, off)

    @of_private
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write bytes."""
        return system(os.pwrite, fh - PRIVATE, buf, off)

    @of_private
    async def flush(self, fh: int) -> None:
        """Do nothing: what was written is with the system."""

    @of_private
    async def release(self, fh: int) -> None:
        """Forget a handle."""
        descriptor = fh - PRIVATE
        number = self._number_of.pop(descriptor)
        left = self._open_private[number]
        left.remove(descriptor)
        if not left:
            del self._open_private[number]
        return system(os.close, descriptor)

    @of_private
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make a file's bytes durable."""
        return await anyio.to_thread.run_sync(system, os.fsync, fh - PRIVATE)
