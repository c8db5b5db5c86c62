"""Who is asked when whether it lives, directly and through others, and who did not answer. Pure.

Each linked pod is pinged about once a second, where everything has been well every two seconds with four links or more:
others watch it, too. No answer within the timeout: it is pinged again, and three helpers ping
it for us. No answer to that either: the probe has failed. A helper that gets no answer says so (nack), so that we can
tell a dead pod from being cut off ourselves. With the first silence, and with what others say of a pod, nothing is well
any more: who hasn't been heard within a second is pinged at once.

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
after at most ``interval + 2 * timeout * p`` = 1 + 2 * 0.5 * 3 = 4 s. The longer interval is for pods that are well, so
p = 1 when the ping goes out, and at most 3 with the helpers': 2 + 0.5 + 0.5 * 3 = 4 s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
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
CALM_LINKS = 2.0
"""With so many links the interval begins to grow with their number: a dead pod is missed by each who is linked to it."""
CALM_INTERVALS = 2.0
"""The longest interval where all is well, in intervals."""
ALONG = 0.15
"""Who is due within this part of the interval is pinged along with who is due now: once awake the rest costs little."""
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
        self._ping_at: float | None = None
        """When the first line is due; None: to be found out, since lines came, went or are due later now."""

    def interval_s(self) -> float:
        """Return how often each linked pod is probed, seconds."""
        links = len(self._lines)
        calm = 1.0 if self._awareness.score else min(max(1.0, links / CALM_LINKS), CALM_INTERVALS)
        return max(self._interval_s * calm, links / MAX_PROBES_PER_S)

    def hurry(self, now: float, pods: Iterable[PodId] | None = None) -> None:
        """Ping those (all) soon who haven't shown for an interval without calm that they hear us: something is wrong."""
        interval_s = max(self._interval_s, len(self._lines) / MAX_PROBES_PER_S)
        for pod in self._lines if pods is None else pods:
            if (line := self._lines.get(pod)) is not None:
                line.due = min(line.due, max(now, line.arrived + interval_s))
                self._ping_at = None

    def link_up(self, pod: PodId, now: float) -> None:
        """Probe ``pod`` at the next tick and from then on regularly."""
        self._lines[pod] = _Line(now)
        self._ping_at = None
        self._probes.pop(pod, None)

    def link_down(self, pod: PodId) -> None:
        """Stop probing ``pod``."""
        self._lines.pop(pod, None)
        self._ping_at = None
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
            line.due = self._ping_at = now  # our answer got lost: do we still hear each other?
        line.answered, line.answered_at = nonce, now
        proven = known and now - line.arrived <= PROVEN_INTERVALS * self.interval_s()
        if proven:
            if line.due == self._ping_at:
                self._ping_at = None
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
        due = self._first()
        for probe in self._probes.values():  # few: those that are unanswered just now
            if probe.deadline < due:
                due = probe.deadline
            if probe.resend_at < due and probe.target in self._lines:
                due = probe.resend_at
        for relay in self._relays.values():
            if relay.deadline < due:
                due = relay.deadline
        return due

    def _first(self) -> float:
        """Return when the first line is due."""
        if self._ping_at is None:
            self._ping_at = min([line.due for line in self._lines.values()], default=float("inf"))
        return self._ping_at

    def tick(self, now: float) -> Probes:
        """Return the messages that are due and the pods whose probe has failed."""
        orders: list[Order] = []
        failed: list[PodId] = []
        if now < self.due():
            return Probes(orders, failed)
        for probe in [probe for probe in self._probes.values() if now >= probe.deadline]:
            if probe.indirect:
                del self._probes[probe.target]
                self._awareness.add(len(probe.silent) if probe.helpers else 1)
                failed.append(probe.target)
            else:
                orders += self._go_indirect(probe, now)
                self.hurry(now)
        for probe in self._probes.values():
            if now >= probe.resend_at and probe.target in self._lines:
                orders.append(self._repeat(probe, now))
        for own in [own for own, relay in self._relays.items() if now >= relay.deadline]:
            relay = self._relays.pop(own)
            orders.append(Order(relay.requester, [Kind.NACK, relay.nonce]))
        orders += self._pings(now)
        return Probes(orders, failed)

    def _pings(self, now: float) -> list[Order]:
        """Return the pings that are due."""
        orders: list[Order] = []
        if now < self._first():
            return orders
        along = now + ALONG * self.interval_s()
        for pod, line in self._lines.items():
            if line.due <= along:
                orders += self._begin(pod, line, now)
        return orders

    def along(self, now: float, me: PodId) -> list[Order]:
        """Return pings that needn't wait for a tick, now that a message has come.

        What came often has all others at work, too: of two that ping each other at the same moment one is enough.
        """
        until = now + ALONG * self.interval_s()
        orders: list[Order] = []
        if until < self._first():
            return orders
        for pod, line in self._lines.items():
            if line.due <= until and pod > me:
                orders += self._begin(pod, line, now)
        return orders

    def _begin(self, pod: PodId, line: _Line, now: float) -> list[Order]:
        """Return the first ping of a probe, unless one is under way."""
        line.due, self._ping_at = self._next(now), None
        if pod in self._probes:
            return []
        deadline = now + self._awareness.scale(self._timeout_s)
        self._probes[pod] = probe = _Probe(pod, self._new_nonce(), now, deadline, now + line.resend_s)
        return [self._ping(pod, probe.nonce)]

    def _next(self, now: float) -> float:
        """Return when a pod is pinged of which all is known now."""
        return now + self.interval_s() * self._rng.uniform(0.85, 1.0)

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
