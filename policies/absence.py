"""Whose copies are made anew elsewhere: who has been away for `repair_after` without having said so. Pure.

Counted from when this pod saw it go, at the earliest from its own start: whoever has just started knows nothing yet of
how long anybody has been away, and a clock that jumps changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from base.ids import PodId


class Absences:
    """Since when each pod has been away. Times are seconds of any one clock that only goes forward."""

    def __init__(self) -> None:
        self._since: dict[PodId, float] = {}

    def note(self, away: Collection[PodId], now: float) -> None:
        """Note who is away now, planned absences left out; whoever isn't among them starts anew the next time."""
        self._since = {pod: self._since.get(pod, now) for pod in away}

    def given_up(self, repair_after_s: float, now: float) -> frozenset[PodId]:
        """Return those that have been away for so long."""
        return frozenset(pod for pod, since in self._since.items() if now - since >= repair_after_s)

    def left_s(self, repair_after_s: float, now: float) -> dict[PodId, float]:
        """Return who is away, and how many seconds later its copies are made anew; 0 when that has begun."""
        return {pod: max(0.0, since + repair_after_s - now) for pod, since in self._since.items()}

    def next_at(self, repair_after_s: float, now: float) -> float | None:
        """Return when the next one will have been away for so long; None when nobody else is away."""
        return min((at for since in self._since.values() if (at := since + repair_after_s) > now), default=None)
