"""What the machine does besides what this process asks for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

STAT: Final = Path("/proc/stat")
WINDOW_S: Final = 0.5
"""The kernel counts in hundredths of a second: over less than this a figure says nothing."""
BUSY: Final = 0.25
"""Processors at work from which on a machine is not idle."""


def worked_s() -> float:
    """Return the seconds that all processors together have worked since the start of the machine (proc(5), ``stat``)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, STAT.read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


class OtherWork:
    """Tells whether a machine is busy with something else than a task that keeps count of its own work."""

    def __init__(self, worked_s: Callable[[], float] = worked_s, now_s: Callable[[], float] = time.monotonic) -> None:
        self._worked_s = worked_s
        self._now_s = now_s
        self._own_s = 0.0
        self._since_s, self._before_s = now_s(), worked_s()
        self._is_busy = False

    def own(self, took_s: float) -> None:
        """Count processor time of the task itself (s)."""
        self._own_s += took_s

    def is_busy(self) -> bool:
        """Tell whether others have worked since the last look; looks are at least a window apart."""
        now_s = self._now_s()
        passed_s = now_s - self._since_s
        if passed_s >= WINDOW_S:
            worked_s = self._worked_s()
            self._is_busy = (worked_s - self._before_s - self._own_s) / passed_s > BUSY
            self._since_s, self._before_s, self._own_s = now_s, worked_s, 0.0
        return self._is_busy
