"""What nothing refers to any more is freed; what anything needs stays, whenever it begins to need it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path

import anyio
import pytest

from base.errors import NoSpaceError
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, hash_bytes
from tests.simulation.transfer.local_mesh import Network, until
from tests.simulation.transfer.pods import Pod, cluster
from transfer.api import ContentInfo
from transfer.ledger import Owner
from transfer.settings import TransferSettings
from transfer.store import Room

MIB = 1 << 20
FILES = TransferSettings(packed_bytes=0)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, object]]:
    import trio.testing

    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def some_bytes(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def names(*parts: bytes) -> set[str]:
    return {hash_bytes(part).hex() for part in parts}


def forget(pod: Pod, *contents: ContentId, successors: tuple[ContentId, ...] = ()) -> None:
    """Nothing refers to contents any more."""
    for content in contents:
        del pod.shelf.infos[content]
    pod.transfer.noticed([*contents, *successors])


async def kept(pod: Pod, *contents: ContentId) -> None:
    await until(lambda: all(pod.transfer.local(content) == "kept" for content in contents))


async def test_what_nothing_refers_to_goes(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        content = await pod.write(some_bytes(3 * MIB + 5))
        await kept(pod, content)
        assert len(pod.kept()) == 5
        forget(pod, content)
        assert await pod.transfer.free() > 3 * MIB
        assert pod.kept() == set()
        assert pod.transfer.bytes_used() == 0
        assert not pod.transfer.waits(content)


async def test_it_goes_by_itself(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1) as [pod]:
        content = await pod.write(some_bytes(1000))
        await kept(pod, content)
        forget(pod, content)
        await until(lambda: pod.kept() == set(), 600)


async def test_what_was_forgotten_before_the_last_end_goes_too(tmp_path: Path) -> None:
    network = Network()
    async with cluster(tmp_path, 1, settings=FILES, network=network) as [pod]:
        content = await pod.write(some_bytes(2 * MIB))
        await kept(pod, content)
    async with cluster(tmp_path, 1, settings=FILES) as [again]:
        assert len(again.kept()) == 3
        await until(lambda: again.kept() == set(), 600)


@pytest.mark.parametrize("left", [0, 7, 20])
async def test_after_a_start_only_what_may_have_been_forgotten_is_asked_about(
    tmp_path: Path, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transfer.releasing.PAGE", 3)
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        contents = [await pod.write(some_bytes(100, number)) for number in range(20)]
        await kept(pod, *contents)
        infos = {content: pod.shelf.infos[content] for content in contents[:left]}
    async with cluster(tmp_path, 1, settings=FILES, fill=lambda shelf: shelf.infos.update(infos)) as [again]:
        asked: set[ContentId] = set()

        def refers(content: ContentId) -> bool:
            asked.add(content)
            return content in infos

        again.shelf.refers = refers  # type: ignore[method-assign]
        await again.transfer.free()
        assert asked - {EMPTY_CONTENT} == set(contents[left:])
        assert again.kept() == {content.hex() for content in infos}


async def test_shared_chunks_stay(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        shared, one, two = (some_bytes(MIB, seed) for seed in (1, 2, 3))
        first, second = await pod.write(shared + one), await pod.write(shared + two)
        single = await pod.write(one)
        await kept(pod, first, second, single)
        forget(pod, first)
        await pod.transfer.free()
        assert pod.kept() == {*names(shared, one, two), second.hex()}
        assert await pod.read(second) == shared + two
        assert await pod.read(single) == one


async def test_what_is_open_stays_until_it_is_closed(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        data = some_bytes(2 * MIB)
        content = await pod.write(data)
        await kept(pod, content)
        info = pod.shelf.infos[content]
        draft = pod.transfer.draft(content, info.size, pod.id)
        forget(pod, content)
        assert await pod.transfer.free() == 0
        assert pod.transfer.waits(content)
        await draft.write(0, b"new")
        sealed = await draft.seal()
        pod.shelf.add(ContentInfo(sealed.content, sealed.size, pod.id, 1, True, False))
        draft.discard()
        pod.transfer.published(sealed.content)
        await pod.transfer.free()
        assert await draft_of(pod, sealed.content, info.size) == b"new" + data[3:]
        assert content.hex() not in pod.kept()


async def draft_of(pod: Pod, content: ContentId, size: int) -> bytes:
    reader = pod.transfer.open(content, size, pod.id)
    try:
        return await reader.read(0, size)
    finally:
        reader.close()


async def test_what_is_read_just_now_stays_readable(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        data = some_bytes(3 * MIB)
        content = await pod.write(data)
        await kept(pod, content)
        reader = pod.transfer.open(content, len(data), pod.id)
        assert await reader.read(0, 10) == data[:10]
        forget(pod, content)
        await pod.transfer.free()
        assert await reader.read(0, len(data)) == data
        reader.close()


async def test_what_is_journalled_stays(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        content = await pod.write(some_bytes(2 * MIB))
        await kept(pod, content)
        pod.shelf.journal[content] = 2 * MIB
        forget(pod, content)
        assert await pod.transfer.free() == 0
        pod.shelf.journal.clear()
        assert await pod.transfer.free() > 0


async def test_nothing_goes_before_it_is_durable_that_nothing_refers_to_it(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        content = await pod.write(some_bytes(2 * MIB))
        await kept(pod, content)
        pod.shelf.durable = anyio.Event()
        forget(pod, content)
        with anyio.move_on_after(100):
            await pod.transfer.free()
        assert len(pod.kept()) == 3
        pod.shelf.durable.set()
        await until(lambda: pod.kept() == set(), 600)


async def test_what_may_not_be_freed_yet_waits(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        content = await pod.write(some_bytes(2 * MIB))
        await kept(pod, content)
        asked: list[ContentId] = []
        releasing = pod.transfer.releasing
        assert releasing is not None

        def not_yet(one: ContentId) -> bool:
            asked.append(one)
            return False

        releasing.may_free = not_yet
        forget(pod, content)
        assert await pod.transfer.free() == 0
        assert asked == [content]
        assert pod.transfer.waits(content)
        releasing.may_free = lambda _: True
        await until(lambda: pod.kept() == set(), 600)


async def test_what_was_overwritten_waits_for_the_copies_of_its_successor(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES) as pods:
        pod, other = pods
        first = await pod.write(some_bytes(2 * MIB, 1))
        await kept(pod, first)
        pod.mesh.network.set_up(other.id, False)
        second = await pod.write(some_bytes(2 * MIB, 2), copies=2)
        await kept(pod, second)
        forget(pod, first, successors=(second,))
        assert await pod.transfer.free() == 0
        pod.mesh.network.set_up(other.id, True)
        other.transfer.noticed([second])
        await kept(other, second)
        await until(lambda: first.hex() not in pod.kept(), 600)


async def test_what_is_referred_to_again_stays(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        content = await pod.write(some_bytes(2 * MIB))
        await kept(pod, content)
        info = pod.shelf.infos[content]
        forget(pod, content)
        pod.shelf.infos[content] = info
        assert await pod.transfer.free() == 0
        assert not pod.transfer.waits(content)
        assert pod.transfer.local(content) == "kept"


def once_the_tree_was_looked_at(pod: Pod, happens: Callable[[], Awaitable[None]]) -> None:
    """Have something happen in each round of freeing, at the worst moment."""
    releasing = pod.transfer.releasing
    assert releasing is not None
    looked = releasing._needed_by_tree

    async def meanwhile(*args: object) -> object:
        found = await looked(*args)  # type: ignore[arg-type]
        await happens()
        return found

    releasing._needed_by_tree = meanwhile  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("size", [1000, 2 * MIB])
async def test_what_is_referred_to_again_while_it_is_freed_stays(tmp_path: Path, size: int) -> None:
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        data = some_bytes(size)
        content = await pod.write(data)
        await kept(pod, content)
        info = pod.shelf.infos[content]

        async def referred_to_again() -> None:
            pod.shelf.infos[content] = info
            pod.transfer.noticed([content])

        once_the_tree_was_looked_at(pod, referred_to_again)
        forget(pod, content)
        await pod.transfer.free()
        assert await pod.read(content) == data
        await kept(pod, content)


async def test_what_is_referred_to_again_between_two_looks_is_said_to_be_kept_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is due is looked at in slices: what was found free in one may be in use when the last one is done."""
    monkeypatch.setattr("transfer.releasing.SLICE", 1)
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        contents = [await pod.write(some_bytes(1000, seed)) for seed in range(8)]
        await kept(pod, *contents)
        infos = dict(pod.shelf.infos)
        releasing = pod.transfer.releasing
        assert releasing is not None
        asked: list[ContentId] = []

        def may_free(content: ContentId) -> bool:
            asked.append(content)
            if len(asked) == len(contents):  # the last slice
                pod.shelf.infos[asked[0]] = infos[asked[0]]
                pod.transfer.noticed([asked[0]])
            return True

        releasing.may_free = may_free
        forget(pod, *contents)
        given_up: list[ContentId] = []
        give_up = releasing._give_up

        async def noted(free: Collection[ContentId], owner: Owner) -> set[ChunkId]:
            given_up.extend(free)
            return await give_up(free, owner)

        releasing._give_up = noted  # type: ignore[method-assign, assignment]
        await pod.transfer.free()
        assert set(given_up) == set(asked[1:]), "nobody is told that the first one is gone"
        assert pod.transfer.local(asked[0]) == "kept"


