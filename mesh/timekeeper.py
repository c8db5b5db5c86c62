"""Asks linked pods what time it is: when a link comes up, and every few minutes."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import anyio

from base.errors import WormholeError
from base.ids import PodId
from mesh.clocks import Clocks, agrees
from mesh.namesakes import steady_ms
from mesh.wire import Tag

ASK_EVERY_S: Final = 120.0
ASK_TIMEOUT_S: Final = 5.0
RETRY_S: Final = 10.0

Ask = Callable[[PodId, Tag, object, float], Awaitable[object]]


class Timekeeper:
    """What is known of the clocks of the linked pods."""

    def __init__(
        self, ask: Ask, linked: Callable[[], Collection[PodId]], *, wall_s: Callable[[], float] | None = None
    ) -> None:
        """``wall_s`` is this machine's wall clock, seconds since the epoch."""
        self._ask = ask
        self._linked = linked
        self._wall_s = wall_s or time.time
        self._clocks = Clocks()
        self._due: dict[PodId, float] = {}
        self._look = anyio.Event()

    def look(self) -> None:
        """Say that somebody may have been linked, or a link may have gone."""
        if self._due.keys() != frozenset(self._linked()):
            self._look.set()

    async def serve(self, sender: PodId, body: object) -> object:
        """Answer CLOCK: nanoseconds since the epoch."""
        return int(self._wall_s() * 1e9)

    def ahead_s(self) -> dict[PodId, float]:
        """Return by how many seconds the clocks of linked pods are ahead of the own one."""
        return self._clocks.ahead_s(self._linked(), self._wall_s(), steady_ms() / 1000)

    def agrees(self) -> bool:
        """Tell whether the own clock agrees with those of the linked pods; without any the answer is no."""
        return agrees(self.ahead_s().values())

    async def run(self) -> None:
        """Ask until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                now, linked = anyio.current_time(), frozenset(self._linked())
                self._due = {pod: self._due.get(pod, now) for pod in linked}
                self._clocks.keep(linked)
                for pod in linked:
                    if self._due[pod] <= now:
                        self._due[pod] = now + ASK_EVERY_S
                        group.start_soon(self._ask_one, pod)
                self._look = anyio.Event()
                with anyio.CancelScope(deadline=min(self._due.values(), default=math.inf)):
                    await self._look.wait()

    async def _ask_one(self, pod: PodId) -> None:
        asked_at_s = steady_ms() / 1000
        try:
            answer = await self._ask(pod, Tag.CLOCK, None, ASK_TIMEOUT_S)
        except WormholeError:
            self._due[pod] = anyio.current_time() + RETRY_S
            self._look.set()
            return
        if type(answer) is int:
            self._clocks.heard(pod, answer / 1e9, asked_at_s, steady_ms() / 1000)
