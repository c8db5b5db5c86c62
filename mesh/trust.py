"""Which admissions, evictions and configurations count, given the set of records. Pure: the same set, the same answer.

1. The founder and the recovery key are trusted. An admission or an eviction counts if its signer administers by the
   configuration in force, or this one honours it (`mesh.configuration`). A pod is *rooted* if an admission of it counts
   and no eviction of it applies.
2. A pod's *rank* is the lowest that its admissions give: each the greater of its order and one more than its signer's
   rank. So whatever order a pod writes into the admissions that it signs, those whom it lets in rank behind it. The
   admission that gives the rank gives name and role, too; so nobody can change who came before him.
3. Evictions are applied by rank of their signers, the recovery key's first; after each signer everything is
   judged anew. So of two evicting each other the one that ranks first (the earlier admitted) wins, and who was let in
   by an evicted pod has no say, unless an eviction of that pod keeps it. Nor does it help to take the other one off the
   list of administrators instead: who ranks first wins there, too.
4. An eviction voids the configurations that the evicted pod signed, except those that led to the one that it names.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from base.ids import PodId, pod_id_of
from mesh import configuration
from mesh.api import Role
from mesh.configuration import Admitted, Configuration, Version
from mesh.records import EVERYBODY, Admit, Config, Found, Record, RecordId, Revoke

RECOVERY_RANK: Final = -1
UNKNOWN_RANK: Final = 1 << 62


@dataclass(slots=True)
class Facts:
    """The records that matter, by what they are. Grow only."""

    founding: Record
    found: Found
    admits: dict[PodId, list[Record]] = field(default_factory=dict)
    """By the pod admitted."""
    admitted: dict[PodId, list[Record]] = field(default_factory=dict)
    """The same by signer."""
    revokes: dict[PodId, list[Record]] = field(default_factory=dict)
    """By signer."""
    versions: dict[RecordId, Version] = field(default_factory=dict)
    version_data: dict[RecordId, bytes] = field(default_factory=dict)
    """Each version's record."""

    @property
    def founder(self) -> PodId:
        """The first pod."""
        return self.founding.signer

    @property
    def recovery(self) -> PodId | None:
        """The name under which the recovery key signs; it is no pod."""
        return pod_id_of(self.found.recovery) if self.found.recovery else None

    def add(self, record: Record) -> None:
        """Take in an accepted record."""
        match record.payload:
            case Admit(pod=pod):
                self.admits.setdefault(pod, []).append(record)
                self.admitted.setdefault(record.signer, []).append(record)
            case Revoke():
                self.revokes.setdefault(record.signer, []).append(record)
            case Config() as config:
                self.versions[record.id] = Version(record.id, record.signer, config)
                self.version_data[record.id] = record.data


@dataclass(frozen=True, slots=True)
class Standing:
    """What is trusted of one pod."""

    rank: int
    by: PodId
    """Who signed the admission that gives the rank; the founder itself for the founder."""
    name: str
    role: Role
    issuing: bytes | None
    trusted: bool


@dataclass(frozen=True, slots=True)
class Trust:
    """What follows from a set of records."""

    rooted: Mapping[PodId, Standing]
    """Those who have been admitted and not evicted; they may have left."""
    evictions: Mapping[PodId, list[Record]]
    """The evicted, with the records that evict them."""
    configuration: Configuration
    admitted: Admitted
    """The full ones of ``rooted``, as names in a list mean them."""
    counted: tuple[Record, ...]
    """The admissions that count."""
    reached: Mapping[PodId, Standing]
    """``rooted`` and the evicted."""

    @property
    def config(self) -> Config | None:
        """The version in force."""
        return self.configuration.in_force.config if self.configuration.in_force else None

    def counts(self, record: Record) -> bool:
        """Tell whether an eviction counts."""
        return configuration.honours(self.config, record, self.admitted)

    def rank_of(self, pod: PodId) -> int:
        """Return the rank of a pod, evicted or not; one that nobody let in comes last."""
        return self.reached[pod].rank if pod in self.reached else UNKNOWN_RANK

    def honoured_by(self, config: Config) -> tuple[RecordId, ...]:
        """Return the admissions and evictions that count now, but by a version only if that honours them."""

        def lost(record: Record) -> bool:
            standing = self.reached.get(record.signer)
            return standing is not None and not _is_named(config, record.signer, standing)

        applied = (record for records in self.evictions.values() for record in records)
        return tuple(sorted({record.id for record in (*self.counted, *applied) if lost(record)}))

    def administrators(self) -> frozenset[PodId]:
        """Return the full pods that the version in force names; they may have left."""
        return configuration.administrators(self.config, self.admitted) & self.admitted.orders.keys()


