"""Clusters for tests: real keys, real rosters, real nodes on loopback ports."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from base.errors import WormholeError
from base.ids import ClusterId, PodId, WriterId
from mesh.api import Entry, Role
from mesh.identity import Identity
from mesh.membership import MembershipSettings
from mesh.node import MeshNode
from mesh.records import Admit, Found, Revoke, seal
from mesh.roster import Roster
from mesh.roster_store import RosterStore


class Home:
    """Identity and roster of one pod of a test."""

    def __init__(self, path: Path, role: Role = Role.FULL) -> None:
        self.identity = Identity.create(path / "identity", role=role)
        self.store = RosterStore(path / "roster.db")
        self.name = path.name

    @property
    def pod(self) -> PodId:
        return self.identity.pod_id

    @property
    def roster(self) -> Roster:
        return self.store.roster


def found(path: Path, name: str = "home") -> Home:
    """Found a cluster; the first pod is named after its folder."""
    home = Home(path)
    identity = home.identity
    issuing = identity.issuing_certificate
    assert issuing is not None
    record = seal(
        Found(name, os.urandom(16), path.name, identity.public_key, issuing, 0), "", identity.pod_id, identity.sign
    )
    home.store.add([record])
    identity.install_certificate(identity.issue(identity.public_key, home.roster.cluster_id, Role.FULL))
    return home


def admission(by: Home, other: Identity, name: str, role: Role = Role.FULL) -> bytes:
    payload = Admit(name, role, other.public_key, other.issuing_certificate, by.roster.next_order(), 0)
    return seal(payload, by.roster.cluster_id, by.pod, by.identity.sign)


def admit(by: Home, path: Path, role: Role = Role.FULL) -> Home:
    """Admit a new pod, as a join does: the admitting pod and the new one know it."""
    home = Home(path, role)
    by.store.add([admission(by, home.identity, path.name, role)])
    home.store.add(by.roster.records())
    home.identity.install_certificate(by.identity.issue(home.identity.public_key, by.roster.cluster_id, role))
    return home


def revocation(by: Home, pod: PodId, keeps: Sequence[PodId] = ()) -> bytes:
    payload = Revoke(pod, tuple(keeps), by.roster.config_id(), 0)
    return seal(payload, by.roster.cluster_id, by.pod, by.identity.sign)


class MemoryLog:
    """A replicated log in memory: gap-free per writer, as `mesh.api.ReplicatedLog` asks."""

    def __init__(self, writer: WriterId) -> None:
        self.writer = writer
        self.entries: dict[WriterId, list[Entry]] = {}
        self.grown = anyio.Event()

    def append(self, blob: bytes) -> Entry:
        own = self.entries.setdefault(self.writer, [])
        own.append(Entry(self.writer, len(own) + 1, blob))
        return own[-1]

    def vector(self) -> Mapping[WriterId, int]:
        return {writer: len(entries) for writer, entries in self.entries.items()}

    def read(self, writer: WriterId, after: int, limit_bytes: int) -> list[Entry]:
        page: list[Entry] = []
        size = 0
        for entry in self.entries.get(writer, [])[after:]:
            if page and size + len(entry.blob) > limit_bytes:
                break
            page.append(entry)
            size += len(entry.blob)
        return page

    async def receive(self, entries: Sequence[Entry], sender: PodId) -> list[Entry]:
        await anyio.lowlevel.checkpoint()
        applied: list[Entry] = []
        for entry in entries:
            mine = self.entries.setdefault(entry.writer, [])
            if entry.sequence == len(mine) + 1:
                mine.append(entry)
                applied.append(entry)
        if applied:
            grown, self.grown = self.grown, anyio.Event()
            grown.set()
        return applied


@asynccontextmanager
async def running(
    *homes: Home,
    peers: Sequence[str] = (),
    settings: MembershipSettings | None = None,
    logs: Mapping[str, MemoryLog] | None = None,
    chained: bool = True,
) -> AsyncIterator[list[MeshNode]]:
    """Run a node for each home; every one is told the address of those before it if ``chained``. ``logs`` by pod name."""
    nodes: list[MeshNode] = []
    async with anyio.create_task_group() as group:
        for home in homes:
            node = MeshNode(
                home.identity,
                home.store,
                listen="127.0.0.1:0",
                peers=[*peers, *(node.address for node in nodes if chained)],
                log=(logs or {}).get(home.name),
                settings=settings,
            )
            await group.start(lambda task_status, node=node: node.run(task_status=task_status))
            nodes.append(node)
        yield nodes
        group.cancel_scope.cancel()


async def until(
    condition: Callable[[], bool],
    nodes: Sequence[MeshNode] = (),
    *,
    timeout_s: float = 60.0,
    pause_s: float = 0.005,
) -> None:
    """Wait for a condition that changes with a node's `on_change`, or is looked at every ``pause_s``."""
    with anyio.fail_after(timeout_s):
        while not condition():
            await anyio.sleep(pause_s)


async def linked(*nodes: MeshNode, timeout_s: float = 60.0) -> None:
    """Wait until all nodes reach each other."""
    everybody = {node.pod_id for node in nodes}
    await until(lambda: all(node.alive() >= everybody - {node.pod_id} for node in nodes), timeout_s=timeout_s)


async def failing(call: Callable[[], object]) -> WormholeError:
    """Return the error that an awaitable made by ``call`` raises."""
    try:
        await call()  # type: ignore[misc]
    except WormholeError as error:
        return error
    raise AssertionError("no error was raised")


def foreign_key() -> bytes:
    return Ed25519PrivateKey.generate().public_key().public_bytes_raw()


NO_CLUSTER = ClusterId("0" * 32)
