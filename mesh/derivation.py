"""What follows from the roster's records about writers and maintenance, once it is known who is in. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from base.ids import PodId, WriterId
from mesh.records import Maintenance, Order, Record, RecordId, Retire, Void, Writer

MAX_WRITERS_OF_POD: Final = 256


class Claimant(Protocol):
    """What decides between two pods that claim one writer id."""

    @property
    def revoked(self) -> bool:
        """Whether it was evicted."""

    @property
    def order(self) -> int:
        """Its rank."""


def writers(found: Iterable[Record], pods: Mapping[PodId, Claimant]) -> dict[WriterId, PodId]:
    """Return the pod of each writer id; one claimed twice belongs to a member, then to the pod that ranks first."""
    claims: dict[WriterId, PodId] = {}
    count: dict[PodId, int] = {}
    for record in sorted(
        (record for record in found if isinstance(record.payload, Writer)),
        key=lambda record: (pods[record.signer].revoked, pods[record.signer].order, record.signer, record.id),
    ):
        count[record.signer] = count.get(record.signer, 0) + 1
        if isinstance(record.payload, Writer) and count[record.signer] <= MAX_WRITERS_OF_POD:
            claims.setdefault(record.payload.writer, record.signer)
    return claims


def adoptions(found: Iterable[Record], writers: Mapping[WriterId, PodId]) -> dict[WriterId, tuple[Retire, ...]]:
    """Return the writers whose metadata was adopted, with each adoption.

    Only the pod that has the copies can say so: by another one's false word the originals would be dropped. It may have
    taken another writer since, but has the former one still. Copies that are complete with its transaction 0 are of
    nothing: an adopter that never wrote found no record that it could have copied.
    """
    retired: dict[WriterId, set[Retire]] = {}
    for record in found:
        if isinstance(record.payload, Retire) and writers.get(record.payload.by) == record.signer:
            retired.setdefault(record.payload.writer, set()).add(record.payload)
    return {writer: tuple(sorted(found, key=lambda one: (one.upto, one.by))) for writer, found in retired.items()}


def voids(found: Iterable[Record], writers: Mapping[WriterId, PodId]) -> dict[WriterId, list[Void]]:
    """Return what writers' own pods declared void."""
    declared: dict[WriterId, list[Void]] = {}
    for record in found:
        if isinstance(record.payload, Void) and writers.get(record.payload.writer) == record.signer:
            declared.setdefault(record.payload.writer, []).append(record.payload)
    return declared


def maintained(found: Iterable[Record]) -> set[PodId]:
    """Return the pods that said last that they are away on purpose."""
    last: dict[PodId, tuple[int, bool]] = {}
    for record in found:
        if isinstance(record.payload, Maintenance):
            said = (record.payload.number, record.payload.on)
            last[record.signer] = max(said, last.get(record.signer, said))
    return {pod for pod, (_, on) in last.items() if on}


def maintenance_number(found: Iterable[Record], pod: PodId) -> int:
    """Return the number for a pod's next word about its maintenance."""
    numbers = (one.payload.number for one in found if isinstance(one.payload, Maintenance) and one.signer == pod)
    return 1 + max(numbers, default=0)


@dataclass(frozen=True, slots=True)
class Orders:
    """What administrators said last to the whole cluster."""

    freeze: tuple[PodId, Order] | None = None
    """Who froze it, if nobody has lifted that since."""
    unfreeze: tuple[PodId, Order] | None = None
    """The last acceptance."""
    drill: tuple[PodId, Order] | None = None
    """The last drill, over or not, unless it was ended."""
    number: int = 0
    """The greatest number given so far."""


def orders(found: Iterable[Record], counts: Callable[[PodId, RecordId], bool]) -> Orders:
    """Return the orders in force; ``counts`` tells whether a signer administered by a configuration."""
    given = [
        (record.payload.number, record.id, record.signer, record.payload)
        for record in found
        if isinstance(record.payload, Order) and counts(record.signer, record.payload.config)
    ]
    last: dict[str, tuple[PodId, Order]] = {}
    for _, _, signer, order in sorted(given, key=lambda one: one[:2]):
        last[order.what] = (signer, order)
        if order.what == "unfreeze":
            last.pop("freeze", None)
            last.pop("drill", None)
    number = max((one[0] for one in given), default=0)
    return Orders(last.get("freeze"), last.get("unfreeze"), last.get("drill"), number)
