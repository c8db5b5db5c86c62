"""The log: what is told, in which portions; group commit; segments that let go of their memory."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import anyio
import pytest

from base.errors import MachineError
from crdt_meta.hlc import MAX_CLOCK, HybridClock
from crdt_meta.log import TRANSACTION_BYTES, TRANSACTION_RECORDS
from crdt_meta.segments import Segment, Segments
from crdt_meta.store import FORMAT
from crdt_meta.transaction import Part
from mesh.api import Entry
from tests.unit.crdt_meta.pods import SENDER, Mesh, Pod, content, exchange


def test_reading_goes_by_the_limit_and_gives_at_least_one(ann: Pod) -> None:
    for index in range(5):
        ann.save(f"/{index}", "x")
        ann.tell()
    assert [one.sequence for one in ann.log.read(ann.writer, 0, 1)] == [1]
    assert [one.sequence for one in ann.log.read(ann.writer, 3, 1 << 20)] == [4, 5]
    size = len(ann.log.read(ann.writer, 0, 1)[0].blob)
    assert len(ann.log.read(ann.writer, 0, 3 * size + 20)) == 3
    assert ann.log.read(ann.writer, 5, 1 << 20) == []
    assert ann.log.read(SENDER.encode()[:8], 0, 1 << 20) == []  # type: ignore[arg-type]


def test_receiving_ignores_the_old_and_stops_at_a_gap(ann: Pod, bob: Pod) -> None:
    for index in range(4):
        ann.save(f"/{index}", "x")
        ann.tell()
    one, two, three, four = ann.tell()
    assert bob.hear([two, one, one, four, two]) == [one, two]
    assert bob.hear([one, two, three, four]) == [three, four]
    assert bob.log.vector() == {ann.writer: 4}
    assert bob.log.read(ann.writer, 0, 1 << 20) == [one, two, three, four]


def test_own_entries_from_outside_are_ignored(ann: Pod, bob: Pod) -> None:
    ann.save("/x", "x")
    assert ann.hear(ann.tell()) == []
    bob.hear(ann.tell())
    assert bob.log.vector().keys() == {ann.writer}


def test_many_records_become_several_transactions(ann: Pod, bob: Pod) -> None:
    value = b"v" * 60_000
    for index in range(TRANSACTION_BYTES // len(value) + 10):
        ann.tree.set_xattr(ann.make(f"/{index}").inode, b"user.big", value)
    told = ann.tell()
    assert len(told) == 2
    assert bob.hear(told) == told
    assert bob.tree.xattrs(bob.at("/3").inode) == {b"user.big": value}


def test_a_crowd_of_changes_is_told_in_parts_that_hold_nobody_up(ann: Pod, bob: Pod) -> None:
    for index in range(2 * TRANSACTION_RECORDS):
        ann.make(f"/{index}")
    shown, most = 0, 0
    for entry in ann.tell():
        bob.hear([entry])
        most, shown = max(most, len(bob.ls()) - shown), len(bob.ls())
    assert shown == 2 * TRANSACTION_RECORDS
    assert most <= TRANSACTION_RECORDS


@pytest.mark.anyio
async def test_durable_returns_when_everything_before_it_is_told(ann: Pod) -> None:
    told: list[Entry] = []

    def note(entries: Sequence[Entry]) -> None:
        told.extend(entries)

    committer = ann.meta.committer
    committer.on_durable = note
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            await group.start(committer.run)
            ann.save("/one", "one")
            await committer.durable()
            assert [entry.sequence for entry in told] == [1]
            assert ann.log.vector() == {ann.writer: 1}
            await committer.durable()
            assert len(told) == 1
            group.cancel_scope.cancel()
    ann.save("/two", "two")
    await committer.finish()
    assert [entry.sequence for entry in told] == [1, 2]


@pytest.mark.anyio
async def test_a_change_is_committed_without_anybody_asking(ann: Pod) -> None:
    done = anyio.Event()
    ann.meta.committer.on_durable = lambda entries: done.set()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            await group.start(ann.meta.committer.run)
            ann.save("/one", "one")
            await done.wait()
            group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_long_reception_lets_others_run(ann: Pod, bob: Pod) -> None:
    for index in range(60):
        for number in range(20):
            ann.make(f"/{index}-{number}")
        ann.tell()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(count)
            await bob.log.receive(ann.tell(), SENDER)
            group.cancel_scope.cancel()
    assert turns > 3
    assert len(bob.ls()) == 1200


def test_segments_out_of_use_are_freed(ann: Pod) -> None:
    ann.save("/x", "x")
    ann.tell()
    segments = Segments(ann.log.table.parts)
    held = weakref.ref(segments.get(ann.writer, 0))
    assert held() is not None
    segments.forget(ann.writer, 0)
    assert held() is None


def test_a_segment_tells_what_an_update_changed() -> None:
    one, two = Segment(), Segment()
    assert two.apply(Part(0, 0, one.write({"a": b"1", "b": b"2"}))) == {"a": b"1", "b": b"2"}
    assert two.apply(Part(0, 0, one.write({"a": None, "c": b"3", "never there": None}))) == {"a": None, "c": b"3"}
    assert one.records() == two.records() == Segment([Part(0, 1, one.whole(), whole=True)]).records()


def test_checkpoints_keep_the_write_ahead_log_small(world: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = 1 << 18
    monkeypatch.setattr("crdt_meta.store.CHECKPOINT_BYTES", limit)
    pod, sizes = world.pod("ann"), []
    for index in range(60):
        for number in range(20):
            pod.make(f"/{index}-{number}")
        pod.tell()
        pod.meta.store.sync()
        sizes.append((pod.folder / "metadata.db-wal").stat().st_size)
    assert max(sizes) < 8 * limit


def test_room_that_is_of_no_use_any_more_is_given_back(ann: Pod) -> None:
    store = ann.meta.store
    store.begin()
    store.db.execute("CREATE TABLE bulk (filling)")
    store.db.executemany("INSERT INTO bulk VALUES (?)", [(bytes(2000),)] * 1000)
    store.db.execute("DROP TABLE bulk")
    store.commit()
    (unused,) = store.db.execute("PRAGMA freelist_count").fetchone()
    assert unused > 400
    store.free_pages(60.0)
    store.commit()
    assert store.db.execute("PRAGMA freelist_count").fetchone() == (0,)


def test_a_file_of_a_newer_format_is_left_alone(ann: Pod) -> None:
    ann.meta.store.db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    ann.close()
    with pytest.raises(MachineError, match="newer"):
        ann.mesh.pod("ann")


def test_the_clock_grows_follows_and_refuses_the_absurd() -> None:
    now = 1000.0
    clock = HybridClock(lambda: now)
    first = clock.tick()
    assert clock.tick() == first + 1
    clock.observe(first + 500)
    assert clock.tick() == first + 501
    clock.observe(MAX_CLOCK)
    assert clock.tick() == first + 502
    now = 500.0
    assert clock.tick() == first + 503
    now = 2000.0
    assert clock.tick() > first + (999_000 << 16)


def test_a_relay_passes_on_what_it_heard(ann: Pod, bob: Pod, eve: Pod) -> None:
    ann.save("/x", "x")
    bob.hear(ann.tell())
    eve.hear(bob.log.read(ann.writer, 0, 1 << 20))
    assert eve.files() == {"/x": content("x")}
    exchange(ann, bob, eve)


def test_a_whole_segment_is_no_witness_before_it_is_durable(ann: Pod, bob: Pod) -> None:
    """A crash may take it back: whoever waited for it would wait for ever."""
    ann.save("/x", "x")
    ann.tell()
    ann.save("/x", "y")
    ann.tell()
    ann.log.compact(0)
    assert bob.hear(ann.log.read(ann.writer, 0, 1 << 20)) == []
    bob.hear(ann.tell())
    assert bob.files() == {"/x": content("y")}


def test_a_relay_waits_for_what_says_that_nothing_is_missing(
    ann: Pod, bob: Pod, eve: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bob's last word on what ann dropped is older than what she has dropped since: he can't pass on what is behind it."""
    monkeypatch.setattr("crdt_meta.log.RECORDS_PER_SEGMENT", 1)
    inode = ann.save("/x", "x").inode
    ann.tell()
    ann.tree.set_attributes(inode, mode=0o600)
    ann.tell()
    segment = ann.log.open_segment

    def rewritten() -> None:
        ann.tree.set_attributes(inode, mode=0o640)
        ann.tell()
        ann.tree.set_xattr(inode, b"user.x", b"%d" % ann.log.vector()[ann.writer])
        ann.tell()
        ann.log.compact(segment)

    rewritten()
    for pod in (bob, eve):
        pod.hear(ann.tell())
    here = bob.log.vector()[ann.writer]
    rewritten()
    ann.tell()
    entry, last = ann.log.read(ann.writer, here, 1 << 20)
    assert entry.sequence > here + 1
    assert bob.hear([entry]) == [entry]
    assert bob.log.read(ann.writer, here, 1 << 20) == []
    bob.hear([last])
    assert len(eve.hear(bob.log.read(ann.writer, here, 1 << 20))) == 2
    assert eve.at("/x") == ann.at("/x")
