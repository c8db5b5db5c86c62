"""Pieces that drafts wrote for nothing go; whatever anything else may need stays."""

from __future__ import annotations

import random
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from base.errors import NoSpaceError
from base.ids import ContentId, hash_bytes
from tests.simulation.transfer.local_mesh import until
from tests.simulation.transfer.pods import Pod, cluster
from transfer.api import ContentInfo
from transfer.draft import Draft, Sealed
from transfer.settings import CacheMode, TransferSettings
from transfer.store import Room

MIB = 1 << 20
FILES = TransferSettings(packed_bytes=0)
"""A file each, also for small pieces: what was sealed is on the disk before it is synced."""


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def pieces(pod: Pod) -> set[str]:
    """Return the names of all pieces of a pod, durable or not."""
    return {Path(name).name.partition(".")[0] for name in pod.files()} - {"store"}


def names(*parts: bytes) -> set[str]:
    return {hash_bytes(part).hex() for part in parts}


async def seal(pod: Pod, data: bytes, draft: Draft | None = None) -> tuple[Draft, Sealed]:
    draft = draft or pod.transfer.draft()
    await draft.write(0, data)
    return draft, await draft.seal()


def publish(pod: Pod, sealed: Sealed, copies: int = 1) -> ContentId:
    pod.shelf.add(ContentInfo(sealed.content, sealed.size, pod.id, copies, True, False))
    pod.transfer.published(sealed.content)
    return sealed.content


async def quiet(pod: Pod) -> None:
    """Wait until nothing is left to tidy."""
    await anyio.sleep(1)


async def test_a_draft_that_was_never_sealed_leaves_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as [pod]:
        draft = pod.transfer.draft()
        await draft.write(0, some_bytes(3 * MIB + 5))
        assert len(pieces(pod)) == 3
        draft.discard()
        await until(lambda: not pieces(pod))
        assert pod.transfer.bytes_used() == 0


