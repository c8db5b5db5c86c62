"""What must hold of membership whatever networks and machines do. The seed is in the test's name."""

from __future__ import annotations

from collections import Counter

import pytest

from mesh.api import State
from mesh.membership import MembershipSettings
from tests.simulation.mesh.simulator import Network, World

KNOWN_WITHIN_S = 5.0
QUICK = MembershipSettings(absent_after_s=10.0)
ROUGH = Network(loss=0.1, delay_s=(0.001, 0.06), duplicate=0.05, reorder=0.05)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("silent", [False, True], ids=["reset", "power"])
@pytest.mark.parametrize(("pods", "degree"), [(2, None), (3, None), (7, None), (20, 6)])
def test_everybody_learns_of_a_death_and_of_the_recovery(pods, degree, silent, seed):
    world = World(pods, seed, settings=QUICK, degree=degree)
    world.settle()
    world.run(world.rng.uniform(0, 3))
    victim = world.rng.choice(world.order)
    world.crash(victim, silent=silent)
    world.run_until(lambda: world.all_see(victim, State.SUSPECT), KNOWN_WITHIN_S, "suspected by all")
    world.run(8.5)
    assert world.all_see(victim, State.SUSPECT), "absent before its time"
    world.run_until(lambda: world.all_see(victim, State.ABSENT), 6.0, "absent to all")
    assert all(world.all_see(pod.pod, State.ALIVE) for pod in world.running())
    world.restart(victim)
    world.run_until(world.all_alive, 3.0, "alive to all again")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("pods", "degree"), [(3, None), (8, None), (24, 6)])
def test_a_cut_cable_is_known_on_both_sides(pods, degree, seed):
    world = World(pods, seed, settings=QUICK, degree=degree)
    world.settle()
    world.run(world.rng.uniform(0, 3))
    victim = world.rng.choice(world.order)
    others = [pod for pod in world.order if pod != victim]
    world.partition([victim], others)

    def known():
        there = all(world.all_see(pod, State.SUSPECT, [victim]) for pod in others)
        return there and world.all_see(victim, State.SUSPECT, others)

    world.run_until(known, KNOWN_WITHIN_S, "suspected on both sides")
    assert all(world.all_see(pod, State.ALIVE, others) for pod in others)
    world.run(14.0)
    assert world.all_see(victim, State.ABSENT, others)
    assert all(world.all_see(pod, State.ABSENT, [victim]) for pod in others)
    world.heal()
    world.run_until(world.all_alive, 5.0, "alive after the cable is back")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("pods", "degree"), [(6, None), (40, 8)])
def test_halves_suspect_each_other_wholly_and_themselves_not_at_all(pods, degree, seed):
    world = World(pods, seed, degree=degree)
    world.settle()
    one, other = world.order[: pods // 2], world.order[pods // 2 :]
    components = connected(world, one), connected(world, other)
    world.partition(one, other)

    def known():
        across = all(world.all_see(pod, State.SUSPECT, other) for pod in one)
        return across and all(world.all_see(pod, State.SUSPECT, one) for pod in other)

    world.run_until(known, KNOWN_WITHIN_S, "suspected across")
    assert components == (True, True), "choose another seed: a half is torn in itself"
    for side in (one, other):
        assert all(world.all_see(pod, State.ALIVE, side) for pod in side)
    world.run(5.0)
    world.heal()
    world.run_until(world.all_alive, 6.0, "all alive after healing")


def connected(world, side):
    """Tell whether the wanted links join all of ``side``."""
    found, queue = {side[0]}, [side[0]]
    while queue:
        pod = queue.pop()
        for pair in world.wanted:
            for other in pair if pod in pair else ():
                if other in side and other not in found:
                    found.add(other)
                    queue.append(other)
    return len(found) == len(side)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("pods", "degree"), [(3, None), (10, None), (20, 6)])
def test_loss_kills_nobody(pods, degree, seed):
    world = World(pods, seed, settings=QUICK, network=ROUGH, degree=degree)
    world.settle(60.0)
    seen: Counter[State] = Counter()
    for _ in range(60):
        world.run(0.5)
        for pod in world.order:
            seen += world.seen(pod)
    assert seen[State.ABSENT] == 0
    assert seen[State.SUSPECT] < 0.05 * seen.total(), seen


