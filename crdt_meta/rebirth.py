"""Going on under a new writer id: this pod turned out to be a restored copy, or was forgotten while it was away.

What only this pod has (its transactions after some sequence) is adopted by the new writer, author and dots unchanged:
others may have seen some of it already. After a restore the old writer's later records are elsewhere; of kinds of which
a writer has but one a node, what was written here is then the new writer's own, so that neither hides the other.
What those records build on, all records of the files concerned and of the directories above them, is adopted as well,
since others may have collected it meanwhile: an edit that they did not see keeps its file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from base.ids import InodeId, LinkId, WriterId
from crdt_meta.codec import decode, encode
from crdt_meta.log import MetadataLog
from crdt_meta.records import Content, Key, LinkBirth
from crdt_meta.rescue import Record, bases, copies
from crdt_meta.segments import Segment, difference
from crdt_meta.view import View

KEEPS_ITS_FILE: Final = "cil"
"""Kinds of records for whose sake others are adopted."""


def rewrite(
    view: View, log: MetadataLog, new: WriterId, after: int, in_use: Iterable[InodeId], *, restored: bool
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
        again = [_beside_the_other_life(record, old, fork) for record in again]
    log.write_as(new)
    log.on_delta(log.hold(again))
    known = {record[0] for record in only_here}
    found = copies(view, nodes)
    log.on_delta(log.hold([copy for holder, key, copy in found if holder != old or key not in known]))


def _new_key(key: Key, old: WriterId, restored: bool) -> Key:
    if key.author is not None or (restored and key.kind not in KEEPS_ITS_FILE):
        return key
    return key._replace(author=old)


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
