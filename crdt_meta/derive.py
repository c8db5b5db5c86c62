"""The merge rules of single nodes: pure functions from the records of all writers to what is shown.

None of them depends on the order in which records arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from base.ids import ROOT_INODE, ContentId, Dot, InodeId, LinkId, WriterId, hash_bytes
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Kind
from crdt_meta.records import (
    Attributes,
    Birth,
    Body,
    Content,
    Deletion,
    LinkBirth,
    Name,
    Overwritten,
    Place,
    Settled,
    Strategy,
    Xattrs,
)

Written = tuple[WriterId, Body]
"""A record with its writer."""

PAST_DOTS: Final = 64
"""Replaced contents without a record that a content names at most."""


class Version(NamedTuple):
    """One content of an inode that no record replaces."""

    dot: Dot
    content: ContentId
    size: int
    mtime_ns: int
    via: LinkId
    strategy: Strategy
    origin: Dot | None

    @staticmethod
    def born(inode: InodeId, writer: WriterId, birth: Birth) -> Version:
        """Return the version that an inode is born with."""
        dot, via = Dot(writer, birth.clock), LinkId(inode)
        return Version(dot, birth.content, birth.size, birth.mtime_ns, via, birth.strategy, birth.origin)

    @property
    def order(self) -> tuple[int, bytes]:
        """Later is greater, the same on every pod."""
        return self.dot.clock, self.dot.writer


class InodeState(NamedTuple):
    """What an inode shows."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    target: bytes
    rdev: int
    versions: tuple[Version, ...]
    """Those to be shown, the latest first; empty when no link is left."""


class Edge(NamedTuple):
    """A place that a link may have: since when, and in which directory."""

    clock: int
    parent: InodeId


def sibling_inode(inode: InodeId, dot: Dot) -> InodeId:
    """Return the inode id under which a sibling content is shown; the same on every pod."""
    return InodeId(hash_bytes(inode + dot.writer + dot.clock.to_bytes(8, "big"))[:16])


def birth_of(records: Iterable[Written]) -> tuple[WriterId, Birth] | None:
    """Return the earliest birth: two pods may have written down the same sibling."""
    births = [(body.clock, writer, body) for writer, body in records if isinstance(body, Birth)]
    if not births:
        return None
    _, writer, birth = min(births, key=lambda entry: entry[:2])
    return writer, birth


def _same_dot(version: Version) -> tuple[object, ...]:
    """Order versions of one dot; honest writers use a dot once."""
    return (*version[1:6], version.origin or ())


def versions_of(inode: InodeId, records: Sequence[Written]) -> list[Version]:
    """Return the contents that no record replaces, the latest first. Of other kinds than files: the birth itself."""
    replaced: set[Dot] = set()
    floors: dict[WriterId, int] = {}
    for writer, body in records:
        if isinstance(body, Content):
            replaced.update(body.replaces)
            floors[writer] = max(floors.get(writer, 0), body.floor)
        elif isinstance(body, Settled):
            replaced.update(body.dots)
    found: dict[Dot, Version] = {}
    for writer, body in records:
        if isinstance(body, Birth):
            made = Version.born(inode, writer, body)
        elif isinstance(body, Content):
            made = Version(
                *(Dot(writer, body.clock), body.content, body.size, body.mtime_ns, body.via, body.strategy, None)
            )
        else:
            continue
        dot = made.dot
        if dot.clock < floors.get(writer, 0):
            continue
        if dot not in replaced and (made.origin is None or made.origin not in replaced):
            found[dot] = max(found.get(dot, made), made, key=_same_dot)
    return sorted(found.values(), key=lambda version: version.order, reverse=True)


def purged_dots(records: Iterable[Written]) -> set[Dot]:
    """Return the dots that are purged from the trash."""
    return {dot for _, body in records if isinstance(body, Settled) for dot in body.purged}


def settled_dots(records: Iterable[Written]) -> set[Dot]:
    """Return the dots that are settled or purged."""
    return {dot for _, body in records if isinstance(body, Settled) for dot in (*body.dots, *body.purged)}


