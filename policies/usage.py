"""How often contents are asked for, where, and what follows: which are hot, which cold, who reads them often. Pure.

Each pod counts the reads of its own programs; a count halves every hour. It tells the others its most read contents in
steps of a factor of two. A step down needs half of what the step up did (hysteresis), so a file that is read now and
then doesn't wander.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import Final

from base.ids import ContentId, PodId

HALF_LIFE_S: Final = 3600.0
MAX_COUNTED: Final = 4096
"""Contents whose reads a pod counts; the longest unread go first."""
MAX_TOLD: Final = 512
"""Contents that a pod tells others of, the most read ones."""
MAX_LEVEL: Final = 16
OFTEN: Final = 3
"""The level of who reads a content often: four times in a short while."""
HOT_READS: Final = 4
"""A content is hot from so many reads on, by all pods together."""
YOUNG_S: Final = 600.0
"""So long after it was written the wishes for new files count."""
COLD_AFTER_S: Final = 60.0
"""So long after it was written a content that nobody reads is cold."""
READER_WISH: Final = 3
"""A pod that reads a content often wishes for it by so much more."""


class UseCounter:
    """The reads of one pod. Times are seconds of any one clock that only goes forward."""

    def __init__(self) -> None:
        self._counts: OrderedDict[ContentId, tuple[float, float]] = OrderedDict()
        """Content → reads, and when they were that many; the latest read is at the end."""
        self._levels: dict[ContentId, int] = {}

    def count(self, content: ContentId, now: float) -> None:
        """Note one read."""
        self._counts[content] = self._now(content, now) + 1.0, now
        self._counts.move_to_end(content)
        if len(self._counts) > MAX_COUNTED:
            gone, _ = self._counts.popitem(last=False)
            self._levels.pop(gone, None)

    def _now(self, content: ContentId, now: float) -> float:
        count, at = self._counts.get(content, (0.0, now))
        return count * math.pow(0.5, max(0.0, now - at) / HALF_LIFE_S)

    def levels(self, now: float) -> dict[ContentId, int]:
        """Return what to tell: content → level, the most read ones; n means about 2^(n-1) reads."""
        levels: dict[ContentId, int] = {}
        for content in list(self._counts):
            count = self._now(content, now)
            before = self._levels.get(content, 0)
            level = max(_level(count), min(before, _level(2 * count)))
            if level:
                levels[content] = min(level, MAX_LEVEL)
            elif count < 0.25:
                del self._counts[content]
        self._levels = levels
        told = sorted(levels, key=lambda content: (-levels[content], content))[:MAX_TOLD]
        return {content: levels[content] for content in told}

    def counts(self, now: float) -> list[tuple[ContentId, float]]:
        """Return the counts of what was told last, to be remembered over a restart."""
        return [(content, self._now(content, now)) for content in self._levels if content in self._counts][:MAX_TOLD]

    def remember(self, counts: Collection[tuple[ContentId, float]], age_s: float, now: float) -> None:
        """Go on from what was counted before a restart, so long ago."""
        for content, count in list(counts)[:MAX_TOLD]:
            left = count * math.pow(0.5, max(0.0, age_s) / HALF_LIFE_S)
            self._counts[content] = left, now
            self._levels[content] = _level(left)


def _level(count: float) -> int:
    return int(count + 1e-9).bit_length()


class Uses:
    """What all pods told."""

    def __init__(self) -> None:
        self._told: dict[PodId, dict[ContentId, int]] = {}
        self._by_content: dict[ContentId, dict[PodId, int]] = {}

    def tell(self, pod: PodId, levels: Mapping[ContentId, int]) -> set[ContentId]:
        """Take what a pod tells instead of what it told before; return the contents for which that changes something."""
        before = self._told.get(pod, {})
        changed = {one for one in before.keys() | levels.keys() if before.get(one) != levels.get(one)}
        for content in changed:
            level = levels.get(content)
            pods = self._by_content.setdefault(content, {})
            if level:
                pods[pod] = level
            else:
                pods.pop(pod, None)
            if not pods:
                del self._by_content[content]
        if levels:
            self._told[pod] = dict(levels)
        else:
            self._told.pop(pod, None)
        return changed

    def reads(self, content: ContentId) -> int:
        """Return about how often a content was read lately, by all pods."""
        return sum(1 << level - 1 for level in self._by_content.get(content, {}).values())

    def readers(self, content: ContentId) -> frozenset[PodId]:
        """Return the pods that read a content often."""
        found = self._by_content.get(content)
        return frozenset(pod for pod, level in found.items() if level >= OFTEN) if found else frozenset()

    def is_known(self, content: ContentId) -> bool:
        """Tell whether anybody read a content lately."""
        return content in self._by_content