async def test_what_comes_from_another_pod_while_something_is_freed_is_whole(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES) as [writer, keeper]:
        shared, one, two = (some_bytes(MIB, seed) for seed in (1, 2, 3))
        old = await writer.write(shared + one, copies=2)
        await kept(keeper, old)
        new: list[ContentId] = []

        async def comes() -> None:
            new.append(await writer.write(shared + two, copies=2))
            await kept(keeper, *new)

        once_the_tree_was_looked_at(keeper, comes)
        forget(keeper, old)
        await keeper.transfer.free()
        assert new
        assert names(shared, two) <= keeper.kept()
        assert names(one).isdisjoint(keeper.kept())


def has_much_to_do(pod: Pod) -> None:
    """Let what this pod is to keep wait for its turn for ever."""
    pod.transfer._surveying.on_work = lambda _content, _what: None


async def test_what_is_published_while_something_is_freed_is_whole(tmp_path: Path) -> None:
    """A new file is told to nobody but `published`, and is noted as held much later where there is much to do."""
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        shared, one, two = (some_bytes(MIB, seed) for seed in (1, 2, 3))
        old = await pod.write(shared + one)
        await kept(pod, old)
        has_much_to_do(pod)
        draft = pod.transfer.draft()
        await draft.write(0, shared + two)
        sealed = await draft.seal()
        await pod.transfer.sync()

        async def published() -> None:
            pod.shelf.add(ContentInfo(sealed.content, sealed.size, pod.id, 1, True, False))
            pod.transfer.published(sealed.content)
            draft.discard()

        once_the_tree_was_looked_at(pod, published)
        forget(pod, old)
        assert await pod.transfer.free() > 0
        assert await pod.read(sealed.content) == shared + two
        assert pod.kept() == {*names(shared, two), sealed.content.hex()}


