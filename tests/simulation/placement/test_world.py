"""Copies are as many as wanted whenever possible, never none, move little, and come to rest."""

from __future__ import annotations

import pytest

from policies.offering import Wishes
from policies.usage import COLD_AFTER_S, YOUNG_S
from tests.simulation.placement.world import MIB, World


def even_world(seed: int, pods: int, contents: int, copies: int, capacity: int = 1 << 40) -> World:
    world = World(seed)
    disks = [world.add(capacity) for _ in range(pods)]
    for _ in range(contents):
        world.write(world.rng.choice(disks), MIB, copies)
    world.settle()
    world.check()
    return world


@pytest.mark.parametrize(("pods", "copies"), [(3, 1), (3, 2), (3, 3), (10, 3)])
def test_an_empty_pod_takes_its_share_and_hardly_anything_else_moves(pods: int, copies: int) -> None:
    world = even_world(1, pods, 2000, copies)
    newcomer = world.add(1 << 40)
    total = 2000 * copies * MIB
    before = world.moved
    world.settle()
    world.check()
    share = total / (pods + 1)
    assert world.moved - before <= 1.15 * share
    for disk in world.disks.values():
        assert world.used(disk) == pytest.approx(share, rel=0.1), disk is newcomer
    assert sum(map(world.used, world.disks.values())) == total, "what was too much is gone"


def test_what_one_pod_wrote_is_spread_as_well() -> None:
    world = World(2)
    writer, *_ = [world.add(1 << 40) for _ in range(3)]
    for _ in range(2000):
        world.write(writer, MIB, 2)
    world.settle()
    assert world.used(writer) == 2000 * MIB, "with equal wishes the writer keeps the first copy"
    before = world.moved
    world.add(1 << 40)
    world.settle()
    assert world.moved - before <= 1.15 * 1000 * MIB
    assert [world.used(disk) for disk in world.disks.values()] == pytest.approx([1000 * MIB] * 4, rel=0.1)


def test_shares_follow_the_room_that_is_offered() -> None:
    world = even_world(3, 3, 3000, 1)
    world.add(1 << 41)
    world.settle()
    used = [world.used(disk) / MIB for disk in world.disks.values()]
    assert used == pytest.approx([600, 600, 600, 1200], rel=0.1)


def test_one_copy_moves_by_itself_only_to_newcomers() -> None:
    world = World(4)
    writer, *_ = [world.add(1 << 40) for _ in range(5)]
    for _ in range(200):
        world.write(writer, MIB, 1)
    world.settle()
    assert world.moved == 0


def test_a_writer_that_is_full_hands_on_what_it_wrote() -> None:
    world = World(12)
    writer, other, _ = (world.add(size * MIB) for size in (32, 1000, 1000))
    for _ in range(200):
        if world.free(writer) >= MIB:
            world.write(writer, MIB, 1)
        world.tick()
        assert world.used(writer) <= writer.capacity
    world.settle()
    world.check()
    assert len(world.infos) > 150
    assert 16 < len(writer.held) < 32
    assert len(other.held) > 30


