"""The pyfuse3 adapter of a client pod's mount: the handlers that wait where those of a full pod don't."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Any

from vfs.boundary import guarded
from vfs.entries import Caller
from vfs.operations import Operations

if TYPE_CHECKING:
    import pyfuse3

    from crdt_meta.committer import Committer
    from crdt_meta.tree import Tree
    from vfs.gate import Gate
    from vfs.operations import Space
    from vfs.remote import RemoteFileSystem


class RemoteOperations(Operations):
    """The handlers of one mount."""

    def __init__(
        self, filesystem: RemoteFileSystem, tree: Tree, committer: Committer, space: Space, gate: Gate
    ) -> None:
        super().__init__(filesystem, tree, committer, space, gate)
        self._remote = filesystem

    async def _make(
        self, parent: int, name: bytes, mode: int, ctx: Any, *, target: bytes = b"", rdev: int = 0
    ) -> pyfuse3.EntryAttributes:
        self._may_name(parent, name, folder=stat.S_ISDIR(mode))
        caller = Caller(ctx.uid, ctx.gid)
        return self._fs.attributes.of(
            *await self._remote.make_there(parent, name, mode, caller, target=target, rdev=rdev)
        )

    @guarded
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a regular or special file."""
        return await self._make(parent_inode, name, mode, ctx, rdev=rdev)

    @guarded
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        return await self._make(parent_inode, name, 0o040000 | mode & 0o7777, ctx)

    @guarded
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        return await self._make(parent_inode, name, 0o120777, ctx, target=target)

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        """Remove a name."""
        self._may_name(parent_inode, name)
        await self._remote.unlink_there(parent_inode, name)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        """Remove an empty directory."""
        self._may_name(parent_inode, name, folder=True)
        await self._remote.rmdir_there(parent_inode, name)

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        """Store an extended attribute."""
        self._may_change(inode, name)
        await self._remote.set_xattr_there(inode, name, value)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        """Remove an extended attribute."""
        self._may_change(inode, name)
        await self._remote.set_xattr_there(inode, name, None)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write bytes."""
        self._may_write(fh)
        await self._remote.before_write(fh)
        return await self._fs.open_files.write(fh, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """Hand over what was written (close of a descriptor), and wait until a full pod has it."""
        await self._fs.open_files.flush(fh)
        await self._remote.closed(fh)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Do nothing: names are durable on a full pod when they are made."""
