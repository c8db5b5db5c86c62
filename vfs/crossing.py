"""Files that go from private to shared and back by a rename: safe in the new place before they leave the old one.

What is open for writing isn't moved (EBUSY): what is written to it later would be lost. Anything but a file isn't
either (EXDEV), so that `mv` copies it.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from typing import Any, Final

import anyio.to_thread

from base.errors import FileSystemError
from crdt_meta.node import Kind, Node
from vfs.entries import Caller
from vfs.filesystem import Change
from vfs.private import MOVING, Place, Spot, join, sync_folder, system
from vfs.private_files import PrivateFiles

COPIED_AT_ONCE: Final = 1 << 20


def sync_folders(place: Place) -> None:
    """Make durable which names a private directory has, and that of the directory itself. Blocks."""
    path = place.path if isinstance(place, Spot) else place
    for folder in (path, path.rpartition(b"/")[0]):
        sync_folder(folder)


class Crossing(PrivateFiles):
    """The part of the handlers that does it."""

    async def _share(self, source: Spot, parent: int, name: bytes, flags: int, ctx: Any) -> None:
        """Move a private file to a shared name: written beside it, durable, renamed over it; then the private one goes."""
        found = self.private.attributes(source)
        if not stat.S_ISREG(found.st_mode):
            raise FileSystemError(errno.EXDEV)
        if source.number in self._open_private:
            raise FileSystemError(errno.EBUSY)  # what is written to it later would be lost
        beside = MOVING + secrets.token_hex(8).encode()
        info, told = await super().create(parent, beside, found.st_mode, os.O_WRONLY | os.O_EXCL, ctx)
        try:
            descriptor = system(os.open, source.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                offset = 0
                while piece := system(os.pread, descriptor, COPIED_AT_ONCE, offset):
                    await super().write(info.fh, offset, piece)
                    offset += len(piece)
            finally:
                os.close(descriptor)
            await super().flush(info.fh)
            await super().fsync(info.fh, False)
            when = Change(mtime_ns=found.st_mtime_ns)
            await self._fs.set_attributes(told.st_ino, when, None, Caller(ctx.uid, ctx.gid))
            now = self.private.attributes(source)
            if source.number in self._open_private or (now.st_mtime_ns, now.st_size) != (found.st_mtime_ns, offset):
                raise FileSystemError(errno.EBUSY)  # somebody has begun to write meanwhile
            await super().rename(parent, beside, parent, name, flags, ctx)
            await self._committer.durable()  # else a crash could leave neither of the two names
        except BaseException:
            await super().unlink(parent, beside, ctx)
            raise
        finally:
            await super().release(info.fh)
            self._fs.inodes.forget(told.st_ino, 1)
        self.private.remove(source, folder=False)

    async def _hide(self, parent: int, name: bytes, place: Place, new_name: bytes, ctx: Any) -> None:
        """Move a shared file to a private name: its bytes are on this disk before the shared one is removed."""
        known = self._fs.lookup(parent, name)
        if known is None:
            raise FileSystemError(errno.ENOENT)
        number, node = known[0].number, known[1]
        path, beside = join(place, new_name), join(place, MOVING + secrets.token_hex(8).encode())
        try:
            if node.kind is not Kind.FILE:
                raise FileSystemError(errno.EXDEV)
            await self._fs.open_files.content_first(node)
            node = self._still(node)
            info = await super().open(number, os.O_RDONLY, ctx)
            try:
                await self._copy(info.fh, beside, node.mode)
            finally:
                await super().release(info.fh)
            os.utime(beside, ns=(node.mtime_ns, node.mtime_ns))
            if self._still(node).content != node.content:
                raise FileSystemError(errno.EBUSY)  # changed while it was copied, perhaps on another pod
            system(os.rename, beside, path)
            await anyio.to_thread.run_sync(sync_folders, place)
            try:
                await super().unlink(parent, name, ctx)
            except BaseException:
                system(os.unlink, path)
                raise
            self._moved.add(number)
        finally:
            with suppress(FileSystemError):
                system(os.unlink, beside)
            self._fs.inodes.forget(number, 1)

    def _still(self, node: Node) -> Node:
        """Return what a file is now. ENOENT; EBUSY while it is open for writing."""
        live, now = self._fs.files.get(node.inode), self._fs.now(node.inode)
        if now is None:
            raise FileSystemError(errno.ENOENT)
        if live is not None and live.writers:
            raise FileSystemError(errno.EBUSY)
        return now

    async def _copy(self, handle: int, path: bytes, mode: int) -> None:
        """Copy a shared file to the disk; it is durable then."""
        descriptor = system(os.open, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            offset = 0
            while piece := await super().read(handle, offset, COPIED_AT_ONCE):
                done = 0
                while done < len(piece):
                    done += system(os.write, descriptor, piece[done:])
                offset += len(piece)
            os.fchmod(descriptor, mode & 0o7777)
            await anyio.to_thread.run_sync(os.fsync, descriptor)
        finally:
            os.close(descriptor)
