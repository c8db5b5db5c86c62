"""A founded cluster with a listening issuer, over real TLS on the loopback interface."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from base.errors import MachineError
from base.home import Home
from base.ids import PodId
from discovery.admission import AdmissionPolicy, Admissions
from discovery.founding import found
from mesh.identity import Identity
from mesh.join_stream import JoinHandler
from mesh.listener import Listener, bind, port_of
from mesh.roster_store import RosterStore
from mesh.tls import server_context

CLUSTER_TOML = '[cluster]\nname = "home"\n'


@dataclass
class House:
    """An issuing pod."""

    home: Home
    identity: Identity
    store: RosterStore
    admissions: Admissions
    policy: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    addresses: dict[PodId, str] = field(default_factory=dict)
    admitted: list[bytes] = field(default_factory=list)
    now: float = 1_000_000.0
    address: str = ""
    calls: int = 0
    disk_full: bool = False


def open_house(home: Home) -> House:
    identity, store = Identity.load(home.identity), RosterStore(home.roster_db)
    house: House

    async def learn(records: Iterable[bytes]) -> list[bytes]:
        added = store.roster.add_all(records)
        if house.disk_full:
            raise MachineError("no space")
        store.persist(added)
        house.admitted.extend(added)
        return added

    admissions = Admissions(
        home,
        identity,
        store,
        policy=lambda: house.policy,
        addresses=lambda: house.addresses,
        learn=learn,
        clock=lambda: house.now,
    )
    house = House(home, identity, store, admissions)
    return house


def found_house(folder: Path, cluster: str = "home", pod: str = "laptop") -> House:
    home = Home(folder)
    found(home, cluster, pod, CLUSTER_TOML, time.time())
    return open_house(home)


@asynccontextmanager
async def listening(house: House, handler: JoinHandler | None = None) -> AsyncIterator[House]:
    """Serve joins at ``house.address``; ``handler`` instead of the admissions' own."""

    async def nobody(channel):
        await channel.close()

    async def counted(stream):
        house.calls += 1
        await (handler or house.admissions.serve)(stream)

    listeners = await bind("127.0.0.1:0")
    house.address = f"127.0.0.1:{port_of(listeners)}"
    listener = Listener(
        lambda: server_context(house.identity, house.store.roster.anchors()), house.identity.certificate, nobody
    )
    listener.join_handler = counted
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.run, listeners)
        yield house
        tasks.cancel_scope.cancel()
