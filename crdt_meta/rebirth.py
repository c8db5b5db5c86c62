"""Going on under a new writer id: this pod turned out to be a restored copy, or was forgotten while it was away.

What only this pod has (its transactions after some sequence) is adopted by the new writer, author and dots unchanged:
others may have seen some of it already. After a restore the old writer's later records are elsewhere; of kinds of which
a writer has but one a node, what was written here is then the new writer's own, so that neither hides the other.
What those records build on, all records of the files concerned and of the directories above them, is adopted as well,
since others may have collected it meanwhile: an edit that they did not see keeps its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from base.ids import Dot, InodeId, LinkId, WriterId
from crdt_meta.codec import decode, encode
from crdt_meta.hlc import FRACTION_BITS, HybridClock
from crdt_meta.log import MetadataLog
from crdt_meta.records import Body, Content, Deletion, Key, LinkBirth, Settled
from crdt_meta.rescue import Record, bases, copies
from crdt_meta.segments import Segment, difference
from crdt_meta.view import View

AHEAD_MS: Final = 1000
"""A clock that is ahead of the time by more than this follows another pod's."""
KEEPS_ITS_FILE: Final = "cil"
"""Kinds of records for whose sake others are adopted."""


def rewrite(
    view: View,
    log: MetadataLog,
    clock: HybridClock,
    new: WriterId,
    after: int,
    in_use: Iterable[InodeId],
    *,
    restored: bool,
) -> None:
    """Write as ``new`` from now on, and hold what the old writer wrote after a sequence, and files that are ``in_use``.

    What becomes of the old writer's log is up to the caller, before anything is committed.
    """
    log.seal()
    old = log.writer
    only_here = [*_written_after(log, old, after)]
    nodes = [*bases(view, _files(view, only_here, in_use))]
    again = [(_new_key(key, old, restored), value, body) for key, value, body in only_here]
    if restored:
        fork = log.table.clock_at(old, after)
        again = [
            _beside_the_other_life(record, old, fork) for record in _with_clocks_of_its_own(again, old, new, clock)
        ]
    log.write_as(new)
    log.on_delta(log.hold(again))
    known = {record[0] for record in only_here}
    found = copies(view, nodes)
    log.on_delta(log.hold([copy for holder, key, copy in found if holder != old or key not in known]))


def _new_key(key: Key, old: WriterId, restored: bool) -> Key:
    if key.author is not None or (restored and key.kind not in KEEPS_ITS_FILE):
        return key
    return key._replace(author=old)


def _with_clocks_of_its_own(records: list[Record], old: WriterId, new: WriterId, clock: HybridClock) -> list[Record]:
    """Return contents that were written with a clock ahead of the time as the new writer's own, with later clocks.

    The other life may have given the same clocks to other contents, or later ones, by whose floors these would count as
    replaced: a clock that is ahead, since some pod's is, goes on from where the backup was in both lives.
    """
    ahead = [body.clock for key, _, body in records if isinstance(body, Content) and key.author == old]
    now = clock.physical() + (AHEAD_MS << FRACTION_BITS)
    renamed = {Dot(old, one): Dot(new, clock.tick()) for one in sorted(ahead) if one > now}
    return [_renamed(record, old, renamed) for record in records] if renamed else records


def _renamed(record: Record, old: WriterId, dots: Mapping[Dot, Dot]) -> Record:
    """Return a record with contents named by other dots, beside the former ones."""
    key, value, body = record

    def both(named: tuple[Dot, ...]) -> tuple[Dot, ...]:
        return tuple(sorted({*named, *(dots[dot] for dot in named if dot in dots)}))

    if isinstance(body, Content):
        own = dots.get(Dot(old, body.clock)) if key.author == old else None
        changed: Body = body._replace(replaces=both(body.replaces))
        if own is not None:
            changed = body._replace(replaces=both(body.replaces), clock=own.clock, floor=0)
            key = Key.of(changed, key.node)
    elif isinstance(body, Deletion):
        changed = body._replace(dots=both(body.dots))
    elif isinstance(body, Settled):
        changed = body._replace(dots=both(body.dots), purged=both(body.purged))
    else:
        return record
    return (key, encode(changed, key.node), changed) if changed != body else (key, value, body)


def _beside_the_other_life(record: Record, old: WriterId, fork: int) -> Record:
    """Return a content that replaces, by its floor, only what its writer wrote before its two lives parted."""
    key, _, body = record
    if not isinstance(body, Content) or key.author != old or body.floor <= fork + 1:
        return record
    body = body._replace(floor=fork + 1)
    return key, encode(body, key.node), body


def _written_after(log: MetadataLog, writer: WriterId, after: int) -> Iterator[Record]:
    """Yield the records that a writer wrote in transactions after one, as they are now."""
    for segment in log.table.changed_since(writer, after):
        now = Segment(log.table.parts(writer, segment)).records()
        before = Segment(log.table.parts_until(writer, segment, after)).records()
        for text, value in difference(before, now).items():
            key = Key.parse(text)
            if key is not None and value is not None and key.kind != "k":
                yield key, value, decode(*key[:3], value)


def _files(view: View, records: Iterable[Record], in_use: Iterable[InodeId]) -> dict[InodeId, set[LinkId]]:
    """Return the files that records build on, and those in use."""
    wanted: dict[InodeId, set[LinkId]] = {inode: set() for inode in in_use if view.records.has(inode)}
    for key, _, body in records:
        if key.kind in KEEPS_ITS_FILE:
            inode = body.inode if isinstance(body, LinkBirth) else InodeId(key.node)
            wanted.setdefault(inode, set()).update({body.via} if isinstance(body, Content) else ())
    return wanted
