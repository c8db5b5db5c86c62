"""Which pods to be linked to: everybody in a small cluster, a few in a large one. Pure.

Theory of operation (Leitão, Pereira, Rodrigues, "HyParView: A Membership Protocol for Reliable Gossip-Based Broadcast",
2007). Up to `FULL_MESH_PODS` pods everybody is linked to everybody. Beyond that each keeps an *active view*: it dials
until it has `LOW` links, and drops one when it has more than `HIGH`. Where the paper keeps a random sample of the others
for replacements (the passive view, shuffled all the time), every pod here knows all members anyway, so a replacement is
drawn from all of them and nothing needs to be shuffled. The paper's priorities aren't needed either: records say how
many links a pod has, so only links between two that can spare one are dropped, and no drop makes others dial anew.

Random links of that number hold a graph together while many of its pods vanish. Whom nobody can see is still dialled
now and then: that is how two halves find each other after a cut. Client pods are in nobody's view.

This module must never keep a pod that has a link to another full pod from keeping one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Sequence
from random import Random
from typing import NamedTuple

from base.ids import PodId

FULL_MESH_PODS = 16
LOW = 6
HIGH = 10
SPARE_AFTER_S = 2.0
"""A link stays at least this long; by then its other end has said how many it has."""
CHOICE_S = 4.0
"""Who was chosen and isn't linked after this gives way to another."""
DROP_EVERY_S = 1.0
"""About so often a link is dropped: what the others say of their links is that old."""
LOST_EVERY_S = 5.0
"""Of the pods that are missing one is dialled about this often."""
LOST_AFTER_S = 3.0
"""Who has been missing for less may just be changing his links."""
TRIES_PER_CHOICE = 8
SPARED = "This pod has links enough."
"""What is said to whom a link is dropped; nobody needs to worry then."""


class Changes(NamedTuple):
    """Whom to dial from now on (see `View.wants`), and whose link to end."""

    dial: list[PodId]
    drop: list[PodId]


class View:
    """The view of one pod."""

    def __init__(self, me: PodId, rng: Random) -> None:
        self.me = me
        self._rng = rng
        self._members: tuple[PodId, ...] = ()
        self._others = 0
        self._links: dict[PodId, float] = {}
        self._chosen: dict[PodId, float] = {}
        self._lost_at = self._drop_at = float("-inf")

    @property
    def full(self) -> bool:
        """Whether everybody is to be linked to everybody."""
        return self._others < FULL_MESH_PODS

    def set_members(self, pods: Iterable[PodId]) -> None:
        """Take over which full pods belong to the cluster; this pod may be among them. A tuple is sorted already."""
        self._members = pods if isinstance(pods, tuple) else tuple(sorted(set(pods)))
        self._others = len(self._members) - self._is_member(self.me)

    def _is_member(self, pod: PodId) -> bool:
        at = bisect_left(self._members, pod)
        return self._members[at : at + 1] == (pod,)

    def link_up(self, pod: PodId, now: float) -> None:
        """A link to ``pod`` is up."""
        self._chosen.pop(pod, None)
        if self._is_member(pod):
            self._links[pod] = now

    def link_down(self, pod: PodId) -> None:
        """The link to ``pod`` is gone."""
        self._links.pop(pod, None)

    def wants(self, pod: PodId) -> bool:
        """Tell whether ``pod`` is to be dialled. One that isn't known as a full pod yet always is."""
        return self.full or pod in self._chosen or not self._is_member(pod)

    def chosen(self) -> Collection[PodId]:
        """Return whom to dial in a large cluster."""
        return self._chosen.keys()

    def others(self) -> Sequence[PodId]:
        """Return the other full pods of the cluster."""
        return [pod for pod in self._members if pod != self.me]

    def due(self) -> float:
        """Return when `tick` has something to do, unless a link comes or goes before; early at times, never late."""
        if self.full:
            return float("inf")
        return float("-inf") if self._chosen or not LOW <= len(self._links) <= HIGH else self._lost_at

    def tick(
        self,
        now: float,
        is_up: Callable[[PodId], bool],
        missing: Callable[[float], Collection[PodId]],
        degree: Callable[[PodId], int | None],
    ) -> Changes:
        """Choose whom to dial, and whose link to drop; a few times a second.

        ``is_up`` tells whether a pod seems alive, ``missing`` returns those that haven't since before a time;
        ``degree`` tells how many links a pod says it has, None when unknown.
        """
        if self.full:
            self._chosen.clear()
            return Changes([], [])
        before = set(self._chosen)
        for pod in before:
            if now >= self._chosen[pod]:
                del self._chosen[pod]
        self._choose(now, is_up)
        if now >= self._lost_at:
            self._lost_at = now + LOST_EVERY_S * self._rng.uniform(0.5, 1.5)
            lost = [pod for pod in missing(now - LOST_AFTER_S) if self._is_member(pod) and pod not in self._links]
            if lost:
                self._chosen[self._rng.choice(sorted(lost))] = now + CHOICE_S
        return Changes([pod for pod in self._chosen if pod not in before], self._surplus(now, degree))

    def _choose(self, now: float, is_up: Callable[[PodId], bool]) -> None:
        wanted = LOW - len(self._links) - len(self._chosen)
        for _ in range(TRIES_PER_CHOICE * wanted):
            if wanted <= 0:
                return
            pod = self._rng.choice(self._members)
            if pod == self.me or pod in self._links or pod in self._chosen:
                continue
            if not self._links or is_up(pod):
                self._chosen[pod] = now + CHOICE_S
                wanted -= 1

    def _surplus(self, now: float, degree: Callable[[PodId], int | None]) -> list[PodId]:
        if len(self._links) <= HIGH or now < self._drop_at:
            return []
        spare = [
            (links, self._rng.random(), pod)
            for pod, since in self._links.items()
            if now - since >= SPARE_AFTER_S and (links := degree(pod)) is not None and links > LOW
        ]
        if not spare:
            return []
        self._drop_at = now + DROP_EVERY_S * self._rng.uniform(0.5, 1.5)
        return [max(spare)[-1]]
