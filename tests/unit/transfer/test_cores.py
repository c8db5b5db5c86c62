"""Chunking, manifests, holdings, cache policy, replication duty: the pure parts."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import DamagedError, FileSystemError
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, PodId, hash_bytes
from transfer import chunking, manifest
from transfer.api import ContentInfo
from transfer.cache import MemoryCache, ReadCounts, keep_copy
from transfer.holdings import Cursor, Holding, Page, Verdict, answer_from, judge, pack, unpack
from transfer.holdings_db import HoldingsDb
from transfer.offload import Offload
from transfer.replicator import LOOKS, LULL_LIMIT_S, LULL_S, Duty, Lull, Watch, WorkQueue, duty
from transfer.settings import CacheMode, TransferSettings

MIB, GIB = 1 << 20, 1 << 30
ME, YOU = PodId("1" * 32), PodId("2" * 32)


def content(number: int) -> ContentId:
    return ContentId(number.to_bytes(32, "big"))


@given(st.integers(0, chunking.MAX_CONTENT_BYTES))
def test_chunks_cover_a_content_and_are_few(size: int) -> None:
    chunk_bytes = chunking.chunk_bytes_for(size)
    count = chunking.chunk_count(size, chunk_bytes)
    assert count <= chunking.MAX_CHUNKS
    assert chunk_bytes == MIB or chunking.chunk_count(size, chunk_bytes // 2) > chunking.MAX_CHUNKS
    if count:
        last = chunking.chunk_length(count - 1, size, chunk_bytes)
        assert 0 < last <= chunk_bytes
        assert (count - 1) * chunk_bytes + last == size


def test_sizes_at_the_edges() -> None:
    assert chunking.chunk_bytes_for(16 * GIB) == MIB
    assert chunking.chunk_bytes_for(16 * GIB + 1) == 2 * MIB
    with pytest.raises(FileSystemError) as caught:
        chunking.chunk_bytes_for(chunking.MAX_CONTENT_BYTES + 1)
    assert caught.value.errno == errno.EFBIG


@given(st.integers(0, 5 * MIB), st.integers(0, 5 * MIB))
def test_spans_are_the_range(offset: int, length: int) -> None:
    spans = chunking.spans(offset, length, MIB)
    assert sum(stop - start for _, start, stop in spans) == length
    at = offset
    for index, start, stop in spans:
        assert index * MIB + start == at
        assert start < stop <= MIB
        at += stop - start


def test_content_ids() -> None:
    chunk = ChunkId(hash_bytes(b"abc"))
    assert manifest.content_id(0, []) == EMPTY_CONTENT
    assert manifest.content_id(3, [chunk]) == ContentId(chunk)
    assert manifest.content_id(MIB + 1, [chunk, chunk]) == hash_bytes(manifest.encode(MIB + 1, [chunk, chunk]))
    assert manifest.implied(EMPTY_CONTENT, 0) == manifest.Manifest(0, MIB, ())
    assert manifest.implied(content(1), MIB + 1) is None


def test_a_manifest_comes_back_and_anything_else_is_refused() -> None:
    ids = [ChunkId(bytes([number]) * 32) for number in range(3)]
    size = 2 * MIB + 5
    data = manifest.encode(size, ids)
    assert manifest.decode(data, size) == manifest.Manifest(size, MIB, tuple(ids))
    bad: list[bytes] = [
        b"",
        data[:-1],
        data + b"x",
        bytes(manifest.MAX_MANIFEST_BYTES + 1),
        msgpack.packb([2, size, MIB, b"".join(ids)]),
        msgpack.packb([1, size, 2 * MIB, b"".join(ids)]),
        msgpack.packb([1, size, MIB, b"".join(ids[:2])]),
        msgpack.packb([1, MIB, MIB, ids[0]]),
        msgpack.packb([1, -5, MIB, b""]),
        msgpack.packb([1, True, MIB, b""]),
        msgpack.packb({"a": 1}),
        msgpack.packb([[[[[[1]]]]]]),
    ]
    for each in bad:
        with pytest.raises(DamagedError):
            manifest.decode(each)
    with pytest.raises(DamagedError):
        manifest.decode(data, size + 1)


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_manifest_codec(data: bytes) -> None:
    with pytest.raises(DamagedError):
        manifest.decode(data)


def test_pages_are_judged() -> None:
    def page(before: int, upto: int, generation: bytes = b"g" * 8) -> Page:
        return Page(generation, before, upto, False, [])

    known = Cursor(b"g" * 8, 5)
    assert judge(known, page(5, 7)) is Verdict.APPLY
    assert judge(known, page(3, 7)) is Verdict.APPLY
    assert judge(known, page(2, 5)) is Verdict.IGNORE
    assert judge(known, page(6, 7)) is Verdict.ASK
    assert judge(known, page(0, 2, b"h" * 8)) is Verdict.ANEW
    assert judge(known, page(1, 2, b"h" * 8)) is Verdict.ASK
    assert judge(None, page(0, 0)) is Verdict.ANEW
    own = Cursor(b"g" * 8, 9)
    assert answer_from(own, b"g" * 8, 4) == 4
    assert answer_from(own, b"h" * 8, 4) == 0
    assert answer_from(own, b"g" * 8, 10) == 0


def test_pages_come_back_and_nonsense_is_refused() -> None:
    page = Page(b"g" * 8, 1, 3, True, [(content(1), Holding.KEPT), (content(2), Holding.NONE)])
    assert unpack(pack(page)) == page
    for body in (None, [], [b"g", 0, 0, False, []], [b"g" * 8, 3, 1, False, []], [b"g" * 8, 0, 1, False, [[b"x", 1]]]):
        with pytest.raises(DamagedError):
            unpack(body)
    with pytest.raises(DamagedError):
        unpack([b"g" * 8, 0, 1, False, [[content(1), 7]]])


async def test_one_table_followed_by_another(tmp_path: Path) -> None:
    mine, yours = (HoldingsDb(tmp_path / name, Offload()) for name in ("mine.db", "yours.db"))
    await mine.record({content(1): Holding.KEPT, content(2): Holding.CACHED})
    assert await yours.apply(ME, mine.page(0)) is Verdict.ANEW
    assert yours.others(content(1)) == {ME: Holding.KEPT}
    cursor = yours.cursor(ME)
    assert cursor == mine.own_cursor
    await mine.record({content(1): Holding.KEPT})
    assert mine.own_cursor == cursor
    await mine.record({content(1): Holding.NONE})
    await mine.record({content(3): Holding.KEPT})
    assert await yours.apply(ME, mine.page(mine.own_cursor.sequence - 1)) is Verdict.ASK
    assert await yours.apply(ME, mine.page(cursor.sequence)) is Verdict.APPLY
    assert yours.others(content(1)) == {}
    assert yours.others(content(3)) == {ME: Holding.KEPT}
    mine.close(77)
    again = HoldingsDb(tmp_path / "mine.db", Offload())
    assert again.was_clean
    assert again.bytes_used == 77
    assert again.own(content(3)) is Holding.KEPT
    assert again.own_cursor == yours.cursor(ME)
    assert not HoldingsDb(tmp_path / "mine.db", Offload()).was_clean


async def test_a_restored_table_is_followed_from_its_start(tmp_path: Path) -> None:
    """Its numbers were given before, to something else."""
    mine, yours = (HoldingsDb(tmp_path / name, Offload()) for name in ("mine.db", "yours.db"))
    await mine.record({content(1): Holding.KEPT})
    mine.close(0)
    shutil.copy(tmp_path / "mine.db", tmp_path / "backup.db")
    mine = HoldingsDb(tmp_path / "mine.db", Offload())
    await mine.record({content(2): Holding.KEPT})
    await yours.apply(ME, mine.page(0))
    restored = HoldingsDb(tmp_path / "backup.db", Offload())
    await restored.begin_anew()
    await restored.record({content(3): Holding.KEPT})
    known = yours.cursor(ME)
    assert known is not None
    since = answer_from(restored.own_cursor, known.generation, known.sequence)
    assert await yours.apply(ME, restored.page(since)) is Verdict.ANEW
    assert yours.others(content(2)) == {}, "the copy that it had once"
    assert yours.others(content(1)) == yours.others(content(3)) == {ME: Holding.KEPT}
    restored.close(0)
    assert HoldingsDb(tmp_path / "backup.db", Offload()).own_cursor == yours.cursor(ME)


async def test_long_tables_go_in_pages(tmp_path: Path) -> None:
    mine, yours = (HoldingsDb(tmp_path / name, Offload()) for name in ("mine.db", "yours.db"))
    await mine.record({content(number): Holding.KEPT for number in range(4500)})
    pages = 0
    while True:
        known = yours.cursor(ME)
        page = mine.page(known.sequence if known else 0)
        await yours.apply(ME, unpack(pack(page)))
        pages += 1
        if not page.more:
            break
    assert pages == 3
    assert all(yours.others(content(number)) for number in range(4500))


async def test_the_books_of_the_cache(tmp_path: Path) -> None:
    books = HoldingsDb(tmp_path / "books.db", Offload())
    a, b, shared = (ChunkId(bytes([number]) * 32) for number in (1, 2, 3))
    await books.cache_begin({content(1): [a, shared]}, {content(1): 10}, 1.0)
    await books.cache_begin({content(2): [b, shared]}, {content(2): 20}, 2.0)
    assert books.is_in_books(shared)
    assert not books.is_in_books(ChunkId(bytes(32)))
    assert books.cache_bytes() == 30
    await books.cache_used({content(1): 3.0, content(9): 4.0})
    assert books.cache_oldest(5) == [(content(2), 20), (content(1), 10)]
    assert await books.cache_forget(content(2)) == [b]
    assert set(await books.cache_forget(content(1))) == {a, shared}
    assert books.cache_bytes() == 0


def test_cache_policy() -> None:
    def keep(mode: CacheMode, size: int, reads: int, cacheable: bool = True) -> bool:
        settings = TransferSettings(cache_mode=mode, copy_below_bytes=100, copy_after_reads=3, cache_limit_bytes=1000)
        return keep_copy(settings, size, reads, cacheable=cacheable)

    assert not keep(CacheMode.STREAM, 1, 99)
    assert keep(CacheMode.COPY, 1000, 1)
    assert not keep(CacheMode.COPY, 1001, 1)
    assert not keep(CacheMode.COPY, 1, 1, cacheable=False)
    assert keep(CacheMode.AUTO, 99, 1)
    assert [keep(CacheMode.AUTO, 100, reads) for reads in (1, 2, 3)] == [False, False, True]
    counts = ReadCounts()
    assert [counts.count(content(1)), counts.count(content(2)), counts.count(content(1))] == [1, 1, 2]
    memory = MemoryCache(10)
    for number in range(4):
        memory.add(ChunkId(bytes([number])), b"12345")
    assert memory.bytes_used == 10
    assert memory.get(ChunkId(b"\x01")) is None
    memory.add(ChunkId(b"big"), bytes(50))
    assert memory.get(ChunkId(b"big")) is not None
    assert memory.bytes_used == 50


def test_duties() -> None:
    def of(
        *, placed: tuple[PodId, ...] = (), holding: Holding = Holding.NONE, keep: bool = False, published: bool = False,
        author: PodId = YOU, size: int = 5,
    ) -> Duty:  # fmt: skip
        info = ContentInfo(content(1), size, author, 2, True, keep)
        return duty(info, ME, placed, holding, published=published)

    assert of() is Duty.NONE
    assert of(placed=(YOU,)) is Duty.NONE
    assert of(placed=(YOU, ME)) is Duty.FETCH
    assert of(placed=(ME,), holding=Holding.CACHED) is Duty.FETCH
    assert of(placed=(ME,), holding=Holding.KEPT) is Duty.NONE
    assert of(keep=True) is Duty.FETCH
    assert of(published=True) is Duty.FETCH
    assert of(author=ME) is Duty.ADOPT
    assert of(placed=(ME,), size=0) is Duty.NONE


def test_the_queue_retries_with_growing_pauses_and_stays_bounded() -> None:
    queue = WorkQueue()
    queue.add(content(1))
    queue.add(content(1))
    assert queue.take(0.0) == content(1)
    assert queue.take(0.0) is None
    now, pauses = 0.0, []
    for _ in range(9):
        queue.failed(content(1), now)
        at = queue.next_at()
        assert at is not None
        assert queue.take(at - 0.001) is None
        assert queue.take(at) == content(1)
        pauses.append(at - now)
        now = at
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    queue.failed(content(1), now)
    queue.hurry()
    assert queue.take(now) == content(1)
    for number in range(60_000):
        queue.add(content(number))
    assert queue.overflowed
    assert len(queue) == 50_000


def test_what_is_too_much_is_looked_at_ever_more_rarely() -> None:
    watch, one, two = Watch(), ContentId(b"1" * 32), ContentId(b"2" * 32)
    assert [watch.pause_s(one) for _ in range(LOOKS + 1)] == [4, 8, 16, 32, 64, 128, None]
    assert watch.pause_s(two) == 4
    assert [watch.first(1), watch.first(1), watch.first(1)] == [[one], [two], [one]]
    assert watch.first(10) == [two, one]
    watch.forget(one)
    assert watch.first(10) == [two]
    assert watch.pause_s(one) == 4


def test_a_lull_goes_on_while_more_comes_but_not_for_ever() -> None:
    lull = Lull()
    now = 1000.0
    assert lull.until < now
    while now < 1000.0 + LULL_LIMIT_S:
        assert lull.extend(now)
        assert lull.until == now + LULL_S
        now += LULL_S / 2
    ended = lull.until
    while now < 1000.0 + 2 * LULL_LIMIT_S:
        assert not lull.extend(now), "what comes is looked at, for as long"
        now += LULL_S / 2
    assert lull.until == ended
    assert lull.extend(now)
