"""What must hold of the replicated log's way through the mesh, and of all cores in chaos. The seed is in the name."""

from __future__ import annotations

import pytest

from mesh.membership import MembershipSettings
from tests.simulation.mesh.simulator import Network, World

ROUGH = Network(loss=0.1, delay_s=(0.001, 0.06), duplicate=0.05, reorder=0.05)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pods", [3, 8])
def test_among_few_pods_each_entry_travels_once_to_each(pods, seed):
    world = World(pods, seed)
    world.settle()
    world.run(1.0)
    for number in range(50):
        world.pods[world.order[number % pods]].write()
        world.run(0.02)
        assert world.converged(), number
    world.run(1.0)
    assert sum(pod.pushes for pod in world.running()) == 50 * (pods - 1)
    assert sum(pod.pages for pod in world.running()) == 0


def test_among_many_pods_a_tree_grows_and_mends():
    world = World(60, 5, degree=8)
    world.settle()
    world.run(1.0)
    for _ in range(30):
        world.rng.choice(world.running()).write()
        world.run(0.3)
    world.run(1.0)
    assert world.converged()
    before = sum(pod.pushes for pod in world.running())
    for _ in range(20):
        world.rng.choice(world.running()).write()
        world.run(0.3)
        assert world.converged()
    assert sum(pod.pushes for pod in world.running()) - before < 20 * 60 * 1.6
    for victim in world.rng.sample(world.order, 6):
        world.crash(victim, silent=True)
    for _ in range(10):
        world.rng.choice(world.running()).write()
        world.run_until(world.converged, 3.0, "the survivors have it")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("pods", "degree"), [(3, None), (5, None), (15, 4)])
def test_logs_converge_after_healing(pods, degree, seed):
    world = World(pods, seed, network=ROUGH, degree=degree)
    world.run(3.0)
    half = world.order[: pods // 2]
    world.partition(half, [pod for pod in world.order if pod not in half])
    for _ in range(40):
        world.rng.choice(world.running()).write(times=world.rng.randint(1, 5))
        world.run(0.3)
    assert not world.converged()
    world.heal()
    world.run_until(world.converged, 40.0, "all logs equal")


@pytest.mark.parametrize("seed", range(3))
def test_a_newcomer_catches_up_page_by_page_from_several(seed):
    world = World(4, seed)
    newcomer = world.order[3]
    world.crash(newcomer)
    for pod in world.running():
        pod.write(size=1000, times=1500)
    world.run(3.0)
    before = {pod.pod: pod.pages for pod in world.running()}
    world.restart(newcomer)
    took = world.run_until(world.converged, 10.0, "the newcomer has all")
    assert took < 3.0
    served = [pod.pages - before[pod.pod] for pod in world.running() if pod.pod != newcomer]
    assert all(served), "the load is spread"
    assert sum(served) < 3 * (1500 * 1008 // (256 * 1024) + 3)


@pytest.mark.parametrize("seed", range(3))
def test_catching_up_leaves_a_pod_that_does_not_answer(seed):
    world = World(3, seed)
    here, source, _ = world.order
    world.crash(here)
    world.pods[source].write(size=1000, times=2000)
    world.run(3.0)
    world.restart(here)
    world.run_until(lambda: world.pods[here].log.blobs != {}, 5.0, "the first page is there")
    world.partition([here], [source])
    world.run_until(world.converged, 12.0, "the rest came from the other")


@pytest.mark.parametrize("seed", range(12))
def test_chaos_ends_well(seed):
    network = Network(loss=0.05, delay_s=(0.001, 0.05), duplicate=0.05, reorder=0.05)
    world = World(3 + seed % 6, seed, network=network, settings=MembershipSettings(absent_after_s=6.0))
    rng = world.rng
    for _ in range(40):
        pod = rng.choice(world.order)
        match rng.randrange(7):
            case 0 if world.pods[pod].running and len(world.running()) > 1:
                world.crash(pod, silent=rng.random() < 0.5)
            case 1 if not world.pods[pod].running:
                world.restart(pod, clock_offset=rng.choice([0, 0, -5_000_000]))
            case 2:
                group = rng.sample(world.order, rng.randint(1, len(world.order) - 1))
                world.partition(group, world.order, one_way=rng.random() < 0.5)
            case 3:
                world.heal()
            case _ if world.pods[pod].running:
                world.pods[pod].write(times=rng.randint(1, 30))
        world.run(rng.uniform(0.1, 2.0))
    world.heal()
    for pod in world.order:
        if not world.pods[pod].running:
            world.restart(pod)
    world.network.loss = 0.0
    world.run_until(lambda: world.converged() and world.all_alive(), 45.0, "equal logs, everybody alive")


@pytest.mark.parametrize("seed", range(4))
def test_mutated_messages_never_raise_and_leave_no_trace(seed):
    world = World(5, seed, network=Network(mutate=0.3))
    for _ in range(80):
        world.rng.choice(world.running()).write(times=world.rng.randint(1, 4))
        world.run(0.5)
    assert any(pod.membership.complaints() for pod in world.running())
    assert any(pod.broadcast.complaints() for pod in world.running())
    world.network.mutate = 0.0
    world.run_until(lambda: world.converged() and world.all_alive(), 60.0, "equal logs, everybody alive")


def test_the_same_seed_gives_the_same_run():
    totals = []
    for _ in range(2):
        world = World(6, 3, network=ROUGH)
        for _ in range(10):
            world.rng.choice(world.running()).write()
            world.run(1.0)
        totals.append([(pod.bytes_sent, pod.messages) for pod in world.running()])
    assert totals[0] == totals[1]
