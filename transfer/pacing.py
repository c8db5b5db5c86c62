"""When a new content is copied to other pods: at once, once it was left alone, or at the ticks of an interval. Pure.

A content that was overwritten before it was due is never copied: nothing shows it any more. So a file that is saved a
hundred times within an interval crosses the network once.

What isn't new here (a repair, a pass over all contents) is never put off, and a change of who is there ends all waiting.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection
from typing import Final, Literal

from base.ids import ContentId

MAX_WAITING: Final = 100_000
"""More contents than this don't wait: the oldest are due."""

Replicate = Literal["instant", "settled", "interval"]


class Pacing:
    """The contents that are too new to be copied. Times are those of the event loop (s)."""

    def __init__(self) -> None:
        self._mode: Replicate = "instant"
        self._settle_s = self._interval_s = 0.0
        self._due: OrderedDict[ContentId, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due)

    def configure(self, mode: Replicate, settle_s: float, interval_s: float) -> None:
        """Take over ``redundancy.replicate``, ``settle`` and ``interval``; what waits is due."""
        if (mode, settle_s, interval_s) != (self._mode, self._settle_s, self._interval_s):
            self._mode, self._settle_s, self._interval_s = mode, settle_s, interval_s
            self.clear()

    def noticed(self, contents: Collection[ContentId], now: float) -> None:
        """Note contents that the tree shows since just now."""
        if self._mode == "instant":
            return
        tick = (math.floor(now / self._interval_s) + 1) * self._interval_s if self._mode == "interval" else 0.0
        due = now + self._settle_s if self._mode == "settled" else tick
        for content in contents:
            self._due.setdefault(content, due)
        while len(self._due) > MAX_WAITING:
            self._due.popitem(last=False)

    def waits_until(self, content: ContentId, now: float) -> float | None:
        """Return when a content is due; None when it is."""
        due = self._due.get(content)
        if due is None:
            return None
        if due <= now:
            del self._due[content]
            return None
        return due

    def hurry(self, contents: Collection[ContentId]) -> None:
        """Let contents be due: somebody waits for their copies."""
        for content in contents:
            self._due.pop(content, None)

    def clear(self) -> None:
        """Let everything be due."""
        self._due.clear()
