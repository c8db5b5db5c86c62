"""What a set of records must have in the trash, written naively from the sentences of the design."""

from __future__ import annotations

from typing import NamedTuple

from base.ids import EMPTY_CONTENT, ROOT_INODE
from crdt_meta.node import Kind
from crdt_meta.records import Deletion, Overwritten, Settled, Strategy, Why
from tests.properties.crdt_meta.oracle import One, Oracle


class Trashed(NamedTuple):
    """One entry; where it was only for files that are gone."""

    inode: bytes
    dot: tuple[bytes, int]
    reason: str
    content: bytes
    size: int
    mtime_ns: int
    removed: int
    place: bytes | None


def trash(oracle: Oracle) -> set[Trashed]:
    """Return all entries."""
    found: set[Trashed] = set()
    for inode, (_, birth) in oracle.birth.items():
        if birth.kind is Kind.FILE and oracle.links[inode]:
            found |= _of(oracle, inode)
    return found


def _of(oracle: Oracle, inode: bytes) -> set[Trashed]:
    records = oracle.of[inode]
    purged = {tuple(dot) for _, body in records if isinstance(body, Settled) for dot in body.purged}
    given_up = {tuple(dot) for _, body in records if isinstance(body, Settled) for dot in body.dots}
    everything = oracle._versions(inode)
    lives = bool(oracle.living[inode] and oracle.versions[inode])
    shown = oracle.versions[inode] if lives else []
    found: set[Trashed] = set()
    deletions = [
        (b.clock, w, link, b.why) for link in oracle.links[inode] for w, b in oracle.of[link] if isinstance(b, Deletion)
    ]
    last = max(deletions)[2] if deletions else min(oracle.links[inode])
    place = None if lives else where(oracle, oracle.edges(last)[0][1]) + b"/" + oracle.name(last)

    def add(one: One, why: Why, removed: int) -> None:
        dot = (one.order[1], one.order[0])
        found.add(Trashed(inode, dot, why.name.lower(), one.content, one.size, one.mtime_ns, removed, place))

    # of those that are shown as one, what differs from the latest lost against it
    lww = bool(everything) and everything[0].strategy is Strategy.LAST_WRITER_WINS
    if shown and shown[0].strategy is Strategy.LAST_WRITER_WINS:
        for one in _first_of_each_content([one for one in shown if one.content != shown[0].content]):
            add(one, Why.CONFLICT, shown[0].order[0])
    # what is deleted and not purged
    if deletions:
        clock, _, _, why = max(deletions)
        for one in _first_of_each_content([one for one in everything if one not in shown and not one.names & purged]):
            add(one, Why.CONFLICT if lww and not lives and one.content != everything[0].content else why, clock)
    # what was overwritten and neither purged nor is there still
    there = {(one.order[1], one.order[0]) for one in everything}
    kept: dict[tuple[bytes, int], tuple[int, bytes, Overwritten]] = {}
    for writer, body in records:
        if isinstance(body, Overwritten) and body.dot not in purged | given_up | there:
            kept[body.dot] = max(kept.get(body.dot, (-1, b"", body)), (body.clock, writer, body), key=lambda k: k[:2])
    for clock, _, body in kept.values():
        found.add(Trashed(inode, body.dot, body.why.name.lower(), body.content, body.size, body.mtime_ns, clock, place))
    return found


def _first_of_each_content(versions: list[One]) -> list[One]:
    return [
        one for index, one in enumerate(versions) if one.content not in [other.content for other in versions[:index]]
    ]


def where(oracle: Oracle, directory: bytes) -> bytes:
    """Return the path that a directory has or had."""
    names = []
    while directory in oracle.parent and directory != ROOT_INODE:
        names.append(oracle.at_name[directory])
        directory = oracle.parent[directory]
    return b"".join(b"/" + name for name in reversed(names))


def contents(found: set[Trashed]) -> dict[bytes, set[bytes]]:
    """Return content → inodes, but for the empty content."""
    by_content: dict[bytes, set[bytes]] = {}
    for one in found:
        if one.content != EMPTY_CONTENT:
            by_content.setdefault(one.content, set()).add(one.inode)
    return by_content
