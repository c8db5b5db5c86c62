"""The query behind `wormhole status` on large trees: who holds the content of how many files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from base.ids import EMPTY_CONTENT, ROOT_INODE, ContentId, PodId, hash_bytes
from benchmarks.metadata import open_replica
from crdt_meta.node import Kind
from operations.tally import ABSENT, CACHED, KEPT, PLANNED, count_holders
from transfer.holdings import Holding, Page
from transfer.holdings_db import HoldingsDb
from transfer.offload import Offload

GOOD, ABROAD, LOST = (PodId(digit * 32) for digit in "123")


@pytest.mark.anyio
async def test_holders_are_counted_for_every_file(tmp_path: Path) -> None:
    metadata = open_replica(tmp_path / "tree")
    contents = [ContentId(hash_bytes(b"%d" % number)) for number in range(6)]
    for number, content in enumerate([*contents, contents[0], EMPTY_CONTENT]):
        name = b"file-%d" % number
        node = metadata.tree.create(ROOT_INODE, name, Kind.FILE, mode=0o644, uid=0, gid=0, mtime_ns=1)
        metadata.tree.publish(node.inode, node.link, content, 5, 1, node.shown)
    metadata.log.commit()
    holdings = HoldingsDb(tmp_path / "holdings.db", Offload(threads=False))
    await holdings.record({contents[0]: Holding.KEPT, contents[1]: Holding.CACHED})
    told = {GOOD: contents[:3], ABROAD: contents[2:4], LOST: contents[3:5]}
    for pod, rows in told.items():
        page = Page(b"generatn", 0, len(rows), False, [(content, Holding.KEPT) for content in rows])
        await holdings.apply(pod, page)
    weights = [(GOOD, 2, KEPT), (GOOD, 1, CACHED), (ABROAD, 2, PLANNED), (ABROAD, 1, PLANNED)]
    expected = Counter(
        [2 * KEPT, 2 * KEPT, KEPT + CACHED, KEPT + PLANNED, PLANNED + ABSENT, ABSENT, 0]  # contents 0 (twice) to 5
    )
    assert count_holders(metadata.store.path, tmp_path / "holdings.db", weights) == expected
    metadata.close()
    holdings.close(0)
