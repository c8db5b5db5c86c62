"""Bringing a whole content into the store: what is missing is fetched in the background, a few chunks at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import anyio

from base.errors import WormholeError
from base.ids import ChunkId, ContentId, PodId
from transfer.access import Access
from transfer.chunking import is_single
from transfer.fanning import Plan
from transfer.fetcher import Urgency, Wanted
from transfer.manifest import MAX_MANIFEST_BYTES, Manifest
from transfer.pieces import Area
from transfer.store import ChunkStore

PARALLEL: Final = 4
"""Chunks of one content fetched at a time."""


def stored_pieces(content: ContentId, manifest: Manifest) -> list[ChunkId]:
    """Return what a content needs in a store, each piece once: its chunks, and its manifest unless that is implied."""
    chunks = dict.fromkeys(manifest.chunks)
    if not is_single(manifest.size):
        chunks[ChunkId(content)] = None
    return list(chunks)


def is_whole(store: ChunkStore, content: ContentId, manifest: Manifest) -> bool:
    """Tell whether every piece of a content is on this pod."""
    return all(store.has(piece) for piece in stored_pieces(content, manifest))


def is_whole_kept(store: ChunkStore, content: ContentId, manifest: Manifest) -> bool:
    """Take every piece of a content out of the cache's reach; tell whether all are here (durable after a sync)."""
    return sum(not store.promote(piece) for piece in stored_pieces(content, manifest)) == 0


def missing_bytes(store: ChunkStore, content: ContentId, manifest: Manifest) -> int:
    """Return how many bytes of a content aren't on this pod."""
    lengths = {piece: manifest.length(index) for index, piece in enumerate(manifest.chunks)}
    return sum(length for piece, length in lengths.items() if not store.has(piece))


async def gather(
    access: Access,
    content: ContentId,
    manifest: Manifest,
    author: PodId | None,
    area: Area,
    rng: random.Random | None = None,
    plan: Plan | None = None,
    on_piece: Callable[[], None] = lambda: None,
) -> None:
    """Fetch the pieces that aren't here into an area of the store; not yet durable.

    The list of chunks comes first: should the rest never come, what did is found by it, and freed.
    ``rng`` shuffles them, so that several pods that gather the same content at once take different parts first and
    can serve each other; a ``plan`` says from whom and in which order. ``on_piece`` is called after each. Raises
    `UnreachableError`, `DamagedError`, `NoSpaceError` (kept only).
    """
    lengths = dict(zip(manifest.chunks, map(manifest.length, range(len(manifest.chunks))), strict=True))

    async def fetch(piece: ChunkId) -> None:
        wanted = Wanted(content, piece, lengths.get(piece, MAX_MANIFEST_BYTES), author)
        await access.chunk(wanted, Urgency.BACKGROUND, area)
        on_piece()

    if not is_single(manifest.size) and not access.store.claim(ChunkId(content), area):
        await fetch(ChunkId(content))
    missing = [piece for piece in stored_pieces(content, manifest) if not access.store.claim(piece, area)]
    if plan is not None:
        missing = plan.in_order(missing)
    elif rng is not None:
        rng.shuffle(missing)
    missing.reverse()
    failures: list[WormholeError] = []

    async def work() -> None:
        while missing and not failures:
            try:
                await fetch(missing.pop())
            except WormholeError as error:
                failures.append(error)
                group.cancel_scope.cancel()

    if len(missing) == 1:
        await fetch(missing[0])
        return
    async with anyio.create_task_group() as group:
        for _ in range(min(PARALLEL, len(missing))):
            group.start_soon(work)
    if failures:
        raise failures[0]
