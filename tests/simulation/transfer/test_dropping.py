"""A copy that is too many goes; the last ones that count never do, whoever is wrong, suspended or started anew."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from base.ids import ContentId, hash_bytes
from mesh.wire import Tag
from tests.simulation.transfer.local_mesh import Network, until
from tests.simulation.transfer.pods import Pod, cluster
from transfer.dropping import may_drop
from transfer.settings import TransferSettings
from transfer.store import Room

MIB = 1 << 20
FILES = TransferSettings(packed_bytes=0, pass_every_s=30.0)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def kept_by_all(pods: list[Pod], *contents: ContentId) -> None:
    await until(lambda: all(pod.transfer.local(content) == "kept" for pod in pods for content in contents))
    everybody = {pod.id for pod in pods}
    await until(lambda: all(pod.transfer.holders(content).kept == everybody for pod in pods for content in contents))


def want(pods: list[Pod], content: ContentId, *placed: Pod) -> None:
    """Only these pods should keep a content from now on."""
    shelf = pods[0].shelf
    shelf.infos[content] = replace(shelf.infos[content], copies=len(placed))
    shelf.placement[content] = [pod.id for pod in placed]
    for pod in pods:
        pod.transfer.reconsider()


def believes_it_is_too_much(pod: Pod, content: ContentId) -> None:
    """Have a pod try to drop a content whatever the others think."""
    dropping = pod.transfer.dropping
    assert dropping is not None
    dropping._is_surplus = lambda _: True
    dropping.consider(content)


def test_so_many_others_as_are_wanted_and_one_at_least() -> None:
    one, two, three = (Pod.__name__ + name for name in "abc")
    assert may_drop([two, three], one, 2)  # type: ignore[arg-type, list-item]
    assert not may_drop([one, two], one, 2)  # type: ignore[arg-type, list-item]
    assert not may_drop([], one, 0)  # type: ignore[arg-type]


async def test_what_is_too_much_goes_from_the_disk_and_is_told(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3, settings=FILES) as pods:
        a, b, c = pods
        shared, one, two = (some_bytes(MIB, seed) for seed in (1, 2, 3))
        content, other = await a.write(shared + one, copies=3), await a.write(shared + two, copies=3)
        await kept_by_all(pods, content, other)
        want(pods, content, a, b)
        await until(lambda: c.transfer.local(content) != "kept", 300)
        await until(lambda: content.hex() not in c.kept())
        assert c.kept() == {*(hash_bytes(part).hex() for part in (shared, two)), other.hex()}
        await until(lambda: a.transfer.holders(content).kept == {a.id, b.id})
        assert await c.read(other) == shared + two
        assert await c.read(content) == shared + one
        want(pods, content, a, b, c)
        await kept_by_all(pods, content)


async def test_what_is_pinned_stays(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES) as pods:
        content = await pods[0].write(some_bytes(5000), copies=2)
        await kept_by_all(pods, content)
        pods[0].shelf.infos[content] = replace(pods[0].shelf.infos[content], keep=True)
        want(pods, content, pods[0])
        await anyio.sleep(120)
        assert pods[1].transfer.local(content) == "kept"


async def test_what_is_being_changed_stays_until_it_is_closed(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES) as pods:
        content = await pods[0].write(some_bytes(3 * MIB), copies=2)
        await kept_by_all(pods, content)
        draft = pods[1].transfer.draft(content, 3 * MIB, pods[0].id)
        want(pods, content, pods[0])
        await anyio.sleep(60)
        assert pods[1].transfer.local(content) == "kept"
        draft.discard()
        await until(lambda: pods[1].transfer.local(content) == "none", 300)


async def test_what_nobody_may_drop_now_is_looked_at_again(tmp_path: Path) -> None:
    """Which copy is too many may change while nobody looks, and so may what is in use; the next pass is far away."""
    async with cluster(tmp_path, 2, settings=replace(FILES, pass_every_s=1e6)) as pods:
        content = await pods[0].write(some_bytes(3 * MIB), copies=2)
        await kept_by_all(pods, content)
        draft = pods[1].transfer.draft(content, 3 * MIB, pods[0].id)
        shelf = pods[0].shelf
        shelf.infos[content] = replace(shelf.infos[content], copies=1)
        shelf.placement[content] = [pods[0].id]
        pods[1].transfer.look_at([content])
        await anyio.sleep(6)
        draft.discard()
        await until(lambda: pods[1].transfer.local(content) == "none", 60)
        assert pods[0].transfer.local(content) == "kept"


async def test_two_that_each_rely_on_the_other_both_stay(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES, network=Network(delay_s=0.05)) as pods:
        content = await pods[0].write(some_bytes(5000), copies=2)
        await kept_by_all(pods, content)
        want(pods, content, pods[0])
        for pod in pods:
            believes_it_is_too_much(pod, content)
        for turn in range(2000):
            await anyio.sleep(0.01 if turn < 1000 else 0.3)
            assert any(pod.transfer.local(content) == "kept" for pod in pods)


@pytest.mark.parametrize("fault", ["silent", "gone from the disk", "handing over"])
async def test_who_does_not_look_at_its_disk_and_say_yes_does_not_count(tmp_path: Path, fault: str) -> None:
    network = Network()
    async with cluster(tmp_path, 3, settings=FILES, network=network) as pods:
        a, b, c = pods
        content = await a.write(some_bytes(5000), copies=3)
        await kept_by_all(pods, content)
        if fault == "silent":
            network.silent.add(b.id)
        elif fault == "handing over":
            assert b.transfer.dropping is not None
            b.transfer.dropping.says_no = True
        else:
            next((b.home.store / "chunks").rglob(content.hex())).unlink()
        want(pods, content, a, b)
        await anyio.sleep(90)
        assert c.transfer.local(content) == "kept"
        assert any(tag is Tag.HOLDING_ASK for _, _, tag, _ in network.requests)
        if fault == "silent":
            network.silent.clear()
            await until(lambda: c.transfer.local(content) == "none", 300)


async def test_a_pod_suspended_in_the_middle_of_a_drop_costs_nothing(tmp_path: Path) -> None:
    """It heard "yes" from all, sleeps, and unlinks when it wakes: meanwhile nobody has relied on its copy."""
    async with cluster(tmp_path, 3, settings=FILES) as pods:
        a, b, c = pods
        content = await a.write(some_bytes(5000), copies=3)
        await kept_by_all(pods, content)
        go_on, asleep = anyio.Event(), anyio.Event()
        assert c.transfer.dropping is not None and c.transfer.releasing is not None  # noqa: PT018
        unlink = c.transfer.releasing.drop

        async def after_a_long_sleep(contents: object) -> None:
            asleep.set()
            await go_on.wait()
            await unlink(contents)  # type: ignore[arg-type]

        c.transfer.releasing.drop = after_a_long_sleep  # type: ignore[method-assign]
        want(pods, content, a, b)
        await asleep.wait()
        want(pods, content, b, c)  # now a would be too much, by what c says of itself
        await anyio.sleep(200)
        assert a.transfer.local(content) == "kept"
        go_on.set()
        await until(lambda: c.transfer.local(content) == "none" or content.hex() not in c.kept())
        assert all(content.hex() in pod.kept() for pod in (a, b))


@pytest.mark.parametrize("whole", [True, False])
async def test_after_a_restart_it_is_held_only_if_all_of_it_is_there(tmp_path: Path, whole: bool) -> None:
    data = some_bytes(3 * MIB)
    network = Network()
    async with cluster(tmp_path, 1, settings=FILES, network=network) as [pod]:
        content = await pod.write(data)
        await until(lambda: pod.transfer.local(content) == "kept")
        await pod.transfer._database.mark_dropping([content], on=True)
        infos = dict(pod.shelf.infos)
    if not whole:
        next((pod.home.store / "chunks").rglob(hash_bytes(data[:MIB]).hex())).unlink()
    mesh = network.add(1)
    again = Pod(tmp_path / "0", mesh, pod.shelf, FILES, threads=False)
    again.shelf.infos = infos
    async with anyio.create_task_group() as group:
        assert again.transfer._database.is_dropping(content)
        await group.start(again.run)
        assert not again.transfer._database.is_dropping(content)
        assert again.transfer.local(content) == ("kept" if whole else "partial")
        group.cancel_scope.cancel()
    again.transfer.close()


async def test_a_copy_without_room_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    network = Network()
    async with cluster(tmp_path, 2, settings=FILES, network=network) as pods:
        a, b = pods
        b.transfer.configure(replace(FILES, room=Room(limit_bytes=4 * MIB)))
        refused: list[int] = []
        b.transfer.on_refused = refused.append
        content = await a.write(some_bytes(8 * MIB), copies=2)
        await until(lambda: bool(refused), 100)
        assert refused[0] == 8 * MIB
        a.shelf.placement[content] = [a.id]
        await anyio.sleep(60)
        assert b.kept() == set()
        assert b.transfer.bytes_used() == 0
