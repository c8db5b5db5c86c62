"""Who belongs to the cluster: a grow-only set of signed records and the one state that follows from it. Pure.

Whatever the order in which records arrive, two pods with the same set derive the same state. A record is *accepted*
when its signature is right and its signer is the founder, the recovery key, or somebody ever admitted (whatever became
of that); what the accepted ones mean together is decided by `mesh.trust`, anew whenever there are more.

Must never accept a record whose signer isn't a candidate, and never forget one.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from base.errors import DamagedError, RefusedError
from base.ids import ClusterId, PodId, WriterId, hash_bytes
from mesh import configuration, derivation, records
from mesh.api import Role
from mesh.configuration import Configuration
from mesh.derivation import Orders
from mesh.records import EVERYBODY, Admit, Config, Found, Left, Order, Record, RecordId, Retire, Revoke, Void, Writer
from mesh.trust import Facts, Standing, Trust, admission_key, judge, lineage, proof

MAX_RECORDS: Final = 100_000
MAX_REVOCATIONS_BEYOND: Final = 10_000
"""So many more are accepted, if they are revocations: whoever fills the roster can still be evicted."""
MAX_UNKNOWN: Final = 1_000
ID_BYTES: Final = 16
OF_FULL_PODS: Final = Admit | Revoke | Config | Retire | Writer | Void | Order
"""What client pods can't say."""


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
    """Its rank (see `mesh.trust`): the earlier admitted comes first; the founder's is 0."""
    by: PodId
    """Who admitted it."""
    left: bool
    revoked: bool
    """Whether it was evicted, or let in by nobody who had the right to."""
    trusted: bool = True
    """Whether a person let it in, see `mesh.records.Admit`."""


