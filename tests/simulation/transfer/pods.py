"""Several `Transfer` instances on one in-process network."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from base.home import Home
from base.ids import ContentId, PodId
from tests.simulation.transfer.local_mesh import LocalMesh, Network, Shelf
from transfer import packfile
from transfer.api import ContentInfo
from transfer.offload import Offload
from transfer.service import Transfer
from transfer.settings import TransferSettings


class Pod:
    def __init__(self, folder: Path, mesh: LocalMesh, shelf: Shelf, settings: TransferSettings, threads: bool) -> None:
        folder.mkdir(exist_ok=True)
        self.home = Home(folder)
        self.mesh = mesh
        self.shelf = shelf
        self.settings = settings
        self.transfer = Transfer(
            self.home, mesh, shelf, settings, offload=Offload(threads=threads), rng=random.Random(mesh.pod_id)
        )

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        await self.transfer.run(task_status=task_status)

    @property
    def id(self) -> PodId:
        return self.mesh.pod_id

    async def write(
        self,
        data: bytes,
        *,
        copies: int = 1,
        placed: list[PodId] | None = None,
        cache: bool = True,
        born_s: float = math.inf,
    ) -> ContentId:
        """Write and publish a content, as closing a file does."""
        draft = self.transfer.draft()
        await draft.write(0, data)
        sealed = await draft.seal()
        await self.transfer.sync()
        self.shelf.add(ContentInfo(sealed.content, sealed.size, self.id, copies, cache, False, born_s), placed)
        self.transfer.published(sealed.content)
        for mesh in self.mesh.network.pods.values():
            if mesh.up and mesh.pod_id != self.id and mesh.on_content is not None:
                mesh.on_content([sealed.content])
        draft.discard()
        return sealed.content

    async def read(self, content: ContentId, offset: int = 0, length: int | None = None) -> bytes:
        info = self.shelf.infos[content]
        reader = self.transfer.open(content, info.size, info.author)
        try:
            return await reader.read(offset, info.size if length is None else length)
        finally:
            reader.close()

    def files(self) -> set[str]:
        store = self.home.store
        found = {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}
        return {path for path in found if not path.startswith("packs")} | {
            f"packs/{name}" for name, _ in packfile.listing(str(store))
        }

    def kept(self) -> set[str]:
        files = {path.name for path in (self.home.store / "chunks").rglob("*") if path.is_file()}
        return files | {name for name, _ in packfile.listing(str(self.home.store))}


@contextlib.asynccontextmanager
async def cluster(
    folder: Path,
    count: int,
    *,
    settings: TransferSettings | None = None,
    network: Network | None = None,
    threads: bool = False,
    fill: Callable[[Shelf], None] = lambda _: None,
) -> AsyncIterator[list[Pod]]:
    """Run ``count`` pods until the block ends. ``fill`` puts into the tree what they know when they start."""
    network = network or Network()
    meshes = [network.add(number + 1) for number in range(count)]
    shelf = Shelf([mesh.pod_id for mesh in meshes])
    fill(shelf)
    pods = [
        Pod(folder / str(number), mesh, shelf, settings or TransferSettings(), threads)
        for number, mesh in enumerate(meshes)
    ]
    for pod in pods:
        pod.mesh.on_content = pod.transfer.noticed
    async with anyio.create_task_group() as group:
        for pod in pods:
            await group.start(pod.run)
        yield pods
        group.cancel_scope.cancel()
    for pod in pods:
        pod.transfer.close()
