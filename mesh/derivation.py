"""What follows from the roster's records about writers, once pods and evictions are known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from base.ids import PodId, WriterId
from mesh.records import Config, Record, RecordId, Retire, Revoke, Void, Writer

MAX_WRITERS_OF_POD: Final = 256

Evictions = Mapping[PodId, list[Record]]
"""Evicted pods and the records that evict them."""


def writers(found: Iterable[Record], seniority: Mapping[PodId, int]) -> dict[WriterId, PodId]:
    """Return the pod of each writer id; one claimed twice belongs to the more senior pod."""
    claims: dict[WriterId, PodId] = {}
    count: dict[PodId, int] = {}
    for record in sorted(
        (record for record in found if isinstance(record.payload, Writer)),
        key=lambda record: (seniority.get(record.signer, 0), record.signer, record.id),
    ):
        count[record.signer] = count.get(record.signer, 0) + 1
        if isinstance(record.payload, Writer) and count[record.signer] <= MAX_WRITERS_OF_POD:
            claims.setdefault(record.payload.writer, record.signer)
    return claims


def adoptions(found: Iterable[Record]) -> dict[WriterId, tuple[Retire, ...]]:
    """Return the writers whose metadata was adopted, with each adoption."""
    retired: dict[WriterId, set[Retire]] = {}
    for record in found:
        if isinstance(record.payload, Retire):
            retired.setdefault(record.payload.writer, set()).add(record.payload)
    return {writer: tuple(sorted(found, key=lambda one: (one.upto, one.by))) for writer, found in retired.items()}


def voids(found: Iterable[Record], writers: Mapping[WriterId, PodId]) -> dict[WriterId, list[Void]]:
    """Return what writers' own pods declared void."""
    declared: dict[WriterId, list[Void]] = {}
    for record in found:
        if isinstance(record.payload, Void) and writers.get(record.payload.writer) == record.signer:
            declared.setdefault(record.payload.writer, []).append(record.payload)
    return declared


def pinned(found: Mapping[RecordId, Record], evictions: Evictions) -> set[RecordId]:
    """Return the configurations that led to those in force when somebody was evicted."""
    path: set[RecordId] = set()
    for records in evictions.values():
        for eviction in records:
            current = eviction.payload.config if isinstance(eviction.payload, Revoke) else b""
            while current and current not in path:
                path.add(current)
                record = found.get(current)
                current = record.payload.parent if record and isinstance(record.payload, Config) else b""
    return path
