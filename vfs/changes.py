"""Listens to the tree and keeps what was derived from it right: cached attributes, live files, listings, the kernel.

The kernel caches attributes, names, absent names and pages for long. It knows the effects of its own requests; of every
other change it has to be told. So an operation that a handler runs is announced by `own` with the names that it
touches, a publication by `publishing`; all else, from other pods or from this one, is passed to the `Notifier`.

Must never: call the kernel itself, or wait.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import anyio

from base import beat
from base.errors import FileSystemError
from vfs.names import Names
from vfs.opened import OpenNames

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from base.ids import InodeId
    from crdt_meta.node import Delta, Node
    from crdt_meta.tree import Tree
    from vfs.inodes import Inodes
    from vfs.livefile import LiveFile, LiveFiles
    from vfs.notify import Notifier

Entry = tuple["InodeId", bytes]

WATCH_S: Final = 2.0
"""How often the notify thread is looked after (s)."""

SLICE: Final = 256
"""Names queued between two turns of the other tasks when everything has to be forgotten."""


class Listing:
    """An open directory: a snapshot of its names, and which of them changed since."""

    __slots__ = ("entries", "inode", "taken", "touched")

    def __init__(self, inode: InodeId) -> None:
        self.inode = inode
        self.entries: list[tuple[bytes, Node]] | None = None
        self.taken = 0
        """`Changes.count` when the snapshot was taken."""
        self.touched: set[bytes] = set()


class _Own:
    """The scope of an operation that the kernel, or the publisher, started itself."""

    __slots__ = ("_changes", "_entries", "_publishing")

    def __init__(self, changes: Changes, entries: Collection[Entry], publishing: InodeId | None) -> None:
        self._changes = changes
        self._entries = entries
        self._publishing = publishing

    def __enter__(self) -> None:
        self._changes.set_own(self._entries, self._publishing)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._changes.set_own(None, None)


class Changes:
    """The tree's listener."""

    def __init__(self, tree: Tree, inodes: Inodes, files: LiveFiles, notifier: Notifier) -> None:
        self._tree = tree
        self.names = Names(tree)
        self.open_names = OpenNames(tree)
        self._inodes = inodes
        self._files = files
        self._beside: set[InodeId] = set()
        """Files that go on over a content of their own until they are closed."""
        self._notifier = notifier
        self._own: Collection[Entry] | None = None
        self._publishing: InodeId | None = None
        self.expected: Counter[Entry] = Counter()
        """Names for whose change the kernel waits, however long it takes (`vfs.remote`)."""
        self._listings: dict[InodeId, list[Listing]] = {}
        self.count = 0
        """Changes heard of so far."""
        self._closed = False
        tree.on_delta(self._listen)

    def close(self) -> None:
        """Stop listening: the mount has ended."""
        self._closed = True
        self._listings.clear()

    def own(self, *entries: Entry) -> _Own:
        """Announce an operation of the kernel on these names (``with``, without waiting inside)."""
        return _Own(self, entries, None)

    def publishing(self, inode: InodeId) -> _Own:
        """Announce the publication of a content that the handles here see already."""
        return _Own(self, (), inode)

    def set_own(self, entries: Collection[Entry] | None, publishing: InodeId | None) -> None:
        """Set what the operation under way is known to touch."""
        self._own = entries
        self._publishing = publishing

    # -- open directories ---------------------------------------------------------------------------------------------

    def opened(self, listing: Listing) -> None:
        """Mark in a listing the names that change from now on."""
        self._listings.setdefault(listing.inode, []).append(listing)

    def closed(self, listing: Listing) -> None:
        """Stop it."""
        same = self._listings.get(listing.inode, [])
        if listing in same:
            same.remove(listing)
        if not same:
            self._listings.pop(listing.inode, None)

    # -- the listener -------------------------------------------------------------------------------------------------

    def _listen(self, delta: Delta) -> None:
        if self._closed:
            return
        own, inodes, notifier = self._own, self._inodes, self._notifier
        self.count += 1
        self.names.heard(delta)
        for inode in delta.inodes:
            known = inodes.get(inode)
            told = None
            if known is not None:
                told, known.attributes = known.attributes, None
            live = self._files.get(inode)
            if live is not None:
                self._refresh(live)
            if known is None or (own is not None and self._publishing is None):
                continue
            attributes_only = inode == self._publishing or (live is not None and (live.overlaid or live.beside))
            # Without attributes of ours the kernel has none either: it was told, or dropped them when it wrote.
            if told is not None or not attributes_only:
                notifier.inode(known.number, attributes_only)
        self._lead_elsewhere(self.open_names.heard(delta))
        for entry in delta.entries:
            directory, name = entry
            for listing in self._listings.get(directory, ()):
                listing.touched.add(name)
            if (own is not None and entry in own) or entry in self.expected:
                continue
            parent = inodes.get(directory)
            if parent is not None:
                notifier.entry(parent.number, name)

    def vanished(self, directory: InodeId, name: bytes) -> None:
        """Note that a file went that had not entered the tree yet."""
        for listing in self._listings.get(directory, ()):
            listing.touched.add(name)

    def forget_names(self, entries: Collection[Entry]) -> None:
        """Have names forgotten that may lead elsewhere than the kernel was told."""
        self._lead_elsewhere(entries)

    def forget_entry(self, number: int, name: bytes) -> None:
        """Have a name in a directory forgotten, shared or private."""
        self._notifier.entry(number, name)

    def closed_file(self, inode: InodeId) -> None:
        """Note that a handle of a file is gone."""
        self._lead_elsewhere(self.open_names.closed(inode))
        live = self._files.get(inode)
        if inode in self._beside and (live is None or not live.writers):
            self._beside.discard(inode)
            if live is not None:
                self._refresh(live)
            known = self._inodes.get(inode)
            if known is not None:
                known.attributes = None
                self._notifier.inode(known.number)

    def _lead_elsewhere(self, entries: Collection[Entry]) -> None:
        """Have names forgotten that lead elsewhere, though the tree has not changed."""
        for directory, name in entries:
            for listing in self._listings.get(directory, ()):
                listing.touched.add(name)
            parent = self._inodes.get(directory)
            if parent is not None:
                self._notifier.entry(parent.number, name)

    def _refresh(self, live: LiveFile) -> None:
        try:
            node = self._tree.get(live.inode)
        except FileSystemError:
            node = None
        if node is not None:
            # Nobody who has a file open for writing goes on over what somebody else wrote without seeing it.
            live.beside = live.writers > 0 and self._tree.stands_beside(live.inode, live.shown, live.node.content)
            if live.beside:
                self._beside.add(live.inode)
            else:
                live.follow(node)
            return
        live.removed()
        known = self._inodes.get(live.inode)
        if known is not None:
            known.orphan = live.node._replace(nlink=0)

    # -- the watchdog -------------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look after the notify thread until cancelled."""
        while True:
            await beat.rest(WATCH_S)
            self._notifier.check()
            if self._notifier.take_overflow():
                await self.forget_everything()

    async def forget_everything(self) -> None:
        """Have the kernel forget all that it can know: the attributes of a removed inode are enough to find it gone."""
        for count, known in enumerate(list(self._inodes), start=1):
            known.attributes = None
            self._notifier.inode(known.number)
            if count % SLICE == 0:
                await self._room()
            try:
                children = self._tree.children(known.inode)
            except FileSystemError:
                continue
            for index, (name, _) in enumerate(children, start=1):
                self._notifier.entry(known.number, name)
                if index % SLICE == 0:
                    await self._room()

    async def _room(self) -> None:
        while not self._notifier.has_room:  # noqa: ASYNC110 - the thread that empties it knows no event loop
            await anyio.sleep(0.01)
        await anyio.lowlevel.checkpoint()
