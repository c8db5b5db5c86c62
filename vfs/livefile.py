"""Files that are open, or whose last content isn't in the tree yet: what all handles of one inode share.

A live file lies over the tree: while it is *overlaid* (changed and not published) its size and times are shown instead
of the tree's, and a remote change doesn't touch what its handles see. As soon as it isn't, it follows the tree.

States of the content::

    clean --write/truncate--> dirty --seal--> sealed --publish--> clean
                                ^---write---'

*Dirty* bytes exist in the draft only. *Sealed* ones are chunks and a manifest in the store, named by a content id,
which the tree doesn't know yet. A crash loses both, unless fsync had journalled them.

Must never: change the draft beside `_lock` while a slow change or a seal is under way, for `dirty` would then lie.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from base.ids import ContentId
from transfer.lazylock import LazyLock
from vfs.recent import RecentWrites

if TYPE_CHECKING:
    from collections.abc import Iterator

    from base.errors import WormholeError
    from base.ids import Dot, InodeId, LinkId
    from crdt_meta.node import Node
    from transfer.draft import Draft
    from transfer.reader import Reader
    from transfer.service import Transfer
    from vfs.nursery import Newborn, Nursery


class SealedContent(NamedTuple):
    """What a live file was when it was sealed."""

    number: int
    """Counts the seals of this live file: a later one contains whatever an earlier one did."""
    content: ContentId
    size: int


class LiveFile:
    """One inode in use."""

    __slots__ = (
        "_busy",
        "_draft",
        "_lock",
        "_reader",
        "_retired",
        "_sealing",
        "_seals",
        "_transfer",
        "beside",
        "ctime_ns",
        "dirty",
        "error",
        "handles",
        "inode",
        "journalled",
        "link",
        "mtime_ns",
        "newborn",
        "node",
        "queued",
        "recent",
        "sealed",
        "shown",
        "unlinked",
        "writers",
    )

    def __init__(self, node: Node, transfer: Transfer) -> None:
        self.inode: InodeId = node.inode
        self.node = node
        """What the tree showed last; without names once the file is removed."""
        self.link: LinkId = node.link
        self.shown: tuple[Dot, ...] = node.shown
        """The contents that a publication of what is written here replaces."""
        self.beside = False
        """Whether the tree shows another pod's content, which did not see this one: what is open goes on over its own."""
        self.handles = 0
        self.writers = 0
        self.dirty = False
        self.sealed: SealedContent | None = None
        self.queued = False
        """Whether the publisher was given what is sealed."""
        self.journalled: SealedContent | None = None
        """What fsync made durable here and the tree doesn't know yet."""
        self.unlinked = False
        """Whether its last name was removed on this pod."""
        self.error: WormholeError | None = None
        """Why the last publication failed; told to the next fsync or close, once."""
        self.newborn: Newborn | None = None
        """Set while it isn't in the tree yet."""
        self.recent = RecentWrites()
        self.mtime_ns = node.mtime_ns
        self.ctime_ns = node.ctime_ns
        self._transfer = transfer
        self._draft: Draft | None = None
        self._reader: Reader | None = None
        self._retired: list[Draft | Reader] = []
        self._busy = 0
        self._seals = 0
        self._sealing = False
        self._lock = LazyLock()

    @property
    def overlaid(self) -> bool:
        """Whether what the handles see differs from what the tree knows."""
        return self.dirty or self.sealed is not None or self._sealing

    @property
    def size(self) -> int:
        """Bytes of the file as its handles see it."""
        if self._draft is not None and self.overlaid:
            return self._draft.size
        return self.node.size

    @property
    def idle(self) -> bool:
        """Whether nobody needs this object any more."""
        return self.handles == 0 and not self.queued and (self.unlinked or not self.overlaid)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read_now(self, offset: int, length: int) -> bytes | None:
        """Return bytes from memory and the local disk, shorter at the end; None when something must be fetched."""
        if self._draft is not None:
            return self._draft.read_now(offset, length)
        reader = self._reader
        if reader is None:
            reader = self._open_reader()
        return reader.read_now(offset, length)

    async def read(self, offset: int, length: int) -> bytes:
        """Return bytes, fetching what is missing. Raises UnreachableError or DamagedError."""
        self._busy += 1
        try:
            if self._draft is not None:
                return await self._draft.read(offset, length)
            return await self._open_reader().read(offset, length)
        finally:
            self._busy -= 1
            self._close_retired()

    def _open_reader(self) -> Reader:
        if self._reader is None:
            node = self.node
            self._reader = self._transfer.open(node.content, node.size, node.author)
        return self._reader

    # -- writing ------------------------------------------------------------------------------------------------------

    def _begin(self) -> Draft:
        """Return the draft, started over what is shown now."""
        if self._draft is None:
            node = self.node
            self._draft = self._transfer.draft(node.content, node.size, node.author)
            self.recent.start(node.content, node.size)
            self._retire_reader()
        return self._draft

    def _changed(self, now_ns: int) -> None:
        self.dirty = True
        self.mtime_ns = now_ns
        self.touched()

    def touched(self) -> None:
        """Move the ctime: to now, and never back, whatever other pods' clocks say."""
        if self.newborn is not None:
            self.ctime_ns = self.newborn.touch()
            return
        self.ctime_ns = max(time.time_ns(), self.ctime_ns + 1, self.node.ctime_ns + 1)

    def write_now(self, offset: int, data: bytes, now_ns: int) -> bool:
        """Write without waiting; False (and nothing done) when that isn't possible."""
        if self._lock.locked() or not self._begin().write_now(offset, data):
            return False
        self._changed(now_ns)
        self.recent.wrote(offset, data)
        return True

    async def write(self, offset: int, data: bytes, now_ns: int) -> None:
        """Write, fetching the old content around it first. Raises UnreachableError, NoSpaceError."""
        async with self._lock:
            await self._begin().write(offset, data)
            self._changed(now_ns)
            self.recent.wrote(offset, data)

    async def truncate(self, size: int, now_ns: int) -> None:
        """Set the size in bytes; what is added reads as zeros."""
        async with self._lock:
            await self._begin().truncate(size)
            self._changed(now_ns)
            self.recent.stop()

    def seal_now(self) -> bool:
        """Do what `seal` does without waiting; False (and nothing done) when that isn't possible."""
        if not self.dirty:
            return True
        if self._lock.locked() or self._draft is None:
            return False
        sealed = self._draft.seal_now()
        if sealed is None:
            return False
        self._note_seal(*sealed)
        return True

    def _note_seal(self, content: ContentId, size: int) -> None:
        self.dirty = False
        self.recent.stop()
        self._seals += 1
        self.sealed = SealedContent(self._seals, content, size)
        self.queued = False

    async def seal(self) -> None:
        """Turn dirty bytes into a sealed content. They are in the store then, but not yet on the disk."""
        async with self._lock:
            if not self.dirty:
                return
            self.dirty, self._sealing = False, True
            try:
                content, size = await self._begin().seal()
            except BaseException:
                self.dirty = True
                raise
            finally:
                self._sealing = False
            dirty = self.dirty
            self._note_seal(content, size)
            self.dirty = dirty

    # -- the tree moves -----------------------------------------------------------------------------------------------

    def follow(self, node: Node) -> None:
        """Take over what the tree shows now, unless something here is unpublished."""
        old, self.node = self.node, node
        if self.overlaid:
            return
        self.link, self.shown = node.link, node.shown
        self.mtime_ns, self.ctime_ns = node.mtime_ns, node.ctime_ns
        if node.content != old.content:
            self._retire_reader()
            self._retire_draft()

    def published(self, node: Node, sealed: SealedContent) -> None:
        """Note that the tree shows ``sealed`` now, as ``node``."""
        self.beside = False
        if self.sealed is sealed:
            self.sealed = None
            self.queued = False
        self.link, self.shown, self.node = node.link, node.shown, node
        if not self.overlaid:
            self.mtime_ns, self.ctime_ns = node.mtime_ns, node.ctime_ns
            if node.content != sealed.content:
                self._retire_draft()
            elif self._draft is not None:
                self.recent.start(node.content, node.size)

    def born(self, node: Node, sealed: SealedContent | None) -> None:
        """Note that the tree shows it now, with what is ``sealed`` if anything is, as ``node``."""
        self.newborn = None
        if sealed is not None:
            self.published(node, sealed)
            return
        self.link, self.shown, self.node = node.link, node.shown, node
        if not self.overlaid:
            self.mtime_ns, self.ctime_ns = node.mtime_ns, node.ctime_ns

    def changed_outside(self, node: Node) -> None:
        """Take over a change of the attributes of a file that isn't in the tree yet."""
        self.node = node
        self.ctime_ns = max(self.ctime_ns, node.ctime_ns)
        if not self.overlaid:
            self.mtime_ns = node.mtime_ns

    def removed(self) -> None:
        """Note that the tree shows it nowhere any more."""
        self.newborn = None
        self.node = self.node._replace(nlink=0)

    # -- the end ------------------------------------------------------------------------------------------------------

    def _retire_reader(self) -> None:
        if self._reader is not None:
            self._retired.append(self._reader)
            self._reader = None
            self._close_retired()

    def _retire_draft(self) -> None:
        if self._draft is not None:
            self._retired.append(self._draft)
            self._draft = None
            self._close_retired()

    def _close_retired(self) -> None:
        if self._busy or self._lock.locked():
            return
        while self._retired:
            piece = self._retired.pop()
            if hasattr(piece, "discard"):
                piece.discard(abandon=True)
            else:
                piece.close()

    def dispose(self) -> None:
        """Let go of everything; unpublished bytes are lost."""
        self._retire_reader()
        self._retire_draft()


class LiveFiles:
    """All live files by inode id."""

    def __init__(self, transfer: Transfer, nursery: Nursery) -> None:
        self._transfer = transfer
        self._nursery = nursery
        self._files: dict[InodeId, LiveFile] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[LiveFile]:
        return iter(list(self._files.values()))

    def get(self, inode: InodeId) -> LiveFile | None:
        """Return the live file of an inode, if it has one."""
        return self._files.get(inode)

    def use(self, node: Node) -> LiveFile:
        """Return the live file of a node, made if need be, with one more handle; `done` takes it back."""
        live = self._files.get(node.inode)
        if live is None:
            live = self._files[node.inode] = LiveFile(node, self._transfer)
            live.newborn = self._nursery.get(node.inode)
        live.handles += 1
        return live

    def done(self, live: LiveFile) -> None:
        """Take back one handle."""
        live.handles -= 1
        self.settle(live)

    def settle(self, live: LiveFile) -> None:
        """Let a file go that nobody needs any more."""
        if live.idle and self._files.get(live.inode) is live:
            del self._files[live.inode]
            live.dispose()
