"""Following what others hold: what people wait for comes first."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import msgpack
import pytest
import trio.testing

from base.ids import ContentId
from mesh.wire import Tag
from tests.simulation.transfer.local_mesh import Network, Shelf, until
from tests.simulation.transfer.pods import Pod, cluster
from transfer.holdings import PAGE_ROWS, Holding
from transfer.holdings_sync import ASK_EVERY_S, LULL_S, LULLS


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


async def test_after_a_restart_pods_that_have_everything_say_little(tmp_path: Path) -> None:
    """Neither tables nor contents are asked for that were known before, however many there are."""
    async with cluster(tmp_path, 2) as [one, other]:
        draw = random.Random(1)
        contents = [await one.write(draw.randbytes(100), copies=2) for _ in range(500)]
        await until(lambda: all(pod.transfer.local(content) == "kept" for pod in (one, other) for content in contents))
        await until(lambda: known(one, other) == known(other, one) == len(contents))
        infos = one.shelf.infos
    network = Network()
    async with cluster(tmp_path, 2, network=network, fill=lambda shelf: shelf.infos.update(infos)) as [one, other]:
        await anyio.sleep(4 * ASK_EVERY_S)
        assert {one.id, other.id} == one.transfer.exchanged() | other.transfer.exchanged()
        assert {tag for _, _, tag, _ in network.requests} == {Tag.HOLDINGS_SINCE}
        asked = sum(len(msgpack.packb(body)) for _, _, _, body in network.requests)
        assert 0 < asked + one.mesh.sent_bytes + other.mesh.sent_bytes < 1000
