"""Who is asked when whether it lives, directly and through others, and who did not answer. Pure.

Each linked pod is pinged about once a second. No answer within the timeout: it is pinged again, and three helpers ping
it for us. No answer to that either: the probe has failed. A helper that gets no answer says so (nack), so that we can
tell a dead pod from being cut off ourselves.

One ping and its answer serve both ends. Each ping says which answer of the other came last (*heard*). Whoever is pinged
and reads that his own last answer arrived knows what a ping of his own would tell him: the other lives, and each hears
the other. He pings no sooner than an interval after that, so of two linked pods the one that is due first asks. A ping
that doesn't know of an answer given before shows that answers get lost, and is followed by a ping at once: that a pod
is mute to us, or deaf to us, is so known within the same time as if both always asked. Pods of before say nothing of
what they heard, and are pinged always.

An unanswered ping is repeated every `RESEND_S`: where frames get lost, or a pod has no helpers because few are linked
to whom it is linked to, one lost frame accuses nobody. Of a pod that has taken longer to answer twice that time is
waited: what is slow already must not be asked the same ten times.

Sources: SWIM 2002 §3.1, but every linked pod instead of a random one (links are few, and a cut must be known in 5 s
on both sides); Lifeguard 2018 §IV-A (nacks). Times: with patience p = 1..3 (see `Awareness`) a pod that dies is noticed
after at most ``interval + 2 * timeout * p`` = 1 + 2 * 0.5 * 3 = 4 s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from base.ids import PodId
from mesh.awareness import Awareness
from mesh.gossip_messages import Kind, pod_bytes

MAX_PROBES_PER_S = 64
"""With more links than this each is probed more rarely than every interval."""
MAX_RELAYS = 256
"""Probes made for others at a time; more are refused with a nack."""
RESEND_S = 0.09
RESEND_MAX_S = 2.0
NACK_AFTER = 0.8
"""A helper says no after this part of the timeout, so that the nack is there in time."""
PROVEN_INTERVALS = 1.5
"""What was sent longer ago than this, in intervals, doesn't show any more that the other hears us."""
NONCES = 2**16
"""Numbers of pings begin anew after so many: three bytes on the wire, and none stays unanswered for long."""


class Order(NamedTuple):
    """A message to be sent to ``pod``: its head, to which the updates are yet to be added."""

    pod: PodId
    head: list[object]
    tail: tuple[object, ...] = ()
    """What comes behind the updates and the sum."""


class Acked(NamedTuple):
    """A probe of ours was answered; ``round_trip_s`` is None when not measurable."""

    pod: PodId
    round_trip_s: float | None


class Probes(NamedTuple):
    """What a tick comes to."""

    orders: list[Order]
    failed: list[PodId]


@dataclass(slots=True)
class _Probe:
    target: PodId
    nonce: int
    started: float
    deadline: float
    resend_at: float
    indirect: bool = False
    helpers: Collection[PodId] = ()
    sent: dict[int, float] = field(default_factory=dict)
    """When it was repeated, by the number of each repetition."""
    silent: set[PodId] = field(default_factory=set)
    """Helpers that have not even said no."""


@dataclass(slots=True)
class _Line:
    """What is known of a linked pod's answering."""

    due: float
    """When it is pinged next."""
    resend_s: float = RESEND_S
    """After which time a ping is repeated."""
    heard: int | None = None
    """The number of the ping whose answer came last."""
    answered: int | None = None
    """The number of its ping that was answered last,"""
    answered_at: float = float("-inf")
    """and when."""
    arrived: float = float("-inf")
    """When that was sent to it which is known to have arrived, the latest."""


@dataclass(slots=True)
class _Relay:
    target: PodId
    requester: PodId
    nonce: int
    deadline: float


