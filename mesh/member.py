"""The settings of membership, what one pod knows of another, and how that is shown. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesh.api import State

LATENCY_WEIGHT = 0.2
"""Weight of the newest round trip in the latency estimate."""


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
    """So many linked pods are told in one round; half of them, if that is more."""
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


class Near:
    """What is known besides of a pod that is, or was, linked."""

    __slots__ = ("forwarded", "latency_s", "proof")

    def __init__(self) -> None:
        self.latency_s: float | None = None
        self.proof = float("-inf")
        """When a probe of ours was last answered."""
        self.forwarded = float("-inf")
        """When an accusation was last passed on to it."""

    def measured(self, round_trip_s: float) -> None:
        """Take a round trip into the latency estimate."""
        old = round_trip_s if self.latency_s is None else self.latency_s
        self.latency_s = old + LATENCY_WEIGHT * (round_trip_s - old)
