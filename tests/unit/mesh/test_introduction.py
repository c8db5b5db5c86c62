"""What pods tell each other of themselves when a link is made: starts, namesakes, clocks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from base.errors import NamesakeError, RefusedError, WormholeError
from base.ids import PodId, WriterId
from mesh.introduction import RestoredError
from mesh.node import MeshNode
from mesh.roster_store import RosterStore
from mesh.wire import ProtocolError, Tag
from tests.unit.mesh.cluster import Home, MemoryLog, admit, found, linked, running, until

pytestmark = pytest.mark.anyio


class Notes:
    """A chronicle that tells ``words`` and judges what it hears by ``judge``."""

    def __init__(self, word: str = "") -> None:
        self.word = word
        self.heard: list[tuple[PodId, object, object]] = []
        self.error: WormholeError | None = None

    def opening(self, pod: PodId) -> object:
        return [self.word]

    def account(self, pod: PodId, opening: object) -> object:
        return ["answer to", opening]

    def settle(self, pod: PodId, told: object, opening: object, account: object) -> None:
        self.heard.append((pod, opening, account))
        if self.error is not None:
            raise self.error


@asynccontextmanager
async def node(
    home: Home, notes: Notes | None, *peers: MeshNode, log: MemoryLog | None = None
) -> AsyncIterator[MeshNode]:
    """Run a node that introduces itself by ``notes``."""
    addresses = [peer.address for peer in peers]
    made = MeshNode(home.identity, home.store, listen="127.0.0.1:0", peers=addresses, log=log)
    if notes is not None:
        made.set_chronicle(notes)
    async with anyio.create_task_group() as group:
        await group.start(lambda task_status: made.run(task_status=task_status))
        yield made
        group.cancel_scope.cancel()


def double(home: Home, path: Path) -> Home:
    """Return a copy of a home, as if its folder had been copied."""
    copy = Home.__new__(Home)
    copy.identity, copy.name, copy.store = home.identity, home.name, RosterStore(path / "copy.db")
    copy.store.add(home.roster.records())
    return copy


async def test_both_sides_hear_each_other_before_the_link_is_up(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    of_a, of_b = Notes("a"), Notes("b")
    async with node(a, of_a) as node_a, node(b, of_b, node_a) as node_b:
        await linked(node_a, node_b)
        assert of_a.heard[0] == (b.pod, ["b"], ["answer to", ["a"]])
        assert of_b.heard[0] == (a.pod, ["a"], ["answer to", ["b"]])


async def test_a_pod_that_does_not_introduce_itself_is_linked_as_before(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    notes = Notes("a")
    async with node(a, notes) as node_a, node(b, None, node_a) as node_b:
        await linked(node_a, node_b)
        assert notes.heard == []


@pytest.mark.parametrize("error", [RefusedError("It was restored."), ProtocolError("Nonsense.")])
async def test_a_pod_that_the_chronicle_refuses_is_not_linked(tmp_path: Path, error: WormholeError) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    log_a, log_b = MemoryLog(WriterId(b"a" * 8)), MemoryLog(WriterId(b"b" * 8))
    log_b.append(b"contradiction")
    notes = Notes("a")
    notes.error = error
    async with node(a, notes, log=log_a) as node_a, node(b, Notes("b"), node_a, log=log_b) as node_b:
        await until(lambda: bool(notes.heard))
        assert node_a.alive() == node_b.alive() == frozenset()
        assert log_a.entries == {}


async def test_a_restored_pod_is_cut_off_from_all_until_it_is_reborn(tmp_path: Path) -> None:
    """It is linked with b, who knows less, when c proves that it was restored."""
    a = found(tmp_path / "a")
    b, c = admit(a, tmp_path / "b"), admit(a, tmp_path / "c")
    notes = Notes("a")
    log_a, log_b = MemoryLog(WriterId(b"a" * 8)), MemoryLog(WriterId(b"b" * 8))
    reborn, may_go_on = anyio.Event(), anyio.Event()
    calls: list[tuple[int, int]] = []

    async with node(a, notes, log=log_a) as node_a, node(b, Notes("b"), node_a, log=log_b) as node_b:

        async def on_restored(error: RestoredError) -> None:
            calls.append((error.after, error.owed))
            assert node_a.alive() == frozenset()
            node_a.publish_log([log_a.append(b"contradiction")])
            reborn.set()
            await may_go_on.wait()
            log_a.entries, log_a.writer = {}, WriterId(b"new-a-id")
            log_a.append(b"anew")

        node_a.strays.on_restored = on_restored
        await linked(node_a, node_b)
        notes.error = RestoredError(7, 9)
        async with node(c, Notes("c"), node_a, node_b) as node_c:
            with anyio.fail_after(60):
                await reborn.wait()
            await until(lambda: a.pod not in node_b.alive())
            notes.error = None
            await linked(node_b, node_c)
            assert node_a.alive() == frozenset()
            may_go_on.set()
            await linked(node_a, node_b, node_c)
            await until(lambda: b"new-a-id" in log_b.entries)
            assert calls == [(7, 9)]
            assert log_b.entries.keys() == {b"new-a-id"}, "what contradicts was told to nobody"


async def test_a_pod_that_several_prove_to_be_restored_at_once_is_reborn_once(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b, calls = admit(a, tmp_path / "b"), list[int]()

    async def on_restored(error: RestoredError) -> None:
        calls.append(error.after)

    async with node(a, Notes("a")) as node_a, node(b, Notes("b"), node_a) as node_b:
        node_a.strays.on_restored = on_restored
        await linked(node_a, node_b)
        for _ in range(2):  # two links end with the proof before anything else has its turn
            node_a.strays(RestoredError(7, 9))
        await until(lambda: bool(calls))
        await linked(node_a, node_b)
        assert calls == [7]


async def test_the_later_of_two_processes_with_one_key_is_told_to_stop(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    copy = double(b, tmp_path)
    told: list[NamesakeError] = []
    async with running(a, b) as (node_a, node_b):
        node_b.strays.on_namesake = lambda error: pytest.fail("the original was told to stop")
        await linked(node_a, node_b)
        later = MeshNode(copy.identity, copy.store, listen="127.0.0.1:0", peers=[node_a.address])
        later.strays.on_namesake = told.append
        async with anyio.create_task_group() as group:
            await group.start(lambda task_status: later.run(task_status=task_status))
            await until(lambda: bool(told))
            assert "a is linked with it" in told[0].message
            assert told[0].exit_code == 4
            assert "wormhole join" in told[0].advice
            assert later.alive() == frozenset()
            assert node_a.alive() == {b.pod}
            group.cancel_scope.cancel()


async def test_the_earlier_one_is_preferred_even_when_it_links_up_last(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    copy = double(b, tmp_path)
    told: list[NamesakeError] = []
    async with node(b, None) as earlier:
        earlier.strays.on_namesake = lambda error: pytest.fail("the original was told to stop")
        await anyio.sleep(0.05)
        async with node(copy, None) as later, node(a, None, later) as node_a:
            later.strays.on_namesake = told.append
            await linked(node_a, later)
            host, _, port = node_a.address.rpartition(":")
            earlier.add_candidate(host, int(port), a.pod)
            await until(lambda: bool(told))
            await linked(node_a, earlier)


async def test_two_processes_with_one_key_find_out_by_themselves(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    copy = double(a, tmp_path)
    told: list[NamesakeError] = []
    async with node(a, None) as earlier:
        earlier.strays.on_namesake = lambda error: pytest.fail("the original was told to stop")
        await anyio.sleep(0.05)
        async with node(copy, None) as later:
            later.strays.on_namesake = told.append
            host, _, port = earlier.address.rpartition(":")
            later.add_candidate(host, int(port), None)
            await until(lambda: bool(told))
            earlier_host, _, earlier_port = later.address.rpartition(":")
            told.clear()
            earlier.add_candidate(earlier_host, int(earlier_port), None)
            await until(lambda: bool(told))


async def test_the_clocks_of_linked_pods_are_known(tmp_path: Path) -> None:
    a = found(tmp_path / "a")
    b = admit(a, tmp_path / "b")
    async with node(a, None) as node_a:
        assert not node_a.clock_agrees(), "alone, with another member that might know better"
        async with node(b, None, node_a) as node_b:
            await linked(node_a, node_b)
            await until(lambda: bool(node_a.clocks.ahead_s()))
            assert abs(node_a.clocks.ahead_s()[b.pod]) < 5
            assert node_a.clock_agrees()
            assert type(await node_a.call(b.pod, Tag.CLOCK, None)) is int
    lone = found(tmp_path / "lone")
    async with node(lone, None) as node_lone:
        assert node_lone.clock_agrees(), "there is nobody else whom its clock could harm"