class Prober:
    """All probes of one pod, its own and those it makes for others."""

    def __init__(
        self,
        interval_s: float,
        timeout_s: float,
        indirect: int,
        awareness: Awareness,
        rng: Random,
        helpers: Callable[[PodId], Sequence[PodId]],
    ) -> None:
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._indirect = indirect
        self._awareness = awareness
        self._rng = rng
        self._helpers = helpers
        self._lines: dict[PodId, _Line] = {}
        self._probes: dict[PodId, _Probe] = {}
        self._relays: dict[int, _Relay] = {}
        self._nonce = rng.randrange(NONCES)
        self._due = float("-inf")
        """`tick` has nothing to do before that."""

    def interval_s(self) -> float:
        """Return how often each linked pod is probed, seconds."""
        return max(self._interval_s, len(self._lines) / MAX_PROBES_PER_S)

    def link_up(self, pod: PodId, now: float) -> None:
        """Probe ``pod`` at the next tick and from then on regularly."""
        self._lines[pod] = _Line(now)
        self._due = now
        self._probes.pop(pod, None)

    def link_down(self, pod: PodId) -> None:
        """Stop probing ``pod``."""
        self._lines.pop(pod, None)
        self._probes.pop(pod, None)

    def ask_others(self, pod: PodId, now: float) -> list[Order]:
        """Have ``pod``, whose link just broke, probed by others at once."""
        probe = _Probe(pod, self._new_nonce(), now, now, now)
        self._probes[pod] = probe
        return self._go_indirect(probe, now)

    def on_request(self, requester: PodId, nonce: int, target: PodId, now: float) -> list[Order]:
        """Probe ``target`` for ``requester``, or say that we can't."""
        if target not in self._lines or len(self._relays) >= MAX_RELAYS:
            return [Order(requester, [Kind.NACK, nonce])]
        own, deadline = self._new_nonce(), now + NACK_AFTER * self._timeout_s
        self._relays[own] = _Relay(target, requester, nonce, deadline)
        self._due = min(self._due, deadline)
        return [self._ping(target, own)]

    def on_ping(self, sender: PodId, nonce: int, heard: int | None, now: float) -> bool:
        """Note a ping, which is answered now; tell whether it shows as much as an answer to one of our own.

        ``heard``: the number of its ping whose answer it got last, None if it doesn't say.
        """
        line = self._lines.get(sender)
        if line is None:
            return False
        known = heard is not None and heard == line.answered
        if known:
            line.arrived = max(line.arrived, line.answered_at)
        elif heard is not None and line.answered not in (None, nonce):
            line.due = self._due = now  # our answer got lost: do we still hear each other?
        line.answered, line.answered_at = nonce, now
        proven = known and now - line.arrived <= PROVEN_INTERVALS * self.interval_s()
        if proven:
            line.due = self._next(now)
            self._awareness.add(-1)
        return proven

    def on_ack(self, sender: PodId, nonce: int, now: float) -> Acked | Order | None:
        """Return what an ack means: a probe of ours answered, something to pass on, or nothing (too late, forged)."""
        line = self._lines.get(sender)
        if line is not None:
            line.heard = nonce
        relay = self._relays.get(nonce)
        if relay is not None and relay.target == sender:
            del self._relays[nonce]
            return Order(relay.requester, [Kind.ACK, relay.nonce])
        for probe in self._probes.values():
            if probe.nonce != nonce and nonce not in probe.sent:
                continue
            if sender != probe.target and sender not in probe.helpers:
                return None
            del self._probes[probe.target]
            self._awareness.add(-1)
            if sender == probe.target and line is not None:
                asked = probe.sent.get(nonce, probe.started)
                line.arrived = max(line.arrived, asked)
                wait_s = max(2 * (now - asked), line.resend_s / 2, RESEND_S)
                line.resend_s = min(wait_s, RESEND_MAX_S)
            exact = sender == probe.target and not probe.indirect
            return Acked(probe.target, now - probe.started if exact else None)
        return None

    def on_nack(self, sender: PodId, nonce: int) -> None:
        """Count a helper that answered that it got no answer."""
        for probe in self._probes.values():
            if probe.nonce == nonce:
                probe.silent.discard(sender)

    def slept(self, seconds: float) -> None:
        """Wait so much longer for answers: they may have come meanwhile, and nobody has looked."""
        for probe in self._probes.values():
            probe.deadline += seconds

    def due(self) -> float:
        """Return when `tick` has something to do, unless it is told something before."""
        return min(self._times(), default=float("inf"))

    def tick(self, now: float) -> Probes:
        """Return the messages that are due and the pods whose probe has failed."""
        orders: list[Order] = []
        failed: list[PodId] = []
        if now < self._due:
            return Probes(orders, failed)
        for probe in [probe for probe in self._probes.values() if now >= probe.deadline]:
            if probe.indirect:
                del self._probes[probe.target]
                self._awareness.add(len(probe.silent) if probe.helpers else 1)
                failed.append(probe.target)
            else:
                orders += self._go_indirect(probe, now)
        for probe in self._probes.values():
            if now >= probe.resend_at and probe.target in self._lines:
                orders.append(self._repeat(probe, now))
        for own in [own for own, relay in self._relays.items() if now >= relay.deadline]:
            relay = self._relays.pop(own)
            orders.append(Order(relay.requester, [Kind.NACK, relay.nonce]))
        orders += self._pings(now)
        self._due = self.due()
        return Probes(orders, failed)

    def _pings(self, now: float) -> list[Order]:
        """Return the pings that are due."""
        orders: list[Order] = []
        for pod, line in self._lines.items():
            if now < line.due:
                continue
            line.due = self._next(now)
            if pod not in self._probes:
                deadline = now + self._awareness.scale(self._timeout_s)
                self._probes[pod] = probe = _Probe(pod, self._new_nonce(), now, deadline, now + line.resend_s)
                orders.append(self._ping(pod, probe.nonce))
        return orders

    def _next(self, now: float) -> float:
        """Return when a pod is pinged of which all is known now."""
        return now + self.interval_s() * self._rng.uniform(0.85, 1.0)

    def _times(self) -> Iterator[float]:
        """Yield when something is due."""
        for line in self._lines.values():
            yield line.due
        for probe in self._probes.values():
            yield probe.deadline
            if probe.target in self._lines:
                yield probe.resend_at
        for relay in self._relays.values():
            yield relay.deadline

    def _go_indirect(self, probe: _Probe, now: float) -> list[Order]:
        candidates = [pod for pod in self._helpers(probe.target) if pod in self._lines and pod != probe.target]
        chosen = self._rng.sample(candidates, min(self._indirect, len(candidates)))
        probe.indirect = True
        probe.helpers = chosen
        probe.silent = set(chosen)
        probe.deadline = now + self._awareness.scale(self._timeout_s)
        orders = [Order(pod, [Kind.REQUEST, probe.nonce, pod_bytes(probe.target)]) for pod in chosen]
        if probe.target in self._lines:
            orders.append(self._repeat(probe, now))
        self._due = min(self._due, probe.deadline, probe.resend_at)
        return orders

    def _repeat(self, probe: _Probe, now: float) -> Order:
        """Ping once more, under another number: it shows which ping was answered, and so how long that took."""
        nonce = self._new_nonce()
        probe.sent[nonce] = now
        probe.resend_at = now + self._lines[probe.target].resend_s
        return self._ping(probe.target, nonce)

    def _ping(self, pod: PodId, nonce: int) -> Order:
        heard = self._lines[pod].heard
        return Order(pod, [Kind.PING, nonce], () if heard is None else (heard,))

    def _new_nonce(self) -> int:
        self._nonce = (self._nonce + 1) % NONCES
        return self._nonce
