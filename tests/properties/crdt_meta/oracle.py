"""What a set of records must show, written a second time and naively: from the sentences of the design, not from the code.

It shares with the engine only the codec of records and the form of conflict names.
"""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any, NamedTuple

from base.ids import EMPTY_CONTENT, ROOT_INODE, hash_bytes
from crdt_meta.codec import decode
from crdt_meta.node import Kind
from crdt_meta.records import (
    Attributes,
    Birth,
    Content,
    Deletion,
    LinkBirth,
    Name,
    Place,
    Settled,
    Strategy,
    Xattrs,
)
from crdt_meta.store import Store


class Shown(NamedTuple):
    """What one path shows; mtime only of what isn't a directory."""

    inode: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    content: bytes
    target: bytes
    nlink: int
    mtime_ns: int
    xattrs: tuple[tuple[bytes, bytes], ...]


class One(NamedTuple):
    """One version of a file."""

    order: tuple[int, bytes]
    content: bytes
    size: int
    mtime_ns: int
    via: bytes
    strategy: Strategy
    names: frozenset[tuple[bytes, int]]
    """The dots by which somebody may have replaced or deleted it."""


class Candidate(NamedTuple):
    """A living link of a file that wants a name."""

    link: bytes
    inode: bytes
    versions: list[One]


def load(store: Store) -> list[tuple[bytes, bytes, Any]]:
    """Return (node, writer, record) of everything that a replica has."""
    writers = dict(store.db.execute("SELECT id, writer FROM writer").fetchall())
    found: dict[Any, tuple[int, bytes, Any]] = {}
    for node, kind, number, clock, value in store.query("SELECT node, kind, writer, clock, value FROM record"):
        body = decode(kind, node, clock, value)
        if body is not None:  # of those who hold a record, the one who heard last of its author counts
            place = (node, kind, number, clock)
            found[place] = max(found.get(place, (0, b"", None)), (body.clock, value, body), key=lambda one: one[:2])
    return [(node, writers[number], body) for (node, _, number, _), (_, _, body) in found.items()]


