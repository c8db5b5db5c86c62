"""From founding to a link: what a join leaves behind is all that two running pods need."""

from __future__ import annotations

import time

import anyio
import pytest

from base.home import Home
from discovery.admission import AdmissionPolicy, Admissions
from discovery.founding import found
from discovery.joining import join
from mesh.api import Role, State
from mesh.identity import Identity
from mesh.node import MeshNode
from mesh.roster_store import RosterStore
from tests.unit.discovery.house import CLUSTER_TOML

pytestmark = pytest.mark.anyio


async def linked(one: MeshNode, other: MeshNode) -> None:
    with anyio.fail_after(60):
        while not all(member.state is State.ALIVE for node in (one, other) for member in node.members()):
            await anyio.sleep(0.02)


@pytest.mark.parametrize("role", [Role.FULL, Role.CLIENT])
async def test_a_joined_pod_links_up(tmp_path, role):
    first, second = Home(tmp_path / "first"), Home(tmp_path / "second")
    found(first, "home", "laptop", CLUSTER_TOML, time.time())
    identity, store = Identity.load(first.identity), RosterStore(first.roster_db)
    node = MeshNode(identity, store, listen="127.0.0.1:0")
    admissions = Admissions(first, identity, store, policy=AdmissionPolicy, learn=node.learn)
    node.set_join_handler(admissions.serve)
    async with anyio.create_task_group() as tasks:
        await tasks.start(node.run)
        code = (await admissions.invite(role=role)).code
        joined = await join(second, code=code, peer=node.address, pod_name="nas")
        assert joined.role is role
        other_store = RosterStore(second.roster_db)
        other = MeshNode(Identity.load(second.identity), other_store, listen="127.0.0.1:0")
        await tasks.start(other.run)
        await linked(node, other)
        assert {member.name for member in node.members()} == {"laptop", "nas"}
        assert node.alive() == ({other.pod_id} if role is Role.FULL else set()), "a client is in nobody's ring"
        tasks.cancel_scope.cancel()
    admissions.close()
    for opened in (store, other_store):
        opened.close()
