"""Whether the loop thread may wait for the disk: yes, as long as the disk is quicker than handing the work to a thread.

A thread hop costs some 50 to 100 µs, and reading 4 KiB from a solid disk about the same. A slow answer, as from a
turning disk, means that reads go to threads for a while, longer each time. So the loop is held up at most once in a
pause, and by one read.
"""

from __future__ import annotations

import time
from typing import Final

from transfer import disk

QUICK_NS: Final = 1_000_000
"""A read that takes longer is no quick one (ns)."""
MOST_BYTES: Final = 128 * 1024
FIRST_PAUSE_NS: Final = 1_000_000_000
LONGEST_PAUSE_NS: Final = 60_000_000_000
QUICK_IN_A_ROW: Final = 32
"""After so many quick reads the pause after the next slow one is short again."""


class QuickDisk:
    """What was learnt about one disk. Loop thread only."""

    def __init__(self) -> None:
        self._not_before_ns = 0
        self._pause_ns = FIRST_PAUSE_NS
        self._quick = 0

    def read(self, descriptor: int, offset: int, length: int) -> bytes | None:
        """Read from the disk at once, or return None: a thread has to."""
        start_ns = time.monotonic_ns()
        if length > MOST_BYTES or start_ns < self._not_before_ns:
            return None
        data = disk.pread_all(descriptor, length, offset)
        took_ns = time.monotonic_ns() - start_ns
        if took_ns <= QUICK_NS:
            self._quick += 1
            if self._quick == QUICK_IN_A_ROW:
                self._pause_ns = FIRST_PAUSE_NS
        else:
            self._quick = 0
            self._not_before_ns = start_ns + took_ns + self._pause_ns
            self._pause_ns = min(2 * self._pause_ns, LONGEST_PAUSE_NS)
        return data
