"""Nodes over real TLS sockets on loopback."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import anyio
import pytest
import trio

from base.errors import MachineError, NoSpaceError, RefusedError, UnreachableError, UsageError, WormholeError
from base.ids import PodId, WriterId
from mesh.api import Lane, Role, State
from mesh.identity import read_certificate
from mesh.link import JoinStream, open_join
from mesh.membership import MembershipSettings
from mesh.node import MeshNode
from mesh.roster_store import RosterStore
from mesh.wire import Tag
from tests.unit.mesh.cluster import Home, MemoryLog, admission, admit, found, linked, revocation, running, until


async def echo(sender: PodId, body: object) -> object:
    return [sender, body]


async def test_three_pods_link_up_and_call(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    c = admit(b, tmp_path / "c")  # a doesn't know c before b tells it
    async with running(a, b, c) as (node_a, node_b, node_c):
        for node in (node_a, node_b, node_c):
            node.handle(Tag.KEEP, echo)
        await linked(node_a, node_b, node_c)
        for lane in Lane:
            assert await node_a.call(c.pod, Tag.KEEP, {"x": b"y"}, lane=lane) == [a.pod, {"x": b"y"}]
            assert await node_c.call(a.pod, Tag.KEEP, [1, None], lane=lane) == [c.pod, [1, None]]
        assert await node_a.call(a.pod, Tag.KEEP, 7) == [a.pod, 7]
        assert [member.name for member in node_a.members()] == ["a", "b", "c"]
        assert {member.state for member in node_b.members()} == {State.ALIVE}
        assert len(node_a.roster) == len(node_b.roster) == len(node_c.roster) == 3
        await until(lambda: all(member.latency_ms is not None for member in node_a.members()[1:]))


async def test_addresses_are_learnt_from_gossip(tmp_path: Path) -> None:
    """b and c know only a; they link up all the same."""
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    c = admit(a, tmp_path / "c")
    async with (
        running(a) as (node_a,),
        running(b, peers=[node_a.address]) as (node_b,),
        running(c, peers=[node_a.address]) as (node_c,),
    ):
        await linked(node_a, node_b, node_c)


async def test_peers_and_the_announced_address_change_while_it_runs(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a) as (node_a,), running(b) as (node_b,):
        assert not node_b.alive()
        node_b.set_addresses(["192.0.2.7:1"], [node_a.address])
        await linked(node_a, node_b)
        await until(lambda: [one.address for one in node_a.members() if one.pod == b.pod] == ["192.0.2.7:1"])
        node_b.set_addresses([], [])
        await until(lambda: [one.address for one in node_a.members() if one.pod == b.pod] == [node_b.address])
        assert node_b.address.startswith("127.0.0.1:")
        assert node_b.alive() == {a.pod}, "a link that is up stays"
        with pytest.raises(UsageError):
            node_b.set_addresses([], ["nowhere"])


class Steps(trio.abc.Instrument):
    """Counts what the loop does."""

    def __init__(self) -> None:
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_a_mesh_at_rest_is_rarely_awake(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    homes = [a, *(admit(a, tmp_path / name) for name in "bcde")]
    async with running(*homes) as nodes:
        await linked(*nodes)
        await anyio.sleep(3.0)  # until who is linked to whom was gossiped
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await anyio.sleep(4.0)
        trio.lowlevel.remove_instrument(steps)
    # 10 links with a ping and an answer every 1.7 s, a tick for each pod, and a look at each end of a link every 4 s
    assert steps.count / 4.0 <= 35, "a second; twice that before"


async def test_errors_of_handlers_reach_the_caller(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def full(sender: PodId, body: object) -> object:
        raise NoSpaceError("The disk is full.", "Make room.")

    async def broken(sender: PodId, body: object) -> object:
        raise ZeroDivisionError

    async def slow(sender: PodId, body: object) -> object:
        await anyio.sleep_forever()
        return None

    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a, b) as (node_a, node_b):
        node_b.handle(Tag.KEEP, full)
        node_b.handle(Tag.HOLDING_ASK, broken)
        node_b.handle(Tag.CHUNK_GET, slow)
        await linked(node_a, node_b)
        with pytest.raises(NoSpaceError, match="The disk is full"):
            await node_a.call(b.pod, Tag.KEEP, None)
        with pytest.raises(WormholeError, match="failed to answer"):
            await node_a.call(b.pod, Tag.HOLDING_ASK, None)
        with pytest.raises(UnreachableError, match="within"):
            await node_a.call(b.pod, Tag.CHUNK_GET, None, timeout_s=0.1)
        with pytest.raises(RefusedError, match="doesn't know"):
            await node_a.call(b.pod, Tag.MANIFEST_GET, None)
        with pytest.raises(UnreachableError):
            await node_a.call(PodId("f" * 32), Tag.KEEP, None)
    assert "ZeroDivisionError" in caplog.text


async def test_a_dead_pod_is_suspect_at_once_and_comes_back(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a, settings=MembershipSettings(absent_after_s=4.0)) as (node_a,):
        async with running(b, peers=[node_a.address]) as (node_b,):
            await linked(node_a, node_b)
        await until(lambda: state_of(node_a, b.pod) is State.SUSPECT)
        assert node_a.alive() == frozenset()
        with pytest.raises(UnreachableError):
            await node_a.call(b.pod, Tag.KEEP, None)
        await until(lambda: state_of(node_a, b.pod) is State.ABSENT)
        async with running(b, peers=[node_a.address]) as (node_b,):
            await linked(node_a, node_b)
            assert state_of(node_a, b.pod) is State.ALIVE


async def test_an_announced_absence_is_no_suspicion(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a) as (node_a,):
        async with running(b, peers=[node_a.address]) as (node_b,):
            await linked(node_a, node_b)
            await node_b.announce_down()
        await until(lambda: state_of(node_a, b.pod) is State.ABSENT)
        assert next(member for member in node_a.members() if member.pod == b.pod).announced


async def test_leaving_is_recorded(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a, b) as (node_a, node_b):
        await linked(node_a, node_b)
        await node_b.announce_leave()
        await until(lambda: state_of(node_a, b.pod) is State.LEFT and not a.roster.is_member(b.pod))
    assert not a.roster.is_revoked(b.pod)


async def test_the_evicted_is_cut_off_and_told(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    c = admit(a, tmp_path / "c")
    b.store.add(a.roster.records())
    async with running(a, b, c) as (node_a, node_b, node_c):
        await linked(node_a, node_b, node_c)
        await node_a.learn([revocation(a, c.pod)])
        await until(lambda: c.pod not in node_a.alive() | node_b.alive())
        await until(lambda: state_of(node_b, c.pod) is State.EVICTED)
        await until(lambda: node_c.roster.is_revoked(c.pod))
        await until(lambda: not node_c.alive())
        with pytest.raises(UnreachableError):
            await node_c.call(a.pod, Tag.KEEP, None)


async def test_an_evicted_pod_that_missed_it_learns_it_when_it_dials(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    a.store.add([revocation(a, b.pod)])
    async with running(a, b) as (node_a, node_b):
        await until(lambda: node_b.roster.is_revoked(b.pod))
        assert node_a.alive() == node_b.alive() == frozenset()


async def test_members_certified_by_an_evicted_pod_find_together(tmp_path: Path) -> None:
    """b evicted the founder, which had certified c, while c was away."""
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    c = admit(a, tmp_path / "c")
    b.store.add(a.roster.records())
    b.store.add([revocation(b, a.pod, keeps=[c.pod])])
    async with running(b, c) as (node_b, node_c):
        await linked(node_b, node_c)
        await until(lambda: node_c.roster.is_revoked(a.pod))
    for home in (b, c):
        assert home.roster.is_issuer(read_certificate(home.identity.certificate()).issuer)


async def test_an_evicted_pod_introduces_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    b.store.add([revocation(b, a.pod)])
    accomplice = admit(a, tmp_path / "accomplice")
    async with running(b, accomplice) as (node_b, node_accomplice):
        await until(lambda: "certified by a pod that is no member" in caplog.text)
        assert not node_b.alive() | node_accomplice.alive()
        assert not accomplice.roster.is_revoked(a.pod)
        assert not b.roster.entry(accomplice.pod)


async def test_what_cannot_be_kept_is_not_told(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    newcomer = Home(tmp_path / "newcomer")
    async with running(b) as (node_b,):

        async def fail() -> None:
            async with running(a, peers=[node_b.address]) as (node_a,):
                await linked(node_a, node_b)
                a.store.close()
                with pytest.raises(MachineError):
                    await node_a.learn([admission(a, newcomer.identity, "newcomer")])
                await anyio.sleep_forever()  # the node ends by itself

        with pytest.raises(BaseExceptionGroup) as raised, anyio.fail_after(60):
            await fail()
        assert raised.group_contains(MachineError)
        assert not b.roster.entry(newcomer.pod)


async def test_two_clusters_of_one_name_never_mix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a = found(tmp_path / "a", "home")
    other = found(tmp_path / "other", "home")
    assert a.roster.cluster_id != other.roster.cluster_id
    async with running(a, other) as (node_a, node_other):
        await until(lambda: "no link to" in caplog.text)
        assert not node_a.alive() | node_other.alive()
        assert len(node_a.roster) == len(node_other.roster) == 1


async def test_a_forged_certificate_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pod of another cluster that knows ours by name and even shows its roster gets nowhere."""
    a = found(tmp_path / "a")
    thief = found(tmp_path / "thief")
    forged = Home(tmp_path / "forged")
    forged.store.add(a.roster.records())
    forged.identity.install_certificate(
        thief.identity.issue(forged.identity.public_key, a.roster.cluster_id, Role.FULL)
    )
    async with running(a, forged) as (node_a, node_forged):
        await until(lambda: "was closed: TLS" in caplog.text)
        assert not node_a.alive() | node_forged.alive()
        assert len(node_a.roster) == 1


