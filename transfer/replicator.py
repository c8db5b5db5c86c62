"""What this pod must hold, decided content by content. Pure: no clock of its own, no I/O.

A content is looked at when it is new, when who is there or who holds it changes, and in a slow pass over all. Whoever
finds itself among the placed fetches it whole; nobody is sent anything unasked. A failure is tried again later, with
growing pauses.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Collection
from enum import Enum
from typing import Final

from base.ids import ContentId, PodId
from transfer.api import ContentInfo
from transfer.holdings import Holding

MAX_QUEUED: Final = 50_000
FIRST_PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 60.0
LOOK_FIRST_S: Final = 4.0
LOOKS: Final = 6
"""What has too many copies is looked at again after 4 s, 8 s, ... 128 s."""
LULL_S: Final = 1.0
"""So long after the last of what comes in quantity."""
LULL_LIMIT_S: Final = 300.0
"""After so long everything is looked at as it comes, for as long."""


class Duty(Enum):
    """What to do about a content."""

    NONE = "none"
    FETCH = "fetch"
    """Hold it for good, fetching what is missing."""
    MOVE = "move"
    """Fetch it as well, though it has its copies elsewhere: it belongs here. Work for when there is nothing else."""
    ADOPT = "adopt"
    """Hold it for good if all of it is here already."""
    DROP = "drop"
    """Let it go once others were heard to keep it."""


def duty(
    info: ContentInfo,
    me: PodId,
    placed: Collection[PodId],
    holding: Holding,
    *,
    published: bool,
    has_copies: bool = False,
) -> Duty:
    """Decide about one content.

    ``published``: this pod has just published it, so it keeps the first copy whatever the placement says. After a crash
    that is known only from the author's name, and counts as far as the bytes are still here. ``has_copies``: others
    keep as many copies as there should be.
    """
    if info.size == 0:
        return Duty.NONE
    if published or info.keep:
        return Duty.NONE if holding is Holding.KEPT else Duty.FETCH
    if holding is Holding.KEPT:
        return Duty.DROP if has_copies and info.is_shown and me not in placed else Duty.NONE
    if me in placed:
        return Duty.MOVE if has_copies else Duty.FETCH
    return Duty.ADOPT if info.author == me and not has_copies else Duty.NONE


class Lull:
    """A time in which nothing is looked at, because much is still coming. It ends, whatever goes on coming.

    Somebody may import for hours, and a pod may stay behind for good; copies must be made meanwhile.
    """

    def __init__(self) -> None:
        self.until = 0.0
        """When it ends, if it isn't extended."""
        self._since = -2 * LULL_LIMIT_S

    def extend(self, now: float) -> bool:
        """Note that much has come; tell whether it may be left for later."""
        if now - self._since >= 2 * LULL_LIMIT_S:
            self._since = now
        if now - self._since >= LULL_LIMIT_S:
            return False
        self.until = now + LULL_S
        return True


class Watch:
    """What has too many copies, and when to look at it again: ever more rarely, since whose it is may stay in doubt."""

    def __init__(self) -> None:
        self._looks: dict[ContentId, int] = {}

    def pause_s(self, content: ContentId) -> float | None:
        """Note that a content was looked at; return after how long to look again, None: when something changes."""
        looks = self._looks.get(content, 0)
        if looks >= LOOKS or (not looks and len(self._looks) >= MAX_QUEUED):
            return None
        self._looks[content] = looks + 1
        return LOOK_FIRST_S * 2.0**looks

    def forget(self, content: ContentId) -> None:
        """Note that it has changed, or hasn't too many copies any more."""
        self._looks.pop(content, None)

    def first(self, most: int) -> list[ContentId]:
        """Return what is watched, at most so much, and have the rest come first the next time."""
        found = list(itertools.islice(self._looks, most))
        if len(self._looks) > most:
            for content in found:
                self._looks[content] = self._looks.pop(content)
        return found


class WorkQueue:
    """Contents to look at: each once, those that failed after a pause. Bounded: when it overflows a pass is due."""

    def __init__(self) -> None:
        self._ready: OrderedDict[ContentId, None] = OrderedDict()
        self._later: list[tuple[float, ContentId]] = []
        self._failures: dict[ContentId, int] = {}
        self.overflowed = False

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    def add(self, content: ContentId) -> None:
        """Look at a content soon."""
        if len(self._ready) >= MAX_QUEUED and content not in self._ready:
            self.overflowed = True
            return
        self._ready[content] = None

    def drop(self, content: ContentId) -> None:
        """Take a content out of those to look at soon."""
        self._ready.pop(content, None)

    def take(self, now: float) -> ContentId | None:
        """Return the next content to look at, or None when there is none now."""
        while self._later and self._later[0][0] <= now:
            self.add(heapq.heappop(self._later)[1])
        if not self._ready:
            return None
        return self._ready.popitem(last=False)[0]

    def next_at(self) -> float | None:
        """Return when the next content that waits may be tried again, or None."""
        return self._later[0][0] if self._later else None

    def failed(self, content: ContentId, now: float) -> None:
        """Try a content again after a pause that doubles each time."""
        failures = self._failures[content] = self._failures.get(content, 0) + 1
        if len(self._failures) > MAX_QUEUED:
            self._failures.pop(next(iter(self._failures)))
        if len(self._later) >= MAX_QUEUED:
            self.overflowed = True
            return
        heapq.heappush(self._later, (now + min(MAX_PAUSE_S, FIRST_PAUSE_S * 2 ** min(failures - 1, 8)), content))

    def postpone(self, content: ContentId, until: float) -> None:
        """Look at a content at a time, or when it is added before."""
        if len(self._later) >= MAX_QUEUED:
            self.overflowed = True
            return
        heapq.heappush(self._later, (until, content))

    def __contains__(self, content: ContentId) -> bool:
        """Tell whether a content is to be looked at soon."""
        return content in self._ready

    def succeeded(self, content: ContentId) -> None:
        """Forget earlier failures of a content."""
        self._failures.pop(content, None)

    def hurry(self) -> None:
        """Try again now what failed: who is there, or who holds what, has changed."""
        for _, content in self._later:
            self.add(content)
        self._later.clear()
