"""The beat on which a pod looks at things now and then, so that one wake-up serves them all.

A pod at rest pays for being woken more than for what it then does: the processor's caches are cold, for the event loop
as for the look. So what may be looked at a little sooner or later is looked at on the beat, and only that.
"""

from __future__ import annotations

import math
from typing import Final

import anyio

BEAT_S: Final = 2.0


def after(now_s: float, pause_s: float) -> float:
    """Return the last beat within ``pause_s`` after ``now_s``, the next one if there is none."""
    return max(math.floor(now_s / BEAT_S) + 1, math.floor((now_s + pause_s) / BEAT_S)) * BEAT_S


async def rest(pause_s: float) -> None:
    """Sleep until the last beat within ``pause_s``, on the clock of the event loop; for two seconds and more."""
    await anyio.sleep_until(after(anyio.current_time(), pause_s))
