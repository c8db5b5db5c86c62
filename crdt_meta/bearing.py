"""Files that were made a moment ago, and written to, enter the tree many at a time, each with its content."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

from base.errors import FileSystemError
from base.ids import ContentId, Dot, InodeId, LinkId, new_inode_id
from crdt_meta.deciding import Deciding
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Kind
from crdt_meta.records import NAME_LIMIT_BYTES, Birth, Deletion, LinkBirth, Why
from crdt_meta.settling import Records


class Unborn(NamedTuple):
    """A regular file that isn't in the tree yet."""

    inode: InodeId
    directory: InodeId
    name: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: ContentId
    size: int
    made: int
    """The stamp of its making: the time that its directory shows by it."""
    changed: int
    """The stamp of its last change: the file's ctime, and its dot."""


class Removal(NamedTuple):
    """A name to be deleted."""

    inode: InodeId
    link: LinkId
    directory: InodeId
    dots: tuple[Dot, ...]
    """Of the contents that it showed; none of a directory."""
    stamp: int


class Bearing(Deciding):
    """See the module."""

    def conceive(self, directory: InodeId, name: bytes) -> tuple[InodeId, int]:
        """Return inode id and stamp of a file about to be made; the caller knows that nothing has the name.

        Raises ENOENT, ENOTDIR, EINVAL, ENAMETOOLONG, ENOSPC.
        """
        self._need_directory(directory)
        if len(name) > NAME_LIMIT_BYTES:
            raise FileSystemError(errno.ENAMETOOLONG)
        if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
            raise FileSystemError(errno.EINVAL)
        self._need_room()
        return new_inode_id(), self._clock.tick()

    def stamp(self) -> tuple[int, int]:
        """Return a new stamp and its time (ns)."""
        now = self._clock.tick()
        return now, nanoseconds(now)

    def dot_of(self, stamp: int) -> Dot:
        """Return the dot of what this pod writes with a stamp."""
        return Dot(self._log.writer, stamp)

    def bear(self, files: Sequence[Unborn]) -> None:
        """Write files into the tree. What got one of their names meanwhile conflicts with them as if it had before."""
        records: Records = []
        for one in files:
            self.view.fresh(one.inode)
            strategy = self._strategy_of(one.directory, one.name)
            birth = Birth(
                *(one.changed, Kind.FILE, one.mode & 0o7777, one.uid, one.gid, one.mtime_ns),
                content=one.content,
                size=one.size,
                strategy=strategy,
            )
            place = self.display.group(one.directory)[0]
            records += [(one.inode, birth), (LinkId(one.inode), LinkBirth(one.made, one.inode, place, one.name))]
        self._write(records + self._timed(*(one.directory for one in files)))

    @property
    def has_claims(self) -> bool:
        """Whether several lay claim to any name."""
        return bool(self.view.naming.claims)

    def bury(self, removals: Sequence[Removal]) -> None:
        """Delete names, as the pod did at their stamps: a content that it did not see then keeps its file."""
        records: Records = []
        for one in removals:
            earlier = self._own(one.link, Deletion)
            dots = dict.fromkeys((*(() if earlier is None else earlier.dots), *one.dots))
            records.append((one.link, Deletion(one.stamp, tuple(dots), Why.DELETED)))
        self._write(records + self._timed(*(one.directory for one in removals)))
