"""The settings of membership, what one pod knows of another, and how that is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.api import State
from mesh.gossip_messages import Accusation, Flag, Record
from mesh.suspicion import Suspicion

LATENCY_WEIGHT = 0.2
"""Weight of the newest round trip in the latency estimate."""

_NO_META: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """Times and limits; defaults are those of memberlist on a LAN."""

    probe_interval_s: float = 1.0
    probe_timeout_s: float = 0.5
    indirect_probes: int = 3
    patience_max: int = 3
    """Lifeguard's greatest multiple of the timeout; with it a death is noticed within 1 + 2 * 0.5 * 3 = 4 s."""
    gossip_interval_s: float = 0.2
    gossip_pods: int = 3
    retransmit_multiplier: int = 4
    """An update is sent ``retransmit_multiplier * ceil(log10(pods + 1))`` times by each pod."""
    exchange_interval_s: float = 30.0
    absent_after_s: float = 60.0
    """Suspect for this long: absent."""
    confirmations: int = 2
    """Independent accusers besides the first after which there is no more waiting than `absent_after_s`."""
    unconfirmed_factor: float = 1.2
    """Without them it takes this much longer, at most 10 s (Lifeguard's suspicion timeout)."""


@dataclass(frozen=True, slots=True)
class MemberView:
    """One pod as this pod sees it. Times are seconds on the monotonic clock of ``now``."""

    state: State
    """ALIVE, SUSPECT, ABSENT, MAINTENANCE or LEFT; who is EVICTED is known to the roster only."""
    announced: bool
    """Down or gone by its own word; with MAINTENANCE: down in maintenance."""
    latency_ms: float | None
    """Smoothed round trip of probes; None where there was none yet."""
    last_seen: float | None
    """When it last gave a sign of life, also through others."""
    meta: Mapping[str, object]
    incarnation: int
    """-1 when never heard of."""
    address: str
    """``HOST:PORT`` as it gossips it; empty when unknown."""
    unreachable_since: float | None
    """Since when it has been suspected, in maintenance, too; None while reachable or down by its own word."""


class Peer:
    """All that is known of one other member."""

    __slots__ = (
        "cut_since",
        "forwarded",
        "gone",
        "last_seen",
        "latency_s",
        "linked_to_all",
        "meta",
        "proof",
        "record",
        "shown",
        "suspicion",
    )

    def __init__(self, suspicion: Suspicion | None) -> None:
        self.record: Record | None = None
        self.meta: Mapping[str, object] = _NO_META
        self.gone = False
        """Whether it said itself that it is down or has left."""
        self.linked_to_all = False
        self.suspicion = suspicion
        self.latency_s: float | None = None
        self.last_seen: float | None = None
        self.proof = float("-inf")
        """When a probe of ours was last answered."""
        self.forwarded = float("-inf")
        """When an accusation was last passed on to it."""
        self.cut_since: float | None = None
        """Since when no path of links has led to it."""
        self.shown: object = None

    def take(self, record: Record) -> None:
        """Take over a newer record."""
        self.record = record
        self.gone = bool(record.flags & (Flag.DOWN | Flag.LEFT))
        self.linked_to_all = bool(record.flags & Flag.LINKED_TO_ALL)
        self.meta = MappingProxyType(wire.unpack_meta(record.meta))

    def measured(self, round_trip_s: float) -> None:
        """Take a round trip into the latency estimate."""
        old = round_trip_s if self.latency_s is None else self.latency_s
        self.latency_s = old + LATENCY_WEIGHT * (round_trip_s - old)

    @property
    def accused(self) -> bool:
        """Whether only its own word can clear it (a path of links can't): accused, or never heard of."""
        return self.suspicion is not None and not self.suspicion.deduced

    @property
    def expected(self) -> bool:
        """Whether it is there, or may soon turn out to be."""
        if self.record is None:
            return self.suspicion is not None and not self.suspicion.expired
        return self.suspicion is None and not self.gone

    def accusation(self, pod: PodId, now: float) -> Accusation | None:
        """Return what others are to be told of it (it is ``pod``), None if there is nothing to tell."""
        suspicion = self.suspicion
        if suspicion is None or suspicion.accuser is None:
            return None
        age_s = min(max(0.0, now - suspicion.started), wire.MAX_AGE_S)
        return Accusation(pod, suspicion.incarnation, suspicion.accuser, age_s)

    def state(self) -> tuple[State, bool]:
        """Return the state to show, and whether the absence is announced."""
        flags = self.record.flags if self.record else Flag.NONE
        if flags & Flag.LEFT:
            return State.LEFT, True
        if flags & Flag.MAINTENANCE:
            return State.MAINTENANCE, self.gone
        if flags & Flag.DOWN:
            return State.ABSENT, True
        if self.suspicion is None:
            return State.ALIVE, False
        return (State.ABSENT if self.suspicion.expired else State.SUSPECT), False

    def view(self) -> MemberView:
        """Return what is shown of it."""
        state, announced = self.state()
        return MemberView(
            state=state,
            announced=announced,
            latency_ms=None if self.latency_s is None else self.latency_s * 1000,
            last_seen=self.last_seen,
            meta=self.meta,
            incarnation=self.record.incarnation if self.record else -1,
            address=self.record.address if self.record else "",
            unreachable_since=self.suspicion.started if self.suspicion else None,
        )

    def show(self) -> bool:
        """Return whether what is shown changed since the last call (latency and times don't count)."""
        record = self.record
        shown = (self.state(), self.suspicion is None, record and record.meta, record and record.address)
        changed = shown != self.shown
        self.shown = shown
        return changed
