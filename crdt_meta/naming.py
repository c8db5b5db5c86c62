"""Who has a name when several lay claim to it: same-name directories shown as one, conflicting files beside each other.

Two links of one name, or two contents of one file, can come from pods that did not know of each other. The later keeps
the name. The others are shown beside it (``keep-both``), or hidden behind it (``last-writer-wins``, or when they are
equal to it). A directory keeps its name against files.

All of this is a function of the view's rows. What differs from the plain rows - groups of directories, contested names -
is rare, so it is kept in memory, follows every change, and tells which names a change made appear, vanish or show
something else.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from base.ids import Dot, InodeId, LinkId, WriterId
from crdt_meta.hlc import nanoseconds
from crdt_meta.links import LinkRow, Place
from crdt_meta.node import Delta, Kind
from crdt_meta.records import NAME_LIMIT_BYTES, Strategy
from crdt_meta.rows import InodeRow

if TYPE_CHECKING:
    from crdt_meta.view import View

MARK: Final = b".conflict-"
Group = tuple[InodeId, ...]
Candidate = tuple[LinkRow, InodeRow]


class Loser(NamedTuple):
    """A version that is shown under another name than its link has."""

    base: bytes
    """The name that it would have."""
    id: InodeId
    """The inode id under which it is shown."""
    link: LinkId
    dot: Dot
    sibling: bool
    """Whether it is a content of the link's inode beside the one shown there."""


class Claim(NamedTuple):
    """A name that several want."""

    winner: InodeId
    losers: tuple[Loser, ...]
    links: int