class Roster:
    """The records of one cluster and what follows from them. The first founding record added fixes the cluster."""

    def __init__(self, cluster: ClusterId | None = None) -> None:
        self._expected = cluster
        self._records: dict[RecordId, Record] = {}
        self._unknown = 0
        self._highest_order = 0
        self._facts: Facts | None = None
        self._trust: Trust | None = None
        self._pods: dict[PodId, PodEntry] = {}
        self._writers: dict[WriterId, PodId] = {}
        self._adoptions: dict[WriterId, tuple[Retire, ...]] = {}
        self._voids: dict[WriterId, list[Void]] = {}
        self._maintained: set[PodId] = set()
        self._administrators: set[PodId] = set()
        self._orders = Orders()
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
        """Tell whether somebody unknown, certified by this issuer (`mesh.records.issuer_name`), may have been admitted.

        It may if that is a pod that administers, or did before it left: nobody else is told the roster by a stranger.
        """
        if self._trust is None or self._facts is None:
            return False
        named = self._trust.administrators() | ({self._facts.founder} & self._trust.rooted.keys())
        return any(records.issuer_name(pod) == issuer for pod in named)

    def is_issuer(self, issuer: str) -> bool:
        """Tell whether this is the issuer name of a full pod that wasn't evicted: its certificates are in order."""
        return any(
            records.issuer_name(entry.pod) == issuer and entry.issuing is not None and not entry.revoked
            for entry in self._pods.values()
        )

    def evictions(self) -> list[bytes]:
        """Return the revocations and what proves their signers' rights: all that an evicted pod is told."""
        if self._facts is None:
            return []
        revokes = [record for records in self._facts.revokes.values() for record in records]
        found = dict.fromkeys(one for signer in self._facts.revokes for one in self.proof(signer))
        for version in {one.payload.config for one in revokes if isinstance(one.payload, Revoke)}:
            found.update(dict.fromkeys(lineage(self._facts, version)))
        return [*found, *(record.data for record in revokes)]

    def is_admin(self, pod: PodId) -> bool:
        """Tell whether a pod may admit, evict and configure: a full member that the configuration in force names.

        The founder administers as long as none of those named is a full member.
        """
        return pod in self._administrators

    def is_full_member(self, pod: PodId) -> bool:
        """Tell whether a pod was admitted as a full one and has neither left nor been evicted."""
        entry = self._pods.get(pod)
        return entry is not None and entry.role is Role.FULL and not entry.left and not entry.revoked

    def is_client(self, pod: PodId) -> bool:
        """Tell whether a pod was admitted as a client."""
        entry = self._pods.get(pod)
        return entry is not None and entry.role is Role.CLIENT

    def evicted_without(self, pod: PodId, doubtful: Collection[RecordId] = ()) -> set[PodId]:
        """Return the evicted whom nobody would evict any more if a pod's evictions didn't count, all but the ``doubtful``."""
        if self._facts is None or self._trust is None:
            return set()
        stay = {*self._trust.rooted, self._facts.recovery} - {pod}
        return {
            one
            for one, found in self._trust.evictions.items()
            if one != pod
            and not any(record.signer in stay for record in found)
            and any(record.signer != pod or record.id not in doubtful for record in found)
        }

    def signed_by(self, pod: PodId) -> set[RecordId]:
        """Return the admissions and evictions that a pod signed."""
        records = self._records.items()
        return {key for key, one in records if one.signer == pod and isinstance(one.payload, Admit | Revoke)}

    def of_recovery(self, batch: Iterable[bytes]) -> list[bytes]:
        """Return those records that the recovery key signed."""
        found: list[bytes] = []
        for data in batch:
            with contextlib.suppress(DamagedError):
                record = records.decode(data)
                if self.recovery_key and record.signed_by(self.recovery_key):
                    found.append(data)
        return found

    def is_evicted(self, pod: PodId) -> bool:
        """Tell whether a pod was evicted, or let in by evicted pods; not whether something about it isn't known yet."""
        evictions = self._trust.evictions if self._trust else {}
        admitted_by_evicted = any(record.signer in evictions for record in self._admits_of(pod))
        return self.is_revoked(pod) and (pod in evictions or admitted_by_evicted)

    def admissions_by(self, pod: PodId) -> dict[RecordId, PodId]:
        """Return the admissions by a pod that count, and whom each lets in."""
        counted = self._trust.counted if self._trust else ()
        return {one.id: one.payload.pod for one in counted if isinstance(one.payload, Admit) and one.signer == pod}

    def is_maintained(self, pod: PodId) -> bool:
        """Tell whether a pod said that it is going to be away on purpose."""
        return pod in self._maintained

    def next_maintenance(self, pod: PodId) -> int:
        """Return the number for a pod's next word about its maintenance."""
        return derivation.maintenance_number(self._records.values(), pod)

    def orders(self) -> Orders:
        """Return what administrators said last to the whole cluster: freeze, unfreeze, drill."""
        return self._orders

    @property
    def recovery_key(self) -> bytes:
        """The raw public key of the recovery key; empty when the cluster has none."""
        return self._founding()[1].recovery

    def is_revoked(self, pod: PodId) -> bool:
        """Tell whether a pod was evicted, or admitted by one that was."""
        entry = self._pods.get(pod)
        return entry is not None and entry.revoked

    def is_member(self, pod: PodId) -> bool:
        """Tell whether a pod was admitted and has neither left nor been evicted."""
        entry = self._pods.get(pod)
        return entry is not None and not entry.left and not entry.revoked

    def configuration(self) -> Configuration:
        """Return the versions of cluster.toml: what is in force, what led to it, what lost."""
        return self._trust.configuration if self._trust else Configuration()

    def config_toml(self) -> str:
        """Return the text of cluster.toml in force; empty before the first configuration."""
        config = self._trust.config if self._trust else None
        return config.toml if config else ""

    def config_id(self) -> RecordId:
        """Return the record id of the configuration in force, the parent of the next one; empty when none."""
        version = self.configuration().in_force
        return version.id if version else b""

    def next_config(self, toml: str, administrators: Iterable[str], time_ns: int) -> Config:
        """Return the version that follows the one in force; ``administrators`` are pod names or ids, or `EVERYBODY`.

        Names become the ids of the members that have them; a name that nobody has stays one. Whom others let in, and
        whom they evicted, while they were administrators stays so.
        """
        if self._trust is None:
            raise RefusedError("This home has no founding record.", "Join the cluster anew.")
        members = {one.name: pod for pod, one in self._pods.items() if one.trusted and self.is_full_member(pod)}
        found = {str(members.get(name, name)) for name in administrators}
        found = {EVERYBODY} if EVERYBODY in found else found
        order = 0 if all(name == EVERYBODY or records.is_id(name) for name in found) else self._highest_order
        draft = Config(self.config_id(), toml, time_ns, tuple(sorted(found)), order)
        return replace(draft, honours=self._trust.honoured_by(draft))

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

    def knows(self, record: RecordId) -> bool:
        """Tell whether a record is here."""
        return record in self._records

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
        """Return the few records that prove a pod's admission: the founding, the configurations that gave those who
        admitted the right to, and the admissions that lead to it.

        Raises `RefusedError` when the pod isn't known.
        """
        found = self._founding()[1]
        assert self._facts is not None
        assert self._trust is not None
        shown = proof(self._facts, pod, self._trust)
        if shown is None:
            raise RefusedError(f"The pod {pod} is not known in the cluster {found.name}.")
        return shown

    # -- acceptance

    def _founding(self) -> tuple[Record, Found]:
        if self._facts is None:
            raise RefusedError("This home has no founding record.", "Join the cluster anew.")
        return self._facts.founding, self._facts.found

    def _accept(self, record: Record) -> bool:
        """Put a valid record into the set; what it means is derived afterwards."""
        payload = record.payload
        room = MAX_RECORDS + (MAX_REVOCATIONS_BEYOND if isinstance(payload, Revoke) else 0)
        if record.id in self._records or len(self._records) >= room:
            return False
        if isinstance(payload, Found):
            return self._accept_found(record, payload)
        facts = self._facts
        if facts is None or record.cluster != facts.founding.id.hex():
            return False
        key = self._candidate_key(record.signer)
        if key is None or not record.signed_by(key):
            return False
        if payload is None:
            if self._unknown >= MAX_UNKNOWN:
                return False
            self._unknown += 1
        elif isinstance(payload, OF_FULL_PODS) and not self._is_candidate_full(record.signer):
            return False
        if isinstance(payload, Config) and not self._follows(payload, record.signer):
            return False
        if isinstance(payload, Admit):
            if payload.pod in (facts.founder, facts.recovery):
                return False
            self._highest_order = max(self._highest_order, payload.order)
        facts.add(record)
        self._records[record.id] = record
        return True

    def _follows(self, config: Config, signer: PodId) -> bool:
        """Tell whether the parent of a version is here and may let the signer write the next; the first is the founder's.

        Whatever came first, every pod with the same records must answer the same. So this doesn't ask whom a name means.
        """
        assert self._facts is not None
        if not config.parent:
            return signer == self._facts.founder
        parent = self._facts.versions.get(config.parent)
        if parent is None:
            return False
        if signer in (self._facts.founder, self._facts.recovery):
            return True
        known_as = {str(signer), EVERYBODY}
        known_as.update(one.payload.name for one in self._admits_of(signer) if isinstance(one.payload, Admit))
        return not known_as.isdisjoint(parent.config.administrators)

    def _accept_found(self, record: Record, payload: Found) -> bool:
        cluster = records.cluster_id_of(record.data)
        if self._facts is not None or (self._expected is not None and cluster != self._expected):
            return False
        if not record.signed_by(payload.public_key):
            return False
        self._facts = Facts(record, payload)
        self._records[record.id] = record
        return True

    def _candidate_key(self, pod: PodId) -> bytes | None:
        founding, found = self._founding()
        if pod == founding.signer:
            return found.public_key
        if self._facts is not None and pod == self._facts.recovery:
            return found.recovery
        admits = self._admits_of(pod)
        payload = admits[0].payload if admits else None
        return payload.public_key if isinstance(payload, Admit) else None

    def _is_candidate_full(self, pod: PodId) -> bool:
        if self._facts is not None and pod in (self._facts.founder, self._facts.recovery):
            return True
        return any(isinstance(one.payload, Admit) and one.payload.role is Role.FULL for one in self._admits_of(pod))

    def _admits_of(self, pod: PodId) -> list[Record]:
        return self._facts.admits.get(pod, []) if self._facts is not None else []

    # -- derivation

    def _derive(self) -> None:
        if self._facts is None:
            return
        trust = judge(self._facts)
        left = {record.signer for record in self._records.values() if isinstance(record.payload, Left)}
        pods = [self._facts.founder, *self._facts.admits]
        self._trust = trust
        self._pods = {pod: self._entry(pod, trust, pod in left) for pod in pods}
        self._writers = derivation.writers(self._records.values(), self._pods)
        self._adoptions = derivation.adoptions(self._records.values(), self._writers)
        self._voids = derivation.voids(self._records.values(), self._writers)
        self._maintained = derivation.maintained(self._records.values())
        self._orders = derivation.orders(self._records.values(), self._may_order)
        named = {pod for pod in trust.administrators() if self.is_full_member(pod)}
        self._administrators = named or {pod for pod in (self._facts.founder,) if self.is_full_member(pod)}

    def _may_order(self, pod: PodId, version: RecordId) -> bool:
        """Tell whether a pod, not evicted since, administered by a version: what it said then goes on counting."""
        assert self._facts is not None
        assert self._trust is not None
        known = self._facts.versions.get(version)
        if known is None and version:
            return False
        return configuration.administers(known.config if known else None, pod, self._trust.admitted)

    def _entry(self, pod: PodId, trust: Trust, left: bool) -> PodEntry:
        founding, found = self._founding()
        gone = pod not in trust.rooted
        if pod == founding.signer:
            founder = (found.pod_name, Role.FULL, found.public_key, found.issuing, 0, pod)
            return PodEntry(pod, *founder, left, gone)
        admits = self._admits_of(pod)
        first = min(admits, key=admission_key)
        said = first.payload
        assert isinstance(said, Admit)
        one = trust.reached.get(pod) or Standing(
            said.order, first.signer, said.name, said.role, said.issuing, said.trusted
        )
        known = (one.name, one.role, said.public_key, one.issuing, one.rank, one.by)
        return PodEntry(pod, *known, left, gone, one.trusted)
