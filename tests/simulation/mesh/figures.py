"""What a mesh of many pods costs and how quick it is, in virtual time. Each figure is a function of size and seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mesh.api import State
from tests.simulation.mesh.simulator import Network, World

LOSSY = Network(loss=0.1, delay_s=(0.001, 0.010))
LINK = Network(delay_s=(0.001, 0.010))


def percentile(values: list[float], part: float) -> float:
    """Return the value that ``part`` of all don't exceed."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


class Spread(NamedTuple):
    """How changes reached everybody: seconds until the last pod had each, and pushes with payload."""

    seconds: list[float]
    pushes_per_pod: float

    def text(self) -> str:
        p50, p99 = percentile(self.seconds, 0.5), percentile(self.seconds, 0.99)
        return (
            f"{len(self.seconds)} changes reached all after p50 {p50:.2f} s, p99 {p99:.2f} s, at most "
            f"{max(self.seconds):.2f} s; {self.pushes_per_pod:.2f} messages with payload per pod and change"
        )


@dataclass
class Traffic:
    """Messages of membership that a pod sent, a second."""

    bytes_per_s: float
    most_bytes_per_s: float
    messages_per_s: float

    def text(self) -> str:
        return (
            f"membership costs a pod {self.bytes_per_s:.0f} bytes/s in {self.messages_per_s:.1f} messages/s of all kinds, "
            f"the busiest {self.most_bytes_per_s:.0f} bytes/s"
        )


def spread(world: World, changes: int, *, pause_s: float = 0.3) -> Spread:
    """Write ``changes`` changes here and there, one after the other, once a first one has made the tree."""
    pods = world.running()
    world.rng.choice(pods).write()
    world.run(3.0)
    before = sum(pod.pushes for pod in pods)
    seconds = []
    for _ in range(changes):
        source = world.rng.choice(pods)
        source.write()
        began, writer, last = world.now, source.writer, source.log.vector()[source.writer]
        missing = pods
        while missing:
            world.run(0.01)
            missing = [pod for pod in missing if pod.log.vector().get(writer, 0) < last]
            if world.now - began > 10.0:
                raise AssertionError(f"seed {world.seed}: a change didn't reach {len(missing)} pods within 10 s")
        seconds.append(world.now - began)
        world.run(pause_s)
    world.run(1.0)
    return Spread(seconds, (sum(pod.pushes for pod in pods) - before) / changes / len(pods))


def traffic(world: World, seconds: float) -> Traffic:
    """Measure a quiet world for ``seconds``."""
    pods = world.running()
    before = [(pod.gossip_bytes, pod.messages) for pod in pods]
    world.run(seconds)
    sent = [pod.gossip_bytes - gossip for pod, (gossip, _) in zip(pods, before, strict=True)]
    messages = sum(pod.messages - count for pod, (_, count) in zip(pods, before, strict=True))
    return Traffic(sum(sent) / len(pods) / seconds, max(sent) / seconds, messages / len(pods) / seconds)


def deaths(world: World, count: int) -> float:
    """Take the power of ``count`` pods at once; return after how long all others suspect them, and nobody else."""
    victims = world.rng.sample([pod.pod for pod in world.running()], count)
    for victim in victims:
        world.power_off(victim)
    took = world.run_until(
        lambda: all(world.all_see(pod, State.SUSPECT) for pod in victims), 15.0, "deaths known to all"
    )
    world.run_until(world.all_alive, 5.0, "and nobody else suspected")
    return took


def halves(world: World, apart_s: float) -> float:
    """Cut half of the pods away for ``apart_s``, with changes on both sides; return how long all take to agree after."""
    half = world.rng.sample(world.order, len(world.order) // 2)
    world.halve(half)
    world.run(apart_s / 2)
    for _ in range(10):
        world.rng.choice(world.running()).write(times=3)
    world.run(apart_s / 2)
    a, b = world.pods[half[0]], next(pod for pod in world.running() if pod.pod not in set(half))
    assert not a.membership.census.is_up(b.pod), "the cut was noticed"
    world.heal()
    return world.run_until(lambda: world.converged() and world.all_alive(), 60.0, "all agree again")


def endurance(world: World, seconds: float) -> str:
    """Let a large world live: a change every two seconds, five deaths at once in the middle."""
    start = world.now
    died = False
    while world.now - start < seconds:
        world.rng.choice(world.running()).write()
        world.run(2.0)
        if not died and world.now - start >= seconds / 3:
            died = True
            for victim in world.rng.sample([pod.pod for pod in world.running()], 5):
                world.power_off(victim)
    world.run_until(
        lambda: world.converged() and world.all_alive(), 10.0, "every change reached all, who see each other"
    )
    victims = [pod.pod for pod in world.pods.values() if not pod.running]
    known = all(not pod.membership.census.is_up(victim) for pod in world.running() for victim in victims)
    assert known, f"seed {world.seed}: a dead pod is alive to somebody"
    return f"{seconds:.0f} virtual seconds with 30 changes and 5 deaths: all the living have all, nobody sees the dead"
