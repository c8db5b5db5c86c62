"""One story of a mesh by seed: what networks and machines may do in a minute, and what must hold in the end.

In the end every live pod sees every live pod, a dead one is alive to nobody, every change has reached every live pod,
and no message was ever beyond its limit (the simulator looks at each).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from mesh.api import State
from mesh.membership import MembershipSettings
from tests.simulation.mesh.simulator import Network, World

AGREED_WITHIN_S = 60.0
DEAD_KNOWN_WITHIN_S = 12.0
ENTRY_WITHIN_S = 25.0
"""Whoever missed a push and every announcement learns of it from anti-entropy, each 8 to 12 s; one may be lost, too."""


def random_world(seed: int, pods: int | None) -> World:
    """Return a cluster of 2 to 50 pods, small ones more often, or of ``pods``, on some network."""
    dice = Random(seed ^ 0x5EED)
    pods = pods or min(dice.randint(2, 50), dice.randint(2, 50), dice.randint(2, 50))
    network = Network(
        loss=dice.choice([0.0, 0.02, 0.1]),
        delay_s=dice.choice([(0.0005, 0.005), (0.001, 0.03), (0.02, 0.12)]),
        duplicate=dice.choice([0.0, 0.05]),
        reorder=dice.choice([0.0, 0.05]),
    )
    settings = MembershipSettings(absent_after_s=6.0)
    return World(pods, seed, network=network, settings=settings, views=True, warm=pods > 100 or dice.random() < 0.5)


def tell(world: World, steps: int) -> None:
    """Let ``steps`` things happen."""
    rng, order = world.rng, world.order
    for _ in range(steps):
        pod = rng.choice(order)
        actor = world.pods[pod]
        match rng.randrange(12):
            case 0 | 1 if actor.running and len(world.running()) > 1:
                world.crash(pod, silent=rng.random() < 0.5)
            case 2 | 3 if not actor.running:
                world.restart(pod, clock_offset=rng.choice([0, 0, -5_000_000, 5_000_000]))
            case 4:
                group = rng.sample(order, rng.randint(1, len(order) - 1))
                world.partition(group, order, one_way=rng.random() < 0.5)
            case 5:
                world.heal()
            case 6 if actor.running:
                world.suspend(pod)
            case 7:
                for other in order:
                    world.resume(other)
            case 8:
                actor.slow_s = rng.choice([0.0, 0.05, 0.3])
            case _ if actor.running:
                actor.write(times=rng.randint(1, 20))
        world.run(rng.uniform(0.1, 1.5))


def settle(world: World) -> None:
    """End all that hinders; some stay dead."""
    world.heal()
    dead = set(world.rng.sample(world.order, world.rng.randrange(max(1, len(world.order) // 3))))
    for pod, actor in world.pods.items():
        actor.slow_s = 0.0
        world.resume(pod)
        if pod in dead and actor.running:
            world.crash(pod, silent=world.rng.random() < 0.5)
        elif pod not in dead and not actor.running:
            world.restart(pod)
    world.run_until(lambda: world.all_alive() and world.converged(), AGREED_WITHIN_S, "equal logs, all the live seen")
    survivors = [pod.pod for pod in world.running()]
    world.run_until(
        lambda: all(world.seen(pod, survivors)[State.ALIVE] == 0 for pod in dead),
        DEAD_KNOWN_WITHIN_S,
        "the dead are alive to nobody",
    )
    world.running()[0].write()
    world.run_until(lambda: world.all_alive() and world.converged(), ENTRY_WITHIN_S, "it stays so")


def play(seed: int, pods: int | None = None, steps: int = 14) -> World:
    """Play the story of a seed; raises AssertionError, which names the seed."""
    world = random_world(seed, pods)
    world.run(world.rng.uniform(0.5, 3.0))
    tell(world, steps)
    settle(world)
    return world


def failures(seeds: range, story: Callable[[int], object] = play) -> list[str]:
    """Return what went wrong in which seeds."""
    found = []
    for seed in seeds:
        try:
            story(seed)
        except Exception as error:
            found.append(f"seed {seed}: {type(error).__name__}: {error}")
    return found