@pytest.mark.parametrize("seed", [1])
def test_hundreds_of_pods_with_churn_full_disks_and_refusals(seed: int) -> None:
    world = World(seed)
    disks = [world.add(world.rng.choice([64, 256, 1024]) * MIB) for _ in range(200)]
    rng = world.rng
    for disk in rng.sample(disks, 10):
        disk.refuses = True
    for disk in rng.sample(disks, 15):
        disk.foreign_bytes = disk.capacity - 2 * MIB
    for _ in range(200):
        author = rng.choice(disks)
        if world.free(author) > 4 * MIB:
            world.write(author, rng.randrange(MIB // 2, 3 * MIB), rng.choice([1, 2, 3, 3]))
    world.settle()
    world.check()
    for _ in range(12):
        for disk in rng.sample(disks, 20):  # some go, some come back, some come back after they were given up
            if disk.alive:
                disk.alive = False
            elif rng.random() < 0.5:
                disk.given_up = True
            else:
                disk.alive, disk.given_up = True, False
        if rng.random() < 0.3:
            world.add(512 * MIB)
        victim = rng.choice([one for one in disks if one.alive])
        if all(len(world.holders(content)) > 1 for content in victim.held):
            victim.held.clear()  # its disk died and was replaced
        world.tick()
        assert all(world.holders(content, alive=False) for content in world.infos)
    for disk in disks:
        disk.alive, disk.given_up = True, False
    world.settle()
    world.check()
    for content, info in world.infos.items():
        assert len(world.holders(content)) <= info.copies, "what came back is too much no longer"


def test_fewer_copies_free_room_and_more_are_made_again() -> None:
    world = even_world(5, 8, 300, 3)
    for wanted in (1, 3, 2):
        world.infos = {
            content: type(info)(content, info.size, info.author, wanted, True, False, info.born_s)
            for content, info in world.infos.items()
        }
        world.settle()
        assert all(len(world.holders(content)) == wanted for content in world.infos)


def test_a_leaving_pod_hands_everything_over() -> None:
    world = even_world(6, 6, 300, 2)
    leaving = next(iter(world.disks.values()))
    leaving.is_leaving = True
    world.settle()
    for content in world.infos:
        assert sum(one is not leaving for one in world.holders(content)) >= 2


def test_the_preferred_pod_is_filled_first_and_the_avoided_one_last() -> None:
    world = World(7)
    writer = world.add(1 << 40)
    preferred = world.add(100 * MIB, Wishes(replicas=5))
    plain = [world.add(100 * MIB) for _ in range(2)]
    avoided = world.add(100 * MIB, Wishes(replicas=-5))
    seen: list[list[int]] = []
    for _ in range(70):
        for _ in range(5):
            world.write(writer, MIB, 2)
        world.tick()
        seen.append([world.used(disk) // MIB for disk in (preferred, *plain, avoided)])
    world.settle()
    world.check()
    assert all(sum(others) == 0 for first, *others in seen if first < 80)
    assert all(last == 0 for *_, one, two, last in seen if min(one, two) < 80)
    assert min(seen[-1]) > 40
    assert all(world.used(disk) <= disk.capacity for disk in world.disks.values())
    assert world.dropped == 0, "who is full keeps what it was chosen for"


def test_new_files_land_where_they_are_wished_for_and_stay_when_they_are_old() -> None:
    world = World(8)
    writer, fast = world.add(1 << 40), world.add(1 << 40, Wishes(new_files=1))
    other = world.add(1 << 40)
    single, double = world.write(writer, MIB, 1), world.write(writer, MIB, 2)
    world.settle()
    assert world.holders(single) == [fast]
    assert world.holders(double) == [writer, fast]
    before = world.moved_copies
    world.now_s += 2 * YOUNG_S
    fast.wishes, other.wishes = Wishes(), Wishes(new_files=10)
    world.settle()
    assert world.moved_copies == before


def test_hot_files_cold_files_and_readers() -> None:
    world = World(9)
    writer, ssd, hdd, reader = (world.add(1 << 40, one) for one in (None, Wishes(hot=5), Wishes(cold=5), None))
    hot, cold, read = (world.write(writer, MIB, 1) for _ in range(3))
    world.uses = {writer.pod: {hot: 2}, reader.pod: {hot: 2, read: 3}}
    world.now_s += COLD_AFTER_S
    world.settle()
    assert world.holders(cold) == [hdd]
    assert world.holders(hot) == [ssd]
    assert world.holders(read) == [ssd], "hot as well, and the wish for hot files is the greater one"
    ssd.wishes = Wishes()
    world.settle()
    assert world.holders(read) == [reader]
    world.uses = {writer.pod: {read: 3}, reader.pod: {read: 3}}
    before = world.moved_copies
    world.settle()
    assert world.holders(read) == [reader], "two that read it alike don't take it from each other"
    assert world.moved_copies - before == 2, "what is read no more is cold"


def test_a_slow_pod_is_the_last_choice_and_loses_nothing() -> None:
    world = World(10)
    disks = [world.add(1 << 40) for _ in range(4)]
    for disk in disks:
        disk.speed = 10e6
    early = [world.write(disks[0], MIB, 2) for _ in range(50)]
    world.settle()
    slow = disks[3]
    kept = set(slow.held)
    assert kept
    slow.speed = 1e6
    world.settle()
    late = [world.write(disks[0], MIB, 2) for _ in range(50)]
    world.settle()
    assert slow.held == kept
    assert set(early) & slow.held
    assert not set(late) & slow.held


def test_wavering_room_moves_nothing() -> None:
    world = even_world(11, 6, 300, 2, capacity=400 * MIB)
    before = world.moved_copies
    for turn in range(20):
        for disk in world.disks.values():
            disk.foreign_bytes = world.rng.randrange(120, 180) * MIB
            disk.speed = world.rng.uniform(3e6, 20e6)
        world.tick()
        assert turn >= 0
    assert world.moved_copies == before
