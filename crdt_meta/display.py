"""What names a directory shows: same-name directories as one, conflicting files under names that people understand.

Two links of one name, or two contents of one file, can come from pods that did not know of each other. The later keeps
the name. The others are shown beside it (``keep-both``), or hidden behind it (``last-writer-wins``, or when they are
equal to it). A directory keeps its name against files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from base.ids import ROOT_INODE, InodeId, LinkId, WriterId
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Kind
from crdt_meta.records import NAME_LIMIT_BYTES, Strategy
from crdt_meta.rows import InodeRow, SiblingRow
from crdt_meta.store import LinkRow
from crdt_meta.view import View

MARK = b".conflict-"
GROUP_DEPTH = 4096
"""Directories nested deeper than this are not looked through for same-name ones above them."""


class Entry(NamedTuple):
    """One name as a directory shows it."""

    name: bytes
    link: LinkRow
    inode: InodeRow
    sibling: SiblingRow | None = None
    """Set where the entry is a content shown beside its inode."""
    twins: tuple[LinkRow, ...] = ()
    """Directories: the other members shown as this one."""
    hidden: tuple[LinkRow, ...] = ()
    """Links of the same name that are not shown."""

    @property
    def id(self) -> InodeId:
        """The inode id under which it is shown."""
        return self.inode.id if self.sibling is None else self.sibling.id

    @property
    def conflicting(self) -> bool:
        """Whether it is shown under a name that no record gives it."""
        return self.sibling is not None or self.name != self.link.name


def conflict_name(name: bytes, pod: str, clock: int, again: int = 0) -> bytes:
    """Return the name of a version that lost: ``stem.conflict-<pod>-<UTC time>.ext``, cut to the limit of names."""
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(nanoseconds(clock) // 1_000_000_000))
    middle = MARK + f"{pod}-{moment}".encode()[:120] + (f"-{again + 1}".encode() if again else b"")
    stem, dot, extension = name.rpartition(b".")
    if not stem or len(extension) > 32:
        stem, dot, extension = name, b"", b""
    tail = middle + dot + extension
    return stem[: NAME_LIMIT_BYTES - len(tail)] + tail


class Display:
    """Reads directories from the view."""

    def __init__(self, view: View, pod_name_of: Callable[[WriterId], str]) -> None:
        self._view = view
        self._rows = view.rows
        self._store = view.store
        self._pod_name_of = pod_name_of

    def group(self, directory: InodeId) -> list[InodeId]:
        """Return the directories shown as one with this one, itself included, the representative first."""
        if not self._view.twins or directory == ROOT_INODE:
            return [directory]
        trail: list[LinkRow] = []
        at = directory
        while at != ROOT_INODE and len(trail) < GROUP_DEPTH:
            row = self._store.link(LinkId(at))
            if row is None:
                return [directory]
            trail.append(row)
            at = row.parent
        members = [at]
        for row in reversed(trail):
            found = [
                link.inode
                for parent in members
                for link in self._store.links_named(parent, row.name)
                if link.kind == Kind.DIRECTORY
            ]
            members = sorted(found) if row.inode in found else [row.inode]
        return members

    def lookup(self, directory: InodeId, name: bytes) -> Entry | None:
        """Return what a name shows in a directory."""
        group = self.group(directory)
        links = [link for member in group for link in self._store.links_named(member, name)]
        if len(links) == 1:
            inode = self._rows.inode(links[0].inode)
            return None if inode is None else Entry(name, links[0], inode)
        if not links and MARK not in name:
            return None
        return next((entry for entry in self.entries(directory) if entry.name == name), None)

    def entries(self, directory: InodeId) -> list[Entry]:
        """Return all entries of a directory, sorted by name."""
        found: dict[bytes, list[tuple[LinkRow, InodeRow]]] = {}
        group = self.group(directory)
        for member in group:
            for link, inode in self._children(member):
                found.setdefault(link.name, []).append((link, inode))
        entries: list[Entry] = []
        losers: list[Entry] = []
        for name, candidates in found.items():
            if len(candidates) == 1:
                entries.append(Entry(name, *candidates[0]))
            else:
                first, others = self._arrange(name, candidates)
                entries.append(first)
                losers += others
        if self._view.contested:
            losers += [sibling for entry in (*entries, *losers) for sibling in self._siblings(entry)]
        if losers:
            entries += self._renamed(losers, {entry.name for entry in entries})
        return sorted(entries, key=lambda entry: entry.name)

    def _children(self, directory: InodeId) -> Iterable[tuple[LinkRow, InodeRow]]:
        query = (
            "SELECT inode.*, link.id, link.name, link.edge FROM link "
            "JOIN inode ON inode.id = ifnull(link.inode, link.id) WHERE link.parent = ? AND link.alive = 1"
        )
        for row in self._store.db.execute(query, (directory,)).fetchall():
            inode = self._rows.inode_row(row[:15])
            yield LinkRow(row[15], inode.id, int(inode.kind), directory, row[16], 1, row[17]), inode

    def _arrange(self, name: bytes, candidates: list[tuple[LinkRow, InodeRow]]) -> tuple[Entry, list[Entry]]:
        """Decide who keeps a name; return its entry and those of the losers that are shown (still under that name)."""
        directories = sorted((c for c in candidates if c[1].kind is Kind.DIRECTORY), key=lambda c: c[1].id)
        files = [c for c in candidates if c[1].kind is not Kind.DIRECTORY]
        files.sort(key=lambda c: c[1].order, reverse=True)
        if directories:
            twins = tuple(link for link, _ in directories[1:])
            link, inode = directories[0]
            return Entry(name, link, inode, twins=twins), [Entry(name, *file) for file in files]
        winner, *rest = files
        shown = [candidate for candidate in rest if not self._hides(winner[1], candidate[1])]
        hidden = tuple(candidate[0] for candidate in rest if candidate not in shown)
        return Entry(name, winner[0], winner[1], hidden=hidden), [Entry(name, *candidate) for candidate in shown]

    @staticmethod
    def _hides(winner: InodeRow, loser: InodeRow) -> bool:
        """Tell whether a file stands for another one of its name."""
        if winner.strategy is Strategy.LAST_WRITER_WINS or winner.id == loser.id:
            return True
        same_kind = winner.kind is loser.kind
        if winner.kind is Kind.FILE:
            return same_kind and winner.content == loser.content
        return same_kind and winner.target == loser.target and winner.rdev == loser.rdev

    def _siblings(self, entry: Entry) -> list[Entry]:
        if entry.inode.id not in self._view.contested or entry.link != self.first_link(entry.inode.id):
            return []
        return [Entry(entry.name, entry.link, entry.inode, row) for row in self._rows.siblings(entry.inode.id)]

    def first_link(self, inode: InodeId) -> LinkRow | None:
        """Return the first living link of an inode."""
        links = self._store.living_links(inode)
        return links[0] if links else None

    def _renamed(self, losers: list[Entry], taken: set[bytes]) -> list[Entry]:
        """Give losers the names that they are shown under, the same on every pod."""
        named = []
        for entry in sorted(losers, key=lambda loser: (loser.name, loser.id, loser.link.id)):
            dot = entry.inode.dot if entry.sibling is None else entry.sibling.dot
            again = 0
            while (name := conflict_name(entry.name, self._pod_name_of(dot.writer), dot.clock, again)) in taken:
                again += 1
            taken.add(name)
            named.append(entry._replace(name=name))
        return named

    def shown_name(self, link: LinkRow) -> bytes:
        """Return the name under which a link is shown; its own unless it lost it."""
        if self._view.twins and any(
            len(self._store.links_named(member, link.name)) > 1 or member != link.parent
            for member in self.group(link.parent)
        ):
            for entry in self.entries(link.parent):
                if entry.link.id == link.id and entry.sibling is None:
                    return entry.name
        return link.name

    def sibling(self, inode: InodeId) -> Entry | None:
        """Return the entry of a sibling content by the id that it is shown under."""
        owner = self._view.sibling_owner.get(inode)
        link = None if owner is None else self.first_link(owner)
        if link is None:
            return None
        return next((entry for entry in self.entries(link.parent) if entry.id == inode), None)

    def conflicts_in(self, directory: InodeId) -> dict[bytes, InodeId]:
        """Return the names that a directory shows without a record giving them."""
        return {entry.name: entry.id for entry in self.entries(directory) if entry.conflicting}
