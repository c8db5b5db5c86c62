"""The pod's mount: made and taken away while the pod runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from base.errors import MachineError, UsageError
from base.ids import ContentId, InodeId
from vfs.mount import Mount
from vfs.mountpoint import mounted_at

TAKEN_OFF_S: Final = 5.0


class MountKeeper:
    """At most one mount (the FUSE library serves one a process), running as a task of the pod."""

    def __init__(self, make: Callable[[Path], Mount], default: Path | None) -> None:
        self._make = make
        self._default = default
        self._mount: Mount | None = None
        self._path: Path | None = None
        self._group: TaskGroup | None = None
        self._ended = anyio.Event()

    @property
    def directory(self) -> str | None:
        """Where the tree is mounted now."""
        return None if self._path is None else str(self._path)

    def attach(self, group: TaskGroup) -> None:
        """Run mounts in this group from now on."""
        self._group = group

    async def mount(self, directory: Path | None = None) -> str:
        """Mount and return the directory; raises `MachineError` when that can't be done here."""
        path = directory or self._default
        if path is None:
            raise UsageError("This pod has no mount point.", "Name one: 'wormhole mount DIR'.")
        if self._path is not None and mounted_at(self._path) is None:
            with anyio.move_on_after(TAKEN_OFF_S):  # by somebody else; the kernel tells when nobody uses it any more
                await self._ended.wait()
        if self._mount is not None:
            if self._path == path:
                return str(path)
            raise MachineError(f"The tree is mounted on {self._path} already.", "Unmount it first: 'wormhole unmount'.")
        if self._group is None:
            raise MachineError("The pod is not ready for a mount yet.", "Try again in a moment.")
        mount = self._make(path)
        self._mount, self._path, self._ended = mount, path, anyio.Event()
        try:
            await self._group.start(self._serve, mount)
        except BaseException:
            self._mount = self._path = None
            raise
        return str(path)

    async def _serve(self, mount: Mount, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        try:
            await mount.run(task_status=task_status)
        finally:
            self._mount = self._path = None
            self._ended.set()

    async def unmount(self, *, force: bool = False) -> None:
        """Unmount; raises `RefusedError` naming who holds files open there, unless forced. Nothing when not mounted."""
        if self._mount is not None:
            await self._mount.unmount(force=force)
            await self._ended.wait()

    def configure(self, default: Path | None, deadline_s: float) -> None:
        """Take over where to mount the next time, and how long a call on the mount waits."""
        self._default = default
        if self._mount is not None:
            self._mount.filesystem.open_files.patience.deadline_s = deadline_s

    def in_use(self) -> Iterator[tuple[InodeId, ContentId]]:
        """Yield the files that programs have open, or whose writing isn't in the tree yet, with what they show."""
        if self._mount is not None:
            yield from ((live.inode, live.node.content) for live in self._mount.filesystem.files)

    def unsaved(self) -> Iterator[InodeId]:
        """Yield the files whose newest content isn't in the tree yet."""
        if self._mount is not None:
            yield from (live.inode for live in self._mount.filesystem.files if live.overlaid)

    async def forget_everything(self) -> None:
        """Have the kernel ask again for everything that it could answer by itself."""
        if self._mount is not None:
            await self._mount.filesystem.changes.forget_everything()

    async def settle(self) -> None:
        """Wait until every closed file is published."""
        if self._mount is not None:
            await self._mount.filesystem.publisher.settle_all()
