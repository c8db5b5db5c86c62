"""Placement with what the pods say of themselves: joins `policies.placement`, `policies.offering` and `policies.usage`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from base.ids import PodId
from mesh.api import Member, Mesh, Role, State
from policies.offering import META, Wishes, mean_share, slow_speed, unpack
from policies.placement import Candidate, Case, settle
from policies.usage import COLD_AFTER_S, HOT_READS, READER_WISH, YOUNG_S, Uses
from transfer.api import ContentInfo, Holders

LEAVING: Final = "leaving"
"""The value that a draining pod gossips about itself: others make new copies as if it were gone."""
UNKNOWN: Final = Wishes()


class Pods(NamedTuple):
    """Who there is."""

    full: list[PodId]
    """Full members that neither left nor were evicted."""
    alive: frozenset[PodId]
    """Who can be reached, this pod included."""
    clients: frozenset[PodId]
    """Client pods, former ones as well."""
    leaving: frozenset[PodId]
    """Who is handing over what it keeps, before it leaves."""
    candidates: dict[PodId, Candidate]
    """Of the full ones that aren't leaving, without what depends on the content."""
    wishes: dict[PodId, Wishes]
    is_plain: bool
    """Whether nobody wishes for anything."""
    newest_s: float
    """When the last one came."""
    full_up: frozenset[PodId]
    """Who is short of room."""


@dataclass(frozen=True, slots=True)
class Temper:
    """What is known of the use of a content."""

    is_young: bool
    is_hot: bool
    is_cold: bool
    readers: frozenset[PodId]


class Placing:
    """Knows the pods and how contents are used; works out once what each content would ask again."""

    def __init__(self, mesh: Mesh, now_s: Callable[[], float] = time.time) -> None:
        self._mesh = mesh
        self._now_s = now_s
        self._pods: Pods | None = None
        self.uses = Uses()
        self.given_up: frozenset[PodId] = frozenset()
        """Who stays away: its copies are made anew."""

    def members_changed(self) -> None:
        """Forget what was worked out of the members."""
        self._pods = None

    def pods(self) -> Pods:
        """Return who there is."""
        if self._pods is None:
            self._pods = self._look()
        return self._pods

    def _look(self) -> Pods:
        members = self._mesh.members()
        alive = self._mesh.alive() | {self._mesh.pod_id}
        full = [one for one in members if one.role is Role.FULL and one.state not in (State.LEFT, State.EVICTED)]
        leaving = frozenset(one.pod for one in members if one.meta.get(LEAVING) is True)
        wishes = {one.pod: unpack(one.meta.get(META)) or UNKNOWN for one in full}
        mean = mean_share(said for pod, said in wishes.items() if pod in alive and pod not in leaving)
        slow = slow_speed(one.speed for one in wishes.values())
        weights_known = all(one.capacity for pod, one in wishes.items() if pod in alive)
        candidates = {
            one.pod: _candidate(one, wishes[one.pod], slow, mean, alive, weights_known=weights_known)
            for one in full
            if one.pod not in leaving
        }
        return Pods(
            full=[one.pod for one in full],
            alive=alive,
            clients=frozenset(one.pod for one in members if one.role is Role.CLIENT),
            leaving=leaving,
            candidates=candidates,
            wishes=wishes,
            is_plain=not any(any((one.replicas, one.new_files, one.hot, one.cold)) for one in wishes.values()),
            newest_s=max((one.joined_s for one in candidates.values()), default=0.0),
            full_up=frozenset(pod for pod, one in candidates.items() if one.is_full),
        )

    def has_temper(self) -> bool:
        """Tell whether a pod wishes for hot, cold or new files: then placement changes while time passes."""
        return any(one.hot or one.cold or one.new_files for one in self.pods().wishes.values())

    def temper(self, info: ContentInfo) -> Temper:
        """Return what is known of the use of a content."""
        age_s = self._now_s() - info.born_s
        reads = self.uses.reads(info.content)
        return Temper(
            is_young=0 <= age_s < YOUNG_S or (age_s < 0 and age_s != float("-inf")),
            is_hot=reads >= HOT_READS,
            is_cold=not reads and age_s >= COLD_AFTER_S,
            readers=self.uses.readers(info.content),
        )

    def place(self, info: ContentInfo, holders: Holders) -> tuple[PodId, ...]:
        """Return the pods that should keep the content, the first copy's in front, at most ``info.copies``.

        Who keeps it already goes on keeping it, as far as `policies.placement.settle` knows no better. An absent pod
        counts while it has the content and isn't given up, but nobody waits for an absent one to take it.
        """
        pods = self.pods()
        out = pods.leaving | self.given_up
        copies = min(info.copies, len(pods.full) - len(pods.leaving))
        keepers = [pod for pod in pods.full if pod not in out and (pod in holders.kept or pod in holders.absent)]
        plain = pods.is_plain and not self.uses.is_known(info.content)
        if plain and len(keepers) == copies and pods.newest_s <= info.born_s and pods.full_up.isdisjoint(keepers):
            return tuple(sorted(keepers, key=lambda pod: pod != info.author))
        case = Case(info.content, info.size, copies, info.author, frozenset(keepers), holders.cached, info.born_s)
        candidates = [one for pod, one in pods.candidates.items() if pod not in self.given_up]
        if not plain:
            candidates = self._wishing(info, candidates)
        return settle(case, candidates)

    def _wishing(self, info: ContentInfo, candidates: Collection[Candidate]) -> list[Candidate]:
        temper, pods = self.temper(info), self.pods()
        found: list[Candidate] = []
        for one in candidates:
            first, further = wish_of(pods.wishes[one.pod], temper, one.pod)
            found.append(replace(one, first=first, wish=further) if first or further else one)
        return found


def wish_of(said: Wishes, temper: Temper, pod: PodId) -> tuple[int, int]:
    """Return how much a pod wishes for the first copy of a content, and for a further one."""
    use = said.hot if temper.is_hot else said.cold if temper.is_cold else 0
    use += READER_WISH if pod in temper.readers else 0
    return use + (said.new_files if temper.is_young else 0), use + said.replicas


def _candidate(
    member: Member, said: Wishes, slow: int, mean: float, alive: Collection[PodId], *, weights_known: bool
) -> Candidate:
    return Candidate(
        member.pod,
        weight=said.weight if weights_known and said.capacity else 1.0,
        available_bytes=said.room_bytes if said.capacity else None,
        takes=member.pod in alive,
        is_full=said.is_full,
        is_slow=0 < said.speed <= slow,
        excess=max(0.0, said.share - mean) * said.weight,
        joined_s=float(said.joined_s),
    )
