"""What a start does after the process was killed: holdings that promise too much are struck, orphaned pieces removed.

It runs before anything else uses the store. An *orphan* is a kept piece that no content in the holdings, in the tree or
in the journal needs: a killed process wrote it for a content that it never named. In doubt everything stays.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import anyio.lowlevel

from base.errors import DamagedError
from base.ids import ChunkId, ContentId
from transfer.access import Access
from transfer.api import Catalogue, Memory
from transfer.chunking import is_single
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.manifest import MAX_MANIFEST_BYTES, decode
from transfer.offload import Offload
from transfer.pieces import Area
from transfer.store import ChunkStore

log = logging.getLogger(__name__)

RECENT_CHECKED: Final = 1000
PAGE: Final = 1000
SLICE: Final = 200
UNKNOWN_BYTES: Final = 1 << 62
MANIFEST_START: Final = b"\x94\x01"
"""The first bytes of every manifest (four items, version 1)."""


async def check_recent(
    access: Access,
    database: HoldingsDb,
    catalogue: Catalogue,
    record: Callable[[dict[ContentId, Holding]], Awaitable[None]],
) -> None:
    """See that what was lately said to be held is on the disk; strike what isn't."""
    gone: dict[ContentId, Holding] = {}
    for content, _ in database.latest(RECENT_CHECKED):
        if not access.store.has(ChunkId(content)):
            gone[content] = Holding.NONE
            continue
        info = catalogue.info(content)
        try:
            manifest = access.manifest_now(content, info.size) if info is not None else None
        except DamagedError as error:  # for scrub; a pod must start with it
            log.warning("%s", error)
            continue
        if manifest is None:
            continue
        sizes = {piece: manifest.length(index) for index, piece in enumerate(manifest.chunks)}
        if any(access.store.size(piece) != length for piece, length in sizes.items()):
            gone[content] = Holding.NONE
    if gone:
        log.warning("%d contents said to be here aren't complete and will be fetched again", len(gone))
        await record(gone)


async def sweep_orphans(store: ChunkStore, database: HoldingsDb, memory: Memory, offload: Offload) -> int:
    """Remove the kept pieces that nothing refers to; return how many. Removes none when something can't be read."""
    try:
        needed = await _needed(store, database, memory, offload)
    except DamagedError as error:
        log.warning("orphaned pieces aren't looked for: %s", error)
        return 0
    removed = 0
    here = await offload.run(lambda: [piece for piece, area in store.pieces() if area is Area.KEPT])
    orphans = [piece for piece in here if piece not in needed and not database.is_in_books(piece)]
    for start in range(0, len(orphans), SLICE):
        removed += await offload.run(_remove, store, orphans[start : start + SLICE])
    if removed:
        log.info("removed %d pieces that a killed process had written for nothing", removed)
    return removed


def _remove(store: ChunkStore, orphans: Iterable[ChunkId]) -> int:
    return sum(bool(store.remove_unneeded(piece)) for piece in orphans)


async def _needed(store: ChunkStore, database: HoldingsDb, memory: Memory, offload: Offload) -> set[ChunkId]:
    """Return every piece that a known content may need. Raises `DamagedError` in doubt."""
    if await offload.run(store.has_damaged):
        raise DamagedError("A damaged piece was set aside, and it may have listed others.")
    held = dict.fromkeys(database.held())
    named: dict[ContentId, int] = dict(memory.journalled())
    after: ContentId | None = None
    while page := memory.contents(after, PAGE):
        named.update(page)
        after = page[-1][0]
        await anyio.lowlevel.checkpoint()
    if held and after is None:
        raise DamagedError("The tree knows no content, but this pod holds some.")
    needed = {ChunkId(content) for content in (*held, *named)}
    lists = [content for content in dict.fromkeys((*held, *named)) if not is_single(named.get(content, UNKNOWN_BYTES))]
    for start in range(0, len(lists), SLICE):
        needed.update(await offload.run(listed_chunks, store, lists[start : start + SLICE], named))
    return needed


def listed_chunks(store: ChunkStore, contents: Iterable[ContentId], sizes: Mapping[ContentId, int]) -> set[ChunkId]:
    """Return the chunks of contents; one of unknown size has a list if it can be read as one.

    Raises `DamagedError` for a list that is here and can't be read.
    """
    found: set[ChunkId] = set()
    for content in contents:
        piece, size = ChunkId(content), sizes.get(content)
        if size is None and store.read_unverified(piece, len(MANIFEST_START)) != MANIFEST_START:
            continue
        data = store.read_blocking(piece, 0, MAX_MANIFEST_BYTES)
        if data is not None:
            try:
                found.update(decode(data, size).chunks)
            except DamagedError:
                if size is not None:
                    raise
    return found