def judge(facts: Facts) -> Trust:
    """Return what follows from a set of records."""
    evictions: dict[PodId, list[Record]] = {}
    while True:
        trust = _State(facts, evictions, evictions).trust()
        applied = {record.id for records in evictions.values() for record in records}
        waiting = {
            signer: [one for one in records if one.id not in applied and _target(one) not in (signer, facts.recovery)]
            for signer, records in facts.revokes.items()
        }
        counting = [
            found
            for signer, records in waiting.items()
            if records and (found := _counting(facts, trust, signer, records)) is not None
        ]
        if not counting:
            return trust
        evictions = _with(evictions, min(counting, key=lambda one: one[:2])[2])


def _counting(
    facts: Facts, trust: Trust, signer: PodId, records: list[Record]
) -> tuple[int, PodId, list[Record]] | None:
    """Return rank, signer and those of its evictions that count: it administers, or would if they did.

    The latter: whoever is evicted by a pod that ranks before it can't escape by taking that off the list, before or
    afterwards. The configurations that led to the one that such an eviction names aren't void then, but only as far as
    their signers administered, and they win against no others.
    """
    if signer in trust.admitted.orders and (counted := [one for one in records if trust.counts(one)]):
        return trust.admitted.orders[signer], signer, counted
    while records:
        supposed = _State(facts, _with(trust.evictions, records), trust.evictions).trust()
        rank = supposed.admitted.orders.get(signer)
        if rank is None:
            return None
        behind = [one for one in records if supposed.counts(one) and rank < supposed.rank_of(_target(one))]
        if len(behind) == len(records):
            return rank, signer, records
        records = behind
    return None


def _target(record: Record) -> PodId:
    return record.payload.pod if isinstance(record.payload, Revoke) else record.signer


def _with(evictions: Mapping[PodId, list[Record]], more: Iterable[Record]) -> dict[PodId, list[Record]]:
    found = {pod: list(records) for pod, records in evictions.items()}
    for record in more:
        found.setdefault(_target(record), []).append(record)
    return found


class _State:
    """Everything but the evictions, which are given."""

    def __init__(
        self, facts: Facts, evictions: Mapping[PodId, list[Record]], applied: Mapping[PodId, list[Record]]
    ) -> None:
        """``applied``: those evictions of which it is known that they count; the others are supposed to."""
        self._facts = facts
        self._evictions = evictions
        self._pinned = _pinned(facts, applied)
        self._spared = _pinned(facts, evictions) - self._pinned
        self._kept = {pod: _kept(found) for pod, found in evictions.items()}
        self._walks: dict[object, _Walk] = {}

    def trust(self) -> Trust:
        facts = self._facts
        judged = configuration.judge(facts.versions.values(), facts.founder, self._admitted_by, self._pinned)
        walk = self.walk(judged.in_force.config if judged.in_force else None)
        counted = tuple(record for records in walk.counting.values() for record in records)
        return Trust(walk.rooted, self._evictions, judged, walk.admitted, counted, walk.reached)

    def _admitted_by(self, parent: Config | None, child: RecordId) -> Admitted:
        walk = self.walk(parent)
        return walk.everybody if child in self._spared else walk.admitted

    def walk(self, config: Config | None) -> _Walk:
        """Return who is rooted by a version of the configuration."""
        key = None if config is None else (config.administrators, config.order, config.honours)
        if key not in self._walks:
            self._walks[key] = _Walk(self._facts, self._evictions, self._kept, config)
        return self._walks[key]


