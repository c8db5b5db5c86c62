"""Stories of who was away, and gets a log with holes."""

from __future__ import annotations

import random
from collections.abc import Callable

import anyio
import pytest
from anyio.lowlevel import checkpoint

from tests.unit.crdt_meta.pods import SENDER, Mesh, Pod
from tests.unit.crdt_meta.town import (
    Town,
    compact,
    sound,
)


class Rewritten:
    """A log of ann's with holes: files were saved, changed and deleted, segments were written anew."""

    def __init__(self, ann: Pod, seed: int, tell: Callable[[], None]) -> None:
        rng = random.Random(seed)
        self.deleted: set[str] = set()
        known = [f"/d/{number}" for number in range(8)]
        ann.mkdir("/d")
        for path in known:
            ann.save(path, "first")
        tell()
        self.stays = set(known[6:])
        for turn in range(30):
            path = rng.choice(known[:6])
            if path in ann.files():
                if rng.random() < 0.3:
                    ann.unlink(path)
                    known.remove(path)
                    known.insert(0, f"/d/again-{turn}")
                    self.deleted.add(path)
                else:
                    ann.save(path, f"turn {turn}")
            else:
                ann.save(path, f"made in turn {turn}")
            ann.save(known[-1], f"turn {turn}")
            ann.tell()
            if turn % 10 == 9:
                compact(ann)
            elif rng.random() < 0.3:
                ann.log.compact(rng.randrange((ann.log.table.last_segment(ann.writer) or 0) + 1))
                ann.tell()


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdt_meta.log.RECORDS_PER_SEGMENT", 4)


def check_page(pod: Pod, log: Rewritten, gone: set[str]) -> None:
    """Nothing that was deleted is shown that wasn't shown before; what nobody deleted is there."""
    shown = pod.files().keys()
    assert not shown & log.deleted & gone, "deleted meanwhile"
    assert log.stays <= shown


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("seed", range(12))
def test_who_was_away_gets_a_log_with_holes_in_pages_of_one_entry(town: Town, ann: Pod, bob: Pod, seed: int) -> None:
    log = Rewritten(ann, seed, town.exchange)
    entries = ann.log.read(ann.writer, bob.log.vector()[ann.writer], 1 << 30)
    numbers = [entry.sequence for entry in entries]
    assert numbers != [*range(bob.log.vector()[ann.writer] + 1, numbers[-1] + 1)], "there are holes"
    rng, gone = random.Random(seed), set[str]()
    before = bob.files()
    while bob.log.vector()[ann.writer] < numbers[-1]:
        entry = rng.choice(entries) if seed % 3 else entries.pop(0)
        bob.hear([entry])
        check_page(bob, log, gone)
        gone |= before.keys() - bob.files().keys()
        before = bob.files()
    assert bob.files() == ann.files()
    sound(bob)
    town.exchange()


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("seed", range(6))
def test_a_new_pod_shows_nothing_deleted_whatever_page_it_has(town: Town, ann: Pod, world: Mesh, seed: int) -> None:
    """Everything was written anew after the deletions: of no deleted file anything is shown, ever."""
    log = Rewritten(ann, seed, town.exchange)
    town.compact()
    town.exchange()
    new = world.pod("new")
    for entry in ann.log.read(ann.writer, 0, 1 << 30):
        new.hear([entry])
        assert not new.files().keys() & log.deleted
        assert not new.trash() or new.log.vector()[ann.writer] == ann.log.vector()[ann.writer]
    assert new.files() == ann.files()
    assert new.trash() == ann.trash()
    sound(new)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("seed", range(6))
def test_a_relay_that_has_only_part_of_it(town: Town, ann: Pod, bob: Pod, eve: Pod, seed: int) -> None:
    """Eve hears ann's log only from bob, who himself gets it in small pages, and is opened anew now and then."""
    log = Rewritten(ann, seed, town.exchange)
    rng = random.Random(seed)
    last = ann.log.vector()[ann.writer]
    while eve.log.vector()[ann.writer] < last:
        here = bob.log.vector()[ann.writer]
        bob.hear(ann.log.read(ann.writer, here, rng.choice((1, 400, 2000))))
        eve.hear(bob.log.read(ann.writer, eve.log.vector()[ann.writer], rng.choice((1, 1 << 20))))
        for pod in (bob, eve):
            assert log.stays <= pod.files().keys()
        if rng.random() < 0.2:
            bob.close()
            bob = town.enter(bob.mesh.pod("bob"))
        if rng.random() < 0.2:
            ann.log.compact(rng.randrange(3))
            ann.tell()
    town.exchange()
    assert eve.files() == bob.files() == ann.files()
    for pod in (bob, eve):
        sound(pod)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("turns", [1, 2, 4, 8, 16])
def test_more_arrives_while_what_is_here_is_shown_for_who_adopts_it(ann: Pod, bob: Pod, turns: int) -> None:
    for number in range(12):
        ann.save(f"/a{number}", f"{number}")
        ann.tell()
    for number in range(4, 12):
        ann.unlink(f"/a{number}")
    last = ann.tell()[-1].sequence
    for number in range(30, 34):
        ann.save(f"/a{number}", f"{number}")
        ann.tell()
    ann.log.compact(1)  # what is told first lacks a part, and waits for this
    entries = ann.tell()
    bob.hear([one for one in entries if one.sequence <= last])
    assert bob.log.table.waits(ann.writer)

    async def arrive() -> None:
        for _ in range(turns):
            await checkpoint()
        await bob.log.receive([one for one in entries if one.sequence > last], SENDER)

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(arrive)
            await bob.log.incoming.show(ann.writer, bob.log.on_delta, bob.log.commit, as_it_is=True)

    anyio.run(run, backend="trio")
    assert bob.files() == ann.files()
    assert not bob.log.table.waits(ann.writer)
