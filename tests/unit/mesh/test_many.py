"""More real nodes than are linked to each other all: a partial view, broadcast, and requests to whom one isn't linked."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from pathlib import Path

import anyio

from base.errors import UnreachableError
from base.ids import WriterId
from mesh.api import Lane, State
from mesh.membership import MembershipSettings
from mesh.node import MeshNode
from mesh.view import FULL_MESH_PODS, HIGH
from mesh.wire import Tag
from tests.unit.mesh.cluster import MemoryLog, admit, found, running, until

PODS = FULL_MESH_PODS + 4
PATIENT = MembershipSettings(probe_interval_s=4.0, probe_timeout_s=15.0)
"""So many pods in one process hold each other up."""
LOOK_S = 0.25
"""Looking at all of them takes milliseconds: every few milliseconds it would take the time that they need."""


def links(node: MeshNode) -> int:
    return len(node._table.linked())


async def test_many_pods_are_linked_to_few_and_reach_all(tmp_path: Path) -> None:
    first = found(tmp_path / "p00")
    homes = [first, *(admit(first, tmp_path / f"p{number:02}") for number in range(1, PODS))]
    for home in homes:
        home.store.add(first.roster.records())
    logs = {home.name: MemoryLog(WriterId(number.to_bytes(8, "big"))) for number, home in enumerate(homes, 1)}
    async with AsyncExitStack() as stack:
        (seed,) = await stack.enter_async_context(running(first, logs=logs, settings=PATIENT))
        nodes = [
            seed,
            *await stack.enter_async_context(
                running(*homes[1:], logs=logs, settings=PATIENT, peers=[seed.address], chained=False)
            ),
        ]
        everybody = {node.pod_id for node in nodes}
        await until(
            lambda: all(node.alive() == everybody - {node.pod_id} for node in nodes), timeout_s=60, pause_s=LOOK_S
        )
        await until(lambda: all(links(node) <= HIGH + 2 for node in nodes), timeout_s=60, pause_s=LOOK_S)

        for number, node in enumerate(nodes):
            node.publish_log([logs[homes[number].name].append(b"entry")])
        whole = {log.writer: 1 for log in logs.values()}
        await until(lambda: all(log.vector() == whole for log in logs.values()), timeout_s=60, pause_s=LOOK_S)

        here = nodes[0]
        far = next(node for node in nodes[1:] if here._table.control(node.pod_id) is None)
        for lane in Lane:
            with anyio.fail_after(60):
                while await asked(here, far, lane) is None:
                    await anyio.sleep(0.2)
        assert here._table.control(far.pod_id) is None, "asked over a link for requests only"
        await until(lambda: {member.state for member in here.members()} == {State.ALIVE}, timeout_s=60, pause_s=LOOK_S)


async def asked(here: MeshNode, far: MeshNode, lane: Lane) -> object:
    """Return the answer; None where the machine was too busy for it."""
    with suppress(UnreachableError):
        return await here.call(far.pod_id, Tag.CLOCK, None, lane=lane)
    return None
