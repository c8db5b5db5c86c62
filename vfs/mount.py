"""A tree as a directory of this machine: mounts it, serves it, takes it off. One at a time in a process (pyfuse3)."""

from __future__ import annotations

import gc
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread
import pyfuse3
from anyio.abc import TaskStatus

from base import beat
from base.errors import MachineError, RefusedError
from base.memory import give_back
from vfs import loop, mountpoint
from vfs.filesystem import FileSystem
from vfs.ignoring import Ignoring
from vfs.journalled import publish_journalled
from vfs.layered import RemoteWithPrivate, WithPrivate
from vfs.notify import Notifier
from vfs.private import PrivateTree
from vfs.remote import RemoteFileSystem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from crdt_meta.committer import Committer
    from crdt_meta.tree import Tree
    from transfer.service import Transfer
    from vfs.gate import Gate
    from vfs.hold import Hold
    from vfs.openfiles import Barrier
    from vfs.remote import Editor
    from vfs.xattrs import XattrInfo

log = logging.getLogger(__name__)

WORKERS: Final = 512
"""Requests handled at once: so many may wait for other pods before a local one has to."""

READ_AHEAD_KIB: Final = 1024

ANSWER_S: Final = 20.0
"""A fresh mount must answer within this (s)."""

END_S: Final = 90.0
"""After an unmount the serving ends within this (s)."""

FINISH_S: Final = 60.0
"""After the serving ended, what is left is published within this (s); a broken disk must not hold up the stop."""

REST_S: Final = 16.0
"""When nobody asked for anything for so long, what was remembered for the next questions is forgotten (s)."""

NAMED_USERS: Final = 5


@dataclass(frozen=True, slots=True)
class MountSettings:
    """How a tree is mounted."""

    mount_dir: Path
    """Absolute."""
    ownership: str
    """``mine``: all files show ``uid`` and ``gid``; ``kept``: as stored."""
    deadline_s: float
    uid: int
    gid: int
    name: str
    """Shown as the mount's source."""
    private_dir: Path
    """Where what stays on this pod is (`vfs.private`)."""


