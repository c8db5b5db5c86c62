"""The handlers of a mount with what stays on this pod: private entries are shown among the shared ones.

A name is private if it was ignored when it was made (`vfs.ignoring`); it stays so until it is renamed. Everything in a
private directory is private. A rename between private and shared moves a file: its bytes are safe in the new place
before the old one goes, so nothing is lost; for anything else than a file the answer is EXDEV, and `mv` copies.

Must never: let a private name or byte into the tree, but by such a rename; show two entries of one name.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread
import pyfuse3

from base.errors import FileSystemError
from base.ids import InodeId
from vfs.boundary import guarded
from vfs.crossing import Crossing
from vfs.private import MOVING, PRIVATE, Place, PrivateTree, Spot, join, sync_folder, system
from vfs.remote_operations import RemoteOperations

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from vfs.ignoring import Ignoring

AFTER_SHARED: Final = 1 << 40
"""Positions of private entries in the listing of a shared directory begin here."""
EXCHANGE: Final = 2
NOREPLACE: Final = 1


class Listed:
    """A listing of private entries, taken when it is read from the start."""

    __slots__ = ("above", "names", "path")

    def __init__(self, above: Place, path: bytes) -> None:
        self.above = above
        self.path = path
        self.names: list[bytes] = []


class WithPrivate(Crossing):
    """The handlers; `layered` sets what is private."""

    def layered(self, private: PrivateTree, ignoring: Ignoring) -> None:
        """Show private entries, too, from now on."""
        super().layered(private, ignoring)
        self._private_listings: dict[int, Listed] = {}
        self._last_private = 0

    # -- where a name belongs -----------------------------------------------------------------------------------------

    def _above(self, parent: int) -> Place | None:
        """Return where private entries of a directory are; None when a shared one has none."""
        if parent >= PRIVATE:
            return self.private.spot(parent)
        return self.private.folder_of(self._fs.inodes.find(parent).inode) if self.private else None

    def _spot(self, parent: int, name: bytes) -> Spot | None:
        """Return the private entry of a name; None when there is none, or a shared one has the name."""
        above = self._above(parent)
        spot = None if above is None else self.private.at(above, name)
        if spot is None or parent >= PRIVATE:
            return spot
        directory = self._fs.inodes.find(parent).inode
        if self._fs.named(directory, name) is None:
            return spot
        self._set_aside(spot.above, name)
        return None

    def _set_aside(self, above: Place, name: bytes) -> None:
        """Give a private entry another name: another pod shares something under its own."""
        spot = self.private.at(above, name)
        if spot is not None:
            self.private.rename(spot, above, name[:200] + b".private-" + secrets.token_hex(4).encode())

    async def _where(self, parent: int, name: bytes, *, folder: bool = False) -> Place | None:
        """Return where a new private entry goes; None when it is to be shared. EEXIST if a private one has the name."""
        if parent >= PRIVATE:
            return self.private.spot(parent)
        if self._all_shared(parent):
            return None
        if self._spot(parent, name) is not None:
            raise FileSystemError(errno.EEXIST)
        directory = self._fs.inodes.find(parent).inode
        if not await self.ignoring.is_ignored(directory, name, folder=folder):
            return None
        if self._fs.named(directory, name) is not None:
            return None
        self._may_name(parent, name, folder=folder)
        return self.private.make_folder(directory)

    def _all_shared(self, parent: int) -> bool:
        """Tell whether it is known that everything in a directory is shared."""
        known = None if self.private else self._fs.inodes.known(parent)
        return known is not None and self.ignoring.is_bare(known.inode)

    def _made(self, above: Place, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        self.private.own(join(above, name), ctx.uid, ctx.gid)
        spot = self.private.at(above, name)
        if spot is None:
            raise FileSystemError(errno.EIO)
        return self.private.told(spot)

    # -- names --------------------------------------------------------------------------------------------------------

    def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> Coroutine[Any, Any, pyfuse3.EntryAttributes]:
        """Find a name."""
        if parent_inode < PRIVATE and not self.private:
            return super().lookup(parent_inode, name, ctx)
        return self._lookup_both(parent_inode, name, ctx)

    @guarded
    async def _lookup_both(self, parent_inode: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        spot = None if name in (b".", b"..") else self._spot(parent_inode, name)
        if spot is not None:
            return self.private.told(spot)
        if parent_inode < PRIVATE:
            return await super().lookup(parent_inode, name, ctx)
        raise FileSystemError(errno.ENOENT)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back references of the kernel."""
        if not self.private and not self._moved:
            await super().forget(inode_list)
            return
        for number, lookups in inode_list:
            self._moved.discard(number)
            if number >= PRIVATE:
                self.private.forget(number, lookups)
        await super().forget([one for one in inode_list if one[0] < PRIVATE])

    @guarded
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a regular or special file."""
        above = await self._where(parent_inode, name)
        if above is None:
            return await super().mknod(parent_inode, name, mode, rdev, ctx)
        system(os.mknod, join(above, name), mode, rdev)
        return self._made(above, name, ctx)

    @guarded
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        above = await self._where(parent_inode, name, folder=True)
        if above is None:
            return await super().mkdir(parent_inode, name, mode, ctx)
        system(os.mkdir, join(above, name), mode & 0o7777)
        return self._made(above, name, ctx)

    @guarded
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        above = await self._where(parent_inode, name)
        if above is None:
            return await super().symlink(parent_inode, name, target, ctx)
        system(os.symlink, target, join(above, name))
        return self._made(above, name, ctx)

    @guarded
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """Give a file another name; private ones only within a private directory, or where it is ignored as well."""
        above = await self._where(new_parent_inode, new_name)
        if (above is None) != (inode < PRIVATE):
            raise FileSystemError(errno.EXDEV)
        if above is None:
            return await super().link(inode, new_parent_inode, new_name, ctx)
        system(os.link, self.private.spot(inode).path, join(above, new_name), follow_symlinks=False)
        return self._made(above, new_name, ctx)

    def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> Coroutine[Any, Any, None]:
        """Remove a name."""
        if parent_inode < PRIVATE and not self.private:
            return super().unlink(parent_inode, name, ctx)
        return self._unlink_either(parent_inode, name, ctx)

    @guarded
    async def _unlink_either(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        spot = self._spot(parent_inode, name)
        if spot is None and parent_inode < PRIVATE:
            return await super().unlink(parent_inode, name, ctx)
        self._remove(parent_inode, spot, folder=False)
        return None

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        """Remove an empty directory; a shared one with private entries isn't."""
        spot = self._spot(parent_inode, name)
        if spot is not None or parent_inode >= PRIVATE:
            self._remove(parent_inode, spot, folder=True)
            return None
        node = self._fs.named(self._fs.inodes.find(parent_inode).inode, name)
        if node is not None and self.private.names(self.private.folder_of(node.inode)):
            raise FileSystemError(errno.ENOTEMPTY)
        return await super().rmdir(parent_inode, name, ctx)

    def _remove(self, parent: int, spot: Spot | None, *, folder: bool) -> None:
        if spot is None:
            raise FileSystemError(errno.ENOENT)
        self.private.remove(spot, folder=folder)
        if parent < PRIVATE:
            self.private.tidy(self._fs.inodes.find(parent).inode)

    @guarded
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        """Read a symbolic link."""
        if inode < PRIVATE:
            return await super().readlink(inode, ctx)
        return bytes(system(os.readlink, self.private.spot(inode).path))

    # -- renames ------------------------------------------------------------------------------------------------------

    @guarded
    async def rename(
        self, parent_inode_old: int, name_old: bytes, parent_inode_new: int, name_new: bytes, flags: int, ctx: Any
    ) -> None:
        """Give another name or place, within either kind or between them."""
        old, new = (parent_inode_old, name_old), (parent_inode_new, name_new)
        source, there = self._spot(*old), self._spot(*new)
        if source is None and parent_inode_old >= PRIVATE:
            raise FileSystemError(errno.ENOENT)
        node = None if source is not None else self._fs.named(self._fs.inodes.find(parent_inode_old).inode, name_old)
        folder = stat.S_ISDIR(self.private.attributes(source).st_mode) if source else bool(node and node.is_directory)
        above = there.above if there is not None else await self._where(*new, folder=folder)
        if source is None and above is None:
            return await super().rename(*old, *new, flags, ctx)
        if flags & EXCHANGE:
            raise FileSystemError(errno.EINVAL)
        if flags & NOREPLACE and there is not None:
            raise FileSystemError(errno.EEXIST)
        if source is not None and above is not None:
            self.private.rename(source, above, name_new)
        elif source is not None:
            await self._share(source, *new, flags, ctx)
        elif above is not None:
            await self._hide(*old, above, name_new, ctx)
            self._fs.changes.forget_entry(parent_inode_new, name_new)
        if parent_inode_old < PRIVATE:
            self.private.tidy(self._fs.inodes.find(parent_inode_old).inode)
        return None

    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> Coroutine[Any, Any, tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]]:
        """Make a file and open it; one that came into being meanwhile is opened, unless O_EXCL."""
        if self._all_shared(parent_inode):
            return super().create(parent_inode, name, mode, flags, ctx)
        return self._create_either(parent_inode, name, mode, flags, ctx)

    @guarded
    async def _create_either(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        there = self._spot(parent_inode, name)
        above = there.above if there is not None else await self._where(parent_inode, name)
        if above is None:
            return await super().create(parent_inode, name, mode, flags, ctx)
        path = join(above, name)
        descriptor = system(os.open, path, (flags & ~os.O_APPEND) | os.O_CREAT | os.O_CLOEXEC, mode & 0o7777)
        if there is None:
            self.private.own(path, ctx.uid, ctx.gid)
        spot = self.private.at(above, name)
        if spot is None:
            os.close(descriptor)
            raise FileSystemError(errno.EIO)
        return self._opened(spot, descriptor), self.private.told(spot)

    # -- directories --------------------------------------------------------------------------------------------------

    def opendir(self, inode: int, ctx: Any) -> Coroutine[Any, Any, int]:
        """Open a directory."""
        if inode < PRIVATE and not self.private:
            return super().opendir(inode, ctx)
        return self._opendir_both(inode, ctx)

    @guarded
    async def _opendir_both(self, inode: int, ctx: Any) -> int:
        if inode >= PRIVATE:
            spot = self.private.spot(inode)
            self._last_private += 1
            self._private_listings[PRIVATE + self._last_private] = Listed(spot, spot.path)
            return PRIVATE + self._last_private
        handle = await super().opendir(inode, ctx)
        if self.private:
            folder = self.private.folder_of(self._fs.inodes.find(inode).inode)
            if folder is not None:
                self._private_listings[handle] = Listed(folder, folder)
        return handle

    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> Coroutine[Any, Any, None]:
        """List names with their attributes: the shared ones first."""
        if fh not in self._private_listings:
            return super().readdir(fh, start_id, token)
        return self._readdir_both(fh, start_id, token)

    @guarded
    async def _readdir_both(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if fh < PRIVATE and start_id < AFTER_SHARED and not self._fill(fh, start_id, token):
            return
        listed = self._private_listings.get(fh)
        if listed is None:
            return
        start = max(0, start_id - AFTER_SHARED)
        if start == 0:
            listed.names = self._names(listed, fh < PRIVATE)
        for index in range(start, len(listed.names)):
            name = listed.names[index]
            spot = self.private.at(listed.above, name)
            if spot is None:
                continue
            if not pyfuse3.readdir_reply(token, name, self.private.attributes(spot), AFTER_SHARED + index + 1):
                break
            spot.lookups += 1

    def _names(self, listed: Listed, in_shared: bool) -> list[bytes]:
        """Return the private names in a directory; those that somebody shares under the name by now get another one."""
        names = [name for name in self.private.names(listed.path) if not name.startswith(MOVING)]
        if in_shared:
            directory = InodeId(bytes.fromhex(listed.path.rpartition(b"/")[2].decode()))
            taken = [name for name in names if self._fs.named(directory, name) is not None]
            for name in taken:
                self._set_aside(listed.above, name)
            return self._names(listed, in_shared=False) if taken else names
        return names

    @guarded
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._private_listings.pop(fh, None)
        if fh < PRIVATE:
            await super().releasedir(fh)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make names durable."""
        listed = self._private_listings.get(fh)
        if listed is not None:
            await anyio.to_thread.run_sync(sync_folder, listed.path)
        if fh < PRIVATE:
            await super().fsyncdir(fh, datasync)


class RemoteWithPrivate(WithPrivate, RemoteOperations):
    """The same on a client pod."""
