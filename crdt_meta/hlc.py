"""Hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014), as one integer.

A stamp counts 65,536ths of a millisecond since the epoch: so many writes a pod can make in one before its stamps run
ahead of its clock. A writer's stamps only grow, and are later than everything it has seen, unless that lies absurdly
far in the future: then a broken clock elsewhere would drag every pod along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FRACTION_BITS: Final = 16
MAX_CLOCK: Final = (1 << 63) - 1
ABSURD_CLOCK: Final = 1 << 62
"""The year 4199: no broken clock says that, but a hostile one; later stamps aren't surpassed."""
MAX_DRIFT_MS: Final = 10 * 60 * 1000
"""Stamps further ahead of the own clock than this are not followed."""


class HybridClock:
    """Gives strictly increasing stamps; pure but for the injected ``now`` (seconds since the epoch)."""

    def __init__(self, now: Callable[[], float], last: int = 0) -> None:
        self._now = now
        self.last = last
        """The latest stamp given or followed."""

    def physical(self) -> int:
        """Return the stamp that the own clock alone would give."""
        return max(0, int(self._now() * (1000 << FRACTION_BITS)))

    def tick(self) -> int:
        """Return the next stamp."""
        self.last = min(max(self.last + 1, self.physical()), MAX_CLOCK)
        return self.last

    def observe(self, stamp: int) -> None:
        """Make later stamps greater than one seen elsewhere, if it isn't absurd."""
        if self.last < stamp <= self.physical() + (MAX_DRIFT_MS << FRACTION_BITS):
            self.last = stamp


class BorrowedClock:
    """Gives stamps that somebody else chose: from one on, each once."""

    def __init__(self, first: int) -> None:
        self.last = first - 1
        """The latest stamp given."""

    def tick(self) -> int:
        """Return the next stamp."""
        self.last = min(self.last + 1, MAX_CLOCK)
        return self.last


def nanoseconds(stamp: int) -> int:
    """Return the time of a stamp as nanoseconds since the epoch, in 63 bits whatever it claims; later stamps are later."""
    return min(stamp * 1_000_000 >> FRACTION_BITS, MAX_CLOCK)
