"""Self-repair: the copies of a pod that stays away for `redundancy.repair_after` are made anew on others.

Placement does the work (`TreeCatalogue.place`): a pod that is given up counts as keeping nothing, so another one is
placed and fetches. A pod that comes back has its copies still, and counts again at once.
"""

from __future__ import annotations

import logging
from typing import Final

import anyio

from base.ids import PodId
from mesh.api import State
from operations.counting import counted
from operations.parts import Parts
from policies.absence import Absences
from policies.situation import is_connected

AGAIN_S: Final = 3600.0
"""Looked at so often at least."""

logger = logging.getLogger(__name__)


class Repairs:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._absences = Absences()
        self._given_up: frozenset[PodId] = frozenset()
        self._changed = anyio.Event()
        parts.mesh.on_change(self._tell)

    def _tell(self) -> None:
        self._changed.set()

    def left_s(self) -> dict[PodId, float]:
        """Return who is away without having said so, and how many seconds later its copies are made anew; 0: now."""
        after_s = self._parts.cluster.redundancy.repair_after_s
        left = self._absences.left_s(after_s, anyio.current_time())
        return {pod: 0.0 if pod in self._given_up else left_s for pod, left_s in left.items()}

    async def run(self) -> None:
        """Follow who is away until cancelled."""
        while True:
            self._changed = anyio.Event()
            next_at = self.look(anyio.current_time())
            with anyio.move_on_at(next_at):
                await self._changed.wait()

    def look(self, now: float) -> float:
        """Work out whose copies are to be made anew; return when to look again. Times are the event loop's."""
        after_s = self._parts.cluster.redundancy.repair_after_s
        members = self._parts.mesh.members()
        there = counted(self._parts)
        self._absences.note([one.pod for one in there if one.state is not State.ALIVE], now)
        given_up = self._absences.given_up(after_s, now)
        order = [one.pod for one in there]
        reachable = [one.pod for one in there if one.state is State.ALIVE]
        if not is_connected(self._parts.mesh.pod_id, order, reachable):
            given_up &= self._given_up  # it is this pod that is away: the others repair
        if given_up != self._given_up:
            for one in members:
                if one.pod in given_up - self._given_up:
                    logger.info("%s stays away: what it keeps gets copies elsewhere", one.name)
                elif one.pod in self._given_up - given_up:
                    logger.info("%s: no more copies are made of what it keeps", one.name)
            self._given_up = given_up
            self._parts.catalogue.give_up(given_up)
            self._parts.transfer.reconsider()
        next_at = self._absences.next_at(after_s, now)
        return now + AGAIN_S if next_at is None else min(next_at, now + AGAIN_S)
