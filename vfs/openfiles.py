"""Open file handles: reading, writing, closing, fsync. A handle is a number and holds no file descriptor."""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Final, Protocol

from base.errors import FileSystemError, WormholeError
from vfs.foresight import Foresight
from vfs.patience import Patience

if TYPE_CHECKING:
    from collections.abc import Collection

    from base.ids import ContentId, InodeId
    from crdt_meta.committer import Committer
    from crdt_meta.node import Node
    from crdt_meta.tree import Tree
    from transfer.service import Transfer
    from vfs.clock import Clock
    from vfs.inodes import Inodes
    from vfs.livefile import LiveFile, LiveFiles
    from vfs.publisher import Publisher

log = logging.getLogger(__name__)

SIZE_LIMIT: Final = 1 << 44
"""The largest file (bytes)."""

SETUID: Final = 0o4000
SETGID: Final = 0o2000
GROUP_EXECUTE: Final = 0o010

ORDER_TRIES: Final = 8
"""How often a rename waits for the content of a file that keeps being rewritten."""


class Handle:
    """One open file."""

    __slots__ = ("live", "privileged", "writable")

    def __init__(self, live: LiveFile, writable: bool, privileged: bool) -> None:
        self.live = live
        self.writable = writable
        self.privileged = privileged


class Barrier(Protocol):
    """What fsync waits for beyond this pod's disk."""

    @property
    def needed(self) -> bool:
        """Whether that is anything."""
        ...

    async def reached(self, contents: Collection[ContentId]) -> None:
        """Return once what is published, and these contents, are on the disks of enough pods. Raises `WormholeError`."""
        ...


