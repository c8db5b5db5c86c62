"""Who is asked when whether it lives, directly and through others, and who did not answer. Pure.

Each linked pod is pinged about once a second. No answer within the timeout: it is pinged again, and three helpers ping
it for us. No answer to that either: the probe has failed. A helper that gets no answer says so (nack), so that we can
tell a dead pod from being cut off ourselves.

An unanswered ping is repeated every `RESEND_S`: where frames get lost, or a pod has no helpers because few are linked
to whom it is linked to, one lost frame accuses nobody.

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
NACK_AFTER = 0.8
"""A helper says no after this part of the timeout, so that the nack is there in time."""


class Order(NamedTuple):
    """A message to be sent to ``pod``: its head, to which the updates are yet to be added."""

    pod: PodId
    head: list[object]


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
    silent: set[PodId] = field(default_factory=set)
    """Helpers that have not even said no."""


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
        self._next: dict[PodId, float] = {}
        self._probes: dict[PodId, _Probe] = {}
        self._relays: dict[int, _Relay] = {}
        self._nonce = rng.randrange(2**31)
        self._due = float("-inf")
        """`tick` has nothing to do before that."""

    def interval_s(self) -> float:
        """Return how often each linked pod is probed, seconds."""
        return max(self._interval_s, len(self._next) / MAX_PROBES_PER_S)

    def link_up(self, pod: PodId, now: float) -> None:
        """Probe ``pod`` at the next tick and from then on regularly."""
        self._next[pod] = self._due = now
        self._probes.pop(pod, None)

    def link_down(self, pod: PodId) -> None:
        """Stop probing ``pod``."""
        self._next.pop(pod, None)
        self._probes.pop(pod, None)

    def ask_others(self, pod: PodId, now: float) -> list[Order]:
        """Have ``pod``, whose link just broke, probed by others at once."""
        probe = _Probe(pod, self._new_nonce(), now, now, now)
        self._probes[pod] = probe
        return self._go_indirect(probe, now)

    def on_request(self, requester: PodId, nonce: int, target: PodId, now: float) -> list[Order]:
        """Probe ``target`` for ``requester``, or say that we can't."""
        if target not in self._next or len(self._relays) >= MAX_RELAYS:
            return [Order(requester, [Kind.NACK, nonce])]
        own, deadline = self._new_nonce(), now + NACK_AFTER * self._timeout_s
        self._relays[own] = _Relay(target, requester, nonce, deadline)
        self._due = min(self._due, deadline)
        return [Order(target, [Kind.PING, own])]

    def on_ack(self, sender: PodId, nonce: int, now: float) -> Acked | Order | None:
        """Return what an ack means: a probe of ours answered, something to pass on, or nothing (too late, forged)."""
        relay = self._relays.get(nonce)
        if relay is not None and relay.target == sender:
            del self._relays[nonce]
            return Order(relay.requester, [Kind.ACK, relay.nonce])
        for probe in self._probes.values():
            if probe.nonce != nonce:
                continue
            if sender != probe.target and sender not in probe.helpers:
                return None
            del self._probes[probe.target]
            self._awareness.add(-1)
            exact = sender == probe.target and not probe.indirect
            return Acked(probe.target, now - probe.started if exact else None)
        return None

    def on_nack(self, sender: PodId, nonce: int) -> None:
        """Count a helper that answered that it got no answer."""
        for probe in self._probes.values():
            if probe.nonce == nonce:
                probe.silent.discard(sender)

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
            if now >= probe.resend_at and probe.target in self._next:
                probe.resend_at = now + RESEND_S
                orders.append(Order(probe.target, [Kind.PING, probe.nonce]))
        for own in [own for own, relay in self._relays.items() if now >= relay.deadline]:
            relay = self._relays.pop(own)
            orders.append(Order(relay.requester, [Kind.NACK, relay.nonce]))
        for pod in [pod for pod, due in self._next.items() if now >= due]:
            self._next[pod] = now + self.interval_s() * self._rng.uniform(0.85, 1.0)
            if pod not in self._probes:
                deadline = now + self._awareness.scale(self._timeout_s)
                self._probes[pod] = probe = _Probe(pod, self._new_nonce(), now, deadline, now + RESEND_S)
                orders.append(Order(pod, [Kind.PING, probe.nonce]))
        self._due = min(self._times(), default=float("inf"))
        return Probes(orders, failed)

    def _times(self) -> Iterator[float]:
        """Yield when something is due."""
        yield from self._next.values()
        for probe in self._probes.values():
            yield probe.deadline
            if probe.target in self._next:
                yield probe.resend_at
        for relay in self._relays.values():
            yield relay.deadline

    def _go_indirect(self, probe: _Probe, now: float) -> list[Order]:
        candidates = [pod for pod in self._helpers(probe.target) if pod in self._next and pod != probe.target]
        chosen = self._rng.sample(candidates, min(self._indirect, len(candidates)))
        probe.indirect = True
        probe.helpers = chosen
        probe.silent = set(chosen)
        probe.deadline = now + self._awareness.scale(self._timeout_s)
        orders = [Order(pod, [Kind.REQUEST, probe.nonce, pod_bytes(probe.target)]) for pod in chosen]
        if probe.target in self._next:
            probe.resend_at = now + RESEND_S
            orders.append(Order(probe.target, [Kind.PING, probe.nonce]))
        self._due = min(self._due, probe.deadline, probe.resend_at)
        return orders

    def _new_nonce(self) -> int:
        self._nonce = (self._nonce + 1) % 2**32
        return self._nonce
