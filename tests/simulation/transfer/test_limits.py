"""Limits between pods, on virtual time: the rate holds at both ends, nothing fails of it, and reads go first (R41, P6)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio.testing

from base.errors import DamagedError
from base.ids import ContentId
from mesh.wire import Tag
from tests.simulation.transfer.local_mesh import Network
from tests.simulation.transfer.pods import Pod, cluster
from transfer.pace import Limits
from transfer.settings import CacheMode, TransferSettings

MB = 1_000_000
STREAM = TransferSettings(cache_mode=CacheMode.STREAM, deadline_s=10.0)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def fast() -> Network:
    return Network(delay_s=0.001)


async def read_all(pod: Pod, contents: Sequence[ContentId]) -> float:
    """Read contents at once; return how long it took."""
    begun = anyio.current_time()

    async def read(content: ContentId) -> None:
        assert len(await pod.read(content)) == pod.shelf.infos[content].size

    async with anyio.create_task_group() as group:
        for content in contents:
            group.start_soon(read, content)
    return anyio.current_time() - begun


@pytest.mark.parametrize("rate", [30_000, 300_000, 5 * MB])
@pytest.mark.parametrize("limits", [("up", 0), ("down", 1)])
async def test_reading_stays_below_the_limit_and_near_it(tmp_path: Path, rate: int, limits: tuple[str, int]) -> None:
    way, limited = limits
    async with cluster(tmp_path, 2, settings=STREAM, network=fast()) as pods:
        contents = [await pods[0].write(some_bytes(rate, number)) for number in range(8)]
        pods[limited].transfer.limit(Limits(**{way: float(rate)}))
        before = pods[0].mesh.sent_bytes
        took_s = await read_all(pods[1], contents)
        moved = pods[0].mesh.sent_bytes - before
        assert moved / took_s <= rate, "everything that went over the line"
        assert 8 * rate / took_s >= 0.7 * rate
        pods[limited].transfer.limit(Limits())
        more = [await pods[0].write(some_bytes(rate, 10 + number)) for number in range(8)]
        assert await read_all(pods[1], more) < 3


@pytest.mark.parametrize("way", ["up", "down"])
async def test_copies_of_small_files_stay_below_the_limit(tmp_path: Path, way: str) -> None:
    async with cluster(tmp_path, 2, network=fast()) as pods:
        pods[0 if way == "up" else 1].transfer.limit(Limits(**{way: 100_000.0}))
        before, begun = pods[0].mesh.sent_bytes, anyio.current_time()
        contents = [await pods[0].write(some_bytes(5_000, number), copies=2) for number in range(200)]
        await pods[0].transfer.wait_copies(contents, 2, 600)
        took_s = anyio.current_time() - begun
        assert (pods[0].mesh.sent_bytes - before) / took_s <= 100_000
        assert MB / took_s >= 50_000


async def test_reads_go_before_copies(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=STREAM, network=fast()) as pods:
        pods[1].transfer.limit(Limits(down=MB))
        read = await pods[0].write(some_bytes(MB // 2, 99))
        copied = [await pods[0].write(some_bytes(4 * MB, number), copies=2) for number in range(5)]
        await anyio.sleep(2)
        assert await read_all(pods[1], [read]) < 2, "20 MB of copies wait for half a megabyte"
        assert pods[1].transfer.holders(copied[-1]).kept == {pods[0].id}
        await pods[0].transfer.wait_copies(copied, 2, 60)


async def test_a_server_under_a_limit_sends_what_somebody_reads_first(tmp_path: Path) -> None:
    async with cluster(tmp_path, 3, settings=STREAM, network=fast()) as pods:
        pods[0].transfer.limit(Limits(up=MB))
        read = [await pods[0].write(some_bytes(MB, 90 + number)) for number in range(5)]
        copied = [await pods[0].write(some_bytes(4 * MB, number), copies=2) for number in range(4)]
        await anyio.sleep(2)
        assert await read_all(pods[2], read[:1]) < 2, "by a pod that copies nothing"
        assert await read_all(pods[1], read[1:2]) < 2, "by the one that copies, too"
        begun = anyio.current_time()
        await read_all(pods[2], read[2:])
        assert anyio.current_time() - begun < 4.5, "the whole line is theirs"
        assert not any(pods[1].id in pods[0].transfer.holders(one).kept for one in copied[1:])
        pods[0].transfer.limit(Limits())
        await pods[0].transfer.wait_copies(copied, 2, 5)


async def test_a_server_of_before_is_asked_without_the_word_for_having_time(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, network=fast()) as pods:
        modern = pods[0].mesh.handlers[Tag.CHUNK_GET]
        refused = 0

        async def old(sender: Any, body: Any) -> object:
            nonlocal refused
            if body[-1] is False:
                refused += 1
                raise DamagedError("A pod sent a request for a chunk that can't be read.")
            return await modern(sender, body)

        pods[0].mesh.handlers[Tag.CHUNK_GET] = old
        contents = [await pods[0].write(some_bytes(4 * MB, number), copies=2) for number in range(2)]
        await pods[0].transfer.wait_copies(contents, 2, 5)
        assert 0 < refused <= 8, "those that were on their way"


async def test_copies_made_anew_have_a_limit_of_their_own(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, network=fast()) as pods:
        pods[1].transfer.limit(Limits(repair=100_000))
        anew = {await pods[0].write(some_bytes(MB, number)) for number in range(2)}
        pods[1].transfer.repairs(lambda content: content in anew)
        for content in anew:  # two are wanted now, as if the other one had been on a pod that stays away
            pods[0].shelf.add(replace(pods[0].shelf.infos[content], copies=2), [pods[0].id, pods[1].id])
        begun = anyio.current_time()
        pods[1].transfer.reconsider()
        await anyio.sleep(1)
        new = [await pods[0].write(some_bytes(4 * MB, 10 + number), copies=2) for number in range(2)]
        await pods[0].transfer.wait_copies(new, 2, 5)
        assert anyio.current_time() - begun < 5, "what is new is not held up"
        await pods[0].transfer.wait_copies(sorted(anew), 2, 100)
        assert 2 * MB / (anyio.current_time() - begun) <= 100_000
