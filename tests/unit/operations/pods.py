"""Full pods and client pods in this process: real keys, links, logs and byte stores, without mounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import TaskGroup, TaskStatus

from base.home import Home as Folder
from base.ids import ROOT_INODE, ContentId, InodeId
from crdt_meta.metadata import Metadata
from crdt_meta.node import Kind, Node
from mesh.api import Role
from mesh.node import MeshNode
from operations.catalogue import TreeCatalogue
from operations.client import RemoteTree
from operations.rebirth import writer_records
from operations.serving import Serving
from operations.settings import engine_roots, transfer_settings
from policies.config import parse_cluster, parse_pod
from tests.unit.mesh.cluster import Home, admit, found, until
from transfer.service import Transfer
from vfs.gate import Gate
from vfs.hold import Hold


class Pod:
    """One pod; a client pod when its home is one's."""

    def __init__(self, path: Path, home: Home, peers: Iterable[str]) -> None:
        self.home = home
        client = home.roster.is_client(home.pod)
        cluster, settings = parse_cluster(home.roster.config_toml()), parse_pod("", "pod.toml")
        path.mkdir(exist_ok=True)
        folder = Folder(path)
        self.metadata = Metadata(folder.metadata_db, engine_roots(home.identity, home.roster, lambda: cluster))
        self.tree = self.metadata.tree
        self.metadata.log.follows = client
        if not client:
            home.store.add(writer_records(home.identity, home.roster, self.metadata))
        self.mesh = MeshNode(home.identity, home.store, listen="127.0.0.1:0", peers=list(peers), log=self.metadata.log)
        self.catalogue = TreeCatalogue(self.tree, self.mesh, cluster, settings)
        self.transfer = Transfer(folder, self.mesh, self.catalogue, transfer_settings(settings, keeps=not client))
        self.catalogue.holders = self.transfer.holders
        self.catalogue.durable = self.metadata.committer.durable
        self.metadata.committer.on_durable = self.mesh.publish_log
        self.tree.on_delta(
            lambda delta: self.transfer.noticed(delta.contents, lost=delta.loses) if delta.contents else None
        )
        self.cluster = cluster
        gate = Gate(self.tree, lambda: self.cluster)
        self.hold = Hold()
        parts = (home.roster, self.metadata, self.transfer, self.mesh)
        self.serving = None if client else Serving(*parts, gate, self.hold)
        self.editor = RemoteTree(self.metadata, self.transfer, self.mesh, 5.0)
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Run until killed."""
        with self._scope:
            async with anyio.create_task_group() as group:
                await group.start(self.metadata.committer.run)
                await group.start(self.transfer.run)
                await group.start(self.mesh.run)
                task_status.started()
        self.transfer.close()
        self.metadata.close()
        self._ended.set()

    async def kill(self) -> None:
        """End it without a word to anybody."""
        self._scope.cancel()
        await self._ended.wait()

    async def store(self, data: bytes) -> tuple[ContentId, int]:
        """Put bytes into the store, as a file that is being closed does."""
        draft = self.transfer.draft()
        await draft.write(0, data)
        sealed = await draft.seal()
        await self.transfer.sync()
        draft.discard()
        return sealed.content, sealed.size

    async def create(self, name: str, parent: InodeId = ROOT_INODE, kind: Kind = Kind.FILE) -> Node:
        """Make a file or folder by a full pod."""
        return await self.editor.create(parent, name.encode(), kind, mode=0o755, uid=1, gid=1, mtime_ns=1)

    async def save(self, name: str, data: bytes) -> Node:
        """Make or overwrite a file by a full pod; when this returns it is closed."""
        node = self.tree.lookup(ROOT_INODE, name.encode()) or await self.create(name)
        content = await self.store(data)
        return await self.editor.publish(node.inode, node.link, *content, 1, node.shown, 1)

    async def read(self, name: str) -> bytes:
        """Read a file as it is shown here."""
        node = self.tree.lookup(ROOT_INODE, name.encode())
        assert node is not None
        reader = self.transfer.open(node.content, node.size, node.author)
        try:
            return await reader.read(0, node.size)
        finally:
            reader.close()

    def names(self) -> list[str]:
        """Return the names in the root."""
        return sorted(name.decode() for name, _ in self.tree.children(ROOT_INODE))


class Cluster:
    """Pods in one task group."""

    def __init__(self, folder: Path, group: TaskGroup) -> None:
        self._folder = folder
        self._group = group
        self._founder = found(folder / "founder-home")
        self.pods: list[Pod] = []

    async def add(self, name: str = "", role: Role = Role.FULL) -> Pod:
        """Admit a pod and run it; the first one is the founder."""
        home = admit(self._founder, self._folder / f"{name}-home", role) if self.pods else self._founder
        for one in self.pods:
            await one.mesh.learn(self._founder.roster.records())
        pod = Pod(self._folder / (name or "founder"), home, [one.mesh.address for one in self.pods])
        await self._group.start(lambda task_status: pod.run(task_status=task_status))
        full = {one.home.pod for one in self.pods if not one.metadata.log.follows}
        await until(lambda: pod.mesh.alive() >= full)
        self.pods.append(pod)
        return pod

    async def client(self, name: str) -> Pod:
        """Admit a client pod and run it."""
        return await self.add(name, Role.CLIENT)


@asynccontextmanager
async def cluster(folder: Path, *names: str) -> AsyncIterator[Cluster]:
    """Run a founder and further full pods of these names."""
    async with anyio.create_task_group() as group:
        made = Cluster(folder, group)
        await made.add()
        for name in names:
            await made.add(name)
        yield made
        for pod in made.pods:
            with anyio.CancelScope(shield=True):
                await pod.kill()
