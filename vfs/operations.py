"""The pyfuse3 adapter: unpacks requests, packs replies. Whatever a handler raises becomes an error number."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import pyfuse3

from vfs.attributes import absent
from vfs.boundary import guarded
from vfs.changes import Listing
from vfs.entries import NAME_LIMIT_BYTES, Caller
from vfs.filesystem import Change
from vfs.hold import Hold
from vfs.xattrs import OWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from base.ids import InodeId
    from crdt_meta.committer import Committer
    from crdt_meta.node import Node
    from crdt_meta.tree import Tree
    from vfs.filesystem import FileSystem
    from vfs.gate import Gate

    Space = Callable[[], tuple[int, int]]

FRAGMENT_BYTES: Final = 4096


def _caller(ctx: pyfuse3.RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid)


class Operations(pyfuse3.Operations):
    """The handlers of one mount. ``space()`` returns (total, free) bytes for statfs; ``gate`` says what may be changed."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, filesystem: FileSystem, tree: Tree, committer: Committer, space: Space, gate: Gate) -> None:
        super().__init__()
        self.hold = Hold()
        """Asked by `guarded` before every request."""
        self._gate = gate
        self._fs = filesystem
        self._tree = tree
        self._committer = committer
        self._space = space
        self._absent = absent()
        self._listings: dict[int, Listing] = {}
        self._last_listing = 0

    # -- what may be changed ------------------------------------------------------------------------------------------

    def _may_name(self, parent: int, name: bytes, *, folder: bool = False) -> None:
        if not self._gate.is_open:
            self._gate.name(self._fs.inodes.find(parent).inode, name, folder=folder)

    def _may_change(self, number: int, attribute: bytes = b"") -> None:
        if not self._gate.is_open and not attribute.startswith(OWN):
            self._may_change_inode(self._fs.inodes.find(number).inode)

    def _may_change_inode(self, inode: InodeId) -> None:
        newborn = self._fs.nursery.get(inode)
        if newborn is None:
            self._gate.inode(inode)
        else:
            self._gate.name(newborn.directory, newborn.name)

    def _may_write(self, handle: int) -> None:
        if not self._gate.is_open:
            inode = self._fs.open_files.inode_of(handle)
            if inode is not None:
                self._may_change_inode(inode)

    async def _may_move(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        if self._gate.is_open:
            return
        self._fs.publisher.bury()
        places = [
            (self._fs.inodes.find(number).inode, called) for number, called in ((parent, name), (new_parent, new_name))
        ]
        nodes = [self._fs.named(*place) for place in places]
        folder = any(node is not None and node.is_directory for node in nodes)
        for place in places:
            self._gate.name(*place, folder=folder)
        for node in nodes:
            if node is not None and self._fs.nursery.get(node.inode) is None:
                await self._gate.everything(node)

    # -- names --------------------------------------------------------------------------------------------------------

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """Find a name; an absent one may be remembered as such."""
        found = self._fs.lookup(parent_inode, name)
        return self._absent if found is None else self._fs.attributes.of(*found)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Take back references of the kernel."""
        for number, lookups in inode_list:
            self._fs.inodes.forget(number, lookups)

    @guarded
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a regular or special file."""
        self._may_name(parent_inode, name)
        return self._fs.attributes.of(*self._fs.make(parent_inode, name, mode, _caller(ctx), rdev=rdev))

    @guarded
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        self._may_name(parent_inode, name, folder=True)
        return self._fs.attributes.of(*self._fs.make(parent_inode, name, 0o040000 | mode & 0o7777, _caller(ctx)))

    @guarded
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        self._may_name(parent_inode, name)
        return self._fs.attributes.of(*self._fs.make(parent_inode, name, 0o120777, _caller(ctx), target=target))

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        """Remove a name."""
        self._may_name(parent_inode, name)
        self._fs.unlink(parent_inode, name)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: Any) -> None:
        """Remove an empty directory."""
        self._may_name(parent_inode, name, folder=True)
        self._fs.rmdir(parent_inode, name)

    @guarded
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: Any,
    ) -> None:
        """Give another name or place."""
        await self._may_move(parent_inode_old, name_old, parent_inode_new, name_new)
        await self._fs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    @guarded
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: Any) -> pyfuse3.EntryAttributes:
        """Give a file another name."""
        self._may_change(inode)
        self._may_name(new_parent_inode, new_name)
        return self._fs.attributes.of(*await self._fs.link(inode, new_parent_inode, new_name))

    @guarded
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        """Read a symbolic link."""
        return self._fs.readlink(inode)

    # -- attributes ---------------------------------------------------------------------------------------------------

    @guarded
    async def getattr(self, inode: int, ctx: Any) -> pyfuse3.EntryAttributes:
        """Read attributes."""
        return self._fs.attributes_of(inode)

    @guarded
    async def setattr(
        self, inode: int, attr: pyfuse3.EntryAttributes, fields: pyfuse3.SetattrFields, fh: int | None, ctx: Any
    ) -> pyfuse3.EntryAttributes:
        """Change attributes."""
        self._may_change(inode)
        change = Change(
            size=attr.st_size if fields.update_size else None,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
        )
        await self._fs.set_attributes(inode, change, fh, _caller(ctx))
        return self._fs.attributes_of(inode)

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        """Read an extended attribute; those of our own speak of what is in the tree."""
        if name.startswith(OWN):
            await self._fs.published(inode)
        return self._fs.get_xattr(inode, name)

    @guarded
    async def listxattr(self, inode: int, ctx: Any) -> Sequence[bytes]:
        """List the stored extended attributes."""
        return self._fs.xattrs.names(self._fs.inodes.find(inode))

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        """Store an extended attribute."""
        self._may_change(inode, name)
        self._fs.set_xattr(inode, name, value)

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: Any) -> None:
        """Remove an extended attribute."""
        self._may_change(inode, name)
        self._fs.set_xattr(inode, name, None)

    # -- files --------------------------------------------------------------------------------------------------------

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: Any
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make a file and open it."""
        self._may_name(parent_inode, name)
        handle, known, node = await self._fs.create(parent_inode, name, mode, flags, _caller(ctx))
        return pyfuse3.FileInfo(handle, keep_cache=True), self._fs.attributes.of(known, node)

    @guarded
    async def open(self, inode: int, flags: int, ctx: Any) -> pyfuse3.FileInfo:
        """Open a file."""
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self._may_change(inode)
        return pyfuse3.FileInfo(await self._fs.open(inode, flags, _caller(ctx)), keep_cache=True)

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read bytes."""
        return await self._fs.open_files.read(fh, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write bytes."""
        self._may_write(fh)
        return await self._fs.open_files.write(fh, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """Hand over what was written (close of a descriptor)."""
        await self._fs.open_files.flush(fh)

    @guarded
    async def release(self, fh: int) -> None:
        """Forget a handle."""
        await self._fs.release(fh)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Make a file's bytes durable here."""
        await self._fs.open_files.fsync(fh)

    # -- directories --------------------------------------------------------------------------------------------------

    @guarded
    async def opendir(self, inode: int, ctx: Any) -> int:
        """Open a directory."""
        listing = Listing(self._fs.inodes.find(inode).inode)
        self._last_listing += 1
        self._listings[self._last_listing] = listing
        self._fs.changes.opened(listing)
        return self._last_listing

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List names with their attributes."""
        self._fill(fh, start_id, token)

    def _fill(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        """List names from a position on; tell whether there was room for all."""
        listing = self._listings[fh]
        if start_id == 0 or listing.entries is None:
            listing.entries = self._fs.list(listing)
        entries, touched = listing.entries, listing.touched
        inodes, attributes, changes = self._fs.inodes, self._fs.attributes, self._fs.changes
        for index in range(start_id, len(entries)):
            name, node = entries[index]
            if touched and name in touched:
                now = self._fs.child_now(listing, name)
                if now is None:
                    continue
                node = now
            known = inodes.entry(node.inode)
            answer = known.attributes
            if answer is None:
                answer = attributes.of(known, node if changes.count == listing.taken else self._fresh(node))
            if not pyfuse3.readdir_reply(token, name, answer, index + 1):
                return False
            if index >= 2:  # The kernel doesn't count . and ..
                inodes.looked_up(known)
        return True

    def _fresh(self, node: Node) -> Node:
        """Return the node as it is now: the snapshot may be older than a change of its attributes."""
        return self._fs.now(node.inode) or node

    @guarded
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        listing = self._listings.pop(fh, None)
        if listing is not None:
            self._fs.changes.closed(listing)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Make names durable here."""
        await self._fs.sync_directory(self._listings[fh])

    @guarded
    async def statfs(self, ctx: Any) -> pyfuse3.StatvfsData:
        """Tell sizes."""
        total_bytes, free_bytes = self._space()
        totals = self._tree.totals()
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = FRAGMENT_BYTES
        answer.f_blocks = total_bytes // FRAGMENT_BYTES
        answer.f_bfree = answer.f_bavail = free_bytes // FRAGMENT_BYTES
        used = totals.files + totals.directories
        answer.f_ffree = answer.f_favail = max(0, (1 << 32) - used)
        answer.f_files = used + answer.f_ffree
        answer.f_namemax = NAME_LIMIT_BYTES
        return answer