class _Walk:
    """Dijkstra's algorithm over the admissions, from the founder and the recovery key, by one version."""

    def __init__(
        self,
        facts: Facts,
        evictions: Mapping[PodId, list[Record]],
        kept: Mapping[PodId, _Kept],
        config: Config | None,
    ) -> None:
        self._facts = facts
        self._evictions = evictions
        self._kept = kept
        self._config = config
        self._honoured = frozenset(config.honours) if config is not None else frozenset()
        self._queue: list[tuple[int, RecordId, Record]] = []
        self.reached: dict[PodId, Standing] = {}
        self.counting: dict[PodId, list[Record]] = {}
        self._first_bearers: dict[str, PodId] = {}
        self._spread: set[RecordId] = set()
        self._run()
        self.rooted = {pod: standing for pod, standing in self.reached.items() if pod not in evictions}
        self.admitted = self._admitted(self.rooted)
        self.everybody = self._admitted(self.reached)
        """The evicted, too."""

    def _run(self) -> None:
        facts = self._facts
        found = facts.found
        self._arrive(facts.founder, Standing(0, facts.founder, found.pod_name, Role.FULL, found.issuing, True))
        if facts.recovery is not None:
            self._push(facts.admitted.get(facts.recovery, []), RECOVERY_RANK)
        while self._queue:
            rank, _, record = heapq.heappop(self._queue)
            pod = record.payload.pod if isinstance(record.payload, Admit) else record.signer
            kept = self._kept.get(record.signer)
            if kept is not None and not (pod in kept.pods or record.id in kept.admissions):
                continue
            self.counting.setdefault(pod, []).append(record)
            if pod not in self.reached and isinstance(record.payload, Admit):
                said = record.payload
                self._arrive(pod, Standing(rank, record.signer, said.name, said.role, said.issuing, said.trusted))

    def _arrive(self, pod: PodId, standing: Standing) -> None:
        self.reached[pod] = standing
        admitted = self._facts.admitted.get(pod, [])
        if standing.role is Role.FULL and self._administers(pod, standing):
            self._push(admitted, standing.rank)
        elif standing.role is Role.FULL:
            self._push([record for record in admitted if record.id in self._honoured], standing.rank)

    def _administers(self, pod: PodId, standing: Standing) -> bool:
        config = self._config
        if pod == self._facts.founder or config is None:
            return standing.trusted
        if not _is_named(config, pod, standing):
            return False
        if pod in config.administrators or EVERYBODY in config.administrators:
            return True
        return self._first_bearers.setdefault(standing.name, pod) == pod  # who is reached first ranks first

    def _push(self, records: Iterable[Record], rank: int) -> None:
        for record in records:
            if record.id not in self._spread and isinstance(record.payload, Admit):
                self._spread.add(record.id)
                heapq.heappush(self._queue, (max(record.payload.order, rank + 1), record.id, record))

    def _admitted(self, rooted: Mapping[PodId, Standing]) -> Admitted:
        facts = self._facts
        full = {pod: standing for pod, standing in rooted.items() if standing.role is Role.FULL}
        orders = {pod: standing.rank for pod, standing in full.items()}
        always = {facts.founder} & orders.keys()
        if facts.recovery is not None:
            orders[facts.recovery] = RECOVERY_RANK
            always.add(facts.recovery)
        names: dict[str, list[tuple[int, PodId]]] = {}
        trusted = {pod: standing for pod, standing in full.items() if standing.trusted}
        for pod, standing in trusted.items():
            names.setdefault(standing.name, []).append((standing.rank, pod))
        by_name = {name: sorted(pods) for name, pods in names.items()}
        return Admitted(frozenset(always), orders, frozenset(trusted), by_name)


