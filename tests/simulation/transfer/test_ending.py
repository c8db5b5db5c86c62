"""While a pod ends, its links still come and go, and programs still ask: nothing of that may fail."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from base.errors import UnreachableError
from base.ids import ChunkId, ContentId
from tests.simulation.transfer.local_mesh import Network, Shelf
from tests.simulation.transfer.pods import Pod
from transfer.fetcher import Urgency, Wanted
from transfer.settings import TransferSettings


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


async def test_who_comes_or_asks_after_the_end_harms_nothing(tmp_path: Path) -> None:
    network = Network()
    here, there = network.add(1), network.add(2)
    there.up = False
    pod = Pod(tmp_path, here, Shelf([here.pod_id, there.pod_id]), TransferSettings(), False)
    async with anyio.create_task_group() as group:
        await group.start(pod.run)
        group.cancel_scope.cancel()
    network.set_up(there.pod_id, True)
    assert here.alive() == {there.pod_id}
    piece = bytes(32)
    with pytest.raises(UnreachableError):
        await pod.transfer._fetcher.fetch(Wanted(ContentId(piece), ChunkId(piece), 5, there.pod_id), Urgency.READ)
    pod.transfer._access.spawn(lambda: anyio.sleep(1))
    pod.transfer.close()
