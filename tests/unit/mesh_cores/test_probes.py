"""Two pods that probe each other over one link: what each knows by when, and what it costs."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from base.ids import PodId, hash_bytes
from mesh.awareness import Awareness
from mesh.gossip_messages import Kind
from mesh.probes import Order, Prober

A, B = (PodId(hash_bytes(bytes([number]))[:16].hex()) for number in range(2))
WAY_S = 0.002
TICK_S = 0.1


class Pair:
    """Two probers, linked; a message takes `WAY_S`, unless its direction is broken. Nobody helps them."""

    def __init__(self, seed: int, *, old: PodId | None = None) -> None:
        """``old``: one that doesn't say what it has heard, as pods of before."""
        self.rng = Random(seed)
        self.old = old
        self.probers = {pod: Prober(1.0, 0.5, 3, Awareness(3), self.rng, lambda _: ()) for pod in (A, B)}
        self.ticks = {pod: self.rng.random() * TICK_S for pod in (A, B)}
        self.broken: set[PodId] = set()
        """Whose messages get lost."""
        self.under_way: list[tuple[float, PodId, Order]] = []
        self.now = 0.0
        self.pings = {A: 0, B: 0}
        self.proofs: dict[PodId, list[float]] = {A: [], B: []}
        self.failed: dict[PodId, list[float]] = {A: [], B: []}
        self.probers[A].link_up(B, 0.0)
        self.probers[B].link_up(A, 0.0)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min([*self.ticks.values(), *(at for at, _, _ in self.under_way)])
            for pod in [pod for pod, at in self.ticks.items() if at <= self.now]:
                self.ticks[pod] = self.now + TICK_S
                done = self.probers[pod].tick(self.now)
                self.failed[pod] += [self.now] * len(done.failed)
                for order in done.orders:
                    self.send(pod, order)
            due = [one for one in self.under_way if one[0] <= self.now]
            self.under_way = [one for one in self.under_way if one[0] > self.now]
            for _, sender, order in due:
                self.arrive(sender, order)

    def send(self, sender: PodId, order: Order) -> None:
        self.pings[sender] += order.head[0] is Kind.PING
        if sender not in self.broken:
            self.under_way.append((self.now + WAY_S, sender, order))

    def arrive(self, sender: PodId, order: Order) -> None:
        kind, nonce = order.head
        assert isinstance(nonce, int)
        here = self.probers[order.pod]
        if kind is Kind.ACK:
            proven = here.on_ack(sender, nonce, self.now) is not None
        else:
            heard = None if sender == self.old else next(iter(order.tail), None)
            proven = here.on_ping(sender, nonce, heard, self.now)  # type: ignore[arg-type]
            self.send(order.pod, Order(sender, [Kind.ACK, nonce]))
        if proven:
            self.proofs[order.pod].append(self.now)


def test_one_ping_and_its_answer_serve_both() -> None:
    pairs = [Pair(seed) for seed in range(40)]
    for pair in pairs:
        pair.run(60.0)
        assert min(pair.pings.values()) >= 10, "both ask, so both measure how long an answer takes"
        for times in pair.proofs.values():
            assert max(b - a for a, b in itertools.pairwise(times)) <= 1.2
        assert pair.failed == {A: [], B: []}
    asked = sorted(sum(pair.pings.values()) for pair in pairs)
    assert asked[20] <= 70, "one a second, not one of each"
    assert asked[-1] <= 110, "also where both always look at the same moments"


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("broken", [{A}, {A, B}], ids=["one way", "both ways"])
def test_a_broken_link_is_noticed_at_both_ends_as_soon_as_if_both_always_asked(broken: set[PodId], seed: int) -> None:
    pair = Pair(seed)
    pair.run(10.0 + pair.rng.random() * 3)
    assert pair.failed == {A: [], B: []}
    began = pair.now
    pair.broken = broken
    pair.run(4.0)
    for pod in (A, B):
        assert pair.failed[pod], "noticed"
        assert pair.failed[pod][0] - began <= 1.0 + 2 * 0.5 + 4 * TICK_S


@pytest.mark.parametrize("seed", range(5))
def test_a_pod_of_before_that_does_not_say_what_it_heard_is_pinged_always(seed: int) -> None:
    pair = Pair(seed, old=A)
    pair.run(60.0)
    assert pair.pings[B] >= 55


def test_what_was_answered_long_ago_proves_nothing() -> None:
    probes = Prober(1.0, 0.5, 3, Awareness(3), Random(1), lambda _: ())
    probes.link_up(A, 0.0)
    (ping,) = probes.tick(0.0).orders
    probes.on_ack(A, ping.head[1], 0.01)  # type: ignore[arg-type]
    assert not probes.on_ping(A, 7, None, 0.1)
    assert probes.on_ping(A, 8, 7, 0.5)
    assert not probes.on_ping(A, 9, 8, 2.1), "our answer of 1.6 s ago arrived, but does that of now?"
    assert probes.on_ping(A, 10, 9, 2.9)
    assert not probes.on_ping(B, 5, None, 3.0), "not linked"