def proof(facts: Facts, pod: PodId, trust: Trust) -> list[bytes] | None:
    """Return the records that show why a pod is in, or was: founding, configurations, admissions. None: unknown."""
    path = _path(facts, pod, trust)
    if path is None:
        return None
    state = _State(facts, trust.evictions, trust.evictions)
    needed: list[Version] = []
    if path and pod in trust.rooted:
        for version in trust.configuration.chain:
            needed.append(version)
            if pod in state.walk(version.config).rooted:
                break
    else:
        needed = list(trust.configuration.chain)
    return [facts.founding.data, *(one.data for one in path), *(facts.version_data[one.id] for one in needed)]


def lineage(facts: Facts, version: RecordId) -> list[bytes]:
    """Return the configurations that led to a version, the first one first."""
    led: list[bytes] = []
    while version in facts.versions:
        led.append(facts.version_data[version])
        version = facts.versions[version].config.parent
    return led[::-1]


def _path(facts: Facts, pod: PodId, trust: Trust) -> list[Record] | None:
    """Return the admissions that lead from the founding to a pod, those that count if it is rooted."""
    counted: dict[tuple[PodId, PodId], Record] = {}
    for record in sorted(trust.counted, key=admission_key, reverse=True):  # the first ones last, so that they stay
        if isinstance(record.payload, Admit):
            counted[record.payload.pod, record.signer] = record
    path: list[Record] = []
    current = pod
    while current not in (facts.founder, facts.recovery):
        standing = trust.reached.get(current)
        if standing is None:
            return _any_path(facts, pod)
        path.append(counted[current, standing.by])
        current = standing.by
    return path[::-1]


def _any_path(facts: Facts, pod: PodId) -> list[Record] | None:
    """Return the shortest chain of admissions to a pod, whether they count or not."""
    through: dict[PodId, Record] = {}
    waiting = [one for one in (facts.founder, facts.recovery) if one is not None]
    for signer in waiting:  # grows meanwhile
        for record in facts.admitted.get(signer, []):
            admitted = record.payload.pod if isinstance(record.payload, Admit) else signer
            if admitted not in through:
                through[admitted] = record
                waiting.append(admitted)
    path: list[Record] = []
    current = pod
    while current not in (facts.founder, facts.recovery):
        if current not in through:
            return None
        path.append(through[current])
        current = through[current].signer
    return path[::-1]


def admission_key(record: Record) -> tuple[int, RecordId]:
    """Return what admissions of one pod are ordered by."""
    assert isinstance(record.payload, Admit)
    return record.payload.order, record.id


def _is_named(config: Config, pod: PodId, standing: Standing) -> bool:
    """Tell whether a version names a pod by its id, or by a name that it was the first to bear, if it was."""
    if standing.role is not Role.FULL:
        return False
    by_name = EVERYBODY in config.administrators or (
        standing.name in config.administrators and standing.rank > config.order
    )
    return pod in config.administrators or (standing.trusted and by_name)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What evictions of one pod keep of its admissions."""

    pods: frozenset[PodId]
    admissions: frozenset[RecordId]


def _kept(found: Iterable[Record]) -> _Kept:
    pods: set[PodId] = set()
    admissions: set[RecordId] = set()
    for record in found:
        if isinstance(record.payload, Revoke):
            pods.update(record.payload.keeps)
            admissions.update(record.payload.certifies or ())
            if record.payload.certifies is None:
                pods.add(record.signer)
    return _Kept(frozenset(pods), frozenset(admissions))


def _pinned(facts: Facts, evictions: Mapping[PodId, list[Record]]) -> set[RecordId]:
    """Return the configurations that led to those in force when somebody was evicted."""
    pinned: set[RecordId] = set()
    for records in evictions.values():
        for eviction in records:
            current = eviction.payload.config if isinstance(eviction.payload, Revoke) else b""
            while current and current not in pinned:
                pinned.add(current)
                version = facts.versions.get(current)
                current = version.config.parent if version else b""
    return pinned
