"""Which version of the cluster's configuration is in force, who administers by it, and which versions lost. Pure.

Versions are signed records, each naming its parent, so they form a tree. One counts if its signer administers by its
parent (the founder, for the first), unless the signer was evicted and the eviction didn't pin it. The one in force is
found by walking from the root; of several children wins, in this order:

1. one that an eviction pinned: it was in force when somebody was evicted;
2. one that removes an administrator, or that led to a version which does; of several the one whose remover was
   admitted earliest;
3. the one of the signer admitted earliest;
4. the one with the smaller record id.

Everything follows from the set of records, so every pod that has it finds the same winner whatever came first. The other
children, and what was built upon them, are *lost*: they stay in the roster, so that whoever wrote them can be told.

So an administrator that was removed can't add to the winning branch any more, and what it writes as if it had not heard
of that loses to its removal, if that was signed by a pod admitted earlier. Else it has to be evicted, which pins.

The founder is admitted before everybody, so it could contest every version anyway; what it signs counts whether it is
named or not. So a list whose pods are all gone, or haven't come yet, locks nobody out. An honest founder that isn't named
keeps out of it as long as somebody is: `Roster.is_admin`. The recovery key ranks before the founder and always counts.

Who came in by open admission chose its name itself and was let in by nobody: neither `EVERYBODY` nor a name means it,
only its id does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from base.ids import PodId
from mesh.records import EVERYBODY, Config, Record, RecordId, is_id

NOBODY: Final = 1 << 62
"""The seniority of a remover that there isn't."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the configuration."""

    id: RecordId
    signer: PodId
    config: Config


@dataclass(frozen=True, slots=True)
class Configuration:
    """What follows from all versions."""

    chain: tuple[Version, ...] = ()
    """From the first one to the one in force."""
    lost: tuple[Version, ...] = ()
    """Versions that counted when they were made, and lost; parents first."""
    _ids: frozenset[RecordId] = field(default=frozenset(), repr=False)

    @property
    def in_force(self) -> Version | None:
        """The version in force; None before there is any."""
        return self.chain[-1] if self.chain else None

    def __contains__(self, version: RecordId) -> bool:
        """Tell whether a version is in force or led to that."""
        return version in self._ids


@dataclass(frozen=True, slots=True)
class Admitted:
    """The full pods that were let in and not evicted: what names and seniority mean."""

    always: frozenset[PodId]
    """Those who need not be named: the founder, unless evicted, and the recovery key."""
    orders: Mapping[PodId, int]
    """The rank of each (`mesh.trust`): the founder's is 0, the recovery key's is less."""
    trusted: frozenset[PodId]
    """Those whom a person let in."""
    names: Mapping[str, Sequence[tuple[int, PodId]]]
    """Under which name each of the trusted is known: name -> (order, pod), sorted."""

    def named(self, name: str, behind: int) -> PodId | None:
        """Return the first full pod admitted under ``name`` with an order greater than ``behind``."""
        return next((pod for order, pod in self.names.get(name, ()) if order > behind), None)


def administrators(config: Config | None, admitted: Admitted) -> frozenset[PodId]:
    """Return whom a version names; everybody trusted before the first version."""
    if config is None or EVERYBODY in config.administrators:
        return admitted.trusted
    found = (PodId(one) if is_id(one) else admitted.named(one, config.order) for one in config.administrators)
    return frozenset(pod for pod in found if pod is not None)


def administers(config: Config | None, pod: PodId, admitted: Admitted) -> bool:
    """Tell whether what a pod signs by a version counts: a full pod that is named, or who need not be."""
    if pod in admitted.always:
        return True
    return pod in admitted.orders and pod in administrators(config, admitted)


def honours(config: Config | None, record: Record, admitted: Admitted) -> bool:
    """Tell whether an admission or revocation counts by a version: its signer administers, or it is honoured."""
    return administers(config, record.signer, admitted) or (config is not None and record.id in config.honours)


def removes(before: Config | None, after: Config, admitted: Admitted) -> bool:
    """Tell whether a version takes administration from anybody who has, or would get it by its parent."""
    if before is None or after.administrators == (EVERYBODY,):
        return False
    if EVERYBODY in before.administrators:
        return True
    kept, names = administrators(after, admitted), set(after.administrators)
    for one in before.administrators:
        pod = PodId(one) if is_id(one) else admitted.named(one, before.order)
        if one not in names and (pod is None or pod not in kept):
            return True
    return False


def judge(
    versions: Iterable[Version],
    founder: PodId,
    admitted_by: Callable[[Config | None, RecordId], Admitted],
    pinned: Collection[RecordId] = (),
) -> Configuration:
    """Return the configuration that follows from all known versions.

    ``admitted_by(parent, child)`` tells who has been let in by those who administer by a version (None: there is none),
    to judge by that a version that follows it.
    ``pinned`` are the versions that led to those in force when somebody was evicted: they count in any case.
    """
    children: dict[RecordId, list[Version]] = {}
    for version in versions:
        children.setdefault(version.config.parent, []).append(version)
    valid: list[tuple[Version | None, Version]] = []
    reached: list[Version | None] = [None]
    for parent in reached:  # grows while it is walked, parents first
        for child in children.get(parent.id if parent else b"", ()):
            if child.id in pinned or _may_sign(parent, child, founder, admitted_by):
                valid.append((parent, child))
                reached.append(child)

    def order_of(parent: Version | None, child: Version) -> int:
        return admitted_by(parent.config if parent else None, child.id).orders.get(child.signer, NOBODY)

    remover: dict[RecordId, int] = {}
    for parent, child in reversed(valid):
        strongest = remover.get(child.id, NOBODY)
        if parent is not None and removes(parent.config, child.config, admitted_by(parent.config, child.id)):
            strongest = min(strongest, order_of(parent, child))
        remover[child.id] = strongest
        above = parent.id if parent else b""
        remover[above] = min(remover.get(above, NOBODY), strongest)

    def rank(version: Version) -> tuple[bool, int, int, RecordId]:
        order = order_of(chain[-1] if chain else None, version)
        return version.id not in pinned, remover[version.id], order, version.id

    offspring: dict[RecordId, list[Version]] = {}
    for parent, child in valid:
        offspring.setdefault(parent.id if parent else b"", []).append(child)
    chain: list[Version] = []
    while after := offspring.get(chain[-1].id if chain else b""):
        chain.append(min(after, key=rank))
    ids = frozenset(version.id for version in chain)
    return Configuration(tuple(chain), tuple(child for _, child in valid if child.id not in ids), ids)


def _may_sign(
    parent: Version | None,
    child: Version,
    founder: PodId,
    admitted_by: Callable[[Config | None, RecordId], Admitted],
) -> bool:
    if parent is None:
        return child.signer == founder
    return administers(parent.config, child.signer, admitted_by(parent.config, child.id))
