"""Many small contents come in few requests; whatever goes wrong with a batch, each still comes alone."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from base.errors import DamagedError, WormholeError
from base.ids import ContentId
from mesh.wire import Tag
from tests.simulation.transfer.local_mesh import Network, until
from tests.simulation.transfer.pods import Pod, cluster
from transfer.batching import MAX_BYTES, MAX_PIECES

COUNT = 160


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


async def write_many(pods: list[Pod], count: int = COUNT, size: int = 4096) -> list[ContentId]:
    """Write small contents on the first pod, which the second, away until then, hears of at once."""
    rng = random.Random(1)
    network = pods[0].mesh.network
    network.set_up(pods[1].id, False)
    contents = [await pods[0].write(rng.randbytes(size), copies=2) for _ in range(count)]
    network.requests.clear()
    network.set_up(pods[1].id, True)
    pods[1].transfer.noticed(contents)
    return contents


def asked(network: Network) -> list[Any]:
    return [body for _, _, tag, body in network.requests if tag is Tag.CHUNK_GET]


async def test_many_small_contents_come_in_few_requests(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, network=Network(delay_s=0.01)) as pods:
        contents = await write_many(pods)
        await pods[1].transfer.wait_copies(contents, 2, 30)
        requests = asked(pods[0].mesh.network)
        assert len(requests) < COUNT / 20
        assert all(len(body[0]) <= MAX_PIECES for body in requests if isinstance(body[0], list))
        assert {content.hex() for content in contents} <= pods[1].kept()


async def test_larger_ones_share_a_bounded_answer(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as pods:
        contents = await write_many(pods, 60, 60_000)
        await pods[1].transfer.wait_copies(contents, 2, 30)
        batches = [body for body in asked(pods[0].mesh.network) if isinstance(body[0], list)]
        assert 3 < len(batches) < 30
        assert all(len(body[0]) * 60_000 <= MAX_BYTES for body in batches)


async def test_a_pod_that_does_not_know_batches_is_asked_one_by_one(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as pods:
        modern = pods[0].mesh.handlers[Tag.CHUNK_GET]

        async def old(sender: Any, body: Any) -> object:
            if isinstance(body[0], list):
                raise DamagedError("A pod sent a request for a chunk that can't be read.")
            return await modern(sender, body)

        pods[0].mesh.handlers[Tag.CHUNK_GET] = old
        contents = await write_many(pods)
        await pods[1].transfer.wait_copies(contents, 2, 60)
        assert sum(isinstance(body[0], list) for body in asked(pods[0].mesh.network)) <= 2


@pytest.mark.parametrize("fault", ["lies", "holes", "short", "nonsense", "error"])
async def test_what_a_batch_does_not_bring_comes_alone(tmp_path: Path, fault: str) -> None:
    async with cluster(tmp_path, 2) as pods:
        honest = pods[0].mesh.handlers[Tag.CHUNK_GET]

        async def handle(sender: Any, body: Any) -> object:
            answer: Any = await honest(sender, body)
            if not isinstance(body[0], list):
                return answer
            match fault:
                case "lies":
                    return [data[:-1] + b"?" if number % 2 else data for number, data in enumerate(answer)]
                case "holes":
                    return [None if number % 2 else data for number, data in enumerate(answer)]
                case "short":
                    return answer[:1]
                case "nonsense":
                    return [*answer, *answer, 5]
            raise WormholeError("no")

        pods[0].mesh.handlers[Tag.CHUNK_GET] = handle
        contents = await write_many(pods)
        await pods[1].transfer.wait_copies(contents, 2, 100)
        assert {content.hex() for content in contents} <= pods[1].kept()


@pytest.mark.parametrize(
    "body",
    [[[], 10], [[bytes(32)] * (MAX_PIECES + 1), 10], [[bytes(31)], 10], [["x" * 32], 10], [[bytes(32)], MAX_BYTES + 1]],
)
async def test_an_unreadable_request_is_refused(tmp_path: Path, body: object) -> None:
    async with cluster(tmp_path, 1) as [pod]:
        with pytest.raises(DamagedError):
            await pod.mesh.handlers[Tag.CHUNK_GET](pod.id, body)


async def test_an_answer_ends_before_it_is_too_long(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as [pod]:
        small, large = [await pod.write(bytes([number]) * size) for number, size in ((1, 400), (2, 2000))]
        handle = pod.mesh.handlers[Tag.CHUNK_GET]
        gone = bytes(32)
        assert await handle(pod.id, [[small, gone, large, small], 1000]) == [b"\1" * 400, None, None, b"\1" * 400]
        assert await handle(pod.id, [[small, small, small], 1000]) == [b"\1" * 400] * 2
        assert await handle(pod.id, [gone, small, 0, 10]) == [400, b"\1" * 10]


async def test_what_is_read_next_comes_in_one_request_and_is_cached_in_one_go(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, network=Network(delay_s=0.01)) as pods:
        rng, (a, b) = random.Random(2), pods
        datas = {await a.write(data): data for data in (rng.randbytes(4096) for _ in range(100))}
        await a.transfer.wait_copies(list(datas), 1, 30)
        a.mesh.network.requests.clear()
        first = next(iter(datas))
        b.transfer.foresee([(content, 4096, a.id) for content in datas])
        assert await b.read(first) == datas[first]  # waits for what is on its way
        for content, data in datas.items():
            assert await b.read(content) == data
        b.transfer.foresee([(content, 4096, a.id) for content in datas])
        assert len(asked(a.mesh.network)) == 1
        await until(lambda: all(b.transfer.local(content) == "cached" for content in datas))
        assert len(asked(a.mesh.network)) == 1
