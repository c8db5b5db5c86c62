"""Who stands where, by the signed records: seniority, evictions, the configuration in force, and so who is a member. Pure.

- Seniority is the order of a pod's first admission, then its id.
- Evictions are applied in the order of their signers' seniority, so of two evicting each other the earlier admitted
  wins. An eviction voids what the evicted pod admitted, except the pods that the eviction keeps, and its
  configurations, except those that led to the one in force at the eviction.
- An eviction or an admission counts only if its signer administers by the configuration in force, or this one honours
  it, as it does what was done before its signer lost administration (`mesh.configuration`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from base.ids import PodId
from mesh import configuration
from mesh.api import Role
from mesh.configuration import Admitted, Configuration, Version
from mesh.derivation import Evictions, pinned
from mesh.records import Admit, Config, Found, Record, RecordId, Revoke

Admissions = Mapping[PodId, Sequence[Record]]
"""All admissions of each pod."""


class Standing:
    """What follows from a set of records."""

    def __init__(self, found: Mapping[RecordId, Record], founding: Record, first: Found, admits: Admissions) -> None:
        self._records = found
        self._founder = founding.signer
        self._admits = admits
        self.seniority = {self._founder: 0}
        for pod, records in admits.items():
            self.seniority[pod] = min(admission_key(record) for record in records)[0]
        self.admitted = self._admissions(first.pod_name)
        evictions = self._evictions()
        self.configuration = self._judge(evictions)
        self.members = self._rooted(evictions, _config(self.configuration))
        """The pods with an admission that counts and that aren't evicted; those that left included."""

    def honoured_by(self, config: Config) -> tuple[RecordId, ...]:
        """Return what counts now though its signer would not administer by a version, to be honoured by that."""
        return tuple(
            sorted(
                record.id
                for record in self._records.values()
                if isinstance(record.payload, Admit | Revoke)
                and configuration.honours(_config(self.configuration), record, self.admitted)
                and not configuration.administers(config, record.signer, self.admitted)
            )
        )

    def _admissions(self, founder_name: str) -> Admitted:
        orders, names = {self._founder: 0}, {founder_name: [(0, self._founder)]}
        for pod, admits in self._admits.items():
            full = [one.payload for one in admits if isinstance(one.payload, Admit) and one.payload.role is Role.FULL]
            if full:
                first = min(full, key=lambda one: (one.order, one.name))
                orders[pod] = first.order
                names.setdefault(first.name, []).append((first.order, pod))
        return Admitted(self._founder, orders, {name: sorted(pods) for name, pods in names.items()})

    def _judge(self, evictions: Evictions) -> Configuration:
        """Return the configuration that follows once these pods are evicted."""
        kept = {pod: _kept(found) for pod, found in evictions.items()}

        def may_sign(parent: Config | None, signer: PodId) -> bool:
            if parent is None:
                return signer == self._founder
            return configuration.administers(parent, signer, self.admitted) and self._is_rooted(signer, parent, kept)

        versions = [
            Version(record.id, record.signer, record.payload)
            for record in self._records.values()
            if isinstance(record.payload, Config)
        ]
        return configuration.judge(versions, self.admitted, may_sign=may_sign, pinned=pinned(self._records, evictions))

    def _is_rooted(self, pod: PodId, config: Config | None, kept: Mapping[PodId, set[PodId]]) -> bool:
        """Tell whether admissions that count by a version lead from the founder to a pod that isn't evicted."""
        if pod in kept:
            return False
        reached, waiting = {pod}, [pod]
        while waiting:
            current = waiting.pop()
            if current == self._founder:
                return True
            for record in self._admits.get(current, ()):
                by = record.signer
                stands = by not in reached and (by not in kept or current in kept[by])
                if stands and configuration.honours(config, record, self.admitted):
                    reached.add(by)
                    waiting.append(by)
        return False

    def _evictions(self) -> dict[PodId, list[Record]]:
        """Return the evicted pods with the records that evict them."""
        by_signer: dict[PodId, list[Record]] = {}
        for record in self._records.values():
            if isinstance(record.payload, Revoke):
                by_signer.setdefault(record.signer, []).append(record)
        applied: dict[PodId, list[Record]] = {}
        config = _config(self._judge(applied)) if by_signer else None
        for signer in sorted(by_signer, key=lambda pod: (self.seniority.get(pod, 0), pod)):
            if signer not in self._rooted(applied, config):
                continue
            for record in by_signer[signer]:
                payload = record.payload
                counts = configuration.honours(config, record, self.admitted)
                if counts and isinstance(payload, Revoke) and payload.pod != signer:
                    applied.setdefault(payload.pod, []).append(record)
            config = _config(self._judge(applied))
        return applied

    def _rooted(self, evictions: Evictions, config: Config | None) -> set[PodId]:
        """Return the pods with an admission that counts by a version, and that aren't evicted themselves."""
        kept = {pod: _kept(found) for pod, found in evictions.items()}
        admitted: dict[PodId, list[PodId]] = {}
        for pod, admits in self._admits.items():
            for signer in {one.signer for one in admits if configuration.honours(config, one, self.admitted)}:
                admitted.setdefault(signer, []).append(pod)
        rooted: set[PodId] = set()
        reached = {self._founder}
        waiting = [self._founder]
        while waiting:
            signer = waiting.pop()
            if signer not in evictions:
                rooted.add(signer)
            for pod in admitted.get(signer, []):
                if pod not in reached and (signer not in evictions or pod in kept[signer]):
                    reached.add(pod)
                    waiting.append(pod)
        return rooted


def admission_key(record: Record) -> tuple[int, RecordId]:
    """Return what sorts admissions: their order, then the record's id."""
    assert isinstance(record.payload, Admit)
    return record.payload.order, record.id


def _kept(found: Sequence[Record]) -> set[PodId]:
    """Return the pods that evictions of one pod keep, their signers among them."""
    kept: set[PodId] = set()
    for record in found:
        kept.add(record.signer)
        if isinstance(record.payload, Revoke):
            kept.update(record.payload.keeps)
    return kept


def _config(found: Configuration) -> Config | None:
    return found.in_force.config if found.in_force else None
