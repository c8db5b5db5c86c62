"""The durability barrier over a real mesh: who is asked, what counts, when it gives up."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import anyio
import pytest

from base.errors import DamagedError, UnreachableError, WormholeError
from base.ids import ContentId, PodId, hash_bytes
from crdt_meta.node import Kind
from mesh.wire import Tag
from operations import barrier as barrier_module
from operations.barrier import CONTENTS_LIMIT, UNDER_WAY_LIMIT, Barrier
from operations.parts import Parts
from policies.config import parse_cluster, parse_pod
from tests.unit.mesh.cluster import failing, until
from tests.unit.operations.pods import Cluster, Pod, cluster

PATIENCE_S = 30.0


def with_barrier(pod: Pod, kind: type[Barrier] = Barrier) -> Barrier:
    parts = SimpleNamespace(
        mesh=pod.mesh,
        transfer=pod.transfer,
        metadata=pod.metadata,
        catalogue=pod.catalogue,
        cluster=parse_cluster("[redundancy]\nacknowledge = 2\n"),
        pod=parse_pod('[network]\ndeadline = "5s"\n', "pod.toml"),
        editor=pod.editor if pod.metadata.log.follows else None,
    )
    return kind(cast(Parts, parts))


async def written(pod: Pod, name: str, data: bytes) -> ContentId:
    """Publish a file on a full pod, durable here."""
    content, size = await pod.store(data)
    node = pod.tree.create(pod.tree.resolve(b"/").inode, name.encode(), Kind.FILE, mode=0o644, uid=1, gid=1)
    pod.tree.publish(node.inode, node.link, content, size, 1, node.shown)
    pod.transfer.published(content)
    await pod.metadata.committer.durable()
    return content


def has(pod: Pod, content: ContentId) -> bool:
    return pod.transfer.local(content) == "kept"


def barriers(made: Cluster) -> list[Barrier]:
    return [with_barrier(pod) for pod in made.pods]


async def test_so_many_pods_have_it_when_it_returns(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop", "nas") as made:
        laptop, desktop, nas = made.pods
        barrier, *_ = barriers(made)
        content = await written(laptop, "a", b"x" * 3_000_000)
        await barrier.keep([content], 3, PATIENCE_S)
        assert has(desktop, content), "more than the two copies wanted"
        assert has(nas, content)
        writer = laptop.metadata.writer
        for pod in (desktop, nas):
            assert pod.metadata.log.vector()[writer] == laptop.metadata.log.vector()[writer]
        await barrier.reached([content])
        await barrier.keep([], 3, PATIENCE_S)


async def test_too_few_pods_are_told_at_once_and_what_is_here_stays(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        barrier, _ = barriers(made)
        content = await written(laptop, "a", b"x")
        began = time.monotonic()
        assert isinstance(await failing(lambda: barrier.keep([content], 3, PATIENCE_S)), UnreachableError)
        assert time.monotonic() - began < PATIENCE_S / 2
        await desktop.kill()
        await until(lambda: not laptop.mesh.alive())
        error = await failing(lambda: barrier.reached([content]))
        assert isinstance(error, UnreachableError)
        assert has(laptop, content)


async def test_another_pod_is_asked_when_one_refuses(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop", "nas") as made:
        laptop, desktop, nas = made.pods
        barrier, *others = barriers(made)
        content = await written(laptop, "a", b"x" * 2_000_000)
        placed = laptop.catalogue.place(laptop.catalogue.info(content))  # type: ignore[arg-type]
        first = desktop if desktop.home.pod in placed else nas
        other = nas if first is desktop else desktop
        for pod, one in zip((desktop, nas), others, strict=True):
            one._under_way = UNDER_WAY_LIMIT * (pod is first)
        await barrier.keep([content], 2, PATIENCE_S)
        assert has(other, content)
        for one in others:
            one._under_way = UNDER_WAY_LIMIT
        assert isinstance(await failing(lambda: barrier.keep([content], 2, PATIENCE_S)), UnreachableError)


class Slow(Barrier):
    """One that stands still when it is asked first."""

    asked = 0

    async def handle(self, sender: PodId, body: object) -> object:
        self.asked += 1
        if self.asked == 1:
            await anyio.sleep_forever()
        return await super().handle(sender, body)


async def test_who_stands_still_for_a_moment_is_asked_again_where_nobody_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barrier_module, "TURN_S", 0.1)
    monkeypatch.setattr(barrier_module, "ANSWER_S", 1.0)
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        barrier, slow = with_barrier(laptop), with_barrier(desktop, Slow)
        content = await written(laptop, "a", b"x")
        await barrier.keep([content], 2, PATIENCE_S)
        assert has(desktop, content)
        assert cast(Slow, slow).asked > 1
        cast(Slow, slow).asked = 0
        assert isinstance(await failing(lambda: barrier.keep([content], 2, 0.5)), UnreachableError)


async def test_a_client_counts_full_pods_only(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        client = await made.client("client")
        *_, barrier = barriers(made)
        node = await client.save("a", b"y" * 2_000_000)
        await barrier.keep([node.content], 2, PATIENCE_S)
        assert has(laptop, node.content)
        assert has(desktop, node.content)
        assert isinstance(await failing(lambda: barrier.keep([node.content], 3, PATIENCE_S)), UnreachableError)


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        [[], [b"short"]],
        [[[b"x", 1]], []],
        [[[b"12345678", -1]], []],
        [[], [bytes(32)] * (CONTENTS_LIMIT + 1)],
    ],
)
async def test_what_is_no_request_is_refused(tmp_path: Path, body: object) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        barriers(made)
        error = await failing(lambda: laptop.mesh.call(desktop.home.pod, Tag.KEEP, body))
        assert isinstance(error, DamagedError)


async def test_a_content_that_nothing_shows_is_kept_by_nobody(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        barriers(made)
        unknown = hash_bytes(b"unknown")
        assert await laptop.mesh.call(desktop.home.pod, Tag.KEEP, [[], [unknown]]) == [True, []]
        client = await made.client("client")
        with_barrier(client)
        error = await failing(lambda: laptop.mesh.call(client.home.pod, Tag.KEEP, [[], []]))
        assert isinstance(error, WormholeError)
