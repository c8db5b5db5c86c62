"""A deterministic simulator of a mesh: virtual time, many pods, and what networks and machines do to them.

Everything follows from the seed. What it can do: loss, delay, duplication, reordering, mutation of messages; one-way
and full partitions (silent, as when a cable is cut; links break only when their keep-alive gives up); slow pods; pods
that are suspended for a while and then get all that came meanwhile; wrong clocks; crashes with the links reset or
silent; restarts with an empty membership and the durable log.

Pods dial whom their view wants (`mesh.view`), or with ``degree`` a random graph that is given. A ``warm`` world begins
as one that has run for long: everybody knows everybody and has the links of a random view.
"""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any

import msgpack

from base.ids import PodId, hash_bytes
from mesh.api import State
from mesh.gossip_messages import Flag, Record
from mesh.membership import MembershipSettings
from mesh.summary import Summary
from mesh.view import FULL_MESH_PODS
from tests.simulation.mesh.large_pages import use_large_pages
from tests.simulation.mesh.pod import SimPod

KEEP_ALIVE_S = 8.0
REDIAL_S = 1.0
LARGE_PODS = 500
META: bytes = msgpack.packb({"bytes_used": 10**12, "bytes_limit": 10**13})


Event = tuple[float, int, Callable[..., None], tuple[Any, ...]]


@dataclass
class Network:
    loss: float = 0.0
    delay_s: tuple[float, float] = (0.0005, 0.005)
    duplicate: float = 0.0
    reorder: float = 0.0
    mutate: float = 0.0


