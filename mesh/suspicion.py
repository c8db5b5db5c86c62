"""One suspicion: who is said not to answer, by whom, since when, and until when it is waited. Pure.

The wait shrinks from ``max_s`` to ``min_s`` as further pods confirm the accusation independently, so that one sick
accuser decides more slowly than several healthy ones:

    wait = max(min_s, max_s - (max_s - min_s) * log(confirmations + 1) / log(needed + 1))

Source: Lifeguard 2018, §IV-B (LHA-Suspicion); memberlist `suspicion.go`.
"""

from __future__ import annotations

import math

from base.ids import PodId

MAX_CONFIRMATIONS = 8
"""Accusers remembered per suspicion."""


class Suspicion:
    """That a pod of an ``incarnation`` does not answer.

    Three kinds differ in what ends them. An accusation (``accuser`` set) needs a higher incarnation: only the accused
    can refute it. One that is ``deduced`` (no path of links leads there) ends when a path is seen. One of a pod never
    heard of has incarnation -1, so any record of it is a refutation.
    """

    def __init__(
        self, incarnation: int, accuser: PodId | None, started: float, *, min_s: float, max_s: float, needed: int
    ) -> None:
        assert 0 <= min_s <= max_s
        self.incarnation = incarnation
        self.accuser = accuser
        self.started = started
        self.expired = False
        self._min_s = min_s
        self._max_s = max_s
        self._needed = needed
        self._confirmed: set[PodId] = set()

    @property
    def deduced(self) -> bool:
        """Whether nobody accuses; this pod merely sees no path."""
        return self.accuser is None and self.incarnation >= 0

    def knows(self, incarnation: int, accuser: PodId, age_s: float, now: float) -> bool:
        """Tell whether `accuse` would change nothing, that accuser having been heard."""
        heard = accuser == self.accuser or accuser in self._confirmed
        return heard and incarnation == self.incarnation and now - age_s >= self.started

    def accuse(self, incarnation: int, accuser: PodId, age_s: float, now: float) -> bool:
        """Take in an accusation; return whether it is news that others should hear, too.

        ``age_s`` is how long the accuser has had it: the earliest start counts.
        """
        self.started = min(self.started, now - age_s)
        if self.accuser is None or incarnation > self.incarnation:
            self.accuser = accuser
            self.incarnation = incarnation
            return True
        if accuser == self.accuser or accuser in self._confirmed or len(self._confirmed) >= MAX_CONFIRMATIONS:
            return False
        self._confirmed.add(accuser)
        return len(self._confirmed) <= self._needed

    def deadline(self) -> float:
        """Return when the suspected pod counts as absent (seconds, monotonic)."""
        return self.started + self._wait_s()

    def check(self, now: float) -> bool:
        """Set `expired` once the deadline has passed; return whether that happened just now."""
        if self.expired or now < self.started + self._min_s or now < self.deadline():
            return False
        self.expired = True
        return True

    def wait_anew(self, min_s: float, max_s: float, now: float) -> bool:
        """Take over other bounds of the wait; return whether a pod that counted as absent doesn't any more."""
        self._min_s, self._max_s = min_s, max_s
        revoked = self.expired and now < self.deadline()
        if revoked:
            self.expired = False
        return revoked

    def _wait_s(self) -> float:
        if self._needed < 1:
            return self._min_s
        progress = math.log(len(self._confirmed) + 1) / math.log(self._needed + 1)
        return max(self._min_s, self._max_s - (self._max_s - self._min_s) * progress)
