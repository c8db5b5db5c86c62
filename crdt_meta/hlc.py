"""Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014), as one integer.

A stamp counts 65,536ths of a millisecond since the epoch: so many writes a pod can make in one before its stamps run
ahead of its clock. A writer's stamps only grow, and are later than everything it has seen, unless that lies absurdly
far in the future: then a broken clock elsewhere would drag every pod along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FRACTION_BITS: Final = 16
SALTS: Final = 1 << 10
"""The last bits of what is read from the clock; a 64th of a millisecond is left of it."""
MAX_CLOCK: Final = (1 << 63) - 1
MAX_DRIFT_MS: Final = 10 * 60 * 1000
"""Stamps further ahead of the own clock than this are not followed."""


class HybridClock:
    """Gives strictly increasing stamps; pure but for the injected ``now`` (seconds since the epoch)."""

    def __init__(self, now: Callable[[], float], last: int = 0, salt: int = 0) -> None:
        """``salt``, drawn anew at each start, keeps the stamps of a pod and of a copy of it apart."""
        self._now = now
        self._salt = salt % SALTS
        self.last = last
        """The latest stamp given or followed."""

    def _physical(self) -> int:
        stamp = max(0, int(self._now() * (1000 << FRACTION_BITS)))
        return stamp - stamp % SALTS + self._salt

    def tick(self) -> int:
        """Return the next stamp."""
        self.last = min(max(self.last + 1, self._physical()), MAX_CLOCK)
        return self.last

    def observe(self, stamp: int) -> None:
        """Make later stamps greater than one seen elsewhere, if it isn't absurd."""
        if self.last < stamp <= self._physical() + (MAX_DRIFT_MS << FRACTION_BITS):
            self.last = stamp


def nanoseconds(stamp: int) -> int:
    """Return the time of a stamp as nanoseconds since the epoch, in 63 bits whatever it claims; later stamps are later."""
    return min(stamp * 1_000_000 >> FRACTION_BITS, MAX_CLOCK)