class Mount:
    """One mount.

    ``xattr_info`` answers for the extended attributes below ``user.wormhole.``.
    ``space()`` returns (total, free) bytes for ``df``; by default those of the disk below the byte store.
    """

    _active: Mount | None = None

    def __init__(
        self,
        tree: Tree,
        committer: Committer,
        transfer: Transfer,
        settings: MountSettings,
        xattr_info: XattrInfo,
        *,
        space: Callable[[], tuple[int, int]],
        gate: Gate,
        editor: Editor | None = None,
        barrier: Barrier | None = None,
        hold: Hold | None = None,
    ) -> None:
        """``gate`` says what may be changed, ``hold`` whether anything may be now; ``editor``: on a client pod, who makes
        changes; ``barrier``: see fsync.
        """
        self._tree = tree
        self._committer = committer
        self._transfer = transfer
        self.settings = settings
        tree.root_owner = (settings.uid, settings.gid)
        self.notifier = Notifier()
        owner = (settings.uid, settings.gid) if settings.ownership == "mine" else None
        parts = (tree, committer, transfer, self.notifier, xattr_info)
        self.filesystem: FileSystem
        if editor is None:
            self.filesystem = FileSystem(*parts, owner=owner, deadline_s=settings.deadline_s)
            self._operations: WithPrivate = WithPrivate(self.filesystem, tree, committer, space, gate)
        else:
            self.filesystem = RemoteFileSystem(*parts, owner=owner, deadline_s=settings.deadline_s, editor=editor)
            self._operations = RemoteWithPrivate(self.filesystem, tree, committer, space, gate)
        ignoring = Ignoring(tree, transfer, self.filesystem)
        self._operations.layered(PrivateTree(settings.private_dir, owner), ignoring)
        if hold is not None:
            self._operations.hold = hold
        self.filesystem.open_files.barrier = barrier
        self._device = 0
        self._traffic = loop.Traffic()
        self._serving = False
        self._ended = anyio.Event()

    @property
    def directory(self) -> Path:
        """Where it is mounted."""
        return self.settings.mount_dir

    def prepare(self) -> None:
        """Make the mount point ready. Blocking. Raises `MachineError` (see `vfs.mountpoint.prepare`)."""
        mountpoint.prepare(self.directory)

    def _options(self) -> set[str]:
        options = {"default_permissions", f"fsname={self.settings.name}", "subtype=wormhole"}
        if mountpoint.others_allowed():
            options.add("allow_other")
        return options

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Mount and serve until unmounted or cancelled; started once the mount answers. Raises `MachineError`."""
        if Mount._active is not None:
            raise MachineError("This process has a mount already.", "Unmount it first.")
        Mount._active = self
        self._ended = anyio.Event()
        try:
            await publish_journalled(self._tree, self._committer, self._transfer)
            await anyio.to_thread.run_sync(self.prepare)
            self._open_session()
            try:
                await self._serve(task_status)
            finally:
                with anyio.CancelScope(shield=True):
                    await self._close_session()
        finally:
            Mount._active = None
            self._ended.set()

    def _open_session(self) -> None:
        before = loop.fuse_descriptors()
        try:
            pyfuse3.init(self._operations, str(self.directory), self._options())
        except RuntimeError as error:
            raise MachineError(
                f"{self.directory} can't be mounted: {error}.", "Look into the pod's log, or go on with --no-mount."
            ) from None
        (descriptor,) = loop.fuse_descriptors() - before
        self._traffic = loop.install(descriptor)
        self.notifier.start()

    async def _serve(self, task_status: TaskStatus[None]) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self.filesystem.publisher.run)
            group.start_soon(self.filesystem.changes.watch)
            group.start_soon(self.filesystem.open_files.patience.watch)
            group.start_soon(self._slim_at_rest)

            async def requests() -> None:
                await pyfuse3.main(min_tasks=2, max_tasks=WORKERS)
                group.cancel_scope.cancel()

            group.start_soon(requests)
            self._serving = True
            with anyio.move_on_after(ANSWER_S) as waiting:
                await anyio.to_thread.run_sync(self._look, abandon_on_cancel=True)
            if waiting.cancelled_caught:
                raise MachineError(f"The mount on {self.directory} doesn't answer.", "Look into the pod's log.")
            task_status.started()

    async def _slim_at_rest(self) -> None:
        """Give memory back each time when nothing has been asked and nothing has changed for a while."""
        changes = self.filesystem.changes
        slimmed = before = (self._traffic.count, changes.count)
        while True:
            await beat.rest(REST_S)
            now = (self._traffic.count, changes.count)
            if now == before != slimmed:
                slimmed = now
                changes.names.slim()
                self._tree.slim()
                gc.collect()
                await anyio.to_thread.run_sync(give_back)
            before = now

    def _look(self) -> None:
        os.statvfs(self.directory)
        self._device = self.directory.stat().st_dev
        mountpoint.set_read_ahead(self.directory, READ_AHEAD_KIB)

    async def _close_session(self) -> None:
        """Stop notifying, let go of the mount, publish what is left: in this order."""
        self._serving = False
        self.notifier.stop()
        # A notification can hang on a request that nobody answers any more: then the connection has to go first.
        if not await anyio.to_thread.run_sync(self.notifier.join, 1.0):
            await anyio.to_thread.run_sync(mountpoint.abort_connection, self._device)
        if await anyio.to_thread.run_sync(self.notifier.join, 5.0):
            pyfuse3.close(unmount=True)
        else:
            log.error("A notification to the kernel hangs; the mount on %s is left to the next start", self.directory)
        loop.restore()
        with anyio.move_on_after(FINISH_S) as finishing:
            await self.filesystem.publisher.finish()
        self.filesystem.changes.close()
        if finishing.cancelled_caught:
            log.error("What was last written could not be published within %g s", FINISH_S)

    async def unmount(self, force: bool = False) -> None:
        """Take the mount off and wait until everything written is published.

        Raises `RefusedError`, naming them, while processes use it; with ``force`` they get errors instead.
        """
        if not self._serving:
            return
        done = await anyio.run_process(mountpoint.unmount_command(self.directory, lazy=False), check=False)
        if done.returncode != 0 and mountpoint.mounted_at(self.directory) is not None:
            if not force:
                users = await anyio.to_thread.run_sync(mountpoint.users, self.directory)
                raise RefusedError(_in_use(self.directory, users), "Close them, or use --force.")
            await anyio.run_process(mountpoint.unmount_command(self.directory, lazy=True), check=False)
            pyfuse3.terminate()
        with anyio.move_on_after(END_S):
            await self._ended.wait()
            return
        log.error("The mount on %s doesn't end", self.directory)


def _in_use(directory: Path, users: list[tuple[int, str]]) -> str:
    named = ", ".join(f"{name} ({pid})" for pid, name in users[:NAMED_USERS])
    more = f" and {len(users) - NAMED_USERS} more" if len(users) > NAMED_USERS else ""
    return f"{directory} is in use by {named}{more}." if users else f"{directory} is in use."
