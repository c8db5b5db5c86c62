"""Which of the contents that drafts sealed may still be published, and removing what none of them needs any more.

A sealed content is in one of these states::

    waiting --published--> settled: its pieces stay
       |  superseded by a later seal of the draft, or abandoned
       v
     dead --nobody can publish or journal it any more--> let go: pieces without another owner are removed

Somebody may have taken a content before it was dead and be about to publish or journal it: whoever does, does it
behind `Transfer.sync`, within `TURNS` turns of the loop. And a crash may bring back what the journal said before: so
the journal must be on the disk without the content before its pieces go.

Must never: let go of a content that is journalled, published, or in the tree for any other reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio
import anyio.lowlevel

from base.errors import WormholeError
from base.ids import ChunkId, ContentId
from transfer.api import Memory
from transfer.ledger import Owner, Seal
from transfer.offload import Offload
from transfer.store import ChunkStore

log = logging.getLogger(__name__)

PAUSE_S: Final = 0.05
TURNS: Final = 128
"""Turns of the loop: the publisher writes 64 records in each, and at most some 1,000 in all."""


class Claims:
    """The sealed contents of this process. For the loop thread."""

    def __init__(self, store: ChunkStore, offload: Offload, in_use: Callable[[], Collection[ChunkId]]) -> None:
        self._store = store
        self._offload = offload
        self._in_use = in_use
        self._seals: dict[ContentId, list[Seal]] = {}
        """Not published ones, dead or not."""
        self._dead: dict[Seal, None] = {}
        self._syncs: set[object] = set()
        self._sync_ended = anyio.Event()
        self._wake = anyio.Event()

    # -- what drafts say

    def sealed(self, content: ContentId, pieces: Iterable[ChunkId], *, single: bool = False) -> Seal:
        """Note a sealed content with those of its pieces that its draft wrote; ``single``: it has one only."""
        seal = Seal(content, single=single)
        self._store.share(pieces, seal)
        self._seals.setdefault(content, []).append(seal)
        return seal

    def supersede(self, seal: Seal) -> None:
        """Note that the draft was sealed anew."""
        if seal in self._seals.get(seal.content, ()):
            self._dead[seal] = None
            self._wake.set()

    def let_go(self, owner: Owner, pieces: Iterable[ChunkId]) -> None:
        """Note that a draft needs pieces no more."""
        if self._store.let_go(owner, pieces):
            self._wake.set()

    def free(self, pieces: Iterable[ChunkId]) -> None:
        """Have pieces removed that only drafts may still need; no draft that does loses one."""
        owner = Owner()
        self._store.list_again(pieces, owner)
        self.let_go(owner, pieces)

    def close(self, owner: Owner) -> None:
        """Note that a draft is discarded."""
        if self._store.close_owner(owner):
            self._wake.set()

    # -- what others say

    def abandon(self, content: ContentId) -> None:
        """Note that one of those who sealed this content will never publish it."""
        for seal in self._seals.get(content, ()):
            if seal not in self._dead:
                self._dead[seal] = None
                self._wake.set()
                return

    def published(self, content: ContentId) -> bool:
        """Note that the tree refers to a content: its pieces stay. Tell whether a draft sealed it as one piece."""
        seals = self._seals.pop(content, ())
        for seal in seals:
            self._dead.pop(seal, None)
            self._store.settle(seal.pieces)
        if self._dead:
            self._wake.set()
        return any(seal.single for seal in seals)

    @contextmanager
    def syncing(self) -> Iterator[None]:
        """Hold while somebody syncs: it may publish or journal afterwards what was sealed before."""
        token = object()
        self._syncs.add(token)
        try:
            yield
        finally:
            self._syncs.discard(token)
            ended, self._sync_ended = self._sync_ended, anyio.Event()
            ended.set()

    def contents(self) -> Collection[ContentId]:
        """Return the contents that may still be published."""
        return self._seals.keys()

    # -- tidying

    async def run(self, memory: Memory | None, is_held: Callable[[ContentId], bool]) -> None:
        """Remove what isn't needed any more, until cancelled. ``is_held``: whether the holdings have a content."""
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            try:
                await self.collect()
                if memory is not None and self._dead:
                    await self._bury(memory, is_held)
                    await self.collect()
            except (WormholeError, OSError) as error:
                log.warning("what isn't needed any more can't be removed: %s", error)
            await anyio.sleep(PAUSE_S)

    async def collect(self) -> None:
        """Remove what nobody needs."""
        while True:
            done = await self._offload.run(self._store.collect, self._in_use())
            self._store.look_at_room()
            if done:
                return
            await anyio.sleep(PAUSE_S)

    async def _bury(self, memory: Memory, is_held: Callable[[ContentId], bool]) -> None:
        """Let go of the contents that are dead now, once nobody can publish or journal them any more."""
        due, before = list(self._dead), set(self._syncs)
        while before & self._syncs:
            await self._sync_ended.wait()
        for _ in range(TURNS):
            await anyio.lowlevel.checkpoint()
        journalled = await memory.settled_journal()
        if journalled is None:
            return
        for seal in due:
            if seal not in self._dead or seal.content in journalled:
                continue
            del self._dead[seal]
            others = self._seals[seal.content]
            others.remove(seal)
            if not others:
                del self._seals[seal.content]
            if is_held(seal.content) or memory.refers(seal.content):
                self._store.settle(seal.pieces)
            else:
                self._store.let_go(seal, seal.pieces)
