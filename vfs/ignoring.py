"""Which names a mount keeps to itself: the ``.wormholeignore`` of a directory and of those above it, as they are now.

Such a file is an ordinary one, the same on all pods; one that is being written here counts as it stands. Of several
the one nearest to the name decides. Where one can't be read nothing is decided: a name would be told to others that
must not be.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from crdt_meta.node import Kind
from policies.ignoring import MAX_BYTES, NAME, Ignored

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from base.ids import ContentId, InodeId
    from crdt_meta.node import Delta
    from crdt_meta.tree import Tree
    from transfer.service import Transfer
    from vfs.filesystem import FileSystem

KNOWN_LIMIT: Final = 1024
DEPTH_LIMIT: Final = 4096
BARE_LIMIT: Final = 10_000
_FILE: Final = NAME.encode()


class Ignoring:
    """Reads and remembers them."""

    def __init__(self, tree: Tree, transfer: Transfer, filesystem: FileSystem | None = None) -> None:
        """``filesystem``: the mount, if there is one, knows what isn't in the tree yet."""
        self._fs = filesystem
        self._tree = tree
        self._transfer = transfer
        self._known: OrderedDict[ContentId, Ignored] = OrderedDict()
        self._bare: set[InodeId] = set()
        """Directories without such a file, as are all above them: until one gets the name, or any directory moves."""
        self._bare_at = tree.view.moves
        if filesystem is not None:
            tree.on_delta(self._listen)

    def _listen(self, delta: Delta) -> None:
        if self._bare and any(name == _FILE for _, name in delta.entries):
            self._bare.clear()

    def is_bare(self, directory: InodeId) -> bool:
        """Tell whether it is known that nothing in a shared directory is ignored; when not, `is_ignored` says more."""
        if self._bare_at != self._tree.view.moves:
            self._bare.clear()
            self._bare_at = self._tree.view.moves
        return directory in self._bare

    async def is_ignored(self, directory: InodeId, name: bytes, *, folder: bool) -> bool:
        """Tell whether what gets a name in a shared directory, or a path below it, stays here.

        Raises `WormholeError` (EIO): nobody can tell.
        """
        if name == _FILE:
            return False
        path = name.decode("utf-8", "surrogateescape") + ("/" if folder else "")
        at, bare = directory, [directory]
        for _ in range(DEPTH_LIMIT):
            rules = await self._rules(at)
            decided = rules.decision(path) if rules is not None else None
            if decided is not None:
                return decided
            if rules is not None or self._tree.lookup(at, _FILE) is not None:
                bare = []
            above = self._tree.parent(at)
            if above is None:
                self._remember(bare)
                return False
            at, called = above
            path = f"{called.decode('utf-8', 'surrogateescape')}/{path}"
            if bare:
                bare.append(at)
        return False

    def _remember(self, bare: list[InodeId]) -> None:
        """Remember directories without such files. Nothing was waited for since the first was looked at."""
        if self._fs is None or not bare or self.is_bare(bare[0]):
            return
        if len(self._bare) >= BARE_LIMIT:
            self._bare.clear()
        self._bare.update(bare)

    async def _rules(self, directory: InodeId) -> Ignored | None:
        node = self._tree.lookup(directory, _FILE) if self._fs is None else self._fs.named(directory, _FILE)
        if node is None or node.kind is not Kind.FILE:
            return None
        live = None if self._fs is None else self._fs.files.get(node.inode)
        if live is not None and live.overlaid:
            return Ignored(_text(await self._in_time(live.read(0, MAX_BYTES))))
        found = self._known.get(node.content)
        if found is None:
            reader = self._transfer.open(node.content, node.size, node.author)
            try:
                found = Ignored(_text(await self._in_time(reader.read(0, MAX_BYTES))))
            finally:
                reader.close()
            self._known[node.content] = found
            if len(self._known) > KNOWN_LIMIT:
                self._known.popitem(last=False)
        return found

    async def _in_time(self, read: Coroutine[Any, Any, bytes]) -> bytes:
        """Wait for bytes as long as the mount would; without one for as long as it takes to fetch them."""
        return await (read if self._fs is None else self._fs.open_files.patience.network(read))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
