"""The mount of a client pod: reads as any other, while changes are made by an `Editor`, which asks a full pod.

A call that changes something returns once a full pod has it on its disk and the view here shows it; closing a file that
was written returns when its content is published so. Without a full pod all changes end with EROFS.

Must never: write to the tree; wait for the editor with the tree's listener told that all changes are the kernel's own.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from base.errors import FileSystemError, UnreachableError, WormholeError
from crdt_meta.node import Kind
from vfs.attributes import KIND_OF
from vfs.entries import Caller
from vfs.filesystem import RENAME_EXCHANGE, RENAME_NOREPLACE, Change, FileSystem
from vfs.openfiles import SETGID, SETUID, without_privileges
from vfs.patience import Patience
from vfs.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from base.ids import ContentId, Dot, InodeId, LinkId
    from crdt_meta.committer import Committer
    from crdt_meta.node import Node
    from crdt_meta.tree import Tree
    from transfer.service import Transfer
    from vfs.changes import Entry
    from vfs.inodes import Known
    from vfs.livefile import LiveFile, SealedContent
    from vfs.notify import Notifier
    from vfs.xattrs import XattrInfo

log = logging.getLogger(__name__)

RETRY_S: Final = 0.5
"""What couldn't be published is tried again after so long, which costs nothing while nobody is there (s)."""

PUBLISHED_AT_ONCE: Final = 16
"""Files whose contents are on their way to a full pod at the same time."""


class Editor(Protocol):
    """Changes the tree through somebody else. Methods return when the change is durable there, and shown here.

    Raises `FileSystemError` as the methods of `Tree` with these names do, with EROFS while there is nobody to ask, and
    `UnreachableError` when nobody answers within the deadline.
    """

    @property
    def connected(self) -> bool:
        """Whether there is somebody to ask."""
        ...

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
        """Make a file, directory, link or special file."""
        ...

    async def link(self, inode: InodeId, parent: InodeId, name: bytes) -> Node:
        """Make a second name of a file."""
        ...

    async def unlink(self, parent: InodeId, name: bytes) -> Node:
        """Remove a name; return the node as it is afterwards."""
        ...

    async def rmdir(self, parent: InodeId, name: bytes) -> None:
        """Remove an empty directory."""
        ...

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
        """Move a name; return the file that it replaced, as it is afterwards, if any."""
        ...

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
        ...

    async def set_xattr(self, inode: InodeId, name: bytes, value: bytes | None) -> None:
        """Set (None: remove) an extended attribute."""
        ...

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
        """Give a file a content that is in this pod's store, in place of the dots that its handle showed."""
        ...


class RemotePublisher(Publisher):
    """Publishes by an editor. Nothing is journalled: what is to survive is published."""

    editor: Editor

    async def journal(self, live: LiveFile) -> None:
        """Publish the file's content now."""
        await live.seal()
        self.queue(live)
        await self.settle(live)

    async def _write_records(self, sealed: list[tuple[LiveFile, SealedContent]]) -> None:
        failures: list[WormholeError] = []
        gate = anyio.Semaphore(PUBLISHED_AT_ONCE)

        async def publish(live: LiveFile, content: SealedContent) -> None:
            async with gate:
                try:
                    await self._publish_one(live, content)
                except WormholeError as error:
                    if error.errno != errno.ENOENT:
                        cut_off = error.errno == errno.EROFS
                        failures.append(UnreachableError(error.message, error.advice) if cut_off else error)
                        return
                    log.error("A written file has no place in the tree: %s", error)
                    live.error = error
                    live.sealed, live.queued = None, False

        async with anyio.create_task_group() as group:
            for live, content in sealed:
                if not live.unlinked:
                    group.start_soon(publish, live, content)
        if failures:
            self._retry_s = RETRY_S
            raise failures[0]

    async def _publish_one(self, live: LiveFile, sealed: SealedContent) -> None:
        node = await self.editor.publish(
            live.inode, live.link, sealed.content, sealed.size, live.mtime_ns, live.shown, live.ctime_ns
        )
        if not live.unlinked:
            self._changes.names.renewed(node)
            live.published(node, sealed)
            live.error = None