async def test_a_certified_but_never_admitted_pod_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    a = found(tmp_path / "a")
    ghost = Home(tmp_path / "ghost")
    ghost.store.add(a.roster.records())
    ghost.identity.install_certificate(a.identity.issue(ghost.identity.public_key, a.roster.cluster_id, Role.FULL))
    async with running(a, ghost) as (node_a, node_ghost):
        await until(lambda: "never admitted" in caplog.text)
        assert not node_a.alive() | node_ghost.alive()


async def test_log_entries_spread_at_once_and_late_pods_catch_up(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    c = admit(a, tmp_path / "c")
    logs = {name: MemoryLog(WriterId(name.encode() * 8)) for name in "abc"}
    writer = logs["a"].writer
    early = [logs["a"].append(b"before anybody listened") for _ in range(50)]
    async with running(a, b, logs=logs) as (node_a, node_b):
        await linked(node_a, node_b)
        await until(lambda: logs["b"].vector().get(writer) == len(early))
        delays: list[float] = []
        for number in range(40):
            grown = logs["b"].grown
            started = time.perf_counter()
            node_a.publish_log([logs["a"].append(b"%d" % number)])
            with anyio.fail_after(60):
                await grown.wait()
            delays.append(time.perf_counter() - started)
        assert statistics.median(delays) < 0.1
        async with running(c, peers=[node_a.address], logs=logs) as (node_c,):
            await linked(node_a, node_b, node_c)
            await until(lambda: logs["c"].vector().get(writer) == 90)
            node_c.publish_log([logs["c"].append(b"hello")])
            await until(lambda: all(log.vector().get(logs["c"].writer) == 1 for log in logs.values()))
    assert logs["a"].entries == logs["b"].entries == logs["c"].entries


async def test_published_values_reach_everybody(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a, b) as (node_a, node_b):
        node_b.publish_meta({"bytes_used": 5})
        await linked(node_a, node_b)
        await until(lambda: any(member.meta.get("bytes_used") == 5 for member in node_a.members()))
        node_b.publish_meta({"bytes_used": 6})
        await until(lambda: any(member.meta.get("bytes_used") == 6 for member in node_a.members()))


async def test_records_added_to_the_store_spread(tmp_path: Path) -> None:
    """Admissions add to the store directly; linked pods hear of it at once, and it is on their disks."""
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    newcomer = Home(tmp_path / "newcomer")
    changes = 0

    def changed() -> None:
        nonlocal changes
        changes += 1

    async with running(a, b) as (node_a, node_b):
        await linked(node_a, node_b)
        node_b.on_change(changed)
        a.store.add([admission(a, newcomer.identity, "newcomer")])
        await until(lambda: node_b.roster.is_member(newcomer.pod))
        await until(lambda: changes > 0)
        assert "newcomer" in {member.name for member in node_b.members()}
        await until(lambda: b.store.add([]) == [] and len(stored(tmp_path / "b")) == 3)


async def test_join_frames_are_all_that_a_stranger_may_send(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    async with running(a) as (node_a,):

        async def serve(stream: JoinStream) -> None:
            tag, body = await stream.receive()
            hashes.append(stream.server_certificate_hash)
            await stream.send(Tag.JOIN_PAKE, {"got": body, "tag": int(tag)})

        hashes: list[bytes] = []
        with pytest.raises(RefusedError, match="admits nobody"):
            async with await open_join("127.0.0.1", node_a.port, 5) as stream:
                await stream.receive()
        node_a.set_join_handler(serve)
        async with await open_join("127.0.0.1", node_a.port, 5) as stream:
            await stream.send(Tag.JOIN_START, {"name": "x"})
            assert await stream.receive() == (Tag.JOIN_PAKE, {"got": {"name": "x"}, "tag": int(Tag.JOIN_START)})
            assert hashes == [stream.server_certificate_hash]
        with pytest.raises(UnreachableError):
            await open_join("127.0.0.1", 1, 2)


async def test_a_taken_port_is_one_clear_error(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a) as (node_a,):
        node_b = MeshNode(b.identity, b.store, listen=node_a.address)
        with pytest.raises(MachineError, match="in use"):
            await node_b.run()


async def test_large_answers_and_the_limit(tmp_path: Path) -> None:
    async def answer(sender: PodId, body: object) -> object:
        assert isinstance(body, int)
        return bytes(body)

    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with running(a, b) as (node_a, node_b):
        node_b.handle(Tag.CHUNK_GET, answer)
        await linked(node_a, node_b)
        assert await node_a.call(b.pod, Tag.CHUNK_GET, 32 << 20, lane=Lane.BULK) == bytes(32 << 20)
        with pytest.raises(WormholeError, match="longer than"):
            await node_a.call(b.pod, Tag.CHUNK_GET, 41 << 20, lane=Lane.BULK)
        with pytest.raises(WormholeError, match="longer than"):
            await node_a.call(b.pod, Tag.CHUNK_GET, 5 << 20)
        results: list[object] = []

        async def get() -> None:
            results.append(await node_a.call(b.pod, Tag.CHUNK_GET, 1 << 20, lane=Lane.BULK))

        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(get)
        assert results == [bytes(1 << 20)] * 100


def state_of(node: MeshNode, pod: PodId) -> State:
    return next(member.state for member in node.members() if member.pod == pod)


def stored(path: Path) -> list[bytes]:
    store = RosterStore(path / "roster.db")
    try:
        return store.roster.records()
    finally:
        store.close()