async def test_what_was_overwritten_before_sealing_goes(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as [pod]:
        first, second = some_bytes(MIB, 1), some_bytes(MIB, 2)
        draft = pod.transfer.draft()
        await draft.write(0, first)
        await draft.write(0, second)
        sealed = await draft.seal()
        await until(lambda: pieces(pod) == names(second))
        publish(pod, sealed)
        draft.discard()
        await quiet(pod)
        assert pieces(pod) == names(second)


async def test_a_full_store_is_empty_again_after_a_failed_import(tmp_path: Path) -> None:
    settings = TransferSettings(room=Room(limit_bytes=8 * MIB), packed_bytes=0)
    async with cluster(tmp_path, 1, settings=settings) as [pod]:
        draft, sealed = await seal(pod, some_bytes(5 * MIB))
        draft.discard()
        second = pod.transfer.draft()
        with pytest.raises(NoSpaceError):
            await seal(pod, some_bytes(5 * MIB, 2), second)
        second.discard()
        await quiet(pod)
        assert len(pieces(pod)) == 6  # the first may still be published
        pod.transfer.abandon(sealed.content)
        await until(lambda: not pieces(pod))
        await pod.write(some_bytes(7 * MIB, 3))


@pytest.mark.parametrize("ending", ["published", "held", "in the tree", "journalled"])
async def test_an_abandoned_content_that_is_needed_all_the_same_stays(tmp_path: Path, ending: str) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        draft, sealed = await seal(pod, some_bytes(2 * MIB))
        before = pieces(pod)
        match ending:
            case "published":
                publish(pod, sealed)
            case "held":
                publish(pod, sealed)
                await until(lambda: pod.transfer.local(sealed.content) == "kept")
                del pod.shelf.infos[sealed.content]
                again, _ = await seal(pod, some_bytes(2 * MIB))
                again.discard()
            case "in the tree":
                pod.shelf.add(ContentInfo(sealed.content, sealed.size, pod.id, 1, True, False))
            case "journalled":
                pod.shelf.journal[sealed.content] = sealed.size
        draft.discard()
        pod.transfer.abandon(sealed.content)
        await quiet(pod)
        assert pieces(pod) == before
        assert len(before) == 3


async def test_superseded_seals_of_an_open_file_go_but_not_the_journalled_one(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as [pod]:
        draft = pod.transfer.draft()
        versions = [some_bytes(MIB - 1, seed) for seed in range(5)]
        for version in versions:
            _, sealed = await seal(pod, version, draft)
            if version is versions[2]:
                pod.shelf.journal[sealed.content] = sealed.size
        await until(lambda: pieces(pod) == names(versions[2], versions[4]))
        pod.shelf.journal.clear()
        await seal(pod, versions[0], draft)
        await until(lambda: pieces(pod) == names(versions[0]))
        draft.discard()


async def test_a_seal_stays_while_somebody_may_be_about_to_publish_it(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        draft, first = await seal(pod, b"first")
        claims = pod.transfer._access.claims
        with claims.syncing():
            await seal(pod, b"second", draft)
            await quiet(pod)
            assert names(b"first") <= pieces(pod)
        for _ in range(17):
            await checkpoint()
        publish(pod, first)
        await quiet(pod)
        assert names(b"first", b"second") <= pieces(pod)
        draft.discard()


async def test_nothing_goes_before_the_journal_without_it_is_on_the_disk(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        pod.shelf.durable = anyio.Event()
        draft, _ = await seal(pod, b"first")
        await seal(pod, b"second", draft)
        await quiet(pod)
        assert pieces(pod) == names(b"first", b"second")
        pod.shelf.durable.set()
        await until(lambda: pieces(pod) == names(b"second"))
        draft.discard()


async def test_the_same_bytes_in_two_drafts_go_with_the_last(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        shared = some_bytes(MIB)
        one, two = pod.transfer.draft(), pod.transfer.draft()
        await one.write(0, shared + b"1")
        await two.write(0, shared + b"2")
        one.discard()
        await quiet(pod)
        assert pieces(pod) == names(shared)
        sealed = await two.seal()
        two.discard()
        await quiet(pod)
        assert names(shared, b"2") <= pieces(pod)
        pod.transfer.abandon(sealed.content)
        await until(lambda: not pieces(pod))


async def test_bytes_that_a_published_content_has_stay_when_another_draft_with_them_goes(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as [pod]:
        shared = some_bytes(MIB)
        one, sealed = await seal(pod, shared + b"1")
        two = pod.transfer.draft()
        await two.write(0, shared)
        publish(pod, sealed)
        one.discard()
        two.discard()
        third = pod.transfer.draft()
        await third.write(0, shared)
        third.discard()
        await quiet(pod)
        assert names(shared, b"1") <= pieces(pod)


@pytest.mark.parametrize("mode", ["kept", "cached"])
async def test_what_came_from_a_peer_stays_when_a_draft_with_the_same_bytes_goes(tmp_path: Path, mode: str) -> None:
    settings = TransferSettings(cache_mode=CacheMode.COPY)
    async with cluster(tmp_path, 2, settings=settings) as pods:
        shared = some_bytes(MIB)
        data = shared + some_bytes(MIB, 2)
        draft = pods[1].transfer.draft()
        await draft.write(0, shared)
        assert names(shared) <= pieces(pods[1])
        content = await pods[0].write(data, copies=2 if mode == "kept" else 1)
        if mode == "cached":
            await pods[1].read(content)
        await until(lambda: pods[1].transfer.local(content) == mode)
        draft.discard()
        await quiet(pods[1])
        pods[0].mesh.network.set_up(pods[0].id, False)
        assert await pods[1].read(content) == data


async def test_what_a_reader_shows_stays(tmp_path: Path) -> None:
    settings = TransferSettings(cache_mode=CacheMode.STREAM, memory_bytes=0)
    async with cluster(tmp_path, 2, settings=settings) as pods:
        shared = some_bytes(MIB)
        data = shared + some_bytes(MIB, 2)
        draft = pods[1].transfer.draft()
        await draft.write(0, shared)
        content = await pods[0].write(data)
        reader = pods[1].transfer.open(content, len(data), pods[0].id)
        assert await reader.read(0, 10) == data[:10]
        draft.discard()
        await quiet(pods[1])
        pods[0].mesh.network.set_up(pods[0].id, False)
        assert reader.read_now(0, MIB) == shared
        reader.close()


async def test_a_draft_goes_on_after_its_first_content_was_published(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as [pod]:
        first, last = some_bytes(3 * MIB), some_bytes(MIB, 2)
        draft, sealed = await seal(pod, first)
        one = publish(pod, sealed)
        await draft.write(2 * MIB, last)
        two = publish(pod, await draft.seal())
        draft.discard()
        await quiet(pod)
        assert await pod.read(one) == first
        assert await pod.read(two) == first[: 2 * MIB] + last


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_what_is_published_can_be_read_and_nothing_else_stays(tmp_path: Path, seed: int) -> None:
    """Drafts over few different chunks, so that they share most; each is published, abandoned, or sealed again."""
    rng = random.Random(seed)
    chunks = [some_bytes(MIB, number) for number in range(4)]
    async with cluster(tmp_path, 1) as [pod]:
        published: dict[ContentId, bytes] = {}
        drafts: list[tuple[Draft, bytes]] = []
        for _ in range(60):
            if len(drafts) < 3:
                drafts.append((pod.transfer.draft(), b""))
            index = rng.randrange(len(drafts))
            draft, _ = drafts[index]
            data = b"".join(rng.choices(chunks, k=rng.randint(1, 3))) + rng.randbytes(rng.choice([0, 3]))
            await draft.truncate(0)
            await draft.write(0, data)
            what = rng.choice(["write", "seal", "publish", "discard", "abandon", "wait"])
            if what in {"seal", "publish", "abandon"}:
                sealed = await draft.seal()
                if what == "publish":
                    await pod.transfer.sync()
                    published[publish(pod, sealed)] = data
            if what in {"discard", "abandon"}:
                del drafts[index]
                draft.discard(abandon=True)
            if what == "wait":
                await anyio.sleep(rng.choice([0.01, 0.1, 1]))
        for draft, _ in drafts:
            await draft.seal()
            draft.discard(abandon=True)
        await quiet(pod)
        for content, data in published.items():
            assert await pod.read(content) == data
        assert pod.transfer._store.listed == 0
        for name in pieces(pod):
            assert bytes.fromhex(name) in published or any(
                hash_bytes(data[at : at + MIB]).hex() == name
                for data in published.values()
                for at in range(0, len(data), MIB)
            )
