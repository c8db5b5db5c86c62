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
                assert self.probers[pod].due() > self.now, "nothing is left that was due"
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


def linked(count: int, awareness: Awareness | None = None) -> tuple[Prober, list[PodId]]:
    """Return a prober with so many links, all answered at 0 s."""
    probes = Prober(1.0, 0.5, 3, awareness or Awareness(3), Random(1), lambda _: ())
    pods = [PodId(hash_bytes(bytes([9, number]))[:16].hex()) for number in range(count)]
    for pod in pods:
        probes.link_up(pod, 0.0)
    for order in probes.tick(0.0).orders:
        probes.on_ack(order.pod, order.head[1], 0.001)  # type: ignore[arg-type]
    return probes, pods


@pytest.mark.parametrize(("links", "interval_s"), [(1, 1.0), (2, 1.0), (3, 1.5), (4, 2.0), (15, 2.0), (192, 3.0)])
def test_where_others_watch_the_same_pod_each_asks_more_rarely(links: int, interval_s: float) -> None:
    awareness = Awareness(3)
    probes, _ = linked(links, awareness)
    assert probes.interval_s() == interval_s
    awareness.add(1)
    assert probes.interval_s() == max(1.0, links / 64), "not where something is wrong here"


def test_the_first_silence_has_everybody_pinged_who_was_not_heard_within_a_second() -> None:
    probes, (silent, fresh, *others) = linked(5)
    for pod in (fresh, *others):
        probes.on_ping(pod, 1, None, 0.9)
        assert probes.on_ping(pod, 2, 1, 1.0)
    assert [order.pod for order in probes.tick(2.0).orders] == [silent], "the others aren't due before 2.7 s"
    probes.on_ping(fresh, 3, 2, 2.2)
    probes.on_ping(fresh, 4, 3, 2.25)
    pinged = {order.pod for order in probes.tick(2.51).orders if order.head[0] is Kind.PING}
    assert pinged == {silent, *others}, "the one was heard a moment ago"
    assert probes.due() <= 2.51 + 0.1, "and repeated until they answer"


def test_who_is_accused_is_asked_soon() -> None:
    probes, pods = linked(4)
    probes.hurry(0.4, [pods[0]])
    assert probes.tick(0.9).orders == []
    assert [order.pod for order in probes.tick(1.01).orders] == [pods[0]]
    probes.hurry(1.2, [A])  # not linked


def test_pings_that_are_nearly_due_go_along() -> None:
    probes, pods = linked(4)
    due = min(line.due for line in probes._lines.values())
    assert probes.tick(due - 0.01).orders == [], "none alone before its time"
    assert {order.pod for order in probes.tick(due).orders} == set(pods), "all within the jitter of the interval"


def test_with_a_message_go_the_pings_that_are_nearly_due_but_of_two_only_one_begins() -> None:
    probes, pods = linked(4)
    me = sorted(pods)[1]
    assert probes.along(1.0, me) == [], "long before"
    at = min(line.due for line in probes._lines.values()) - 0.01
    begun = probes.along(at, me)
    assert {order.pod for order in begun} == {pod for pod in pods if pod > me}
    assert probes.along(at, me) == [], "once"
    assert probes.due() <= at + 0.1, "they are repeated when nobody answers"
    assert probes.tick(at + 0.1).orders


def test_what_is_heard_puts_off_what_is_due() -> None:
    probes = Prober(1.0, 0.5, 3, Awareness(3), Random(1), lambda _: ())
    for pod in (A, B):
        probes.link_up(pod, 0.0)
    assert probes.due() == 0.0
    to_a, to_b = probes.tick(0.0).orders
    assert probes.due() == pytest.approx(0.09), "unanswered pings are repeated"
    probes.on_ack(A, to_a.head[1], 0.01)  # type: ignore[arg-type]
    assert probes.due() == pytest.approx(0.09), "one still is"
    probes.on_ack(B, to_b.head[1], 0.01)  # type: ignore[arg-type]
    assert probes.due() >= 0.85, "nobody needs to wake up before"
    for pod in (A, B):
        probes.on_ping(pod, 7, None, 0.1)
        assert probes.on_ping(pod, 8, 7, 0.5)
    assert 0.5 + 0.85 <= probes.due() <= 0.5 + 1.0, "their pings served as ours"
    probes.on_ping(A, 9, 5, 0.6)
    assert probes.due() == 0.6, "our answer got lost: ask at once"
    assert [order.pod for order in probes.tick(0.6).orders] == [A]
