"""The time that files are given when they are made or written: never later than what the kernel calls "now".

For ``touch`` the kernel sends its clock as of the last tick, up to ten milliseconds ago, and pyfuse3 doesn't hand on that
"now" is meant. Were files written in between given the exact time, then what is touched after them would be older, and
make would build it again. So modification times come from the ticks, too, as those of local file systems do. Since
Linux 6.13 "now" may also lie between two ticks; then what is written later isn't given the earlier tick.

Change times don't: nobody sets those, so each may be exact, and none equals the last.
"""

from __future__ import annotations

import time
from typing import Final

COARSE: Final = 5
"""CLOCK_REALTIME_COARSE of Linux, which the time module doesn't name."""


class Clock:
    """The clock of modification times; nanoseconds since the epoch."""

    __slots__ = ("_latest_ns",)

    def __init__(self) -> None:
        self._latest_ns = 0

    def now_ns(self) -> int:
        """Return the last tick, or the last time that the kernel sent if that is later."""
        return max(time.clock_gettime_ns(COARSE), self._latest_ns)

    def told(self, time_ns: int) -> None:
        """Note a time that the kernel sent for access and modification alike: it may have meant "now"."""
        if self._latest_ns < time_ns <= time.time_ns():
            self._latest_ns = time_ns
        elif self._latest_ns > time.time_ns():  # the clock was set back
            self._latest_ns = 0