class World:
    def __init__(
        self,
        pods: int,
        seed: int,
        *,
        network: Network | None = None,
        settings: MembershipSettings | None = None,
        degree: int | None = None,
        views: bool = False,
        warm: bool = False,
    ) -> None:
        """``degree``: links of each pod in a given random graph; None links everybody, unless pods have ``views``."""
        self.seed = seed
        self.rng = Random(seed)
        self.now = 1000.0
        self.network = network or Network()
        self.settings = settings or MembershipSettings()
        self.events: dict[int, list[Event]] = {}
        """By millisecond; each list is put in order when its time has come."""
        self.times: list[int] = []
        self.current = -1
        self.count = 0
        self.cut: set[tuple[PodId, PodId]] = set()
        self.side: dict[PodId, bool] = {}
        self.cut_at: dict[tuple[PodId, PodId], float] = {}
        self.order = [PodId(hash_bytes(f"pod {number}".encode())[:16].hex()) for number in range(pods)]
        self.members = frozenset(self.order)
        self.sorted = tuple(sorted(self.order))
        self.wanted = None if views or warm else self.topology(degree)
        first = [] if not warm else self.random_view() if pods > FULL_MESH_PODS else self.topology(None)
        self.known = self.knowledge(first) if warm else None
        self.pods: dict[PodId, SimPod] = {}
        for number, pod in enumerate(self.order):
            self.pods[pod] = SimPod(self, pod, number + 1)
        self.links: dict[PodId, dict[PodId, None]] = {pod: {} for pod in self.order}
        for a, b in first:
            self.link(a, b)
        self.redial()
        if pods >= LARGE_PODS:
            use_large_pages()

    def random_view(self) -> list[tuple[PodId, PodId]]:
        """Return links as views come to have: random ones, about eight for each pod."""
        pairs = set()
        for _ in range(4):
            ring = self.rng.sample(self.order, len(self.order))
            pairs |= {(max(a, b), min(a, b)) for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)}
        return sorted(pairs)

    def knowledge(self, links: Iterable[tuple[PodId, PodId]]) -> tuple[dict[PodId, Record], Summary]:
        """Return what everybody knows of all in a cluster that has run for long."""
        linked: dict[PodId, list[PodId]] = {pod: [] for pod in self.order}
        for a, b in links:
            linked[a].append(b)
            linked[b].append(a)
        records, summary = {}, Summary()
        for number, pod in enumerate(self.order):
            everybody = len(linked[pod]) == len(self.order) - 1
            flags = Flag.LINKED_TO_ALL if everybody else Flag.NONE
            near = () if everybody else tuple(sorted(linked[pod]))
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:7000"
            records[pod] = Record(pod, int(self.now * 1000), 9, flags, address, META, near)
            summary.replace(None, records[pod])
        return records, summary

    def topology(self, degree: int | None) -> list[tuple[PodId, PodId]]:
        count = len(self.order)
        pairs = {(a, b) for a in range(count) for b in range(a)} if degree is None else set()
        for a in range(count if degree is not None else 0):
            pairs.add((max(a, (a + 1) % count), min(a, (a + 1) % count)))
        while degree is not None and len(pairs) < count * degree // 2:
            a, b = self.rng.sample(range(count), 2)
            pairs.add((max(a, b), min(a, b)))
        return [(self.order[a], self.order[b]) for a, b in sorted(pairs)]

    # -- time

    def after(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """Call ``action`` later. No closure that names itself: such garbage stays, the collector being off."""
        self.count += 1
        at = self.now + delay_s
        event = at, self.count, action, arguments
        key = int(at * 1000)
        if key == self.current:
            bisect.insort(self.events[key], event)
        elif key in self.events:
            self.events[key].append(event)
        else:
            self.events[key] = [event]
            heapq.heappush(self.times, key)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.times and self.times[0] <= end * 1000:
            self.current = self.times[0]
            events = self.events[self.current]
            events.sort()
            for event in events:  # what is put in meanwhile comes behind
                if event[0] > end:
                    self.events[self.current], self.current = events[bisect.bisect_left(events, event) :], -1
                    self.now = end
                    return
                self.now, _, action, arguments = event
                action(*arguments)
            del self.events[self.current]
            heapq.heappop(self.times)
            self.current = -1
        self.now = end

    def run_until(self, done: Callable[[], bool], within_s: float, what: str) -> float:
        """Run until ``done``, at most ``within_s``; return how long it took."""
        began = self.now
        while not done():
            if self.now - began >= within_s:
                raise AssertionError(f"seed {self.seed}: not within {within_s} s: {what}")
            self.run(0.1)
        return self.now - began

    # -- the network

    def deliver(self, source: SimPod, target: SimPod, action: Callable[..., None], *arguments: Any) -> None:
        """Have ``action`` called when a message gets there, if it does."""
        network, dice = self.network, self.rng.random
        if (self.cut or self.side) and self.severed(source.pod, target.pod):
            return
        if network.loss and dice() < network.loss:
            return
        low_s, high_s = network.delay_s
        copies = 2 if network.duplicate and dice() < network.duplicate else 1
        while copies:
            copies -= 1
            late_s = 0.3 if network.reorder and dice() < network.reorder else 0.0
            delay_s = low_s + (high_s - low_s) * dice()
            self.after(delay_s + late_s + (source.slow_s + target.slow_s), action, *arguments)

    def mutated(self, packed: bytes) -> bytes:
        """Return a message as the network makes it now and then."""
        if self.rng.random() >= self.network.mutate:
            return packed
        data = bytearray(packed)
        for _ in range(self.rng.randint(1, 4)):
            at = self.rng.randrange(len(data))
            match self.rng.randrange(4):
                case 0:
                    data[at] = self.rng.randrange(256)
                case 1:
                    data[at] ^= 1 << self.rng.randrange(8)
                case 2:
                    data[at:at] = self.rng.randbytes(self.rng.randint(1, 4))
                case 3 if len(data) > 1:
                    del data[at : at + self.rng.randint(1, 4)]
            data = data or bytearray(b"\xc0")
        return bytes(data)

    def severed(self, source: PodId, target: PodId) -> bool:
        """Tell whether nothing gets through from one pod to another."""
        return (source, target) in self.cut or bool(self.side and self.side.get(source) != self.side.get(target))

    def blocked(self, a: PodId, b: PodId) -> bool:
        """Tell whether nothing gets through between two pods, in one direction at least."""
        return self.severed(a, b) or self.severed(b, a)

    def redial(self) -> None:
        """Break what keep-alive gave up, and connect what a given graph wants, every `REDIAL_S`."""
        for a, b in self.wanted or ():
            if self.pods[a].running and self.pods[b].running:
                self.dial(a, b)
        if self.cut or self.side or self.cut_at:
            for a, others in self.links.items():
                for b in [b for b in others if a < b]:
                    if not self.blocked(a, b):
                        self.cut_at.pop((a, b), None)
                    elif self.now - self.cut_at.setdefault((a, b), self.now) >= KEEP_ALIVE_S:
                        self.unlink(a, b)
        self.after(REDIAL_S, self.redial)

    def dial(self, a: PodId, b: PodId) -> None:
        """Link two pods, if that can be: it takes longer than a message."""
        there = self.pods[b]
        if b not in self.links[a] and there.running and there.suspended is None and not self.blocked(a, b):
            self.link(a, b)

    def link(self, a: PodId, b: PodId) -> None:
        self.links[a][b] = self.links[b][a] = None
        self.pods[a].link_up(b)
        self.pods[b].link_up(a)

    def unlink(self, a: PodId, b: PodId, *, spared: bool = False) -> None:
        if b in self.links[a]:
            del self.links[a][b]
            del self.links[b][a]
            self.cut_at.pop((min(a, b), max(a, b)), None)
            for here, there in ((a, b), (b, a)):
                if self.pods[here].running:
                    self.pods[here].link_down(there, spared=spared)

    def partition(self, one: Iterable[PodId], other: Iterable[PodId], *, one_way: bool = False) -> None:
        for a in one:
            for b in set(other) - {a}:
                self.cut.add((a, b))
                if not one_way:
                    self.cut.add((b, a))

    def halve(self, one: Iterable[PodId]) -> None:
        """Cut ``one`` off from all others; quicker than `partition` with many pods."""
        self.side = dict.fromkeys(one, True)

    def heal(self) -> None:
        self.cut.clear()
        self.side = {}

    def suspend(self, pod: PodId) -> None:
        """Stop a process as SIGSTOP does: its links stay, and what is sent to it waits."""
        if self.pods[pod].suspended is None:
            self.pods[pod].suspended = []

    def resume(self, pod: PodId) -> None:
        """Let a suspended process go on."""
        waiting, self.pods[pod].suspended = self.pods[pod].suspended or [], None
        for action, arguments in waiting:
            action(*arguments)

    # -- pods

    def crash(self, pod: PodId, *, silent: bool = False) -> None:
        """Kill the process (its links are reset), or with ``silent`` take its power (they are not)."""
        self.pods[pod].running = False
        if silent:
            self.partition([pod], self.order)
            return
        self.reset_links(pod)

    def power_off(self, pod: PodId) -> None:
        """Take the power of a pod for good: its links fall silent, and break when the others' keep-alive gives up."""
        self.pods[pod].running = False

        def break_links() -> None:
            if not self.pods[pod].running:
                self.reset_links(pod)

        self.after(KEEP_ALIVE_S, break_links)

    def reset_links(self, pod: PodId) -> None:
        for other in list(self.links[pod]):
            self.unlink(pod, other)

    def restart(self, pod: PodId, clock_offset: int = 0) -> None:
        self.reset_links(pod)
        self.cut = {pair for pair in self.cut if pod not in pair}
        self.pods[pod].suspended = None
        self.pods[pod].start(clock_offset)

    # -- what is seen

    def running(self) -> list[SimPod]:
        return [pod for pod in self.pods.values() if pod.running]

    def seen(self, pod: PodId, by: Iterable[PodId] | None = None) -> Counter[State]:
        """Return as what ``pod`` is seen by (all) others."""
        watchers = [self.pods[watcher] for watcher in by] if by is not None else self.running()
        return Counter(watcher.membership.view(pod).state for watcher in watchers if watcher.pod != pod)

    def all_see(self, pod: PodId, state: State, by: Iterable[PodId] | None = None) -> bool:
        return set(self.seen(pod, by)) <= {state}

    def all_alive(self) -> bool:
        alive = frozenset(pod.pod for pod in self.running())
        return all(self.pods[pod].membership.census.are_up(alive) for pod in alive)

    def converged(self) -> bool:
        running = self.running()
        return all(pod.log.vector() == running[0].log.vector() for pod in running)

    def settle(self, within_s: float = 15.0) -> None:
        self.run_until(self.all_alive, within_s, "everybody alive at the start")
