"""How far the clocks of other pods are from the own one, and whose is wrong. Pure: all times come in as arguments.

What is kept of a pod is its wall clock against this machine's steady clock, so that an answer stays true when somebody
sets the own wall clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from statistics import median
from typing import Final

from base.ids import PodId

AGREES_WITHIN_S: Final = 120.0
"""A clock further than this from the median is wrong."""
LATEST_S: Final = float(1 << 40)


class Clocks:
    """The clocks of other pods, as far as they were asked."""

    def __init__(self) -> None:
        self._leads_s: dict[PodId, float] = {}  # of wall clocks, over the own steady clock

    def heard(self, pod: PodId, theirs_s: float, asked_at_s: float, answered_at_s: float) -> None:
        """Take the wall clock ``theirs_s`` of a pod, asked for and answered at these times of the own steady clock.

        The answer is taken to be from the middle between the two (Cristian, 1989). Absurd times are ignored.
        """
        round_trip_s = answered_at_s - asked_at_s
        if round_trip_s >= 0 and -LATEST_S < theirs_s < LATEST_S:
            self._leads_s[pod] = theirs_s - asked_at_s - round_trip_s / 2

    def ahead_s(self, pods: Iterable[PodId], wall_s: float, steady_s: float) -> dict[PodId, float]:
        """Return by how much the clocks of these pods are ahead of the own one, of those known."""
        return {pod: self._leads_s[pod] + steady_s - wall_s for pod in pods if pod in self._leads_s}

    def keep(self, pods: Collection[PodId]) -> None:
        """Forget all other pods."""
        self._leads_s = {pod: lead_s for pod, lead_s in self._leads_s.items() if pod in pods}


def agrees(ahead_s: Collection[float]) -> bool:
    """Tell whether the own clock is near the median of itself and others that are ahead of it by so much.

    Where the median is between two, both must be near: of two that differ nobody knows which is right. Without any
    other clock the answer is no.
    """
    if not ahead_s:
        return False
    clocks = sorted([0.0, *ahead_s])
    middle = (clocks[(len(clocks) - 1) // 2], clocks[len(clocks) // 2])
    return all(abs(one) <= AGREES_WITHIN_S for one in middle)


def own_lead_s(ahead_s: Collection[float]) -> float | None:
    """Return by how much the own clock is ahead of the others' median where it doesn't agree, else None."""
    return None if agrees(ahead_s) or not ahead_s else -median(ahead_s)


def wrong(ahead_s: Mapping[PodId, float]) -> dict[PodId, float]:
    """Return the pods whose clock is too far from the median of all, the own one included, and how far ahead.

    None while the own clock is the one that is wrong.
    """
    if own_lead_s(ahead_s.values()) is not None:
        return {}
    middle = median([0.0, *ahead_s.values()])
    return {pod: lead - middle for pod, lead in ahead_s.items() if abs(lead - middle) > AGREES_WITHIN_S}
