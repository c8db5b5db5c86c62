"""Several pods on virtual time: replication, reading from afar, failures, the cache."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio.testing

from base.errors import DamagedError, UnreachableError
from base.ids import ChunkId, hash_bytes
from mesh.wire import Tag
from tests.simulation.transfer.local_mesh import Network, until
from tests.simulation.transfer.pods import Pod, cluster
from transfer.settings import CacheMode, TransferSettings

MIB = 1 << 20
STREAM = TransferSettings(cache_mode=CacheMode.STREAM)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def test_copies_reach_the_placed_pods_and_nobody_else(tmp_path: Path) -> None:
    async with cluster(tmp_path, 4) as pods:
        data = some_bytes(3 * MIB + 17)
        content = await pods[0].write(data, copies=3)
        small = await pods[1].write(b"small", copies=2)
        await pods[0].transfer.wait_copies([content, small], None, 60)
        assert pods[0].transfer.holders(content).kept == {pod.id for pod in pods[:3]}
        assert pods[3].files() == {"store.id"}
        for pod in pods[:3]:
            assert await pod.read(content) == data
            assert content.hex() in pod.kept()


async def test_what_waits_to_settle_waits_on_while_all_is_looked_at_again(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as pods:
        pods[1].transfer.pace("settled", 60, 60)
        content = await pods[0].write(some_bytes(5000), copies=2)
        for _ in range(20):
            await anyio.sleep(2)
            pods[1].transfer.look_at_all()  # as when a pod has more room, or less
            assert pods[1].transfer.local(content) == "none"
        pods[1].transfer.reconsider()
        with anyio.fail_after(5):
            await until(lambda: pods[1].transfer.local(content) == "kept")


async def test_loss_and_delay_only_slow_replication_down(tmp_path: Path) -> None:
    network = Network(delay_s=0.02, loss=0.15)
    async with cluster(tmp_path, 3, network=network) as pods:
        contents = [
            await pods[number % 3].write(some_bytes(MIB + 1000 * number, number), copies=3) for number in range(9)
        ]
        for pod in pods:
            await pod.transfer.wait_copies(contents, 3, 3000)


async def test_a_pod_that_was_away_catches_up(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as pods:
        pods[0].mesh.network.set_up(pods[1].id, False)
        content = await pods[0].write(some_bytes(2 * MIB), copies=2)
        with pytest.raises(UnreachableError):
            await pods[0].transfer.wait_copies([content], 2, 5)
        pods[0].mesh.network.set_up(pods[1].id, True)
        await pods[0].transfer.wait_copies([content], 2, 30)


async def test_known_absence_fails_at_once_and_silence_at_the_deadline(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3, settings=STREAM) as pods:
        network = pods[0].mesh.network
        content = await pods[0].write(some_bytes(2 * MIB))
        await until(lambda: pods[0].id in pods[1].transfer.holders(content).kept)
        network.silent.add(pods[0].id)
        started_at = anyio.current_time()
        with pytest.raises(UnreachableError):
            await pods[1].read(content)
        assert 9 <= anyio.current_time() - started_at <= 11
        network.set_up(pods[0].id, False)
        started_at = anyio.current_time()
        with pytest.raises(UnreachableError):
            await pods[1].read(content)
        assert anyio.current_time() - started_at < 0.5
        assert pods[1].transfer.holders(content).absent == {pods[0].id}


async def test_a_silent_holder_is_hedged_by_another(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3, settings=STREAM) as pods:
        data = some_bytes(3 * MIB)
        content = await pods[0].write(data, copies=2, placed=[pods[0].id, pods[1].id])
        await pods[2].transfer.wait_copies([content], 2, 30)
        pods[0].mesh.network.silent.add(pods[0].id)
        started_at = anyio.current_time()
        assert await pods[2].read(content) == data
        assert anyio.current_time() - started_at < 5


async def test_two_slow_sources_are_used_at_once(tmp_path: Path) -> None:
    async def seconds(folder: Path, sources: int) -> float:
        folder.mkdir()
        network = Network(delay_s=0.001)
        async with cluster(folder, sources + 1, settings=STREAM, network=network) as pods:
            data = some_bytes(16 * MIB)
            placed = [pod.id for pod in pods[:sources]]
            content = await pods[0].write(data, copies=sources, placed=placed)
            await pods[-1].transfer.wait_copies([content], sources, 60)
            for pod in placed:
                network.upload_bytes_per_s[pod] = 10e6 / 8
            started_at = anyio.current_time()
            assert await pods[-1].read(content) == data
            return anyio.current_time() - started_at

    assert await seconds(tmp_path / "one", 1) / await seconds(tmp_path / "two", 2) >= 1.7


async def test_a_corrupt_peer_is_found_out(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3, settings=STREAM) as pods:
        data = some_bytes(2 * MIB)
        content = await pods[0].write(data, copies=2, placed=[pods[0].id, pods[1].id])
        await pods[2].transfer.wait_copies([content], 2, 30)

        honest = pods[0].mesh.handlers[Tag.CHUNK_GET]
        lies = 0

        async def lie(sender: Any, body: Any) -> object:
            nonlocal lies
            answer: Any = await honest(sender, body)
            lies += 1
            return [answer[0], bytes([answer[1][0] ^ 1]) + answer[1][1:]]

        pods[0].mesh.handlers[Tag.CHUNK_GET] = lie
        pods[1].mesh.network.upload_bytes_per_s[pods[1].id] = 1e6
        assert await pods[2].read(content) == data
        assert lies > 0
        pods[0].mesh.network.set_up(pods[1].id, False)
        other = await pods[0].write(b"small and wrong")
        with pytest.raises(DamagedError):
            await pods[2].read(other)


async def test_rot_on_a_disk_is_never_served_and_heals(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=STREAM) as pods:
        data = some_bytes(2 * MIB)
        content = await pods[0].write(data, copies=2)
        await pods[0].transfer.wait_copies([content], 2, 30)
        name = hash_bytes(data[:MIB]).hex()
        path = pods[1].home.store / "chunks" / name[:2] / name
        path.write_bytes(b"rot" + path.read_bytes()[3:])
        pods[1].transfer._store._verified.clear()
        assert await pods[1].read(content) == data
        await until(lambda: path.exists() and hash_bytes(path.read_bytes()).hex() == name)
        await pods[0].transfer.wait_copies([content], 2, 30)
        assert len(list((pods[1].home.store / "damaged").iterdir())) == 1


async def test_streaming_leaves_the_store_unchanged_and_fetches_little(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=STREAM) as pods:
        data = some_bytes(64 * MIB)
        content = await pods[0].write(data)
        before, sent = pods[1].files(), pods[0].mesh.sent_bytes
        middle = await pods[1].read(content, 30 * MIB + 5, MIB)
        assert middle == data[30 * MIB + 5 : 31 * MIB + 5]
        assert pods[0].mesh.sent_bytes - sent < 3 * MIB
        assert await pods[1].read(content) == data
        assert pods[1].files() == before


async def test_reading_on_fetches_ahead_and_each_chunk_once(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=STREAM, network=Network(delay_s=0.05)) as pods:
        data = some_bytes(24 * MIB)
        content = await pods[0].write(data)
        sent = pods[0].mesh.sent_bytes
        reader = pods[1].transfer.open(content, len(data), pods[0].id)
        started_at = anyio.current_time()
        step = 128 << 10
        for offset in range(0, len(data), step):
            assert await reader.read(offset, step) == data[offset : offset + step]
        reader.close()
        assert pods[0].mesh.sent_bytes - sent < len(data) * 1.01
        assert anyio.current_time() - started_at < 24 * 0.1 * 0.6


async def test_small_contents_are_cached_at_first_read_and_large_ones_later(tmp_path: Path) -> None:
    settings = TransferSettings(copy_below_bytes=2 * MIB, copy_after_reads=2)
    async with cluster(tmp_path, 2, settings=settings) as pods:
        small = await pods[0].write(some_bytes(MIB + 1))
        large = await pods[0].write(some_bytes(4 * MIB, 2))
        never = await pods[0].write(some_bytes(1000, 3), cache=False)
        await pods[1].read(small, 0, 10)
        await until(lambda: pods[1].transfer.local(small) == "cached")
        await pods[1].read(never)
        await pods[1].read(large, 0, 10)
        await anyio.sleep(5)
        assert (pods[1].transfer.local(large), pods[1].transfer.local(never)) == ("none", "none")
        await pods[1].read(large, 3 * MIB, 10)
        await until(lambda: pods[1].transfer.local(large) == "cached")
        await until(lambda: pods[1].id in pods[0].transfer.holders(large).cached)
        pods[0].mesh.network.set_up(pods[0].id, False)
        assert await pods[1].read(large) == some_bytes(4 * MIB, 2)


async def test_many_small_contents_read_at_once_are_all_cached(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as pods:
        contents = [await pods[0].write(b"%d" % number * 100) for number in range(300)]
        await until(lambda: all(pods[0].transfer.local(content) == "kept" for content in contents))
        requests = pods[0].mesh.network.requests
        requests.clear()
        for content in contents:
            await pods[1].read(content)
        await until(lambda: all(pods[1].transfer.local(content) == "cached" for content in contents))
        assert sum(tag is Tag.CHUNK_GET for _, _, tag, _ in requests) == 300


async def test_the_cache_keeps_its_limit_and_never_touches_what_is_kept(tmp_path: Path) -> None:
    settings = TransferSettings(cache_limit_bytes=3 * MIB)
    async with cluster(tmp_path, 2, settings=settings) as pods:
        shared = some_bytes(MIB, 9)
        kept = await pods[0].write(shared + some_bytes(MIB, 10), copies=2)
        await pods[0].transfer.wait_copies([kept], 2, 30)
        contents = [await pods[0].write(shared + some_bytes(MIB - 1, seed)) for seed in range(4)]
        for content in contents:
            await pods[1].read(content)
            await until(lambda content=content: pods[1].transfer.local(content) == "cached")  # type: ignore[misc]
        await until(lambda: pods[1].transfer._database.cache_bytes() <= 3 * MIB)
        assert pods[1].transfer.local(contents[0]) in {"none", "partial"}
        assert pods[1].transfer.local(contents[-1]) == "cached"
        pods[0].mesh.network.set_up(pods[0].id, False)
        assert await pods[1].read(kept) == shared + some_bytes(MIB, 10)
        assert await pods[1].read(contents[-1]) == shared + some_bytes(MIB - 1, 3)


async def test_what_is_cached_becomes_kept_without_a_transfer(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as pods:
        content = await pods[0].write(some_bytes(3 * MIB))
        await pods[1].read(content)
        await until(lambda: pods[1].transfer.local(content) == "cached")
        sent = pods[0].mesh.sent_bytes
        info = pods[0].shelf.infos[content]
        pods[0].shelf.placement[content] = [pods[0].id, pods[1].id]
        pods[0].shelf.infos[content] = type(info)(content, info.size, info.author, 2, True, False)
        pods[1].transfer.reconsider()
        await until(lambda: pods[1].transfer.local(content) == "kept")
        assert pods[0].mesh.sent_bytes - sent < 10_000
        assert pods[1].transfer._database.cache_bytes() == 0
        assert not list((pods[1].home.store / "cache").rglob("*/*"))


async def test_an_edit_far_away_fetches_only_what_it_touches(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=STREAM) as pods:
        data = some_bytes(16 * MIB)
        content = await pods[0].write(data)
        sent = pods[0].mesh.sent_bytes
        draft = pods[1].transfer.draft(content, len(data), pods[0].id)
        assert not draft.write_now(5 * MIB + 7, b"edit")
        await draft.write(5 * MIB + 7, b"edit")
        await draft.write(8 * MIB, bytes(MIB))
        assert (
            await draft.read(5 * MIB, 20) == data[5 * MIB : 5 * MIB + 7] + b"edit" + data[5 * MIB + 11 : 5 * MIB + 20]
        )
        sealed = await draft.seal()
        assert pods[0].mesh.sent_bytes - sent < 1.2 * MIB
        expected = bytearray(data)
        expected[5 * MIB + 7 : 5 * MIB + 11] = b"edit"
        expected[8 * MIB : 9 * MIB] = bytes(MIB)
        info = pods[0].shelf.infos[content]
        pods[0].shelf.add(type(info)(sealed.content, sealed.size, pods[1].id, 1, True, False))
        pods[1].transfer.published(sealed.content)
        draft.discard()
        await until(lambda: pods[1].transfer.local(sealed.content) == "kept")
        pods[1].mesh.network.set_up(pods[0].id, False)
        assert await pods[1].read(sealed.content) == expected


async def test_a_lost_table_is_followed_anew(tmp_path: Path) -> None:
    network = Network()
    async with cluster(tmp_path, 2, network=network, settings=TransferSettings(packed_bytes=0)) as pods:
        contents = [await pods[0].write(bytes([number]) * 100) for number in range(5)]
        await until(lambda: all(pods[0].id in pods[1].transfer.holders(content).kept for content in contents))
        generation = pods[1].transfer._database.cursor(pods[0].id)
    (tmp_path / "0" / "holdings.db").unlink()
    (tmp_path / "0" / "store" / "chunks" / contents[0].hex()[:2] / contents[0].hex()).unlink()
    again = Network()
    shelf = pods[0].shelf
    meshes = [again.add(number + 1) for number in range(2)]
    fresh = [Pod(tmp_path / str(number), mesh, shelf, STREAM, False) for number, mesh in enumerate(meshes)]
    async with anyio.create_task_group() as group:
        for pod in fresh:
            group.start_soon(pod.transfer.run)
        await until(lambda: fresh[0].id in fresh[1].transfer.holders(contents[1]).kept)
        await until(lambda: fresh[1].transfer._database.cursor(fresh[0].id) != generation)
        await until(lambda: not fresh[1].transfer.holders(contents[0]).kept)
        group.cancel_scope.cancel()
    assert not (tmp_path / "0" / "store" / "chunks" / contents[0].hex()[:2] / contents[0].hex()).exists()


async def test_requests_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as pods:
        for tag in (Tag.CHUNK_GET, Tag.HOLDINGS_PUSH, Tag.HOLDINGS_SINCE):
            for body in (None, 1, [], [b"x"], [b"x" * 32, b"y" * 32, -1, 5], {"a": 1}, [b"g" * 8, 5, 1, False, []]):
                with pytest.raises(Exception, match="can't be read"):
                    await pods[0].mesh.call(pods[1].id, tag, body)
        missing = [bytes(32), ChunkId(bytes(32)), 0, 100]
        assert await pods[0].mesh.call(pods[1].id, Tag.CHUNK_GET, missing) is None
