"""What names a directory shows: the view's rows, with the names that conflicts took or gave (see `naming`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from base.ids import InodeId
from crdt_meta.links import LinkRow
from crdt_meta.naming import Candidate, Loser, arrange
from crdt_meta.node import Kind
from crdt_meta.rows import InodeRow, SiblingRow
from crdt_meta.view import View


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


class Display:
    """Reads directories from the view."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._naming = view.naming
        self.group = view.naming.group

    def lookup(self, directory: InodeId, name: bytes) -> Entry | None:
        """Return what a name shows in a directory."""
        candidates = self._naming.candidates(directory, name)
        if len(candidates) == 1:
            return Entry(name, *candidates[0])
        if candidates:
            return self._winner(name, candidates)
        if not self._naming.shown:
            return None
        loser = self._naming.shown.get(self.group(directory)[0], {}).get(name)
        return None if loser is None else self._loser(name, loser)

    def directory(self, parent: InodeId, name: bytes) -> InodeId | None:
        """Return the directory that a name shows; as a rule its link says all of it."""
        links = self._naming.links(parent, name)
        if len(links) == 1 and links[0].kind == Kind.DIRECTORY:
            return links[0].inode
        entry = self.lookup(parent, name)
        return None if entry is None or entry.inode.kind is not Kind.DIRECTORY else entry.id

    def entries(self, directory: InodeId) -> list[Entry]:
        """Return all entries of a directory, sorted by name."""
        group = self.group(directory)
        claims = self._naming.claims.get(group[0], {})
        entries: list[Entry] = []
        contested: dict[bytes, list[Candidate]] = {}
        for member in group:
            for link, inode in self._children(member):
                if link.name in claims:
                    contested.setdefault(link.name, []).append((link, inode))
                else:
                    entries.append(Entry(link.name, link, inode))
        entries += [self._winner(name, candidates) for name, candidates in contested.items()]
        losers = self._naming.shown.get(group[0], {}).items()
        entries += [entry for name, loser in losers if (entry := self._loser(name, loser)) is not None]
        return sorted(entries, key=lambda entry: entry.name)

    def _children(self, directory: InodeId) -> Iterable[Candidate]:
        query = (
            "SELECT inode.*, link.id, link.name, link.alive, link.edge FROM link "
            "JOIN inode ON inode.id = ifnull(link.inode, link.id) WHERE link.parent = ? AND link.alive > 0"
        )
        for row in self._view.store.query(query, (directory,)):
            inode = self._view.rows.inode_row(row[:15])
            yield LinkRow(row[15], inode.id, int(inode.kind), directory, *row[16:]), inode

    @staticmethod
    def _winner(name: bytes, candidates: list[Candidate]) -> Entry:
        arranged = arrange(candidates)
        return Entry(name, *arranged.winner, twins=arranged.twins, hidden=arranged.hidden)

    def _loser(self, name: bytes, loser: Loser) -> Entry | None:
        link = self._view.links.get(loser.link)
        inode = None if link is None else self._view.rows.inode(link.inode)
        if link is None or inode is None:
            return None
        if not loser.sibling:
            return Entry(name, link, inode)
        siblings = self._view.rows.siblings(inode.id)
        return next((Entry(name, link, inode, row) for row in siblings if row.id == loser.id), None)

    def shown_name(self, link: LinkRow) -> bytes:
        """Return the name under which a link is shown; its own unless it lost it.

        A link that is hidden behind another one has that one's name, too.
        """
        shown = self._naming.shown.get(self.group(link.parent)[0], {})
        return next((name for name, one in shown.items() if one.link == link.id and not one.sibling), link.name)

    def is_hidden(self, link: LinkRow) -> bool:
        """Tell whether another file stands for a living link."""
        claim = self._naming.claims.get(self.group(link.parent)[0], {}).get(link.name)
        if claim is None or claim.winner == link.inode or link.kind == Kind.DIRECTORY:
            return False
        return all(one.link != link.id for one in claim.losers)

    def sibling(self, inode: InodeId) -> Entry | None:
        """Return the entry of a sibling content by the id that it is shown under."""
        owner = self._view.sibling_owner.get(inode)
        link = None if owner is None else self._view.links.first(owner)
        shown = {} if link is None else self._naming.shown.get(self.group(link.parent)[0], {})
        return next((self._loser(name, one) for name, one in shown.items() if one.sibling and one.id == inode), None)

    def losers(self, link: LinkRow) -> list[Entry]:
        """Return what is shown under other names for the sake of this link's name."""
        representative = self.group(link.parent)[0]
        if link.name not in self._naming.claims.get(representative, ()):
            return []
        shown = self._naming.shown.get(representative, {}).items()
        entries = (self._loser(name, one) for name, one in shown if one.base == link.name)
        return [entry for entry in entries if entry is not None]
