"""Its writer sends a new content once, nobody sends it to many; a parent that gets nowhere is not waited for long."""

from __future__ import annotations

import random
import time
from pathlib import Path

import anyio
import pytest

from base.ids import ChunkId, ContentId, PodId, hash_bytes
from tests.simulation.transfer.local_mesh import Network, until
from tests.simulation.transfer.pods import cluster
from transfer.fanning import PATIENCE_S, Fanning, plan
from transfer.settings import TransferSettings

MIB = 1 << 20
SETTINGS = TransferSettings(packed_bytes=0)
ROOT = PodId("0" * 32)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.mark.parametrize("fan_out", [1, 2, 3, 8])
@pytest.mark.parametrize("targets", [2, 3, 6, 20])
def test_everybody_gets_every_piece_once_and_from_one_who_has_it(fan_out: int, targets: int) -> None:
    pods = [PodId(f"{number:032x}") for number in range(1, targets + 1)]
    pieces = [ChunkId(hash_bytes(b"%d" % number)) for number in range(200)]
    for seed in range(20):
        content = ContentId(hash_bytes(b"content %d" % seed))
        plans = {pod: plan(content, pod, ROOT, [*pods, ROOT], fan_out, 0.0) for pod in pods}
        children: dict[PodId, set[PodId]] = {}
        sent: dict[PodId, int] = {}
        for pod, found in plans.items():
            assert found is not None
            for piece in pieces:
                source, chain = found.source(piece), [pod]
                children.setdefault(source, set()).add(pod)
                sent[source] = sent.get(source, 0) + 1
                while source != ROOT:
                    assert source not in chain, "nobody waits for itself"
                    chain.append(source)
                    source = plans[source].source(piece)  # type: ignore[union-attr]
        assert sent[ROOT] == len(pieces)
        assert all(count <= max(fan_out, 1) * len(pieces) for pod, count in sent.items() if pod != ROOT)
        assert all(len(those) <= fan_out for pod, those in children.items() if pod != ROOT)
        assert len(children[ROOT]) <= 2


def test_nobody_plans_for_one_target_or_for_others() -> None:
    content, pods = ContentId(hash_bytes(b"x")), [PodId(letter * 32) for letter in "abc"]
    assert plan(content, pods[0], ROOT, [ROOT, pods[0]], 2, 0.0) is None
    assert plan(content, pods[2], ROOT, [ROOT, *pods[:2]], 2, 0.0) is None


def test_patience_ends_and_stays_ended() -> None:
    fanning, content = Fanning(), ContentId(hash_bytes(b"x"))
    pods = [PodId(letter * 32) for letter in "abc"]
    found = next(one for pod in pods if (one := plan(content, pod, ROOT, pods, 2, 0.0)) and pod not in one.pair)
    fanning.begin(content, found)
    piece = ChunkId(content)
    assert not fanning.gets_on(content, 0.0)
    assert fanning.source(content, piece, 2.0) == found.parent
    fanning.progressed(content, 2.0)
    assert fanning.gets_on(content, 3.0)
    assert fanning.source(content, piece, 1.9 + PATIENCE_S) == found.parent
    assert fanning.source(content, piece, 2.0 + PATIENCE_S) is None
    fanning.progressed(content, 6.0)
    assert fanning.source(content, piece, 6.0) is None
    fanning.end(content)
    assert not fanning.gets_on(content, 6.0)


@pytest.mark.parametrize(("copies", "size"), [(3, 40 * MIB), (3, 20_000), (7, 20 * MIB)])
async def test_a_writer_sends_it_once(tmp_path: Path, copies: int, size: int) -> None:
    network = Network(delay_s=0.001)
    async with cluster(tmp_path, copies, settings=SETTINGS, network=network) as pods:
        for pod in pods:
            network.upload_bytes_per_s[pod.id] = 20e6
        await anyio.sleep(15)
        files = 1 if size > MIB else 100
        before = {pod.id: pod.mesh.sent_bytes for pod in pods}
        contents = [
            await pods[0].write(random.Random(number).randbytes(size), copies=copies, born_s=time.time())
            for number in range(files)
        ]
        await until(lambda: all(pod.transfer.local(one) == "kept" for pod in pods for one in contents), 120)
        sent = [(pod.mesh.sent_bytes - before[pod.id]) / (size * files) for pod in pods]
        assert sent[0] <= 1.15
        assert max(sent) <= 2.15
        assert sum(sent) <= 1.1 * (copies - 1) + 0.1


async def test_a_parent_that_takes_nothing_is_not_waited_for_long(tmp_path: Path) -> None:
    network = Network()
    async with cluster(tmp_path, 4, settings=SETTINGS, network=network) as pods:
        await anyio.sleep(15)
        network.silent.add(pods[1].id)
        content = await pods[0].write(random.Random(1).randbytes(8 * MIB), copies=4, born_s=time.time())
        others = [pods[2], pods[3]]
        await until(lambda: all(pod.transfer.local(content) == "kept" for pod in others), 30)