class RemoteFileSystem(FileSystem):
    """See the module. What is inherited and changes the tree at once is replaced, or not called by `RemoteOperations`."""

    PUBLISHER = RemotePublisher

    def __init__(
        self,
        tree: Tree,
        committer: Committer,
        transfer: Transfer,
        notifier: Notifier,
        xattr_info: XattrInfo,
        *,
        owner: tuple[int, int] | None,
        deadline_s: float,
        editor: Editor,
    ) -> None:
        super().__init__(tree, committer, transfer, notifier, xattr_info, owner=owner, deadline_s=deadline_s)
        self._editor = editor
        assert isinstance(self.publisher, RemotePublisher)
        self.publisher.editor = editor
        # What goes out is progress, too: whoever closes a file waits for that.
        patience = Patience(deadline_s, lambda: (transfer.bytes_moved(), transfer.bytes_used()))
        self.open_files.patience = patience

    def _need_connection(self) -> None:
        if not self._editor.connected:
            raise FileSystemError(errno.EROFS, "No full pod can be reached: this client pod can only read.")

    @contextmanager
    def _asked_for(self, *entries: Entry) -> Iterator[None]:
        """Hold while the kernel waits for a change of these names: it is not told of that separately.

        When that fails nobody knows what became of them, so it forgets them.
        """
        self.changes.expected.update(entries)
        failed = True
        try:
            yield
            failed = False
        finally:
            self.changes.expected.subtract(entries)
            self.changes.expected += type(self.changes.expected)()
            if failed:
                self.changes.forget_names(entries)

    def _compare(self, directory: InodeId, name: bytes, expected: InodeId | None) -> None:
        """Have a name forgotten if it leads elsewhere by now than the kernel will believe."""
        node = self._tree.lookup(directory, name)
        if (None if node is None else node.inode) != expected:
            self.changes.forget_names(((directory, name),))

    # -- names --------------------------------------------------------------------------------------------------------

    async def make_there(
        self, parent: int, name: bytes, mode: int, caller: Caller, *, target: bytes = b"", rdev: int = 0
    ) -> tuple[Known, Node]:
        """Make a file, directory, symlink or special file, as `make` does."""
        kind = KIND_OF.get(stat.S_IFMT(mode) or stat.S_IFREG)
        if kind is None:
            raise FileSystemError(errno.EINVAL)
        directory = self.inodes.find(parent)
        bits, gid = stat.S_IMODE(mode), caller.gid
        if self.attributes_of(parent).st_mode & SETGID:
            gid = self.node(directory).gid
            if kind is Kind.DIRECTORY:
                bits |= SETGID
        now_ns = self.clock.now_ns()
        with self._asked_for((directory.inode, name)):
            node = await self._editor.create(
                directory.inode,
                name,
                kind,
                mode=bits,
                uid=caller.uid,
                gid=gid,
                mtime_ns=now_ns,
                target=target,
                rdev=rdev,
            )
        self._compare(directory.inode, name, node.inode)
        return self._told(node), node

    async def unlink_there(self, parent: int, name: bytes) -> None:
        """Remove a name, as `unlink` does."""
        directory = self.inodes.find(parent).inode
        real = self.changes.open_names.real(directory, name)
        with self._asked_for(*(((directory, name),) if real == name else ())):
            node = await self._editor.unlink(directory, real)
        self._compare(directory, name, None)
        self._lost_name(node)

    async def rmdir_there(self, parent: int, name: bytes) -> None:
        """Remove an empty directory, as `rmdir` does."""
        directory = self.inodes.find(parent).inode
        node = self._tree.lookup(directory, name)
        with self._asked_for((directory, name)):
            await self._editor.rmdir(directory, name)
        self._compare(directory, name, None)
        if node is not None and self._tree.get(node.inode) is None:
            self._lost_name(node._replace(nlink=0))

    async def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int) -> None:
        """Give a node another name or place, as `FileSystem.rename` does."""
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE) or flags == RENAME_NOREPLACE | RENAME_EXCHANGE:
            raise FileSystemError(errno.EINVAL)
        self._need_connection()
        old, new = self.inodes.find(parent).inode, self.inodes.find(new_parent).inode
        name, called = self.changes.open_names.real(old, name), name
        await self._content_first(old, name)
        exchange = bool(flags & RENAME_EXCHANGE)
        if exchange:
            await self._content_first(new, new_name)
        source, there = self._tree.lookup(old, name), self._tree.lookup(new, new_name)
        own = ((old, name), (new, new_name)) if name == called else ((new, new_name),)
        with self._asked_for(*own):
            no_replace = bool(flags & RENAME_NOREPLACE)
            replaced = await self._editor.rename(old, name, new, new_name, exchange=exchange, no_replace=no_replace)
        if source is not None and (there is None or there.inode != source.inode):
            self._compare(new, new_name, source.inode)
            self._compare(old, called, there.inode if exchange and there is not None else None)
        if replaced is not None:
            self._lost_name(replaced)
        elif there is not None and there.is_directory and self._tree.get(there.inode) is None:
            self._lost_name(there._replace(nlink=0))

    async def link(self, number: int, new_parent: int, new_name: bytes) -> tuple[Known, Node]:
        """Give a file another name, as `FileSystem.link` does."""
        self._need_connection()
        known = self.inodes.find(number)
        node = self._tree.get(known.inode)
        if node is None:
            raise FileSystemError(errno.ENOENT)
        if node.is_directory:
            raise FileSystemError(errno.EPERM)
        await self.open_files.content_first(node)
        directory = self.inodes.find(new_parent).inode
        with self._asked_for((directory, new_name)):
            node = await self._editor.link(known.inode, directory, new_name)
        self._compare(directory, new_name, known.inode)
        known.attributes = None
        return self._told(node), node

    # -- files --------------------------------------------------------------------------------------------------------

    async def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[int, Known, Node]:
        """Make a file and open it; one that came into being meanwhile is opened, unless O_EXCL."""
        try:
            known, node = await self.make_there(parent, name, stat.S_IFREG | stat.S_IMODE(mode), caller)
        except WormholeError as error:
            found = self.lookup(parent, name) if error.errno == errno.EEXIST and not flags & os.O_EXCL else None
            if found is None:
                raise
            known, node = found
        else:
            flags &= ~os.O_TRUNC
        return await self._open(node, flags, caller), known, node

    async def open(self, number: int, flags: int, caller: Caller) -> int:
        """Open a file; returns a handle. EISDIR, EROFS."""
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._need_connection()
        if flags & os.O_TRUNC:
            await self._without_privileges(self.node(self.inodes.find(number)), caller.privileged)
        return await super().open(number, flags, caller)

    async def before_write(self, number: int) -> None:
        """Take setuid and setgid from a file that is being written to by somebody without privileges."""
        handle = self.open_files.handle(number)
        await self._without_privileges(handle.live.node, handle.privileged or handle.live.unlinked)

    async def _without_privileges(self, node: Node, privileged: bool) -> None:
        if node.mode & (SETUID | SETGID) and not privileged and node.nlink:
            cleared = without_privileges(node.mode)
            if cleared != node.mode:
                await self._editor.set_attributes(node.inode, mode=cleared)

    async def closed(self, handle: int) -> None:
        """Return once what was written through a handle is published. Raises what kept it from that."""
        live = self.open_files.handle(handle).live
        if live.queued:
            await self.open_files.patience.network(self.publisher.settle(live))

    async def set_attributes(self, number: int, change: Change, handle: int | None, caller: Caller) -> None:
        """Change attributes, the size first, as `FileSystem.set_attributes` does."""
        known = self.inodes.find(number)
        if change.size is not None:
            node = self.node(known)
            if node.is_directory:
                raise FileSystemError(errno.EISDIR)
            self._need_connection()
            await self._without_privileges(node, caller.privileged)
            live = await self.open_files.truncate(node, change.size, handle, caller.privileged)
            if live.queued and live.writers == 0:
                await self.open_files.patience.network(self.publisher.settle(live))
        node = self.node(known)
        mode = change.mode
        if (change.uid is not None or change.gid is not None) and mode is None and not node.is_directory:
            cleared = without_privileges(node.mode)
            mode = cleared if cleared != node.mode else None
        mtime_ns = change.mtime_ns if change.size is None else None  # a new size has set it
        if change.atime_ns is not None:
            known.atime_ns = change.atime_ns
        known.attributes = None
        live_now = self.files.get(known.inode)
        if mtime_ns is not None and live_now is not None and live_now.overlaid:
            live_now.mtime_ns, mtime_ns = mtime_ns, None
        if mode is None and change.uid is None and change.gid is None and mtime_ns is None:
            if change.atime_ns is not None:
                known.ctime_ns = max(time.time_ns(), known.ctime_ns + 1, node.ctime_ns + 1)
            return
        if self._tree.get(known.inode) is None:
            self._change_orphan(known, node, mode, change, mtime_ns)
            return
        await self._editor.set_attributes(known.inode, mode=mode, uid=change.uid, gid=change.gid, mtime_ns=mtime_ns)
        known.attributes = None

    async def set_xattr_there(self, number: int, name: bytes, value: bytes | None) -> None:
        """Store or remove (None) an extended attribute, as `set_xattr` does."""
        known = self.inodes.find(number)
        value = self.xattrs.accepted(name, value, self.node(known))
        if self._tree.get(known.inode) is None:
            self.set_xattr(number, name, value)  # of a file without a name they are kept here
            return
        await self._editor.set_xattr(known.inode, name, value)
        known.attributes = None