@pytest.mark.parametrize("seed", range(3))
def test_a_one_way_break_of_one_link_is_bridged_by_others(seed):
    world = World(4, seed)
    world.settle()
    world.run(1.0)
    world.partition([world.order[0]], [world.order[1]], one_way=True)
    for _ in range(20):
        world.run(1.0)
        assert world.all_alive()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("deaf", [True, False], ids=["deaf", "mute"])
def test_a_pod_that_only_speaks_or_only_hears_is_suspected(deaf, seed):
    world = World(5, seed)
    world.settle()
    victim, others = world.order[0], world.order[1:]
    world.partition(others if deaf else [victim], [victim] if deaf else others, one_way=True)
    world.run_until(lambda: world.all_see(victim, State.SUSPECT), KNOWN_WITHIN_S, "suspected by all")
    world.heal()
    world.run_until(world.all_alive, 5.0, "alive after healing")


@pytest.mark.parametrize("seed", range(6))
def test_a_link_of_two_that_carries_one_way_only_is_known_at_both_ends(seed):
    world = World(2, seed)
    world.settle()
    world.run(world.rng.uniform(0, 3))
    world.partition(world.order[:1], world.order[1:], one_way=True)
    world.run_until(
        lambda: all(world.all_see(pod, State.SUSPECT) for pod in world.order), KNOWN_WITHIN_S, "suspected by both"
    )
    world.heal()
    world.run_until(world.all_alive, 5.0, "alive after healing")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("pods", "degree"), [(3, None), (20, 5)])
def test_what_pods_announce_is_known_to_all_and_ends_with_their_return(pods, degree, seed):
    world = World(pods, seed, degree=degree)
    world.settle()
    world.run(1.0)
    down, maintained, left = world.order[:3]
    world.pods[down].membership.set_meta({"bytes_used": 5})
    world.pods[down].send(world.pods[down].membership.announce_down(world.now))
    world.pods[maintained].send(world.pods[maintained].membership.announce_maintenance(True, world.now))
    world.run(1.0)
    world.crash(down)
    world.run_until(lambda: world.all_see(down, State.ABSENT), 3.0, "down is absent at once")
    world.run_until(lambda: world.all_see(maintained, State.MAINTENANCE), 3.0, "maintenance is known")
    assert all(pod.membership.view(down).announced for pod in world.running())
    assert all(pod.membership.view(down).meta == {"bytes_used": 5} for pod in world.running())
    assert all(pod.membership.view(maintained).address == "10.0.0.2:7000" for pod in world.running())
    world.crash(maintained)
    world.run(10.0)
    assert world.all_see(maintained, State.MAINTENANCE)
    world.restart(down)
    world.restart(maintained)
    world.run_until(world.all_alive, 4.0, "alive again")
    assert not any(pod.membership.view(down).announced for pod in world.running())
    world.pods[left].send(world.pods[left].membership.announce_left(world.now))
    world.run(1.0)
    world.crash(left)
    world.run_until(lambda: world.all_see(left, State.LEFT), 3.0, "left is known")


@pytest.mark.parametrize("seed", range(3))
def test_a_pod_restarted_with_a_clock_of_long_ago_is_alive(seed):
    world = World(5, seed, settings=QUICK)
    world.settle()
    victim = world.order[2]
    world.crash(victim)
    world.run(20.0)
    assert world.all_see(victim, State.ABSENT)
    world.restart(victim, clock_offset=-10_000_000)
    world.pods[victim].membership.set_meta({"fresh": True})
    world.run_until(world.all_alive, 4.0, "alive again")
    world.run(1.0)
    assert all(pod.membership.view(victim).meta == {"fresh": True} for pod in world.running())


def test_two_hundred_pods():
    world = World(200, 1, degree=10)
    world.settle()
    world.run(4.0)
    before = {pod.pod: (pod.bytes_sent, pod.messages) for pod in world.running()}
    world.run(3.0)
    assert max(pod.bytes_sent - before[pod.pod][0] for pod in world.running()) / 3.0 < 2_000
    assert max(pod.messages - before[pod.pod][1] for pod in world.running()) / 3.0 < 80
    victim = world.order[100]
    world.crash(victim, silent=True)
    world.run_until(lambda: world.all_see(victim, State.SUSPECT), KNOWN_WITHIN_S, "suspected by all")
    assert sum(1 for pod in world.running() if not world.all_see(pod.pod, State.ALIVE)) == 0
    world.restart(victim)
    world.run_until(world.all_alive, 4.0, "alive to all again")
    assert max(pod.bytes_sent for pod in world.running()) < 2_000_000
