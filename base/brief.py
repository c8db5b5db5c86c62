"""Blocking work that as a rule is brief: done on the loop as long as it lately was, otherwise in a thread."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from anyio import to_thread

BRIEF_S: Final = 0.0015
"""Work that takes no longer holds up the loop hardly more than two changes of thread hold up who waits for it."""

FORGET: Final = 0.9
"""The part of a slow one's time that is still remembered after the next."""


class Brief:
    """One kind of such work, as of one disk."""

    def __init__(
        self,
        in_thread: Callable[[Callable[[], None]], Awaitable[None]] = to_thread.run_sync,
        now_s: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._in_thread = in_thread
        self._now_s = now_s
        self._slowness_s = BRIEF_S
        """What lately it took at the longest."""

    async def run(self, work: Callable[[], None], *, prompt: bool) -> None:
        """Do it; ``prompt``: somebody waits for little of it, so that it may be done on the loop. Raises what it raises."""
        took_s = 0.0

        def timed() -> None:
            nonlocal took_s
            start_s = self._now_s()
            try:
                work()
            finally:
                took_s = self._now_s() - start_s

        try:
            if prompt and self._slowness_s < BRIEF_S:
                timed()
            else:
                await self._in_thread(timed)
        finally:
            self._slowness_s = max(took_s, FORGET * self._slowness_s)