async def test_what_was_published_stays_whole_when_something_like_it_is_dropped(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES) as [other, pod]:
        shared, one, two = (some_bytes(MIB, seed) for seed in (1, 2, 3))
        old = await other.write(shared + one, copies=2)
        await kept(pod, old)
        has_much_to_do(pod)
        new = await pod.write(shared + two)
        assert pod.transfer.local(new) != "kept"
        assert pod.transfer.releasing is not None
        await pod.transfer.releasing.drop([old])
        assert pod.kept() == {*names(shared, two), new.hex()}


async def test_what_a_client_wrote_is_whole_though_something_like_it_is_freed(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES) as [client, pod]:
        shared, one, two = (some_bytes(MIB, seed) for seed in (1, 2, 3))
        old = await pod.write(shared + one)
        await kept(pod, old)
        draft = client.transfer.draft()
        await draft.write(0, shared + two)
        sealed = await draft.seal()
        sync = pod.transfer._store.sync

        async def slow_sync() -> None:
            forget(pod, old)
            pod.transfer._store.sync = sync  # type: ignore[method-assign]
            assert await pod.transfer.free() > 0
            await sync()

        pod.transfer._store.sync = slow_sync  # type: ignore[method-assign]
        await pod.transfer.take(sealed.content, sealed.size, client.id)
        pod.shelf.add(ContentInfo(sealed.content, sealed.size, pod.id, 1, True, False))
        pod.transfer.published(sealed.content)
        assert pod.kept() == {*names(shared, two), sealed.content.hex()}
        draft.discard()


@pytest.mark.parametrize("is_dropped", [False, True])
async def test_contents_of_one_chunk_are_not_looked_through(tmp_path: Path, is_dropped: bool) -> None:
    """A round would take seconds with a million files; and one of them may be a chunk of what goes."""
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        one, two, three = (some_bytes(MIB, seed) for seed in (1, 2, 3))
        content, like_it, same = await pod.write(one + two + three), await pod.write(one + three), await pod.write(two)
        await kept(pod, content, like_it, same, *[await pod.write(some_bytes(9, seed)) for seed in range(9)])
        await pod.transfer.free()  # it looks at everything once
        asked = 0
        page = pod.shelf.page

        def counted(after: ContentId | None, limit: int) -> Sequence[ContentInfo]:
            nonlocal asked
            asked += 1
            return page(after, limit)

        pod.shelf.page = counted  # type: ignore[method-assign]
        if is_dropped:
            assert pod.transfer.releasing is not None
            await pod.transfer.releasing.drop([content])
        else:
            forget(pod, content)
            await pod.transfer.free()
        assert not asked
        assert content.hex() not in pod.kept()
        assert names(one, two, three) | {like_it.hex(), same.hex()} <= pod.kept()