def conflict_name(name: bytes, pod: str, clock: int, again: int) -> bytes:
    """Return ``stem.conflict-<pod>-<time>.ext``."""
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime((clock >> 16) // 1000))
    middle = f".conflict-{pod}-{moment}".encode() + (b"-%d" % (again + 1) if again else b"")
    stem, _, extension = name.rpartition(b".")
    tail = b"." + extension if stem and len(extension) <= 32 else b""
    stem = stem if tail else name
    return stem[: 255 - len(middle + tail)] + middle + tail


class Oracle:
    """The tree that records must show."""

    def __init__(self, records: list[tuple[bytes, bytes, Any]], pod_name_of: Any) -> None:
        self.pod_name_of = pod_name_of
        self.of: dict[bytes, list[tuple[bytes, Any]]] = defaultdict(list)
        for node, writer, body in records:
            self.of[node].append((writer, body))
        self.links: dict[bytes, list[bytes]] = defaultdict(list)
        self.birth: dict[bytes, tuple[bytes, Birth]] = {}
        self.inode_of: dict[bytes, bytes] = {}
        for node, found in self.of.items():
            births = sorted((b.clock, w, b) for w, b in found if isinstance(b, Birth))
            if births and node != ROOT_INODE:
                self.birth[node] = births[0][1:]
            links = sorted((b.clock, w, b) for w, b in found if isinstance(b, LinkBirth))
            if links and node != ROOT_INODE:
                self.inode_of[node] = links[0][2].inode
                self.links[links[0][2].inode].append(node)
        self.versions = {inode: self._versions(inode) for inode in self.birth}
        self.living: dict[bytes, list[bytes]] = {}
        """File inode → its living links."""
        for inode, (_, birth) in self.birth.items():
            if birth.kind is not Kind.DIRECTORY:
                self._file(inode)
        self._directories()

    # -- files --------------------------------------------------------------------------------------------------------

    def _versions(self, inode: bytes) -> list[One]:
        """What no record replaces is alive; a writer says from which on its own contents may be."""
        gone: set[tuple[bytes, int]] = set()
        floor: dict[bytes, int] = defaultdict(int)
        for writer, body in self.of[inode]:
            if isinstance(body, Content):
                floor[writer] = max(floor[writer], body.floor)
        for _, body in self.of[inode]:
            gone |= set(getattr(body, "replaces", ())) if isinstance(body, Content) else set()
            gone |= set(body.dots) if isinstance(body, Settled) else set()
        found = []
        for writer, body in self.of[inode]:
            if isinstance(body, Birth):
                names = {(writer, body.clock)} | ({tuple(body.origin)} if body.origin else set())
                via = inode
            elif isinstance(body, Content):
                names, via = {(writer, body.clock)}, body.via
            else:
                continue
            if not names & {tuple(dot) for dot in gone} and body.clock >= floor[writer]:
                order = (body.clock, writer)
                found.append(
                    One(order, body.content, body.size, body.mtime_ns, via, body.strategy, frozenset(names))  # type: ignore[arg-type]
                )
        return sorted(found, key=lambda one: one.order, reverse=True)

    def _seen(self, link: bytes) -> set[tuple[bytes, int]] | None:
        """The contents that the deletions of a link saw; None when nobody deleted it."""
        deletions = [body for _, body in self.of[link] if isinstance(body, Deletion)]
        return {tuple(dot) for body in deletions for dot in body.dots} if deletions else None  # type: ignore[misc]

    def _file(self, inode: bytes) -> None:
        """An inode lives while a link does; an edit that a deletion did not see revives the link it came through."""
        seen = {link: self._seen(link) for link in self.links[inode]}
        standing = [link for link in seen if seen[link] is None]
        unseen = [one for one in self.versions[inode] if one.via in seen and not one.names & (seen[one.via] or set())]
        revived = [link for link in seen if seen[link] is not None and any(one.via == link for one in unseen)]
        self.living[inode] = sorted(standing + revived)
        if not standing:
            self.versions[inode] = unseen if revived else []

    def shown_versions(self, inode: bytes) -> list[list[One]]:
        """Versions to show as files of their own, identical contents together, the latest first."""
        versions = self.versions[inode]
        if versions[0].strategy is Strategy.LAST_WRITER_WINS or self.birth[inode][1].kind is not Kind.FILE:
            return [versions]
        groups: dict[bytes, list[One]] = {}
        for one in versions:
            groups.setdefault(one.content, []).append(one)
        return list(groups.values())

    # -- places -------------------------------------------------------------------------------------------------------

    def name(self, link: bytes) -> bytes:
        """The latest by (clock, writer) wins."""
        births = [(b.clock, w, b.name) for w, b in self.of[link] if isinstance(b, LinkBirth)]
        return max([min(births), *((b.clock, w, b.name) for w, b in self.of[link] if isinstance(b, Name))])[2]

    def edges(self, link: bytes) -> list[tuple[int, bytes]]:
        """The latest place, where it came from, and so on."""
        places = [(b.clock, w, b) for w, b in self.of[link] if isinstance(b, Place)]
        births = [(b.clock, b.parent) for _, b in self.of[link] if isinstance(b, LinkBirth)]
        found = []
        for clock, _, place in sorted(places, key=lambda p: p[:2], reverse=True):
            found += [(clock, place.parent), (clock, place.came_from)]
        return [*found, min(births), (0, ROOT_INODE)]

    def _directories(self) -> None:
        """A cycle loses its latest edge, which falls back to where it came from."""
        directories = [
            inode
            for inode, (_, birth) in self.birth.items()
            if birth.kind is Kind.DIRECTORY and self.inode_of.get(inode) == inode
        ]
        edges = {inode: self.edges(inode) for inode in directories}
        at = dict.fromkeys(directories, 0)
        while cycle := self._cycle({inode: edges[inode][at[inode]][1] for inode in directories}):
            loser = max(cycle, key=lambda inode: (edges[inode][at[inode]][0], inode))
            at[loser] += 1
            while at[loser] < len(edges[loser]) - 1 and not self._is_known(edges[loser][at[loser]][1]):
                at[loser] += 1
        self.parent = {inode: edges[inode][at[inode]][1] for inode in directories}
        self.at_name = {inode: self.name(inode) for inode in directories}
        self.children: dict[bytes, list[tuple[bytes, bytes, bytes]]] = defaultdict(list)
        for inode, links in self.living.items():
            for link in links:
                if self.versions[inode]:
                    self.children[self.edges(link)[0][1]].append((self.name(link), link, inode))
        # a deleted directory with a living child stays
        self.alive = {i for i in directories if not any(isinstance(b, Deletion) for _, b in self.of[i])}
        grew = True
        while grew:
            busy = {self.parent[i] for i in self.alive} | {p for p, found in self.children.items() if found}
            grew = bool(more := (busy & set(directories)) - self.alive)
            self.alive |= more
        for inode in self.alive:
            self.children[self.parent[inode]].append((self.at_name[inode], inode, inode))

    def _is_known(self, inode: bytes) -> bool:
        """Tell whether a place to fall back to was not collected meanwhile."""
        return inode == ROOT_INODE or (inode in self.birth and self._has_row(inode))

    def _has_row(self, inode: bytes) -> bool:
        """Tell whether a directory, or a living file (a broken clock's idea of one), has this id."""
        return self.birth[inode][1].kind is Kind.DIRECTORY or bool(self.living.get(inode) and self.versions[inode])

    @staticmethod
    def _cycle(parent: dict[bytes, bytes]) -> list[bytes] | None:
        for start in sorted(parent):
            path: list[bytes] = []
            at = start
            while at in parent and at not in path:
                path.append(at)
                at = parent[at]
            if at in path:
                return path[path.index(at) :]
        return None

    # -- the tree -----------------------------------------------------------------------------------------------------

    def tree(self) -> dict[bytes, Shown]:
        """Return path → what it shows."""
        found: dict[bytes, Shown] = {}
        self._fill([ROOT_INODE], b"", found)
        return found

    def _fill(self, group: list[bytes], path: bytes, found: dict[bytes, Shown]) -> None:
        wanted: dict[bytes, tuple[list[bytes], list[Candidate]]] = {}
        for member in group:
            for name, link, inode in self.children[member]:
                directories, files = wanted.setdefault(name, ([], []))
                if self.birth[inode][1].kind is Kind.DIRECTORY:
                    directories.append(inode)
                else:
                    files.append(Candidate(link, inode, self.shown_versions(inode)[0]))
        losers: list[tuple[bytes, bytes, bytes, One, Shown]] = []
        for name, (directories, files) in wanted.items():
            files.sort(key=lambda one: (*one.versions[0].order, one.inode), reverse=True)
            where = path + b"/" + name
            if directories:
                directories.sort()
                below = sum(self._subdirectories(member) for member in directories)
                found[where] = self._shown(directories[0], None, 2 + below)
                self._fill(directories, where, found)
                behind = files
            else:
                winner, *behind = files
                found[where] = self._shown(winner.inode, winner.versions[0], len(self.living[winner.inode]))
            for one in behind:
                if directories or not self._hides(winner, one):
                    shown = self._shown(one.inode, one.versions[0], len(self.living[one.inode]))
                    losers.append((name, one.inode, one.link, one.versions[0], shown))
            if directories or winner.versions[0].strategy is Strategy.KEEP_BOTH:
                for one in files:
                    losers += self._beside(name, one)
        taken = set(wanted)
        for name, _, _, version, shown in sorted(losers, key=lambda loser: loser[:3]):
            again = 0
            pod = self.pod_name_of(version.order[1])
            while (new := conflict_name(name, pod, version.order[0], again)) in taken:
                again += 1
            taken.add(new)
            found[path + b"/" + new] = shown

    def _beside(self, name: bytes, one: Candidate) -> list[tuple[bytes, bytes, bytes, One, Shown]]:
        """The siblings of a file, beside the first of its living links: the original one, else the least."""
        first = min(self.living[one.inode], key=lambda link: (link != one.inode, link))
        if one.link != first:
            return []
        found = []
        for version, *_ in self.shown_versions(one.inode)[1:]:
            clock, writer = version.order
            inode = hash_bytes(one.inode + writer + clock.to_bytes(8, "big"))[:16]
            base = self._shown(one.inode, version, 1)
            found.append((name, inode, one.link, version, base._replace(inode=inode, mtime_ns=version.mtime_ns)))
        return found

    def _hides(self, winner: Candidate, loser: Candidate) -> bool:
        if winner.versions[0].strategy is Strategy.LAST_WRITER_WINS or winner.inode == loser.inode:
            return True
        one, two = self.birth[winner.inode][1], self.birth[loser.inode][1]
        if one.kind is not two.kind:
            return False
        if one.kind is Kind.FILE:
            return winner.versions[0].content == loser.versions[0].content
        return (one.target, one.rdev) == (two.target, two.rdev)

    def _subdirectories(self, inode: bytes) -> int:
        return sum(self.birth[child][1].kind is Kind.DIRECTORY for _, _, child in self.children[inode])

    def _shown(self, inode: bytes, version: One | None, nlink: int) -> Shown:
        writer, birth = self.birth[inode]
        values = {k: (birth.clock, writer, getattr(birth, k)) for k in ("mode", "uid", "gid", "mtime_ns")}
        if version is not None:
            latest = self.versions[inode][0]
            values["mtime_ns"] = (*latest.order, latest.mtime_ns)
        xattrs: dict[bytes, tuple[int, bytes, bytes | None]] = {}
        for author, body in self.of[inode]:
            if isinstance(body, Attributes):
                for key, (clock, value) in body.values.items():
                    values[key] = max(values[key], (clock, author, value))
            elif isinstance(body, Xattrs):
                for name, (clock, raw) in body.values.items():
                    if name not in xattrs or xattrs[name][:2] < (clock, author):
                        xattrs[name] = (clock, author, raw)
        is_file = birth.kind is Kind.FILE
        return Shown(
            inode,
            birth.kind,
            values["mode"][2],
            values["uid"][2],
            values["gid"][2],
            version.size if is_file and version is not None else len(birth.target),
            version.content if is_file and version is not None else EMPTY_CONTENT,
            birth.target,
            nlink,
            0 if version is None else values["mtime_ns"][2],
            tuple((name, raw) for name, (_, _, raw) in sorted(xattrs.items()) if raw is not None),
        )