def succession(
    writer: WriterId, records: Sequence[Written], replaces: Sequence[Dot], now: int
) -> tuple[tuple[Dot, ...], int, list[int]]:
    """Return what a writer's next content has to name, its floor, and the clocks of its contents that can go then.

    A writer's contents that are replaced are of no use but for what they replace themselves: the next one takes that
    over. Of dots whose records are gone as well only some are named still, for pods that are behind; of the writer's
    own the floor tells.
    """
    if len(records) == 1:
        by, first = records[0]
        if isinstance(first, Birth) and first.origin is None and tuple(replaces) == ((by, first.clock),):
            return tuple(replaces), now, []  # the first content of a file that was made without one
    replaced, needed = set(replaces), set(replaces)
    for by, body in records:
        if isinstance(body, Content):
            replaced.update(body.replaces)
            needed.add(Dot(by, body.clock))
        elif isinstance(body, Settled):
            replaced.update(body.dots)
        elif isinstance(body, Birth):
            needed |= {Dot(by, body.clock)} if body.origin is None else {Dot(by, body.clock), body.origin}
    own = [body for by, body in records if by == writer and isinstance(body, Content)]
    gone = [body for body in own if Dot(writer, body.clock) in replaced]
    named = set(replaces).union(*(body.replaces for body in gone)) - {Dot(writer, body.clock) for body in gone}
    past = sorted(named - needed, key=lambda dot: dot[::-1])[-PAST_DOTS:]
    before = max((body.floor for body in own), default=0)
    mine = (body for by, body in records if by == writer and isinstance(body, (Content, Birth)))
    living = [one.clock for one in mine if one.clock >= before and not _dots_of(writer, one) & replaced]
    return tuple(sorted((named & needed) | set(past))), min([now, *living]), [body.clock for body in gone]


def _dots_of(writer: WriterId, body: Content | Birth) -> set[Dot]:
    """Return the dots by which a content may be replaced."""
    return {Dot(writer, body.clock)} | ({body.origin} if isinstance(body, Birth) and body.origin is not None else set())


def more_dots(versions: Sequence[Version]) -> tuple[Dot, ...]:
    """Return the dots of versions shown as one, without the first one's, with what they were before."""
    dots = [version.dot for version in versions[1:]]
    return tuple(dots + [version.origin for version in versions if version.origin is not None])


def is_link_alive(link: LinkId, deletions: Sequence[Deletion], versions: Iterable[Version]) -> bool:
    """Tell whether a file's link lives: never deleted, or revived by an edit through it that no deletion saw."""
    if not deletions:
        return True
    seen = {dot for deletion in deletions for dot in deletion.dots}
    return any(version.via == link and not is_named(version, seen) for version in versions)


def is_named(version: Version, dots: set[Dot]) -> bool:
    """Tell whether dots name a version."""
    return version.dot in dots or (version.origin is not None and version.origin in dots)


def shown_versions(versions: Sequence[Version], links: Mapping[LinkId, Sequence[Deletion]]) -> tuple[Version, ...]:
    """Return the versions to show, given all links of the inode with their deletions.

    While a link stands that nobody deleted, everything unreplaced is shown; else only what the deletions of the link
    that it came through didn't see.
    """
    if any(not deletions for deletions in links.values()):
        return tuple(versions)
    seen = {link: {dot for deletion in deletions for dot in deletion.dots} for link, deletions in links.items()}
    return tuple(one for one in versions if one.via in seen and not is_named(one, seen[one.via]))


def ctime_of(body: Body) -> int:
    """Return when what a record says came about (ns since the epoch)."""
    return nanoseconds(body.clock) - (min(body.age_ns, nanoseconds(body.clock)) if isinstance(body, Content) else 0)


def inode_state(
    records: Sequence[Written], versions: Sequence[Version], links: Mapping[LinkId, Sequence[Deletion]], linked_ns: int
) -> InodeState | None:
    """Return what an inode of these records and `versions_of` shows, or None while its birth hasn't arrived.

    ``linked_ns`` is when its links changed last, which moves its ctime as well.
    """
    born = birth_of(records)
    if born is None:
        return None
    writer, birth = born
    shown = shown_versions(versions, links) if birth.kind is not Kind.DIRECTORY else tuple(versions)
    stamps = {key: (birth.clock, writer, getattr(birth, key)) for key in ("mode", "uid", "gid", "mtime_ns")}
    if shown:
        latest = shown[0]
        stamps["mtime_ns"] = (latest.dot.clock, latest.dot.writer, latest.mtime_ns)
    said = (body for _, body in records if not isinstance(body, (Settled, Overwritten)))  # they concern the trash
    changed_ns = max(linked_ns, *(ctime_of(body) for body in said))
    for author, body in records:
        if isinstance(body, Attributes):
            for key, (clock, value) in body.values.items():
                stamps[key] = max(stamps[key], (clock, author, value))
    return InodeState(
        birth.kind,
        stamps["mode"][2] & 0o7777,
        stamps["uid"][2],
        stamps["gid"][2],
        stamps["mtime_ns"][2],
        changed_ns,
        birth.target,
        birth.rdev,
        shown,
    )


