"""Who belongs to the cluster: a grow-only set of signed records and the one state that follows from it. Pure.

Whatever the order in which records arrive, two pods with the same set derive the same state:

1. Candidates: the founder, and whoever a candidate full pod admitted, evictions left aside.
2. Evictions are applied in the order of seniority (admission order, pod id), so of two evicting each other the earlier
   admitted wins. An eviction voids what the evicted pod admitted, except the pods that the eviction keeps, and
   its configurations, except those that led to the one in force at the eviction.
3. The configuration is the chain from the first one; of several children the one of the most senior signer wins,
   then the smaller record id.

Must never accept a record whose signer isn't a candidate, and never forget one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from base.errors import DamagedError, RefusedError
from base.ids import ClusterId, PodId, WriterId, hash_bytes
from mesh import derivation, records
from mesh.api import Role
from mesh.records import Admit, Config, Found, Left, Record, RecordId, Retire, Revoke, Void

MAX_RECORDS: Final = 100_000
MAX_UNKNOWN: Final = 1_000
ID_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class PodEntry:
    """One pod ever admitted."""

    pod: PodId
    name: str
    role: Role
    public_key: bytes
    issuing: bytes | None
    """Its issuing certificate (DER); None for a client."""
    order: int
    """Seniority: the order of its first admission; the founder's is 0."""
    by: PodId
    left: bool
    revoked: bool


