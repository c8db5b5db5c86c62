"""The live contents of the tree with what the configuration wants for each: the joint of metadata, policy and bytes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, NamedTuple

from base.ids import ContentId, InodeId, PodId
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Node
from crdt_meta.tree import Tree
from mesh.api import Mesh
from operations.placing import Placing
from policies.config import ClusterConfig, PodConfig
from policies.ignoring import NAME
from policies.wishes import wish_of
from transfer.api import ContentInfo, Holders

REFERENCES_LOOKED_AT: Final = 64
"""A content that more files share than this is judged by the first of them."""

ROOM: Final = "room"
"""The value that a pod gossips about itself: how many bytes it can still keep."""


_IGNORES: Final = f"/{NAME}"
"""Without these nobody could tell what may be shared, so every pod has them."""


class Wanted(NamedTuple):
    """What is wanted for one file."""

    copies: int
    """Before the number of full pods limits it."""
    cache: bool
    keep: bool
    """Whether this pod must hold it."""


class TreeCatalogue:
    """Implements `transfer.api.Catalogue` and `transfer.api.Memory`."""

    def __init__(self, tree: Tree, mesh: Mesh, cluster: ClusterConfig, pod: PodConfig) -> None:
        self._tree = tree
        self._mesh = mesh
        self._cluster = cluster
        self._pod = pod
        self.placing = Placing(mesh)
        """Where copies belong."""
        self.most_copies: int | None = None
        """While fewer copies are made than configured: so many at most."""
        mesh.on_change(self.placing.members_changed)
        self.holders: Callable[[ContentId], Holders] = lambda _: Holders(frozenset(), frozenset(), frozenset())
        """Set once `transfer` is there: who has a content already."""
        self.durable: Callable[[], Awaitable[None]] | None = None
        """`Committer.durable` of the same metadata; until it is set nobody can tell what a crash would bring back."""

    def is_behind(self) -> bool:
        """Tell whether this pod is catching up with what others know of the tree."""
        return self._tree.is_catching_up or self._mesh.is_behind()

    def give_up(self, pods: frozenset[PodId]) -> None:
        """Make the copies of these pods anew: they stay away."""
        self.placing.given_up = pods

    def set_apart(self) -> tuple[frozenset[PodId], frozenset[PodId]]:
        """Return the pods whose copies are made anew, as they stay away and as they are leaving."""
        return self.placing.given_up, self.placing.pods().leaving

    def configure(self, cluster: ClusterConfig, pod: PodConfig) -> None:
        """Take over another configuration."""
        self._cluster, self._pod = cluster, pod

    def full_pods(self) -> list[PodId]:
        """Return the full members that neither left nor were evicted, absent ones included."""
        return list(self.placing.pods().full)

    def copies_wanted(self, copies: int) -> int:
        """Return the lesser of ``copies`` and the number of full members."""
        return min(copies, len(self.full_pods()))

    def wanted_now(self, copies: int) -> int:
        """Return how many copies are made now: `copies_wanted`, or fewer while a reaction says so."""
        wanted = self.copies_wanted(copies)
        return wanted if self.most_copies is None else min(wanted, self.most_copies)

    def is_repair(self, content: ContentId) -> bool:
        """Tell whether a copy of a content is made because a pod that has one stays away."""
        given_up = self.placing.given_up
        return bool(given_up) and not given_up.isdisjoint(self.holders(content).absent)

    def info(self, content: ContentId) -> ContentInfo | None:
        """Return what is wanted for a content, or None when nothing refers to it any more.

        What only the trash has needs no second copy: those that there are stay.
        """
        copies, cache, keep, node = 0, True, False, None
        for inode in self._tree.showing(content)[:REFERENCES_LOOKED_AT]:
            found = self._tree.get(inode)
            path = self._tree.path(inode)
            if found is None or path is None:
                continue
            node = found
            text = path.decode("utf-8", "surrogateescape")
            wanted = self.wanted(inode, text)
            copies = max(copies, wanted.copies)
            cache = cache and wanted.cache
            keep = keep or wanted.keep
        if node is None:
            trashed = self._tree.trashed(content)
            return None if trashed is None else ContentInfo(content, *self._of_trash(*trashed), is_shown=False)
        born_s = nanoseconds(max((dot.clock for dot in node.shown), default=0)) / 1e9 if node.shown else math.inf
        now = copies if self.most_copies is None else min(copies, self.most_copies)
        return ContentInfo(content, node.size, self._keeper(node), now, cache, keep, born_s, configured=copies)

    def wanted(self, inode: InodeId, path: str) -> Wanted:
        """Return what is wanted for one file: what stands at itself, or else the rules."""
        ruled, here = self._cluster.for_path(path), self._pod.for_path(path)
        wish = wish_of(self._tree.marks(inode))
        return Wanted(
            ruled.copies if wish.copies is None else wish.copies,
            here.may_cache(ruled),
            here.keep or path.endswith(_IGNORES) if wish.keep is None else wish.keep,
        )

    def _keeper(self, node: Node) -> PodId:
        """Return who is to keep the first copy of what a file shows: its author, or who published it for a client pod."""
        author = node.author
        if author is None or author not in self.placing.pods().clients:
            return author or self._mesh.pod_id
        return min(self._tree.published_by(node), default=author)

    def _of_trash(self, size: int, author: PodId | None) -> tuple[int, PodId, int, bool, bool]:
        return size, author or self._mesh.pod_id, 1, True, False

    def page(self, after: ContentId | None, limit: int) -> Sequence[ContentInfo]:
        """Return live contents in the order of their ids, from the one behind ``after`` on."""
        while contents := self._tree.contents(after, limit):
            page = [info for content, _, _ in contents if (info := self.info(content)) is not None]
            if page:
                return page
            after = contents[-1][0]
        return []

    def contents(self, after: ContentId | None, limit: int) -> Sequence[tuple[ContentId, int]]:
        """Return (content, bytes) of all contents that the tree refers to, in the order of their ids."""
        return [(content, size) for content, size, _ in self._tree.contents(after, limit)]

    def large_contents(self, after: ContentId | None, limit: int) -> Sequence[tuple[ContentId, int]]:
        """Return (content, bytes) of those of more than one chunk (`LARGE_BYTES` is that), in the order of their ids."""
        return self._tree.large_contents(after, limit)

    def refers(self, content: ContentId) -> bool:
        """Tell whether the tree refers to a content: shown, hidden, or in the trash."""
        return bool(self._tree.references(content))

    def journalled(self) -> Sequence[tuple[ContentId, int]]:
        """Return (content, bytes) of the contents that fsync wrote down and that aren't published."""
        return [(entry.content, entry.size) for entry in self._tree.journalled()]

    async def settled_journal(self) -> Collection[ContentId] | None:
        """Return what is journalled once everything before the call is on the disk; None when that can't be told."""
        if self.durable is None:
            return None
        found = {entry.content for entry in self._tree.journalled()}
        await self.durable()
        return found

    def place(self, info: ContentInfo) -> Sequence[PodId]:
        """Return the pods that should keep the content, the most wanted first."""
        return self.placing.place(info, self.holders(info.content))
