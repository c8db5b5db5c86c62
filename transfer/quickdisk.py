"""Whether the loop thread may wait for the disk: yes, as long as the disk is quicker than handing the work to a thread.

A thread hop costs some 50 to 100 µs, and reading 4 KiB from a solid disk about the same. Slow answers, as from a
turning disk, mean that reads go to threads for a while, longer each time. So the loop is held up by a read or two in a
pause.
"""

from __future__ import annotations

import time
from typing import Final

from transfer import disk

QUICK_NS: Final = 1_000_000
"""When reads take longer than this on average the disk isn't quick (ns)."""
WEIGHT: Final = 8
"""The average is over about so many reads."""
MOST_BYTES: Final = 128 * 1024
FIRST_PAUSE_NS: Final = 1_000_000_000
LONGEST_PAUSE_NS: Final = 60_000_000_000
QUICK_IN_A_ROW: Final = 32
"""After so many quick reads the pause after the next slow ones is short again."""


class QuickDisk:
    """What was learnt about one disk. Loop thread only."""

    def __init__(self) -> None:
        self._not_before_ns = 0
        self._pause_ns = FIRST_PAUSE_NS
        self._average_ns = 0
        self._quick = 0

    def read(self, descriptor: int, offset: int, length: int) -> bytes | None:
        """Read from the disk at once, or return None: a thread has to."""
        start_ns = time.monotonic_ns()
        if length > MOST_BYTES or start_ns < self._not_before_ns:
            return None
        data = disk.pread_all(descriptor, length, offset)
        self.note(start_ns, time.monotonic_ns())
        return data

    def note(self, start_ns: int, end_ns: int) -> None:
        """Learn from one read (`time.monotonic_ns`)."""
        self._average_ns += (end_ns - start_ns - self._average_ns) // WEIGHT
        if self._average_ns <= QUICK_NS:
            self._quick += 1
            if self._quick == QUICK_IN_A_ROW:
                self._pause_ns = FIRST_PAUSE_NS
        else:
            self._quick = self._average_ns = 0
            self._not_before_ns = end_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)

    def is_quick(self, now_ns: int) -> bool:
        """Tell whether reads are done at once."""
        return now_ns >= self._not_before_ns
