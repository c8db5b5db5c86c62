"""How fast bulk bytes may go: a token bucket that gives the urgent their turn first.

`Bucket` is pure: who wants to send or fetch bytes asks, and is let through once those before it have been paid for at the
rate. That is virtual scheduling (ITU-T I.371, the generic cell rate algorithm) with a burst of one piece, so callers
ask for small pieces (`piece_bytes`). `Pacer` is its shell. Only bulk between pods is paced, never local work, and never
what is small and keeps the cluster together (gossip, records of the tree).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import anyio

SHARE: Final = 0.9
"""Of a limit this share is used for contents; the rest is what TCP, TLS and the mesh itself add."""
PIECE_S: Final = 0.1
"""What is asked for at a time takes so long at the rate."""
LEAST_PIECE_BYTES: Final = 4 << 10
STILL_S: Final = 0.25
"""Who waits is heard of so often."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One that waits for its turn."""

    urgency: int
    size: int
    granted: bool = False
    event: anyio.Event = field(default_factory=anyio.Event)


class Bucket:
    """Lets bytes through at a rate. Times are seconds of any one clock that only goes forward."""

    def __init__(self) -> None:
        self.rate: float | None = None
        """Bytes a second; None: no limit."""
        self._free_at = 0.0
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, Ticket]] = []

    def set_rate(self, rate: float | None, now: float) -> None:
        """Change the rate, for those who wait as well."""
        if rate is not None and self.rate is not None:
            self._free_at = now + max(0.0, self._free_at - now) * self.rate / rate
        elif rate is not None:
            self._free_at = now
        self.rate = rate

    def ask(self, size: int, urgency: int) -> Ticket:
        """Ask to let ``size`` bytes through; the smaller urgency goes first."""
        ticket = Ticket(urgency, size)
        heapq.heappush(self._waiting, (urgency, next(self._order), ticket))
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Forget one that waits."""
        self._waiting = [one for one in self._waiting if one[2] is not ticket]
        heapq.heapify(self._waiting)

    def give_back(self, size: int) -> None:
        """Say that so many bytes weren't needed after all."""
        if self.rate is not None:
            self._free_at -= size / self.rate

    def grant(self, now: float) -> float | None:
        """Let through who may pass now; return when the next one may, None when nobody waits."""
        while self._waiting:
            if self.rate is not None:
                if now < self._free_at:
                    return self._free_at
                ticket = self._waiting[0][2]
                self._free_at = max(self._free_at, now) + ticket.size / self.rate
            ticket = heapq.heappop(self._waiting)[2]
            ticket.granted = True
            ticket.event.set()
        return None


class Pacer:
    """One direction of a pod's bulk traffic."""

    def __init__(self) -> None:
        self._bucket = Bucket()

    @property
    def rate(self) -> float | None:
        """Bytes of contents a second; None: no limit."""
        return self._bucket.rate

    def set_limit(self, bytes_per_s: float | None) -> None:
        """Limit the line to so many bytes a second, everything counted; None: no limit."""
        rate = None if bytes_per_s is None else bytes_per_s * SHARE
        if rate != self._bucket.rate:
            now = anyio.current_time()
            self._bucket.set_rate(rate, now)
            self._bucket.grant(now)

    def piece_bytes(self, most: int) -> int:
        """Return how much should be asked for at a time, at most ``most``."""
        rate = self._bucket.rate
        return most if rate is None else max(1, min(most, max(LEAST_PIECE_BYTES, int(rate * PIECE_S))))

    async def turn(self, size: int, urgency: int = 0, still: Callable[[], None] | None = None) -> None:
        """Return once ``size`` bytes may pass; ``still`` is called now and then meanwhile."""
        if self._bucket.rate is None:
            return
        ticket = self._bucket.ask(size, urgency)
        try:
            while not ticket.granted:
                now = anyio.current_time()
                next_at = self._bucket.grant(now)
                if not ticket.granted:
                    with anyio.move_on_at(now + STILL_S if next_at is None else min(next_at, now + STILL_S)):
                        await ticket.event.wait()
                if still is not None:
                    still()
        finally:
            if not ticket.granted:
                self._bucket.withdraw(ticket)

    def give_back(self, size: int) -> None:
        """Say that so many bytes weren't needed after all."""
        self._bucket.give_back(size)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes a second; None: no limit."""

    up: float | None = None
    down: float | None = None
    repair: float | None = None
    """For copies that are made anew because a pod stays away."""


class Paces:
    """All pacers of a pod."""

    def __init__(self) -> None:
        self.up = Pacer()
        self.down = Pacer()
        self.repair = Pacer()
        self.limits = Limits()
        """Those in force."""

    def set(self, limits: Limits) -> None:
        """Take over limits."""
        self.limits = limits
        self.up.set_limit(limits.up)
        self.down.set_limit(limits.down)
        self.repair.set_limit(limits.repair)
