"""Scrub: what rots on a disk is found and comes back from another pod; what can't is told until it can."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path

import anyio
import pytest

from base.errors import RefusedError
from base.ids import ContentId, hash_bytes
from base.machine import OtherWork
from tests.simulation.transfer.local_mesh import Network, until
from tests.simulation.transfer.pods import Pod, cluster
from transfer import packfile
from transfer.packfile import HEAD
from transfer.scrubbing import REST, Scrubbed
from transfer.settings import TransferSettings

MIB = 1 << 20
FILES = TransferSettings(packed_bytes=0)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def rot(pod: Pod, data: bytes) -> None:
    """Flip one bit of these bytes wherever they lie on the disk of a pod."""
    found = 0
    for path in pod.home.store.rglob("*"):
        if path.is_file() and (at := path.read_bytes().find(data)) >= 0 and "damaged" not in path.parts:
            with path.open("r+b") as file:
                file.seek(at + len(data) // 2)
                byte = file.read(1)[0]
                file.seek(at + len(data) // 2)
                file.write(bytes([byte ^ 1]))
            found += 1
    assert found == 1


async def scrub(pod: Pod) -> Scrubbed:
    async def ignore(_found: Scrubbed) -> None:
        await anyio.lowlevel.checkpoint()

    await pod.transfer.sync()
    return await pod.transfer.scrubbing.run(ignore)


def keeps(pod: Pod, content: ContentId) -> bool:
    return pod.transfer.local(content) == "kept"


def aside(pod: Pod) -> int:
    return len(list((pod.home.store / "damaged").iterdir()))


@pytest.mark.parametrize("settings", [TransferSettings(), FILES])
async def test_what_rots_comes_back(tmp_path: Path, settings: TransferSettings) -> None:
    small, other, large = some_bytes(5000, 1), some_bytes(5000, 2), some_bytes(3 * MIB + 5, 3)
    async with cluster(tmp_path, 2, settings=settings) as (pod, peer):
        contents = [await pod.write(data, copies=2) for data in (small, other, large)]
        await until(lambda: all(keeps(one, content) for one in (pod, peer) for content in contents))
        clean = await scrub(pod)
        assert (clean.checked, clean.damaged, clean.lost) == (2 + 4 + 1, set(), [])
        assert clean.bytes >= len(small) + len(other) + len(large)
        used = pod.transfer.bytes_used()

        rot(pod, small)
        rot(pod, large[MIB : 2 * MIB])
        manifest = pod.home.store / "chunks" / contents[2].hex()[:2] / contents[2].hex()
        if settings is FILES:
            rot(pod, manifest.read_bytes())
        found = await scrub(pod)
        assert len(found.damaged) == (3 if settings is FILES else 2)
        assert (found.unrepaired, found.lost) == (set(), [])
        assert all(keeps(pod, content) for content in contents)
        assert aside(pod) == 0
        again = await scrub(pod)
        assert (again.checked, again.damaged) == (clean.checked, set())
        assert [await pod.read(content) for content in contents] == [small, other, large]
        if settings is FILES:
            assert pod.transfer.bytes_used() == used


@pytest.mark.parametrize("settings", [TransferSettings(), FILES])
async def test_a_loss_is_told_until_somebody_has_it_again(tmp_path: Path, settings: TransferSettings) -> None:
    data, network = some_bytes(5000), Network()
    async with cluster(tmp_path, 2, settings=settings, network=network) as (pod, peer):
        content = await pod.write(data, copies=2)
        await until(lambda: keeps(peer, content))
        network.set_up(peer.id, False)
        rot(pod, data)
        for _ in range(2):
            found = await scrub(pod)
            assert found.lost == [content]
            assert len(found.unrepaired) == len(found.damaged) == 1
            assert not keeps(pod, content), "nobody is told that it is here"
            assert aside(pod) == 1, "what is left of it stays"
        network.set_up(peer.id, True)
        await until(lambda: keeps(pod, content))
        assert (await scrub(pod)).lost == []
        assert aside(pod) == 0
        assert await pod.read(content) == data


async def test_what_nothing_refers_to_any_more_is_no_loss(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as (pod,):
        data = some_bytes(5000)
        content = await pod.write(data)
        await until(lambda: keeps(pod, content))
        rot(pod, data)
        assert (await scrub(pod)).lost == [content]
        del pod.shelf.infos[content]
        found = await scrub(pod)
        assert (found.lost, found.unrepaired) == ([], set())


async def test_a_piece_that_is_gone_comes_back(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES) as (pod, peer):
        content = await pod.write(some_bytes(2 * MIB), copies=2)
        await until(lambda: keeps(pod, content) and keeps(peer, content))
        next(path for path in (pod.home.store / "chunks").rglob("*") if path.is_file()).unlink()
        found = await scrub(pod)
        assert (len(found.damaged), found.unrepaired, found.lost) == (1, set(), [])
        assert keeps(pod, content)
        assert (await scrub(pod)).damaged == set()


async def test_a_damaged_cached_copy_goes(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as (pod, reader):
        data = some_bytes(3 * MIB)
        content = await pod.write(data)
        assert await reader.read(content) == data
        await until(lambda: reader.transfer.local(content) == "cached")
        rot(reader, data[:MIB])
        found = await scrub(reader)
        assert (len(found.damaged), found.unrepaired, found.lost) == (1, set(), [])
        assert reader.transfer.local(content) == "none"
        assert not [path for path in (reader.home.store / "cache").rglob("*") if path.is_file()]
        assert await reader.read(content) == data


async def test_unpublished_bytes_that_rot_are_told(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as (pod,):
        data = some_bytes(5000)
        draft = pod.transfer.draft()
        await draft.write(0, data)
        sealed = await draft.seal()
        await pod.transfer.sync()
        pod.shelf.journal[sealed.content] = sealed.size
        rot(pod, data)
        assert (await scrub(pod)).lost == [sealed.content]
        draft.discard()


async def test_what_a_broken_off_scrub_found_is_repaired(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as (pod, peer):
        data = some_bytes(5000)
        content = await pod.write(data, copies=2)
        await until(lambda: keeps(pod, content) and keeps(peer, content))
        rot(pod, data)

        async def go_away(_found: Scrubbed) -> None:
            with pytest.raises(RefusedError):
                await pod.transfer.scrubbing.run(go_away)
            raise anyio.BrokenResourceError

        with pytest.raises(anyio.BrokenResourceError):
            await pod.transfer.scrubbing.run(go_away)
        assert not pod.transfer.is_whole(content, len(data))
        await until(lambda: pod.transfer.is_whole(content, len(data)) and keeps(pod, content))
        assert (await scrub(pod)).damaged == set()


async def test_a_packed_piece_whose_head_rots_is_written_anew(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as (pod,):
        first, data = some_bytes(4000, 1), some_bytes(5000, 2)
        contents = [await pod.write(one) for one in (first, data)]
        await until(lambda: all(keeps(pod, content) for content in contents))
        pack = next((pod.home.store / "packs").glob("*.pack"))
        raw = bytearray(pack.read_bytes())
        raw[raw.find(data) - HEAD.size + 6] ^= 1
        pack.write_bytes(raw)
        assert hash_bytes(data).hex() not in dict(packfile.listing(str(pod.home.store)))
        found = await scrub(pod)
        assert (found.damaged, found.unrepaired, found.lost) == ({hash_bytes(data)}, set(), [])
        assert (await scrub(pod)).damaged == set()
        await pod.transfer._offload.run(pod.transfer._store.tidy)
        assert [await pod.read(content) for content in contents] == [first, data]
        assert dict(packfile.listing(str(pod.home.store))) == {hash_bytes(one).hex(): len(one) for one in (first, data)}


async def test_it_rests_long_while_the_machine_has_other_work(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as (pod,):
        await pod.write(some_bytes(20 * MIB))
        rested: dict[bool, float] = {}
        for busy in (False, True):
            pod.transfer.scrubbing.other_work = partial(Work, busy)
            began, began_s = time.perf_counter(), anyio.current_time()
            await scrub(pod)
            rested[busy] = (anyio.current_time() - began_s) / (time.perf_counter() - began)
        assert rested[False] <= REST < rested[True]


class Work(OtherWork):
    """A machine that is busy, or not."""

    def __init__(self, busy: bool) -> None:
        super().__init__()
        self.busy = busy

    def is_busy(self) -> bool:
        return self.busy
