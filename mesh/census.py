"""What this pod knows of the other members, and what is to be thought of each. Pure.

Kept so that a cluster of ten thousand costs little: of most members there is only their record, and nothing needs to be
done for them at a tick. Suspicions, round trips and the like exist for the few that are concerned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import replace
from types import MappingProxyType

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.api import State
from mesh.gossip_messages import Accusation, Flag, Record
from mesh.member import MembershipSettings, MemberView, Near
from mesh.reachability import Paths
from mesh.summary import Summary
from mesh.suspicion import Suspicion

DEDUCE_AFTER_S = 0.5
"""No path for this long: suspected. Gossip about changed links comes together, but not at one moment."""
NEWBORN_S = 1.0
"""A pod that has just started is known earlier than who is linked to it: so long no path is needed."""
GONE = int(Flag.DOWN | Flag.LEFT)
TO_ALL = int(Flag.LINKED_TO_ALL)
"""Plain numbers: an enumeration's operators take ten times as long, and records come by the thousand."""


class Census:
    """The other members. Every method that changes what `view` shows returns so."""

    def __init__(self, me: PodId, settings: MembershipSettings) -> None:
        self.me = me
        self._settings = settings
        self.members: frozenset[PodId] = frozenset()
        """Who belongs to the cluster; this pod may be among them."""
        self.records: dict[PodId, Record] = {}
        self.suspicions: dict[PodId, Suspicion] = {}
        """A member never heard of has one, too."""
        self.near: dict[PodId, Near] = {}
        """Who is or was linked."""
        self.summary = Summary()
        """Of all records here, without this pod's own."""
        self._seen: dict[PodId, float] = {}
        self._cut_since: dict[PodId, float] = {}
        self._gone: set[PodId] = set()
        self._to_all: set[PodId] = set()
        self.paths = Paths()
        """To be told of every link that comes or goes here."""
        self.expire_at = float("-inf")
        """`expire` has nothing to do before that, unless something is told before."""

    def set_members(self, pods: frozenset[PodId], now: float) -> tuple[Collection[PodId], Collection[PodId]]:
        """Take over who belongs to the cluster; return who is new and who is no longer among them."""
        if pods is self.members:
            return [], []
        removed = sorted(self.members - pods - {self.me})
        added = pods - self.members - {self.me}
        self.members = pods
        if removed or not added <= self.records.keys():
            self.paths.anything_changed()
        for pod in removed:
            self.summary.replace(self.records.pop(pod, None), None)
            tables: tuple[dict[PodId, object], ...] = (self.suspicions, self.near, self._seen, self._cut_since)  # type: ignore[assignment]
            for table in tables:
                table.pop(pod, None)
            self._gone.discard(pod)
            self._to_all.discard(pod)
        for pod in sorted(pod for pod in added if pod not in self.records):
            self._suspect(pod, self.suspicion_of(-1, None, now))
        return added, removed

    def recall(self, records: Mapping[PodId, Record], summary: Summary) -> None:
        """Take over what was known before, by which paths lead to all of ``records``. Before `set_members`.

        ``summary`` is that of ``records``.
        """
        assert not self.members
        self.records = dict(records)
        self.summary = summary.copy()
        mine = self.records.pop(self.me, None)
        self.summary.replace(mine, None)
        flagged = [(pod, int(record.flags)) for pod, record in self.records.items() if record.flags]
        self._gone = {pod for pod, flags in flagged if flags & GONE}
        self._to_all = {pod for pod, flags in flagged if flags & TO_ALL}
        self.paths.nothing_cut()

    def _suspect(self, pod: PodId, suspicion: Suspicion) -> None:
        self.suspicions[pod] = suspicion
        self.expire_at = min(self.expire_at, suspicion.started + self._settings.absent_after_s)

    def __contains__(self, pod: PodId) -> bool:
        return pod in self.members and pod != self.me

    # -- questions

    def stamp(self, pod: PodId) -> tuple[int, int]:
        """Return the order of the record known of a pod; (-1, 0) without one."""
        record = self.records.get(pod)
        return record.stamp if record else (-1, 0)

    def gone(self, pod: PodId) -> bool:
        """Tell whether it said itself that it is down or has left."""
        return pod in self._gone

    def linked_to(self, pod: PodId, other: PodId) -> bool:
        """Tell whether ``pod`` says that it is linked to ``other``."""
        return pod in self._to_all or (pod in self.records and other in self.records[pod].links)

    def accused(self, pod: PodId) -> bool:
        """Tell whether only its own word can clear it (a path of links can't): accused, or never heard of."""
        suspicion = self.suspicions.get(pod)
        return suspicion is not None and not suspicion.deduced

    def expected(self, pod: PodId) -> bool:
        """Tell whether a member is there, or may soon turn out to be."""
        suspicion = self.suspicions.get(pod)
        if pod not in self.records:
            return suspicion is not None and not suspicion.expired
        return suspicion is None and pod not in self._gone

    def is_up(self, pod: PodId) -> bool:
        """Tell whether a member is seen alive, or in maintenance and there."""
        return pod in self.records and self.expected(pod)

    def are_up(self, pods: Set[PodId]) -> bool:
        """Tell whether `is_up` holds for all of them, this pod left out."""
        if not (self.suspicions.keys().isdisjoint(pods) and self._gone.isdisjoint(pods)):
            return False
        return pods <= self.members or pods - {self.me} <= self.members  # of a member unsuspected there is a record

    def missing(self, since: float) -> list[PodId]:
        """Return the members that have been suspected or absent, or unknown, since before that time."""
        return [pod for pod, suspicion in self.suspicions.items() if suspicion.started <= since]

    def degree(self, pod: PodId) -> int | None:
        """Return to how many ``pod`` says it is linked; None when unknown, or to everybody."""
        record = self.records.get(pod)
        return None if record is None or pod in self._to_all else len(record.links)

    def lacks_links(self, links: Collection[PodId]) -> bool:
        """Tell whether a member that is expected isn't among ``links``."""
        return any(pod not in links and self.expected(pod) for pod in self.members if pod != self.me)

    def accusation(self, pod: PodId, now: float) -> Accusation | None:
        """Return what others are to be told of it, None if there is nothing to tell."""
        suspicion = self.suspicions.get(pod)
        if suspicion is None or suspicion.accuser is None:
            return None
        age_s = min(max(0.0, now - suspicion.started), wire.MAX_AGE_S)
        return Accusation(pod, suspicion.incarnation, suspicion.accuser, age_s)

    def helpers(self, target: PodId, links: Iterable[PodId]) -> list[PodId]:
        """Return the linked pods that say they are linked to ``target`` and are themselves above suspicion."""
        return [
            pod
            for pod in links
            if pod != target
            and pod in self.records
            and pod not in self.suspicions
            and pod not in self._gone
            and self.linked_to(pod, target)
        ]

    def view(self, pod: PodId, now: float, *, linked: bool) -> MemberView:
        """Return how another pod is seen, also one that is no member; whom others vouch for is seen right now."""
        record, suspicion, near = self.records.get(pod), self.suspicions.get(pod), self.near.get(pod)
        if record is None and suspicion is None:
            suspicion = self.suspicion_of(-1, None, now)
        alive = record is not None and suspicion is None and pod not in self._gone
        meta = MappingProxyType(wire.unpack_meta(record.meta)) if record else MappingProxyType({})
        state, announced = state_of(record, suspicion)
        return MemberView(
            state=state,
            announced=announced,
            latency_ms=None if near is None or near.latency_s is None else near.latency_s * 1000,
            last_seen=now if alive and not linked else self._seen.get(pod),
            meta=meta,
            incarnation=record.incarnation if record else -1,
            address=record.address if record else "",
            unreachable_since=suspicion.started if suspicion else None,
        )

    def state(self, pod: PodId) -> State:
        """Return the state of another pod; one that nobody told of is suspect."""
        record, suspicion = self.records.get(pod), self.suspicions.get(pod)
        if record is None and suspicion is None:
            return State.SUSPECT
        return state_of(record, suspicion)[0]

    def address(self, pod: PodId) -> str:
        """Return where another pod says that it listens; empty: nobody told."""
        record = self.records.get(pod)
        return "" if record is None else record.address

    # -- news

    def seen(self, pod: PodId, now: float) -> None:
        """Note a sign of life."""
        self._seen[pod] = now

    def take(self, record: Record, now: float) -> bool:
        """Take over a newer record of a member; one just started needs no path for a while."""
        pod, old = record.pod, self.records.get(record.pod)
        self.records[pod] = record
        self.summary.replace(old, record)
        flags = int(record.flags)
        (self._gone.add if flags & GONE else self._gone.discard)(pod)
        (self._to_all.add if flags & TO_ALL else self._to_all.discard)(pod)
        self._seen[pod] = now
        if old is None or record.incarnation > old.incarnation:
            self._cut_since[pod] = now + NEWBORN_S
        self._rewired(old, record)
        suspicion = self.suspicions.get(pod)
        cleared = suspicion is not None and (record.incarnation > suspicion.incarnation or pod in self._gone)
        if cleared:
            del self.suspicions[pod]
        if cleared or old is None or (flags ^ int(old.flags)) & ~TO_ALL:
            return True
        return record.meta != old.meta or record.address != old.address

    def _rewired(self, old: Record | None, new: Record) -> None:
        """Note what a newer record changes about paths: to itself, and to those it was linked to."""
        changed = int(new.flags) ^ (int(old.flags) if old else 0)
        if changed & TO_ALL:
            self.paths.anything_changed()
        elif old is None:
            self.paths.doubt((new.pod,))
        elif changed & GONE or new.incarnation > old.incarnation:
            self.paths.doubt((new.pod, *old.links))
        elif new.links != old.links:
            self.paths.doubt(set(old.links).difference(new.links))

    def clear_deduced(self, pod: PodId) -> bool:
        """End the suspicion of a pod whom nobody accuses."""
        if self._cut_since:
            self._cut_since.pop(pod, None)
        suspicion = self.suspicions.get(pod)
        if suspicion is None or not suspicion.deduced:
            return False
        del self.suspicions[pod]
        self.paths.doubt((pod,))
        return True

    def suspicion_of(self, incarnation: int, accuser: PodId | None, started: float) -> Suspicion:
        """Return a new suspicion; with ``accuser`` None and incarnation -1 it is that of a pod never heard of."""
        settings = self._settings
        least, most = self._waits_s()
        enough = len(self.members) - 2 >= settings.confirmations
        needed = settings.confirmations if enough and accuser is not None else 0
        return Suspicion(incarnation, accuser, started, min_s=least, max_s=most, needed=needed)

    def set_absent_after(self, absent_after_s: float, now: float) -> list[PodId]:
        """Wait so long from now on, for those suspected already, too; return whose state changed by that."""
        self._settings = replace(self._settings, absent_after_s=absent_after_s)
        self.expire_at = float("-inf")
        waits_s = self._waits_s()
        return [pod for pod, suspicion in self.suspicions.items() if suspicion.wait_anew(*waits_s, now)]

    def _waits_s(self) -> tuple[float, float]:
        """Return the shortest and the longest wait until a suspected pod counts as absent."""
        least = self._settings.absent_after_s
        return least, max(least, min(least * self._settings.unconfirmed_factor, least + 10.0))

    def hear_accusation(self, update: Accusation, now: float) -> bool:
        """Take in what somebody says of a member; return whether others should hear it, too."""
        suspicion = self.suspicions.get(update.pod)
        news = suspicion is None
        if suspicion is None:
            suspicion = self.suspicion_of(update.incarnation, update.accuser, now - update.age_s)
        else:
            news = suspicion.accuse(update.incarnation, update.accuser, update.age_s, now)
        self._suspect(update.pod, suspicion)
        if news:
            self._lost_from_paths(update.pod)
        suspicion.check(now)
        return news

    def _lost_from_paths(self, pod: PodId) -> None:
        """Note that no path leads through an accused pod any more."""
        record = self.records.get(pod)
        self.paths.doubt(record.links if record else ())

    def accuse(self, pod: PodId, now: float) -> Accusation | None:
        """Accuse a pod that didn't answer; return what others should hear of it."""
        record, suspicion = self.records.get(pod), self.suspicions.get(pod)
        if record is None or pod in self._gone:
            return None
        self._lost_from_paths(pod)
        if suspicion is None:
            self._suspect(pod, self.suspicion_of(record.incarnation, self.me, now))
            return Accusation(pod, record.incarnation, self.me, 0.0)
        age_s = max(0.0, now - suspicion.started)
        news = suspicion.accuse(record.incarnation, self.me, age_s, now)
        return Accusation(pod, record.incarnation, self.me, age_s) if news else None

    def expire(self, now: float) -> list[PodId]:
        """Return who has just been suspected for so long that he counts as absent."""
        if now < self.expire_at:
            return []
        waiting = {pod: suspicion for pod, suspicion in self.suspicions.items() if not suspicion.expired}
        expired = [pod for pod, suspicion in waiting.items() if suspicion.check(now)]
        least = self._settings.absent_after_s
        starts = (max(now, suspicion.started + least) for suspicion in waiting.values() if not suspicion.expired)
        self.expire_at = min(starts, default=float("inf"))
        return expired

    @property
    def undecided(self) -> bool:
        """Whether `deduce` has something to do."""
        return not self.paths.fresh or len(self._cut_since) > 0

    def unreachable(self, links: Collection[PodId]) -> set[PodId]:
        """Return whom no path of links leads to, without those gone or accused."""
        if not self.paths.fresh:
            lost = self._gone | {pod for pod, suspicion in self.suspicions.items() if not suspicion.deduced}
            self.paths.look(links, self.records, self._to_all, lost)
        return self.paths.cut

    def slept(self, seconds: float) -> None:
        """Wait so much longer for paths."""
        self._cut_since = {pod: since + seconds for pod, since in self._cut_since.items()}

    def deduce(self, links: Collection[PodId], now: float) -> list[PodId]:
        """Suspect whom no path has led to for a while, clear the others; return whose state changed by that."""
        if not self.undecided:
            return []
        cut = self.unreachable(links)
        changed = [
            pod
            for pod, suspicion in list(self.suspicions.items())
            if suspicion.deduced and pod not in cut and self.clear_deduced(pod)
        ]
        for pod in [pod for pod, since in self._cut_since.items() if pod not in cut and since <= now]:
            del self._cut_since[pod]
        for pod in sorted(cut):
            if pod in self.suspicions:
                continue
            since = self._cut_since.setdefault(pod, now)
            if now - since >= DEDUCE_AFTER_S:
                self._suspect(pod, self.suspicion_of(self.records[pod].incarnation, None, since))
                del self._cut_since[pod]
                changed.append(pod)
        return changed


def state_of(record: Record | None, suspicion: Suspicion | None) -> tuple[State, bool]:
    """Return the state to show, and whether an absence is announced."""
    flags = record.flags if record else Flag.NONE
    if flags:
        if Flag.LEFT in flags:
            return State.LEFT, True
        if Flag.MAINTENANCE in flags:
            return State.MAINTENANCE, bool(int(flags) & GONE)
        if Flag.DOWN in flags:
            return State.ABSENT, True
    if suspicion is None:
        return State.ALIVE, False
    return (State.ABSENT if suspicion.expired else State.SUSPECT), False


def own_view(record: Record, now: float) -> MemberView:
    """Return how this pod shows itself."""
    state, announced = state_of(record, None)
    meta = MappingProxyType(wire.unpack_meta(record.meta))
    return MemberView(state, announced, None, now, meta, record.incarnation, record.address, None)
