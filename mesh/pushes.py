"""The entries of a push: in which portions they are sent, and what came of which writer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from base.ids import WriterId
from mesh.api import Entry
from mesh.log_messages import MAX_ENTRIES, MalformedError, carries_entries, decode_push

MAX_PUSH_BYTES = 256 * 1024
"""Blobs in one push; an entry alone may be larger, up to `MAX_PUSHED_ENTRY_BYTES`."""
MAX_PUSHED_ENTRY_BYTES = 1024 * 1024
"""A larger entry is announced and fetched, not pushed."""
MAX_PUSHES = 8
"""Pushes from one call; what is beyond is announced only."""


def pushed_entries(message: object) -> list[Entry]:
    """Return the entries that a `Tag.LOG_PUSH` message carries, none for other kinds and malformed ones.

    They go to `ReplicatedLog.receive`, then the message to `Broadcast.received`.
    """
    if not carries_entries(message):
        return []  # most only announce
    try:
        return list(decode_push(message).entries)
    except MalformedError:
        return []


def all_here(entries: Iterable[Entry], vector: Mapping[WriterId, int]) -> bool:
    """Tell whether a log of that ``vector`` has all of ``entries``."""
    return all(entry.sequence <= vector.get(entry.writer, 0) for entry in entries)


def last_of(entries: Iterable[Entry]) -> dict[WriterId, int]:
    """Return the highest number of each writer."""
    last: dict[WriterId, int] = {}
    for entry in entries:
        last[entry.writer] = max(entry.sequence, last.get(entry.writer, 0))
    return last


def batches(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Return the entries worth pushing in batches of about `MAX_PUSH_BYTES`.

    Nothing of a writer is pushed after an entry of his that is too large: it could not be applied.
    """
    portions: list[list[Entry]] = []
    size = 0
    stopped: set[WriterId] = set()
    for entry in entries:
        if len(entry.blob) > MAX_PUSHED_ENTRY_BYTES or entry.writer in stopped:
            stopped.add(entry.writer)
            continue
        if not portions or size + len(entry.blob) > MAX_PUSH_BYTES or len(portions[-1]) >= MAX_ENTRIES:
            if len(portions) == MAX_PUSHES:
                break
            portions.append([])
            size = 0
        portions[-1].append(entry)
        size += len(entry.blob)
    return portions
