"""How well this pod itself is doing: Lifeguard's local health. Pure.

A pod that is slow, or cut off, blames others for its own faults. Each hint that the fault is here (a probe without any
answer, a helper that didn't even say no, an accusation of this pod) raises the score and with it this pod's patience.

Source: Dadgar, Phillips, Currey, "Lifeguard: Local Health Awareness for More Accurate Failure Detection", 2018, §IV-A.
"""

from __future__ import annotations


class Awareness:
    """A score from 0 (healthy) to ``max_multiplier - 1``."""

    def __init__(self, max_multiplier: int) -> None:
        assert max_multiplier >= 1
        self._max = max_multiplier - 1
        self.score = 0

    def add(self, delta: int) -> None:
        """Make the score worse (positive) or better (negative), within its bounds."""
        if self.score or delta > 0:  # a healthy pod hears of its health several times a second
            self.score = min(max(self.score + delta, 0), self._max)

    def scale(self, timeout_s: float) -> float:
        """Return ``timeout_s * (score + 1)``."""
        return timeout_s * (self.score + 1)