class OpenFiles:
    """All open files of a mount.

    Waits for other pods end with EIO after ``deadline_s`` without progress, those for the local disk after a minute
    (see `vfs.patience`).
    """

    def __init__(
        self,
        tree: Tree,
        committer: Committer,
        transfer: Transfer,
        inodes: Inodes,
        files: LiveFiles,
        publisher: Publisher,
        clock: Clock,
        deadline_s: float,
    ) -> None:
        self._tree = tree
        self._committer = committer
        self._transfer = transfer
        self._inodes = inodes
        self._files = files
        self._publisher = publisher
        self._clock = clock
        self.patience = Patience(deadline_s, transfer.progress)
        self.foresight = Foresight(tree, transfer)
        self.barrier: Barrier | None = None
        self._handles: dict[int, Handle] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._handles)

    def _handle(self, number: int) -> Handle:
        handle = self._handles.get(number)
        if handle is None:
            raise FileSystemError(errno.EBADF)
        return handle

    # -- open and close -----------------------------------------------------------------------------------------------

    async def open(self, node: Node, flags: int, privileged: bool) -> int:
        """Open a file and return its handle's number; O_TRUNC empties it."""
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        live = self._files.use(node)
        if flags & os.O_TRUNC:
            try:
                await self._truncate(live, 0, privileged)
            except BaseException:
                self._files.done(live)
                raise
        live.writers += writable
        if not writable:
            self._transfer.on_used(live.node.content)
            if live.inode in self.foresight.wires:
                self.foresight.opened(live.inode)
        self._last += 1
        self._handles[self._last] = Handle(live, writable, privileged)
        return self._last

    async def flush(self, number: int) -> None:
        """End one use of a handle (each close of a descriptor): what was written is on its way to the tree."""
        handle = self._handle(number)
        if not handle.writable:
            return
        live = handle.live
        if live.unlinked:
            return
        if live.dirty and not live.seal_now():
            await self.patience.network(live.seal())
        if live.sealed is not None and not live.queued:
            if not self._publisher.has_room:
                await self.patience.disk(self._publisher.room())
            self._publisher.queue(live)
        _raise_error(live)

    def handle(self, number: int) -> Handle:
        """Return an open file. EBADF."""
        return self._handle(number)

    def inode_of(self, number: int) -> InodeId | None:
        """Return the inode of a handle."""
        handle = self._handles.get(number)
        return None if handle is None else handle.live.inode

    async def release(self, number: int) -> None:
        """Forget a handle. Pages written through a mapping after the last close are published now."""
        handle = self._handles.pop(number, None)
        if handle is None:
            return
        live = handle.live
        live.writers -= handle.writable
        try:
            if live.overlaid and not live.queued and not live.unlinked and live.writers == 0:
                await self.patience.network(live.seal())
                self._publisher.queue(live)
        except (WormholeError, OSError) as error:
            log.error("What was last written to a file could not be stored: %s", error)
        finally:
            self._files.done(live)

    # -- bytes --------------------------------------------------------------------------------------------------------

    async def read(self, number: int, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes at ``offset``; fewer only at the end of the file."""
        live = self._handle(number).live
        data = live.read_now(offset, length)
        if data is not None:
            return data
        self.foresight.missed(live.node)
        return await self.patience.network(live.read(offset, length))

    async def write(self, number: int, offset: int, data: bytes) -> int:
        """Write all of ``data`` at ``offset`` and return its length."""
        handle = self._handle(number)
        if offset + len(data) > SIZE_LIMIT:
            raise FileSystemError(errno.EFBIG)
        live = handle.live
        now_ns, before_ns = self._clock.now_ns(), live.mtime_ns
        if not live.write_now(offset, data, now_ns):
            await self.patience.network(live.write(offset, data, now_ns))
        self._changed(live, handle.privileged, before_ns)
        return len(data)

    def _changed(self, live: LiveFile, privileged: bool, before_ns: int) -> None:
        """Follow a change of the bytes: the attributes are other ones, but the time of access stays ``before_ns``."""
        known = self._inodes.changed(live.inode)
        if known is not None and known.atime_ns is None:
            known.atime_ns = before_ns
        mode = live.node.mode
        if mode & (SETUID | SETGID) and not privileged:
            cleared = without_privileges(mode)
            if cleared == mode or live.unlinked or not live.node.nlink:
                return
            if live.newborn is not None:
                live.newborn.change(mode=cleared)
                live.changed_outside(live.newborn.node)
            else:
                self._tree.set_attributes(live.inode, mode=cleared)
            if known is not None:
                known.attributes = None

    async def truncate(self, node: Node, size: int, handle: int | None, privileged: bool) -> LiveFile:
        """Set a file's size in bytes, through a handle or by name; return its live file."""
        if size > SIZE_LIMIT:
            raise FileSystemError(errno.EFBIG)
        if handle is not None and handle in self._handles:
            live = self._handles[handle].live
            await self._truncate(live, size, privileged)
            return live
        live = self._files.use(node)
        try:
            await self._truncate(live, size, privileged)
            if live.writers == 0 and not live.unlinked:
                await self.patience.network(live.seal())
                await self.patience.disk(self._publisher.room())
                self._publisher.queue(live)
        finally:
            self._files.done(live)
        return live

    async def _truncate(self, live: LiveFile, size: int, privileged: bool) -> None:
        before_ns = live.mtime_ns
        await self.patience.network(live.truncate(size, self._clock.now_ns()))
        self._changed(live, privileged, before_ns)

    # -- durability ---------------------------------------------------------------------------------------------------

    async def fsync(self, number: int) -> None:
        """Return once what was written before the call survives a power cut of this pod.

        Where the cluster asks for more it is published, and on the disks of so many pods (`Barrier`).
        """
        live = self._handle(number).live
        barrier = self.barrier if self.barrier is not None and self.barrier.needed else None
        await self.patience.disk(self._fsync(live, publish=barrier is not None))
        if barrier is not None and not live.unlinked:
            await barrier.reached([live.node.content])

    async def sync_names(self) -> None:
        """Return once the names that are in the tree are on the disk, or on enough disks (`fsync`)."""
        await self._committer.durable()
        if self.barrier is not None and self.barrier.needed:
            await self.barrier.reached([])

    async def _fsync(self, live: LiveFile, *, publish: bool) -> None:
        if live.unlinked:
            return
        _raise_error(live)
        if publish and live.overlaid:
            if live.newborn is not None:
                self._publisher.deliver((live.newborn,))
            await live.seal()
            self._publisher.queue(live)
            await self._publisher.settle(live)
        elif live.queued and not live.dirty:
            await self._publisher.settle(live)
        else:
            if live.newborn is not None:
                self._publisher.deliver((live.newborn,))
            if live.overlaid:
                await self._publisher.journal(live)
        await self._committer.durable()
        _raise_error(live)

    async def content_first(self, node: Node) -> None:
        """Return once a rename or link of this node can't become durable before its content.

        What was closed is waited for; what is still being written is journalled. A directory waits for all.
        """
        if node.is_directory:
            if len(self._publisher):
                await self.patience.disk(self._publisher.settle_all())
            return
        live = self._files.get(node.inode)
        if live is None or live.unlinked:
            return
        for _ in range(ORDER_TRIES):
            if live.queued:
                await self.patience.disk(self._publisher.settle(live))
            elif live.overlaid and (live.dirty or live.journalled is not live.sealed):
                await self.patience.disk(self._publisher.journal(live))
            else:
                break

    def removed(self, live: LiveFile) -> None:
        """Note that the last name of a live file was removed on this pod."""
        self._publisher.removed(live)
        self._files.settle(live)


def without_privileges(mode: int) -> int:
    """Return the mode as a write or a change of owner leaves it: no setuid; no setgid where the group may execute."""
    mode &= ~SETUID
    return mode & ~SETGID if mode & GROUP_EXECUTE else mode


def _raise_error(live: LiveFile) -> None:
    error, live.error = live.error, None
    if error is not None:
        raise error