def explicit_mtime(records: Sequence[Written]) -> tuple[int, int]:
    """Return (clock, mtime_ns) of the latest time that somebody gave a directory, its birth included."""
    stamps = [(body.clock, body.mtime_ns) for _, body in records if isinstance(body, Birth)]
    stamps += [
        body.values["mtime_ns"] for _, body in records if isinstance(body, Attributes) and "mtime_ns" in body.values
    ]
    return max(stamps)


def edges_of(records: Sequence[Written]) -> list[Edge]:
    """Return the places of a link, the best first: the latest place, where it came from, and so on to its birth.

    The last resort is the root: where broken clocks gave births later stamps than moves, a cycle may take all others.
    """
    places = sorted(
        ((body.clock, writer, body) for writer, body in records if isinstance(body, Place)),
        key=lambda entry: entry[:2],
        reverse=True,
    )
    edges = [Edge(clock, parent) for clock, _, body in places for parent in (body.parent, body.came_from)]
    births = [(body.clock, body.parent) for _, body in records if isinstance(body, LinkBirth)]
    edges += [Edge(clock, parent) for clock, parent in sorted(births)[:1]]
    return [*edges, Edge(0, ROOT_INODE)]


def name_of(records: Sequence[Written]) -> bytes | None:
    """Return a link's name, the latest by (clock, writer); None while its birth hasn't arrived."""
    births = [(body.clock, writer, body.name) for writer, body in records if isinstance(body, LinkBirth)]
    if not births:
        return None
    names = [(body.clock, writer, body.name) for writer, body in records if isinstance(body, Name)]
    return max([min(births), *names])[2]


def inode_of(records: Sequence[Written]) -> InodeId | None:
    """Return the inode that a link points to; None while its birth hasn't arrived."""
    births = [(body.clock, writer, body.inode) for writer, body in records if isinstance(body, LinkBirth)]
    return min(births)[2] if births else None


def deletions_of(records: Iterable[Written]) -> list[Deletion]:
    """Return the deletions of a link."""
    return [body for _, body in records if isinstance(body, Deletion)]


def merged_xattrs(records: Iterable[Written]) -> dict[bytes, bytes]:
    """Return the extended attributes, each the latest by (clock, writer)."""
    latest: dict[bytes, tuple[int, WriterId, bytes | None]] = {}
    for writer, body in records:
        if isinstance(body, Xattrs):
            for key, (clock, value) in body.values.items():
                if key not in latest or latest[key][:2] < (clock, writer):
                    latest[key] = (clock, writer, value)
    return {key: value for key, (_, _, value) in sorted(latest.items()) if value is not None}


class Above(Protocol):
    """What `repaired` asks of directories that nobody looked at anew."""

    def parent(self, inode: InodeId) -> InodeId | None:
        """Return the directory that one is shown in; None for the root and unknown ones."""
        ...

    def edges(self, inode: InodeId) -> list[Edge]:
        """Return its edges."""
        ...

    def chosen(self, inode: InodeId) -> int:
        """Return the index of the edge that it shows."""
        ...

    def exists(self, inode: InodeId) -> bool:
        """Tell whether a directory is known."""
        ...


def repaired(
    wanted: Mapping[InodeId, list[Edge]],
    parent_now: Mapping[InodeId, InodeId | None],
    above: Above,
) -> dict[InodeId, int]:
    """Break cycles: every cycle loses its latest edge, which falls back to where it came from, if that is known still.

    ``wanted`` are the directories looked at anew with their edges; ``parent_now`` what they showed before; ``above``
    answers for all others. Returns for each directory looked at (and each that a cycle drew in) the index of its edge.
    The result is the same for every order of arrival.
    """
    edges = dict(wanted)
    chosen = dict.fromkeys(edges, 0)

    def up(inode: InodeId) -> InodeId | None:
        return edges[inode][chosen[inode]].parent if inode in chosen else above.parent(inode)

    queue = [inode for inode in wanted if edges[inode][0].parent != parent_now.get(inode)]
    while queue:
        at: InodeId | None = queue.pop()
        seen: dict[InodeId, int] = {}
        path: list[InodeId] = []
        while at is not None and at not in seen and at != ROOT_INODE:
            seen[at] = len(path)
            path.append(at)
            at = up(at)
        if at is None or at not in seen:
            continue
        cycle = path[seen[at] :]
        for inode in cycle:
            if inode not in chosen:
                edges[inode] = above.edges(inode)
                chosen[inode] = above.chosen(inode)
        loser = max(cycle, key=lambda inode: (edges[inode][chosen[inode]].clock, inode))
        chosen[loser] += 1
        while chosen[loser] < len(edges[loser]) - 1 and not above.exists(edges[loser][chosen[loser]].parent):
            chosen[loser] += 1
        queue += [loser, path[0]]
    return chosen
