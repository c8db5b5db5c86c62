"""What stays on this pod: files that a ``.wormholeignore`` names, as real files below ``HOME/private``.

The layout is ``private/<id of a shared directory>/<name>``, and below that what is in a private directory. So private
entries go along when the directory that they are in is renamed. Nothing here knows of the tree, and nothing here is
ever told to other pods.

All of it is blocking and quick (the local disk); errors are `FileSystemError` with the number that the system gave.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import pyfuse3

from base.errors import FileSystemError
from base.ids import InodeId

PRIVATE: Final = 1 << 63
"""Numbers of inodes, files and directories handed to the kernel from here on are private."""

MOVING: Final = b".wormhole-"
"""What a file is called while it is copied from one place to the other; such names aren't shown."""

T = TypeVar("T")


class Spot:
    """A private file or directory that the kernel knows: by where it is, since it may be renamed."""

    __slots__ = ("above", "lookups", "name", "number")

    def __init__(self, number: int, above: Spot | bytes, name: bytes) -> None:
        self.number = number
        self.above = above
        """Its directory; of what is in a shared one the folder of that below ``private``."""
        self.name = name
        self.lookups = 0

    @property
    def path(self) -> bytes:
        """Where it is on the disk."""
        return (self.above.path if isinstance(self.above, Spot) else self.above) + b"/" + self.name


Place = Spot | bytes
"""A private directory, or the folder with the private entries of a shared one."""


def join(above: Place, name: bytes) -> bytes:
    """Return where a name in a private directory, or in a folder, is."""
    return (above.path if isinstance(above, Spot) else above) + b"/" + name


def system(call: Callable[..., T], *arguments: object, **more: object) -> T:
    """Call the system; its errors become ours."""
    try:
        return call(*arguments, **more)
    except OSError as error:
        raise FileSystemError(error.errno or errno.EIO) from None


def sync_folder(path: bytes) -> None:
    """Make durable which names a directory has. Blocks."""
    descriptor = system(os.open, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class PrivateTree:
    """See the module. ``owner``: (uid, gid) that all files show, None: as on the disk."""

    def __init__(self, root: Path, owner: tuple[int, int] | None) -> None:
        self._root = os.fsencode(root)
        self._owner = owner
        self._spots: dict[int, Spot] = {}
        self._folders: set[bytes] = set()
        with suppress(FileNotFoundError):
            self._folders = set(os.listdir(self._root))  # noqa: PTH208 (names may be no text)

    def __bool__(self) -> bool:
        return bool(self._folders)

    # -- where

    def folder_of(self, directory: InodeId) -> bytes | None:
        """Return where the private entries of a shared directory are; None when it has none."""
        name = directory.hex().encode()
        return self._root + b"/" + name if name in self._folders else None

    def make_folder(self, directory: InodeId) -> bytes:
        """Return where they are, or are to be."""
        name = directory.hex().encode()
        path = self._root + b"/" + name
        if name not in self._folders:
            system(os.makedirs, path, 0o700, exist_ok=True)
            self._folders.add(name)
        return path

    def tidy(self, directory: InodeId) -> None:
        """Forget a shared directory's folder if it is empty."""
        path = self.folder_of(directory)
        if path is not None:
            with suppress(FileSystemError):
                system(os.rmdir, path)
                self._folders.discard(directory.hex().encode())

    def names(self, folder: bytes | None) -> list[bytes]:
        """Return the names in a folder, sorted."""
        if folder is None:
            return []
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208
        except FileNotFoundError:
            return []

    def spot(self, number: int) -> Spot:
        """Return what the kernel means. ESTALE."""
        found = self._spots.get(number)
        if found is None:
            raise FileSystemError(errno.ESTALE)
        return found

    def at(self, above: Place, name: bytes) -> Spot | None:
        """Return what a name is in a private directory or a folder of a shared one."""
        try:
            found = os.lstat(join(above, name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise FileSystemError(error.errno or errno.EIO) from None
        number = PRIVATE | found.st_ino
        spot = self._spots.get(number)
        if spot is None:
            spot = self._spots[number] = Spot(number, above, name)
        spot.above, spot.name = above, name
        return spot

    def told(self, spot: Spot) -> pyfuse3.EntryAttributes:
        """Return attributes and count a reference of the kernel."""
        attributes = self.attributes(spot)
        spot.lookups += 1
        return attributes

    def forget(self, number: int, lookups: int) -> None:
        """Take back references of the kernel."""
        spot = self._spots.get(number)
        if spot is not None:
            spot.lookups -= lookups
            if spot.lookups <= 0:
                del self._spots[number]

    # -- attributes

    def attributes(self, spot: Spot, descriptor: int | None = None) -> pyfuse3.EntryAttributes:
        """Return the attributes now. The kernel may not keep them: names change between private and shared."""
        found = system(os.lstat, spot.path) if descriptor is None else system(os.fstat, descriptor)
        if descriptor is None and PRIVATE | found.st_ino != spot.number:
            raise FileSystemError(errno.ESTALE)
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = spot.number
        attributes.entry_timeout = attributes.attr_timeout = 0
        attributes.st_mode, attributes.st_nlink, attributes.st_rdev = found.st_mode, found.st_nlink, found.st_rdev
        attributes.st_uid, attributes.st_gid = self._owner or (found.st_uid, found.st_gid)
        attributes.st_size, attributes.st_blksize, attributes.st_blocks = found.st_size, 131_072, found.st_blocks
        attributes.st_mtime_ns, attributes.st_ctime_ns = found.st_mtime_ns, found.st_ctime_ns
        attributes.st_atime_ns = found.st_atime_ns
        return attributes

    def change(self, spot: Spot, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, *, size: bool) -> None:
        """Change attributes; ``size``: that as well."""
        path = spot.path
        if size and fields.update_size:
            system(os.truncate, path, attr.st_size)
        if fields.update_mode and not stat.S_ISLNK(system(os.lstat, path).st_mode):
            system(os.chmod, path, attr.st_mode & 0o7777)
        if (fields.update_uid or fields.update_gid) and self._owner is None:
            uid, gid = (attr.st_uid if fields.update_uid else -1), (attr.st_gid if fields.update_gid else -1)
            system(os.chown, path, uid, gid, follow_symlinks=False)
        if fields.update_atime or fields.update_mtime:
            now = system(os.lstat, path)
            times = (
                attr.st_atime_ns if fields.update_atime else now.st_atime_ns,
                attr.st_mtime_ns if fields.update_mtime else now.st_mtime_ns,
            )
            system(os.utime, path, ns=times, follow_symlinks=False)

    # -- making and removing

    def own(self, path: bytes, uid: int, gid: int) -> None:
        """Give what was just made to who asked for it, where that is told apart."""
        if self._owner is None:
            with suppress(OSError):
                os.chown(path, uid, gid, follow_symlinks=False)

    def remove(self, spot: Spot, *, folder: bool) -> None:
        """Remove a name."""
        system(os.rmdir if folder else os.unlink, spot.path)

    def rename(self, spot: Spot, above: Place, name: bytes) -> None:
        """Give another name or place, over what has it."""
        system(os.rename, spot.path, join(above, name))
        spot.above, spot.name = above, name
