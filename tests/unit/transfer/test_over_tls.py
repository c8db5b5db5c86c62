"""The same over real links: pods with real meshes on loopback, real threads, real clock."""

from __future__ import annotations

import os
from pathlib import Path

import anyio

from base.home import Home
from base.ids import PodId
from mesh.node import MeshNode
from tests.simulation.transfer.local_mesh import Shelf
from tests.unit.mesh import cluster as mesh_cluster
from transfer.api import ContentInfo
from transfer.service import Transfer
from transfer.settings import CacheMode, TransferSettings

SIZE = (8 << 20) + 12_345


async def test_three_pods_replicate_and_stream(tmp_path: Path) -> None:
    first = mesh_cluster.found(tmp_path / "a")
    homes = [first, mesh_cluster.admit(first, tmp_path / "b"), mesh_cluster.admit(first, tmp_path / "c")]
    for home in homes[1:]:
        home.store.add(first.roster.records())
    shelf = Shelf([])
    async with anyio.create_task_group() as group:
        nodes: list[MeshNode] = []
        transfers: list[Transfer] = []
        for home in homes:
            node = MeshNode(
                home.identity, home.store, listen="127.0.0.1:0", peers=[each.address for each in nodes], log=None
            )
            settings = TransferSettings(cache_mode=CacheMode.STREAM)
            transfers.append(Transfer(Home(tmp_path / home.name), node, shelf, settings))
            await group.start(node.run)
            await group.start(transfers[-1].run)
            nodes.append(node)
        shelf.pods = [PodId(node.pod_id) for node in nodes]
        await mesh_cluster.linked(*nodes)
        data = os.urandom(SIZE)
        draft = transfers[0].draft()
        await draft.write(0, data)
        sealed = await draft.seal()
        await transfers[0].sync()
        shelf.add(ContentInfo(sealed.content, sealed.size, nodes[0].pod_id, 2, True, False))
        transfers[0].published(sealed.content)
        transfers[1].noticed([sealed.content])
        await transfers[0].wait_copies([sealed.content], 2, 20)
        reader = transfers[2].open(sealed.content, sealed.size, nodes[0].pod_id)
        assert reader.read_now(0, 10) is None
        assert await reader.read(0, SIZE) == data
        reader.close()
        assert transfers[2].local(sealed.content) == "none"
        assert transfers[2].bytes_moved()[0] >= SIZE
        group.cancel_scope.cancel()
    for transfer in transfers:
        transfer.close()