class Roster:
    """The records of one cluster and what follows from them. The first founding record added fixes the cluster."""

    def __init__(self, cluster: ClusterId | None = None) -> None:
        self._expected = cluster
        self._records: dict[RecordId, Record] = {}
        self._unknown = 0
        self._highest_order = 0
        self._found: Record | None = None
        self._pods: dict[PodId, PodEntry] = {}
        self._writers: dict[WriterId, PodId] = {}
        self._adoptions: dict[WriterId, tuple[Retire, ...]] = {}
        self._voids: dict[WriterId, list[Void]] = {}
        self._admits: dict[PodId, list[Record]] = {}
        self._config: Record | None = None
        self._digest: bytes | None = None

    # -- what is in it

    @property
    def cluster_id(self) -> ClusterId:
        """The cluster's id. Raises `RefusedError` while there is no founding record."""
        return ClusterId(self._founding()[0].id.hex())

    @property
    def cluster_name(self) -> str:
        """The name given at the founding."""
        return self._founding()[1].name

    def pods(self) -> dict[PodId, PodEntry]:
        """Return all pods ever admitted, those left or evicted included."""
        return dict(self._pods)

    def entry(self, pod: PodId) -> PodEntry | None:
        """Return what is known of one pod."""
        return self._pods.get(pod)

    def public_key(self, pod: PodId) -> bytes | None:
        """Return the raw key of a pod ever admitted, evicted ones included: what they once signed stays signed."""
        entry = self._pods.get(pod)
        return entry.public_key if entry else None

    def writers(self) -> dict[WriterId, PodId]:
        """Return every writer id ever used and its pod."""
        return dict(self._writers)

    def writer_pod(self, writer: WriterId) -> PodId | None:
        """Return the pod that writes under an id."""
        return self._writers.get(writer)

    def adoptions(self) -> dict[WriterId, tuple[Retire, ...]]:
        """Return the writers that write no more and whose metadata others hold, with each adoption."""
        return self._adoptions

    def voids(self) -> dict[WriterId, list[Void]]:
        """Return the transactions that don't count since their pod was a restored one, by writer."""
        return self._voids

    def anchors(self) -> list[bytes]:
        """Return the issuing certificates (DER) that may introduce somebody unknown: of full pods not evicted.

        One that left keeps its place, since pods that it admitted still show certificates made by it.
        """
        return [entry.issuing for entry in self._pods.values() if entry.issuing is not None and not entry.revoked]

    def issuers(self) -> list[bytes]:
        """Return all issuing certificates (DER), evicted pods' included.

        A member that was certified by a pod evicted meanwhile must get as far as learning of it; `mesh.handshake`
        sees to it that an evicted pod's certificate introduces nobody new.
        """
        return [entry.issuing for entry in self._pods.values() if entry.issuing is not None]

    def introduces(self, issuer: str) -> bool:
        """Tell whether the pod with this issuer name (`mesh.records.issuer_name`) may introduce somebody unknown."""
        return any(
            records.issuer_name(entry.pod) == issuer and entry.issuing is not None and not entry.revoked
            for entry in self._pods.values()
        )

    def evictions(self) -> list[bytes]:
        """Return the revocations and what proves their signers' rights: all that an evicted pod is told."""
        found: dict[bytes, None] = {}
        for record in self._records.values():
            if isinstance(record.payload, Revoke):
                found.update(dict.fromkeys([*self.proof(record.signer), record.data]))
        return list(found)

    def is_admin(self, pod: PodId) -> bool:
        """Tell whether a pod may admit, evict and configure: every full pod that neither left nor was evicted."""
        entry = self._pods.get(pod)
        return entry is not None and entry.role is Role.FULL and not entry.left and not entry.revoked

    def is_client(self, pod: PodId) -> bool:
        """Tell whether a pod was admitted as a client."""
        entry = self._pods.get(pod)
        return entry is not None and entry.role is Role.CLIENT

    def is_revoked(self, pod: PodId) -> bool:
        """Tell whether a pod was evicted, or admitted by one that was."""
        entry = self._pods.get(pod)
        return entry is not None and entry.revoked

    def is_member(self, pod: PodId) -> bool:
        """Tell whether a pod was admitted and has neither left nor been evicted."""
        entry = self._pods.get(pod)
        return entry is not None and not entry.left and not entry.revoked

    def config_toml(self) -> str:
        """Return the text of cluster.toml in force; empty before the first configuration."""
        config = self._config.payload if self._config else None
        return config.toml if isinstance(config, Config) else ""

    def config_id(self) -> RecordId:
        """Return the record id of the configuration in force, the parent of the next one; empty when none."""
        return self._config.id if self._config else b""

    def next_order(self) -> int:
        """Return the order for the next admission made here."""
        return min(self._highest_order + 1, records.MAX_ORDER)

    # -- the set

    def add(self, record: bytes) -> bool:
        """Add one record; tell whether it was new. Raises `DamagedError` when malformed; see `add_all`."""
        records.decode(record)
        return bool(self.add_all([record]))

    def add_all(self, batch: Iterable[bytes]) -> list[bytes]:
        """Add records in any order and return those that were new and valid, in an order that can be replayed.

        The malformed, the forged, those of another cluster, and those whose signer is unknown are left out.
        """
        waiting: list[Record] = []
        for data in batch:
            try:
                record = records.decode(data)
            except DamagedError:
                continue
            if record.id not in self._records:
                waiting.append(record)
        added: list[bytes] = []
        progress = True
        while progress and waiting:
            progress = False
            rest: list[Record] = []
            for record in waiting:
                if self._accept(record):
                    added.append(record.data)
                    progress = True
                else:
                    rest.append(record)
            waiting = rest
        if added:
            self._digest = None
            self._derive()
        return added

    def records(self) -> list[bytes]:
        """Return all records, each behind those that its acceptance needs."""
        return [record.data for record in self._records.values()]

    def __len__(self) -> int:
        return len(self._records)

    def since(self, count: int) -> list[bytes]:
        """Return the records added after the first ``count``."""
        return [record.data for record in itertools.islice(self._records.values(), count, None)]

    def lacks_any(self, ids: bytes) -> bool:
        """Tell whether ``ids`` (as made by `ids`) names a record that isn't here."""
        return any(ids[start : start + ID_BYTES] not in self._records for start in range(0, len(ids), ID_BYTES))

    def ids(self) -> bytes:
        """Return the ids of all records, 16 bytes each."""
        return b"".join(self._records)

    def digest(self) -> bytes:
        """Return a hash of the set: equal on two pods when they have the same records."""
        if self._digest is None:
            self._digest = hash_bytes(b"".join(sorted(self._records)))[:ID_BYTES]
        return self._digest

    def missing_in(self, ids: bytes) -> Iterator[bytes]:
        """Yield the records that somebody who has ``ids`` (as made by `ids`) lacks, in an order to be added."""
        known = {ids[start : start + ID_BYTES] for start in range(0, len(ids), ID_BYTES)}
        return (record.data for key, record in list(self._records.items()) if key not in known)

    def proof(self, pod: PodId) -> list[bytes]:
        """Return the few records that prove a pod's admission: the founding and the chain of admissions to it.

        Raises `RefusedError` when the pod isn't known.
        """
        founding, found = self._founding()
        chain: list[bytes] = []
        current = pod
        while current != founding.signer:
            entry = self._pods.get(current)
            if entry is None:
                raise RefusedError(f"The pod {pod} is not known in the cluster {found.name}.")
            first = min(self._admits[current], key=_admission_key)
            chain.append(first.data)
            current = first.signer
        return [founding.data, *reversed(chain)]

    # -- acceptance

    def _founding(self) -> tuple[Record, Found]:
        if self._found is None or not isinstance(self._found.payload, Found):
            raise RefusedError("This home has no founding record.", "Join the cluster anew.")
        return self._found, self._found.payload

    def _accept(self, record: Record) -> bool:
        """Put a valid record into the set; what it means is derived afterwards."""
        payload = record.payload
        if record.id in self._records or len(self._records) >= MAX_RECORDS:
            return False
        if isinstance(payload, Found):
            return self._accept_found(record, payload)
        if self._found is None or record.cluster != self._found.id.hex():
            return False
        key = self._candidate_key(record.signer)
        if key is None or not record.signed_by(key):
            return False
        if payload is None:
            if self._unknown >= MAX_UNKNOWN:
                return False
            self._unknown += 1
        elif not isinstance(payload, Left) and not self._is_candidate_admin(record.signer):
            return False  # of a client's records only the one that it leaves counts
        if isinstance(payload, Admit):
            if payload.pod == self._found.signer:
                return False
            self._admits.setdefault(payload.pod, []).append(record)
            self._highest_order = max(self._highest_order, payload.order)
        self._records[record.id] = record
        return True

    def _accept_found(self, record: Record, payload: Found) -> bool:
        cluster = records.cluster_id_of(record.data)
        if self._found is not None or (self._expected is not None and cluster != self._expected):
            return False
        if not record.signed_by(payload.public_key):
            return False
        self._found = record
        self._records[record.id] = record
        return True

    def _candidate_key(self, pod: PodId) -> bytes | None:
        founding, found = self._founding()
        if pod == founding.signer:
            return found.public_key
        admits = self._admits.get(pod)
        payload = admits[0].payload if admits else None
        return payload.public_key if isinstance(payload, Admit) else None

    def _is_candidate_admin(self, pod: PodId) -> bool:
        if self._found is not None and pod == self._found.signer:
            return True
        return any(
            isinstance(admit.payload, Admit) and admit.payload.role is Role.FULL for admit in self._admits.get(pod, [])
        )

    # -- derivation

    def _derive(self) -> None:
        if self._found is None:
            return
        seniority = self._seniority()
        left = {record.signer for record in self._records.values() if isinstance(record.payload, Left)}
        evictions = self._evictions(seniority)
        valid = self._rooted(evictions)
        self._pods = {pod: self._entry(pod, seniority[pod], pod in left, pod not in valid) for pod in seniority}
        self._writers = derivation.writers(self._records.values(), seniority)
        self._adoptions = derivation.adoptions(self._records.values())
        self._voids = derivation.voids(self._records.values(), self._writers)
        self._config = derivation.configuration(self._records, seniority, evictions)

    def _seniority(self) -> dict[PodId, int]:
        founding, _ = self._founding()
        orders = {founding.signer: 0}
        for pod, admits in self._admits.items():
            orders[pod] = min(_admission_key(record) for record in admits)[0]
        return orders

    def _evictions(self, seniority: dict[PodId, int]) -> dict[PodId, list[Record]]:
        """Return the evicted pods with the records that evict them."""
        by_signer: dict[PodId, list[Record]] = {}
        for record in self._records.values():
            if isinstance(record.payload, Revoke):
                by_signer.setdefault(record.signer, []).append(record)
        applied: dict[PodId, list[Record]] = {}
        for signer in sorted(by_signer, key=lambda pod: (seniority.get(pod, 0), pod)):
            if signer not in self._rooted(applied):
                continue
            for record in by_signer[signer]:
                if isinstance(record.payload, Revoke) and record.payload.pod != signer:
                    applied.setdefault(record.payload.pod, []).append(record)
        return applied

    def _rooted(self, evictions: dict[PodId, list[Record]]) -> set[PodId]:
        """Return the pods with an admission that still counts and that aren't evicted themselves."""
        founding, _ = self._founding()
        kept = {pod: self._kept(found) for pod, found in evictions.items()}
        admitted: dict[PodId, list[PodId]] = {}
        for pod, admits in self._admits.items():
            for signer in {record.signer for record in admits}:
                admitted.setdefault(signer, []).append(pod)
        rooted: set[PodId] = set()
        reached = {founding.signer}
        waiting = [founding.signer]
        while waiting:
            signer = waiting.pop()
            if signer not in evictions:
                rooted.add(signer)
            for pod in admitted.get(signer, []):
                if pod not in reached and (signer not in evictions or pod in kept[signer]):
                    reached.add(pod)
                    waiting.append(pod)
        return rooted

    @staticmethod
    def _kept(found: list[Record]) -> set[PodId]:
        kept: set[PodId] = set()
        for record in found:
            kept.add(record.signer)
            if isinstance(record.payload, Revoke):
                kept.update(record.payload.keeps)
        return kept

    def _entry(self, pod: PodId, order: int, left: bool, revoked: bool) -> PodEntry:
        founding, found = self._founding()
        if pod == founding.signer:
            return PodEntry(pod, found.pod_name, Role.FULL, found.public_key, found.issuing, order, pod, left, revoked)
        last = max(self._admits[pod], key=_admission_key)
        first = min(self._admits[pod], key=_admission_key)
        assert isinstance(last.payload, Admit)
        return PodEntry(
            pod,
            last.payload.name,
            last.payload.role,
            last.payload.public_key,
            last.payload.issuing,
            order,
            first.signer,
            left,
            revoked,
        )


def _admission_key(record: Record) -> tuple[int, RecordId]:
    assert isinstance(record.payload, Admit)
    return record.payload.order, record.id
