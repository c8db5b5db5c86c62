"""Following what others hold: what people wait for comes first."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest
import trio.testing

from base.ids import ContentId
from tests.simulation.transfer.local_mesh import Shelf, until
from tests.simulation.transfer.pods import Pod, cluster
from transfer.holdings import PAGE_ROWS, Holding
from transfer.holdings_sync import LULL_S, LULLS


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def known(pod: Pod, of: Pod) -> int:
    """Return how far a pod follows another one's table."""
    cursor = pod.transfer._database.cursor(of.id)
    return 0 if cursor is None else cursor.sequence


@pytest.mark.parametrize("for_good", [False, True])
async def test_a_long_table_waits_until_the_tree_is_there_but_not_for_ever(tmp_path: Path, for_good: bool) -> None:
    behind = True

    def catching_up(shelf: Shelf) -> None:
        shelf.is_behind = lambda: behind  # type: ignore[method-assign]

    async with cluster(tmp_path, 2, fill=catching_up) as (one, other):
        network, rows = one.mesh.network, 5 * PAGE_ROWS
        network.set_up(other.id, False)
        draw = random.Random(1)
        contents = [ContentId(draw.randbytes(32)) for _ in range(rows)]
        await one.transfer._database.record(dict.fromkeys(contents, Holding.KEPT))
        network.set_up(other.id, True)
        await until(lambda: known(other, one) > 0)
        await anyio.sleep(LULLS * LULL_S / 2)
        assert known(other, one) == PAGE_ROWS, "what is short comes at once"
        assert one.id not in other.transfer.exchanged()
        behind = for_good
        await until(lambda: one.id in other.transfer.exchanged(), LULLS * LULL_S)
        assert known(other, one) == one.transfer._database.own_cursor.sequence >= rows
