"""A client pod's hand on the tree: every change is an operation that a full pod carries out (`operations.serving`).

A call returns when the change is on a full pod's disk and in this pod's own view. A pod that doesn't answer is left for
the next one, which is asked the same: doing it again does no harm (`crdt_meta.operation`). Without any full pod there
are no changes: EROFS.

Must never: write a record; give two operations the same stamp.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Sequence
from statistics import median
from typing import Final

import anyio

from base.errors import DamagedError, FileSystemError, UnreachableError, WormholeError
from base.ids import ContentId, Dot, InodeId, LinkId, PodId, WriterId, new_inode_id, new_link_id
from crdt_meta.hlc import FRACTION_BITS
from crdt_meta.metadata import Metadata
from crdt_meta.node import Kind, Node
from crdt_meta.operation import (
    PURGE_LIMIT,
    STRIDE,
    Create,
    Keep,
    Link,
    Operation,
    Publish,
    Purge,
    Remove,
    Rename,
    Restore,
    SetAttributes,
    SetXattr,
    Trashed,
    pack,
)
from crdt_meta.trash import TrashEntry
from mesh.api import Role
from mesh.node import MeshNode
from mesh.wire import Tag
from operations.serving import DATA_LIMIT_BYTES, MARKS_LIMIT
from transfer.chunking import is_single
from transfer.service import Transfer

CALL_S: Final = 8.0
"""A full pod answers within this, or another one is asked; longer than it waits for bytes and for news (s)."""
NEWS_S: Final = 0.02
"""What was done arrives by itself, as a rule before the answer; after so long it is asked for (s)."""
LOOK_S: Final = 0.25
RETURN_S: Final = 1.0
"""A link that broke may be back within this (s)."""

logger = logging.getLogger(__name__)


class RemoteTree:
    """Implements `vfs.remote.Editor`. For the loop thread."""

    def __init__(self, metadata: Metadata, transfer: Transfer, mesh: MeshNode, deadline_s: float) -> None:
        self._metadata = metadata
        self._tree = metadata.tree
        self._transfer = transfer
        self._mesh = mesh
        self._deadline_s = deadline_s
        self._last_stamp = 0
        self._pod: PodId | None = None
        """Whom the last operation was sent to."""
        self._told: dict[PodId, dict[WriterId, int]] = {}
        """What each full pod is known to have of what was seen here."""
        self._calls: dict[anyio.CancelScope, PodId] = {}
        self._changed = anyio.Event()
        self._news = anyio.Event()
        mesh.on_change(self._members_changed)
        metadata.tree.on_delta(lambda _: self._heard())

    @property
    def connected(self) -> bool:
        """Whether there is a full pod to ask."""
        return bool(self._mesh.alive())

    def _members_changed(self) -> None:
        alive = self._mesh.alive()
        for scope, pod in self._calls.items():
            if pod not in alive:
                scope.cancel()
        for pod in [pod for pod in self._told if pod not in alive]:
            del self._told[pod]
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def _heard(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    # -- what the mount calls -----------------------------------------------------------------------------------------

    async def create(
        self,
        parent: InodeId,
        name: bytes,
        kind: Kind,
        *,
        mode: int,
        uid: int,
        gid: int,
        mtime_ns: int,
        target: bytes = b"",
        rdev: int = 0,
    ) -> Node:
        """Make a file, directory, link or special file, as `Tree.create` does."""
        inode = new_inode_id()
        await self.do(Create(inode, parent, name, kind, mode & 0o7777, uid, gid, mtime_ns, target, rdev))
        return self._must(self._tree.get(inode))

    async def link(self, inode: InodeId, parent: InodeId, name: bytes) -> Node:
        """Make a second name of a file, as `Tree.link` does."""
        await self.do(Link(new_link_id(), inode, parent, name))
        return self._must(self._tree.lookup(parent, name))

    async def unlink(self, parent: InodeId, name: bytes) -> Node:
        """Remove a name; return the node as it is afterwards, as `Tree.unlink` does."""
        before = self._named(parent, name)
        await self.do(Remove(before.link, parent, name, directory=False))
        return self._tree.get(before.inode) or self._tree.gone(before)

    async def rmdir(self, parent: InodeId, name: bytes) -> None:
        """Remove an empty directory, as `Tree.rmdir` does."""
        await self.do(Remove(self._named(parent, name).link, parent, name, directory=True))

    async def rename(
        self,
        parent: InodeId,
        name: bytes,
        new_parent: InodeId,
        new_name: bytes,
        *,
        exchange: bool = False,
        no_replace: bool = False,
    ) -> Node | None:
        """Move a name; return the file that it replaced, as it is afterwards, as `Tree.rename` does."""
        source, there = self._named(parent, name), self._tree.lookup(new_parent, new_name)
        await self.do(Rename(source.link, parent, name, new_parent, new_name, exchange, no_replace))
        if exchange or there is None or there.is_directory or there.inode == source.inode:
            return None
        return self._tree.get(there.inode) or self._tree.gone(there)

    async def set_attributes(
        self,
        inode: InodeId,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mtime_ns: int | None = None,
    ) -> Node:
        """Change attributes; those that are None stay."""
        given = {"mode": mode, "uid": uid, "gid": gid, "mtime_ns": mtime_ns}
        await self.do(SetAttributes(inode, {key: value for key, value in given.items() if value is not None}))
        return self._must(self._tree.get(inode))

    async def set_xattr(self, inode: InodeId, name: bytes, value: bytes | None) -> None:
        """Set (None: remove) an extended attribute."""
        await self.do(SetXattr(inode, name, value))

    async def publish(
        self,
        inode: InodeId,
        link: LinkId,
        content: ContentId,
        size: int,
        mtime_ns: int,
        replaces: Sequence[Dot],
        ctime_ns: int,
    ) -> Node:
        """Give a file a content that is in this pod's store; when this returns a full pod has it as well."""
        data = None
        if 0 < size <= DATA_LIMIT_BYTES and is_single(size):
            data = await self._transfer.read_piece(content)
        await self.do(Publish(inode, link, content, size, mtime_ns, tuple(replaces), ctime_ns), data)
        self._transfer.published(content)
        node = self._tree.get(inode)
        return node or self._must(self._tree.departed(inode))

    # -- what commands call -------------------------------------------------------------------------------------------

    async def restore(self, entry: TrashEntry) -> Node | None:
        """Bring something back from the trash; return what it is now, if that can be told."""
        await self.do(Restore(_trashed(entry)))
        return self._tree.get(entry.inode)

    async def purge(self, entries: Sequence[TrashEntry]) -> int:
        """Remove entries of the trash for good; return how many."""
        for first in range(0, len(entries), PURGE_LIMIT):
            await self.do(Purge(tuple(_trashed(entry) for entry in entries[first : first + PURGE_LIMIT])))
        return len(entries)

    async def keep(self, path: bytes, version: InodeId) -> None:
        """Let a version have the name of a conflict."""
        await self.do(Keep(path, version))

    # -- asking -------------------------------------------------------------------------------------------------------

    def _named(self, parent: InodeId, name: bytes) -> Node:
        node = self._tree.lookup(parent, name)
        if node is None:
            raise FileSystemError(errno.ENOENT)
        return node

    @staticmethod
    def _must(node: Node | None) -> Node:
        if node is None:  # done, and undone by somebody else meanwhile
            raise FileSystemError(errno.ENOENT)
        return node

    def _stamp(self) -> int:
        """Return the clock of the next operation: by this machine's clock, set right by those of the full pods."""
        lead_s = 0.0
        if not self._mesh.clocks.agrees():
            lead_s = median(self._mesh.clocks.ahead_s().values() or (0.0,))
        physical = int((time.time() + lead_s) * (1000 << FRACTION_BITS))
        self._last_stamp = max(physical, self._metadata.clock.last + 1, self._last_stamp + STRIDE)
        return self._last_stamp

    async def do(self, operation: Operation, data: bytes | None = None) -> None:
        """Have an operation done; return when it is on a full pod's disk and seen here.

        Raises `UnreachableError`: with EROFS while no full pod can be reached, with EIO when none answered within the
        deadline (it may be done all the same); else what the full pod says.
        """
        if not self.connected:
            raise UnreachableError(
                "No full pod can be reached: this client pod can only read.",
                "Check with `wormhole pods` that one is up, and the network.",
                errno=errno.EROFS,
            )
        stamp, packed = self._stamp(), pack(operation)
        again, refused = False, set[PodId]()
        moved, since = self._transfer.bytes_moved(), anyio.current_time()
        while True:
            pod = self._choose(refused)
            if pod is not None:
                try:
                    answer = await self._ask(pod, [stamp, again, self._marks_for(pod), packed, data])
                    if answer is not None:
                        await self._see(pod, answer, since)
                        return
                except UnreachableError as error:
                    logger.info("%s doesn't do what was asked: %s", pod, error.message)
                    refused.add(pod)
                    self._told.pop(pod, None)
                again = True
            now, so_far = anyio.current_time(), self._transfer.bytes_moved()
            if so_far != moved:
                moved, since = so_far, now
            if now - since >= self._deadline_s:
                raise UnreachableError("No full pod did what was asked in time; it may be done all the same.")
            if pod is None:
                refused.clear()
                await self._wait_for_somebody()

    async def _wait_for_somebody(self) -> None:
        """Wait for a moment. Raises `UnreachableError` when no full pod is there then."""
        with anyio.move_on_after(LOOK_S if self.connected else RETURN_S):
            await self._changed.wait()
        if not self.connected:
            raise UnreachableError("The last full pod is gone; what was asked of it may be done all the same.")

    def serves(self) -> PodId | None:
        """Return the full pod that operations are sent to now; None when there is none."""
        return self._choose(set())

    def _choose(self, refused: set[PodId]) -> PodId | None:
        """Return the full pod to ask: the one asked last, else the nearest; None when all were asked."""
        alive = self._mesh.alive() - refused
        if self._pod not in alive:
            found = [one for one in self._mesh.members() if one.pod in alive and one.role is Role.FULL]
            order = sorted(found, key=lambda one: (one.latency_ms is None, one.latency_ms or 0.0, one.pod))
            self._pod = order[0].pod if order else None
        return self._pod

    async def _ask(self, pod: PodId, body: object) -> object:
        """Ask a full pod, for as long as it is there. Raises `UnreachableError`, and what it answers with."""
        with anyio.CancelScope() as scope:
            self._calls[scope] = pod
            try:
                return await self._mesh.call(pod, Tag.OPERATION, body, timeout_s=CALL_S)
            except WormholeError as error:
                if type(error) is WormholeError:  # its kind isn't told
                    raise FileSystemError(error.errno or errno.EIO, error.message) from error
                raise
            finally:
                del self._calls[scope]
        raise UnreachableError("The full pod is gone.")

    # -- what was seen ------------------------------------------------------------------------------------------------

    def _marks_for(self, pod: PodId) -> list[list[object]]:
        """Return which entries were seen here that a full pod isn't known to have."""
        told, roster = self._told.setdefault(pod, {}), self._mesh.roster
        vector = self._metadata.log.vector()
        return [
            [writer, sequence]
            for writer, sequence in vector.items()
            if sequence > told.get(writer, 0) and roster.writer_pod(writer) != pod
        ][:MARKS_LIMIT]

    async def _see(self, pod: PodId, answer: object, since: float) -> None:
        """Return when what a full pod says it has done is in the view."""
        told = self._told.setdefault(pod, {})
        for writer, sequence in _read_answer(answer):
            told[writer] = max(sequence, told.get(writer, 0))
            while self._metadata.log.vector().get(writer, 0) < sequence:
                news = self._news
                with anyio.move_on_after(NEWS_S):
                    await news.wait()
                    continue
                if not await self._mesh.fetch_log(pod, writer, sequence):
                    if anyio.current_time() - since > self._deadline_s:
                        raise UnreachableError("What a full pod has done doesn't arrive.")
                    await anyio.sleep(NEWS_S)


def _trashed(entry: TrashEntry) -> Trashed:
    return Trashed(entry.inode, entry.dot, entry.path)


def _read_answer(answer: object) -> list[tuple[WriterId, int]]:
    """Return the marks in an answer. Raises `DamagedError`."""
    match answer:
        case list(marks) if len(marks) <= MARKS_LIMIT:
            found: list[tuple[WriterId, int]] = []
            for mark in marks:
                match mark:
                    case [bytes(writer), int(sequence)]:
                        found.append((WriterId(writer), sequence))
                    case _:
                        raise DamagedError("A full pod's answer can't be read.")
            return found
    raise DamagedError("A full pod's answer can't be read.")
