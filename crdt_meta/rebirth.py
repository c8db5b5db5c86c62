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

from base.ids import ROOT_INODE, InodeId, LinkId, WriterId
from crdt_meta.log import MetadataLog
from crdt_meta.records import Body, Content, Key, LinkBirth, decode
from crdt_meta.segments import Segment, difference
from crdt_meta.view import View

KEEPS_ITS_FILE: Final = "cil"
"""Kinds of records for whose sake others are adopted."""
DEPTH_LIMIT: Final = 4096

Record = tuple[Key, bytes, Body | None]


def rewrite(view: View, log: MetadataLog, new: WriterId, after: int, *, restored: bool) -> None:
    """Write as ``new`` from now on, and hold what the old writer wrote after a sequence.

    What becomes of the old writer's log is up to the caller, before anything is committed.
    """
    log.seal()
    old = log.writer
    only_here = [*_written_after(log, old, after)]
    bases = [*_bases(view, only_here)]
    again = [(_new_key(key, old, restored), value, body) for key, value, body in only_here]
    log.write_as(new)
    log.on_delta(log.hold(again))
    known = {record[0] for record in only_here}
    log.on_delta(log.hold(_copies(view, bases, old, known)))


def _new_key(key: Key, old: WriterId, restored: bool) -> Key:
    if key.author is not None or (restored and key.kind not in KEEPS_ITS_FILE):
        return key
    return key._replace(author=old)


def _written_after(log: MetadataLog, writer: WriterId, after: int) -> Iterator[Record]:
    """Yield the records that a writer wrote in transactions after one, as they are now."""
    for segment in log.table.changed_since(writer, after):
        now = Segment(log.table.parts(writer, segment)).records()
        before = Segment(log.table.parts_until(writer, segment, after)).records()
        for text, value in difference(before, now).items():
            key = Key.parse(text)
            if key is not None and value is not None and key.kind != "k":
                yield key, value, decode(key, value)


def _bases(view: View, records: Iterable[Record]) -> Iterator[bytes]:
    """Yield the nodes that records build on: their files, the links of these, the directories above."""
    seen: set[bytes] = set()
    for key, _, body in records:
        if key.kind not in KEEPS_ITS_FILE:
            continue
        inode = body.inode if isinstance(body, LinkBirth) else InodeId(key.node)
        links = set(view.links.to(inode)) | ({body.via} if isinstance(body, Content) else set())
        nodes: set[bytes] = {inode, *links}
        for link in links:
            nodes |= _above(view, link, seen)
        yield from sorted(nodes - seen)
        seen |= nodes


def _above(view: View, link: LinkId, seen: set[bytes]) -> set[bytes]:
    """Return the directories above a link, as far as they aren't known yet."""
    found: set[bytes] = set()
    births = [body for _, body in view.records.of(link, "l") if isinstance(body, LinkBirth)]
    row = view.links.get(link)
    at = row.parent if row is not None else births[0].parent if births else ROOT_INODE
    for _ in range(DEPTH_LIMIT):
        if at == ROOT_INODE or at in seen or at in found:
            break
        found.add(at)
        above = view.links.get(LinkId(at))
        if above is None:
            break
        at = above.parent
    return found


def _copies(view: View, nodes: Iterable[bytes], old: WriterId, but: set[Key]) -> Iterator[Record]:
    """Yield copies of all records of nodes, but those of the old writer that were written again."""
    for node in nodes:
        for held, value in view.records.values(node):
            if held.key.kind != "k" and not (held.holder == old and held.key in but):
                copy = held.key._replace(author=held.author)
                yield copy, value, held.body