def conflict_name(name: bytes, pod: str, clock: int, again: int = 0) -> bytes:
    """Return the name of a version that lost: ``stem.conflict-<pod>-<UTC time>.ext``, cut to the limit of names."""
    moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(nanoseconds(clock) // 1_000_000_000))
    return marked_name(name, MARK + f"{pod}-{moment}".encode()[:120] + (f"-{again + 1}".encode() if again else b""))


def marked_name(name: bytes, middle: bytes) -> bytes:
    """Return a name with something put before its extension, cut to the limit of names."""
    stem, dot, extension = name.rpartition(b".")
    if not stem or len(extension) > 32:
        stem, dot, extension = name, b"", b""
    tail = middle + dot + extension
    return stem[: NAME_LIMIT_BYTES - len(tail)] + tail


class Arranged(NamedTuple):
    """What becomes of the links that want one name."""

    winner: Candidate
    twins: tuple[LinkRow, ...]
    """Directories shown as one with the winner."""
    losers: tuple[Candidate, ...]
    hidden: tuple[LinkRow, ...]


def arrange(candidates: Sequence[Candidate]) -> Arranged:
    """Decide who keeps a name."""
    directories = sorted((one for one in candidates if one[1].kind is Kind.DIRECTORY), key=lambda one: one[1].id)
    files = [one for one in candidates if one[1].kind is not Kind.DIRECTORY]
    files.sort(key=lambda one: (one[1].order, one[0].id), reverse=True)
    if directories:
        return Arranged(directories[0], tuple(link for link, _ in directories[1:]), tuple(files), ())
    winner, *rest = files
    losers = tuple(one for one in rest if not hides(winner[1], one[1]))
    return Arranged(winner, (), losers, tuple(one[0] for one in rest if one not in losers))


def hides(winner: InodeRow, loser: InodeRow) -> bool:
    """Tell whether a file stands for another one of its name."""
    if winner.strategy is Strategy.LAST_WRITER_WINS or winner.id == loser.id:
        return True
    if winner.kind is not loser.kind:
        return False
    if winner.kind is Kind.FILE:
        return winner.content == loser.content
    return winner.target == loser.target and winner.rdev == loser.rdev


class Naming:
    """See the module. Follows a `View`, which calls `reload` and `update`."""

    def __init__(self, view: View, pod_name_of: Callable[[WriterId], str]) -> None:
        self._view = view
        self._pod_name_of = pod_name_of
        self._groups: dict[InodeId, Group] = {}
        """Directories shown as one with others → all of them, the representative (the least id) first."""
        self.claims: dict[InodeId, dict[bytes, Claim]] = {}
        """Representative → name → who wants it; only names that several want."""
        self.shown: dict[InodeId, dict[bytes, Loser]] = {}
        """Representative → names that no record gives → what they show."""
        self._called: dict[WriterId, str] = {}
        """What the pods were called after whom losers are named, when they were."""

    def group(self, directory: InodeId) -> Group:
        """Return the directories shown as one with this one, itself included, the representative first."""
        return self._groups.get(directory, (directory,))

    def reload(self) -> None:
        """Work everything out from the rows."""
        self._groups, self.claims, self.shown, self._called = {}, {}, {}, {}
        self._regroup(self._view.twins)
        wanted = {self.group(parent)[0] for parent, _ in self._view.twins}
        wanted |= {group[0] for group in self._groups.values()}
        wanted |= {self.group(link.parent)[0] for link in self._first_links()}
        for representative in wanted:
            self._survey(representative)

    def update(self, delta: Delta, inodes: Iterable[InodeId], moved: Iterable[InodeId]) -> None:
        """Follow a change, and complete its delta.

        ``delta.entries`` are the names of links that came, went or moved; ``inodes`` have other contents or links;
        ``moved`` are the directories among what came, went or moved.
        """
        view = self._view
        if not (view.twins or view.contested or self._groups or self.claims):
            return
        before = self._regroup(delta.entries if moved else (), moved)
        self._spread(delta, before)
        stale = {member for inode, old in before.items() for member in (inode, *old, *self.group(inode))}
        self._forget(delta, stale, before)
        surveyed = {self.group(inode)[0] for inode in stale}
        for representative in surveyed:
            self._survey(representative)
            self._tell(delta, representative, (*self.claims.get(representative, ()), *self._names(representative)))
        self._reclaim(delta, inodes, surveyed)

    # -- groups -------------------------------------------------------------------------------------------------------

    def _regroup(self, places: Iterable[Place], moved: Iterable[InodeId] = ()) -> dict[InodeId, Group]:
        """Group the directories of these names anew, and what is below them; return the former groups of those changed.

        In turn: once those near the root are right they stay so, and then those below. The last first would never end
        where a group from before a move leads down to what is above it now.
        """
        before: dict[InodeId, Group] = {}
        work = deque(places)
        for inode in moved:
            row = self._view.links.get(LinkId(inode))
            if inode in self._groups and (row is None or not row.alive):
                work += self._set_group(inode, (inode,), before)
        while work:
            parent, name = work.popleft()
            found = tuple(sorted(link.inode for link in self.links(parent, name) if link.kind == Kind.DIRECTORY))
            for inode in found:
                work += self._set_group(inode, found, before)
        return before

    def _set_group(self, inode: InodeId, new: Group, before: dict[InodeId, Group]) -> list[Place]:
        """Note the group of a directory; return the names to look at again: those below it, and of who is left alone."""
        old = self.group(inode)
        if old == new:
            return []
        before.setdefault(inode, old)
        if len(new) > 1:
            self._groups[inode] = new
        else:
            del self._groups[inode]
        left = (self._view.links.get(LinkId(other)) for other in old if other not in new)
        again = [(row.parent, row.name) for row in left if row is not None]
        return again + [(inode, name) for name in self._view.links.subdirectory_names(inode)]

    def links(self, directory: InodeId, name: bytes) -> list[LinkRow]:
        """Return the living links of a name in a directory and all that are shown as one with it."""
        group = self._groups.get(directory)
        if group is None:
            return self._view.links.named(directory, name)
        return [link for member in group for link in self._view.links.named(member, name)]

    def _spread(self, delta: Delta, before: dict[InodeId, Group]) -> None:
        """A change in one member is one in all members; a change of the members is one of all their names."""
        for parent, name in tuple(delta.entries):
            delta.entries.update((member, name) for member in (*self.group(parent), *before.get(parent, ())))
        for inode in tuple(delta.inodes):
            delta.inodes.update(self._groups.get(inode, ()))
        for members in {frozenset((inode, *old, *self.group(inode))) for inode, old in before.items()}:
            delta.inodes.update(members)
            names = {name for member in members for name in self._view.links.names(member)}
            delta.entries.update((member, name) for member in members for name in names)

    # -- claims -------------------------------------------------------------------------------------------------------

    def _first_links(self) -> list[LinkRow]:
        """Return the first living link of each file with siblings."""
        found = (self._view.links.first(inode) for inode in self._view.contested)
        return [link for link in found if link is not None]

    def _forget(self, delta: Delta, directories: Iterable[InodeId], before: dict[InodeId, Group]) -> None:
        for inode in directories:
            names = (*self.claims.pop(inode, ()), *self.shown.pop(inode, ()))
            members = {inode, *self.group(inode), *before.get(inode, ())}
            delta.entries.update((member, name) for member in members for name in names)

    def _survey(self, representative: InodeId) -> None:
        """Find all claims of a directory."""
        group = self.group(representative)
        names = Counter(name for member in group for name in self._view.links.names(member))
        wanted = {name for name, number in names.items() if number > 1}
        wanted |= {link.name for link in self._first_links() if link.parent in group}
        for name in wanted:
            self._claim(representative, name)
        self._rename(representative)

    def _claim(self, representative: InodeId, name: bytes) -> bool:
        """Work out who wants a name; tell whether that changed."""
        new = self._claimed(representative, name)
        claims = self.claims.setdefault(representative, {})
        old = claims.pop(name, None)
        if new is not None:
            claims[name] = new
        if not claims:
            del self.claims[representative]
        return old != new

    def candidates(self, directory: InodeId, name: bytes) -> list[Candidate]:
        """Return the links that want a name, with what they show."""
        rows = self._view.rows
        return [(link, row) for link in self.links(directory, name) if (row := rows.inode(link.inode)) is not None]

    def _claimed(self, representative: InodeId, name: bytes) -> Claim | None:
        candidates = self.candidates(representative, name)
        if not candidates or (len(candidates) == 1 and candidates[0][0].inode not in self._view.contested):
            return None
        arranged = arrange(candidates)
        losers = [Loser(name, row.id, link.id, row.dot, False) for link, row in arranged.losers]
        winner = arranged.winner[1]
        if winner.kind is Kind.DIRECTORY or winner.strategy is Strategy.KEEP_BOTH:
            for link, row in candidates:
                if row.id in self._view.contested and link == self._view.links.first(row.id):
                    rows = self._view.rows.siblings(row.id)
                    losers += [Loser(name, sibling.id, link.id, sibling.dot, True) for sibling in rows]
        if len(candidates) == 1 and not losers:
            return None
        return Claim(winner.id, tuple(sorted(losers)), len(candidates))

    def pods_changed(self) -> Delta:
        """Name losers anew where a pod is called otherwise than when they were named; return what that alters."""
        delta = Delta(remote=True)
        if any(self._pod_name_of(writer) != name for writer, name in self._called.items()):
            self._called.clear()
            for representative in self.claims:
                self._rename_and_tell(delta, representative)
        return delta

    def _pod(self, writer: WriterId) -> str:
        if writer not in self._called:
            self._called[writer] = self._pod_name_of(writer)
        return self._called[writer]

    def _rename(self, representative: InodeId) -> None:
        """Give losers the names that they are shown under, the same on every pod."""
        losers = sorted(loser for claim in self.claims.get(representative, {}).values() for loser in claim.losers)
        shown: dict[bytes, Loser] = {}
        for loser in losers:
            pod, again = self._pod(loser.dot.writer), 0
            while (name := conflict_name(loser.base, pod, loser.dot.clock, again)) in shown or self.links(
                representative, name
            ):
                again += 1
            shown[name] = loser
        if shown:
            self.shown[representative] = shown
        else:
            self.shown.pop(representative, None)

    def heirs(self, directory: InodeId, name: bytes) -> list[LinkRow]:
        """Return the links of losers that would be shown under a name if nothing else were."""
        if MARK not in name:
            return []
        found: list[LinkRow] = []
        for shown, loser in self.shown.get(self.group(directory)[0], {}).items():
            pod, again = self._pod(loser.dot.writer), 0
            while (wanted := conflict_name(loser.base, pod, loser.dot.clock, again)) not in (name, shown):
                again += 1
            if wanted == name != shown and (link := self._view.links.get(loser.link)) is not None:
                found.append(link)
        return found

    def _names(self, representative: InodeId) -> tuple[bytes, ...]:
        return tuple(self.shown.get(representative, ()))

    def _tell(self, delta: Delta, representative: InodeId, names: Iterable[bytes]) -> None:
        delta.entries.update((member, name) for name in names for member in self.group(representative))

    def _reclaim(self, delta: Delta, inodes: Iterable[InodeId], surveyed: set[InodeId]) -> None:
        """Look again at the names that a change may have made, or no longer makes, contested."""
        wanted = {(self.group(parent)[0], name) for parent, name in delta.entries}
        for inode in inodes:
            wanted |= {(self.group(link.parent)[0], link.name) for link in self._view.links.living(inode)}
        renamed: set[InodeId] = set()
        for representative, name in wanted:
            if representative in surveyed:
                continue
            if self._claim(representative, name):
                self._tell(delta, representative, (name,))
                renamed.add(representative)
            elif MARK in name and representative in self.claims:
                renamed.add(representative)
        for representative in renamed:
            self._rename_and_tell(delta, representative)

    def _rename_and_tell(self, delta: Delta, representative: InodeId) -> None:
        old = self.shown.get(representative, {})
        self._rename(representative)
        new = self.shown.get(representative, {})
        self._tell(delta, representative, {name for name in (*old, *new) if old.get(name) != new.get(name)})