@pytest.mark.parametrize("size", [1000, 4 * MIB + 5])
@pytest.mark.parametrize("ending", ["it comes", "its holder goes away"])
async def test_what_loses_its_last_reference_while_it_is_fetched_goes(tmp_path: Path, size: int, ending: str) -> None:
    """Whatever has come of it by then, and whether or not the rest does."""
    network = Network(delay_s=0.5)
    async with cluster(tmp_path, 2, settings=FILES, network=network) as [writer, keeper]:
        network.upload_bytes_per_s[writer.id] = MIB
        content = await writer.write(some_bytes(size), copies=2)
        await until(lambda: content in keeper.transfer._replication.is_busy())
        if size > MIB:
            await until(lambda: len(keeper.files()) > 2)
        del keeper.shelf.infos[content]
        for pod in (writer, keeper):
            pod.transfer.noticed([content])
        await keeper.transfer.free()
        assert content in keeper.transfer._replication.is_busy()
        assert keeper.transfer.waits(content)
        if ending == "it comes":
            await until(lambda: keeper.transfer.local(content) == "kept")
        else:
            network.set_up(writer.id, False)
        await until(lambda: not keeper.transfer.waits(content), 600)
        assert keeper.kept() == set()
        assert keeper.transfer.local(content) == "none"


async def test_what_came_of_a_content_goes_when_it_loses_its_last_reference_later(tmp_path: Path) -> None:
    network = Network(delay_s=0.5)
    async with cluster(tmp_path, 2, settings=FILES, network=network) as [writer, keeper]:
        network.upload_bytes_per_s[writer.id] = MIB
        content = await writer.write(some_bytes(12 * MIB), copies=2)
        await until(lambda: len(keeper.files()) > 2)
        network.set_up(writer.id, False)
        await until(lambda: content not in keeper.transfer._replication.is_busy())
        assert keeper.transfer.local(content) == "partial"
        forget(keeper, content)
        await keeper.transfer.free()
        assert keeper.kept() == set()


async def test_what_came_of_a_content_goes_though_the_pod_is_stopped_meanwhile(tmp_path: Path) -> None:
    network = Network(delay_s=0.5)
    async with cluster(tmp_path, 2, settings=FILES, network=network) as [writer, keeper]:
        network.upload_bytes_per_s[writer.id] = MIB
        content = await writer.write(some_bytes(12 * MIB), copies=2)
        await until(lambda: len(keeper.files()) > 2)
        forget(keeper, content)
        await keeper.transfer.free()
    async with cluster(tmp_path, 2, settings=FILES) as [_, again]:
        assert again.kept() == set()


async def test_cached_copies_go_as_well(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, settings=FILES) as [writer, reader]:
        content = await writer.write(some_bytes(100))
        await kept(writer, content)
        await reader.read(content)
        await until(lambda: reader.transfer.local(content) == "cached")
        forget(reader, content)
        await reader.transfer.free()
        assert {name for name in reader.files() if "cache" in name} == set()


async def test_room_is_looked_for_before_a_write_fails(tmp_path: Path) -> None:
    settings = TransferSettings(room=Room(limit_bytes=8 * MIB), packed_bytes=0)
    async with cluster(tmp_path, 1, settings=settings) as [pod]:
        old = await pod.write(some_bytes(5 * MIB))
        await kept(pod, old)
        asked = 0

        async def find_room() -> bool:
            nonlocal asked
            asked += 1
            if old in pod.shelf.infos:
                forget(pod, old)
            return await pod.transfer.free() > 0

        pod.transfer.on_full(find_room, lambda _: find_room(), list)
        new = await pod.write(some_bytes(6 * MIB, 2))
        await kept(pod, new)
        assert asked
        assert pod.transfer.bytes_used() < 7 * MIB
        with pytest.raises(NoSpaceError):
            await pod.write(some_bytes(3 * MIB, 3))


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_shares_pieces_exactly_those_of_no_use_go(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with cluster(tmp_path, 1, settings=FILES) as [pod]:
        parts = [some_bytes(MIB, number) for number in range(5)]
        contents: dict[ContentId, set[str]] = {}
        for _ in range(14):
            chosen = [rng.choice(parts) for _ in range(rng.choice((1, 1, 2, 3)))]
            content = await pod.write(b"".join(chosen))
            contents[content] = {*names(*chosen), content.hex()}
        await kept(pod, *contents)
        has_much_to_do(pod)
        releasing = pod.transfer.releasing
        assert releasing is not None
        dropped: dict[ContentId, set[str]] = {}
        while contents:
            gone = rng.sample(sorted(contents), min(len(contents), rng.randrange(1, 5)))
            if rng.random() < 0.5:
                await releasing.drop(gone)
                dropped |= {content: contents[content] for content in gone}
            else:
                forget(pod, *gone)
                await pod.transfer.free()
            for content in gone:
                del contents[content]
            needed = set[str]().union(*contents.values())
            # what a content of the tree is in one piece stays when something else goes that consists of it
            assert needed <= pod.kept() <= needed | {content.hex() for content in dropped}
        forget(pod, *dropped)
        await pod.transfer.free()
        assert pod.kept() == set()
