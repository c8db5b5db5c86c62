"""Writing: how an operation's records get into view and log, and what has to be written down before it.

Before an operation does anything to a name or file that is shown with conflicting ones beside it, those become nodes of
their own, under the names that they are shown by: the loser survives whatever happens to the winner.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from base.errors import FileSystemError
from base.ids import Dot, InodeId, PodId, WriterId
from crdt_meta.codec import encode
from crdt_meta.derive import Written
from crdt_meta.display import Display, Entry
from crdt_meta.hlc import ABSURD_CLOCK, MAX_CLOCK, BorrowedClock, HybridClock, nanoseconds
from crdt_meta.links import LinkRow
from crdt_meta.log import MetadataLog
from crdt_meta.node import Delta, Kind
from crdt_meta.reading import Reading
from crdt_meta.records import (
    KINDS,
    Attributes,
    Birth,
    Body,
    Deletion,
    Key,
    LinkBirth,
    Name,
    Settled,
    Strategy,
    Xattrs,
)
from crdt_meta.rows import SiblingRow
from crdt_meta.view import View

Records = list[tuple[bytes, Body]]
B = TypeVar("B", Settled, Attributes, Xattrs, Deletion)


class Settling(Reading):
    """See the module."""

    def __init__(
        self,
        view: View,
        log: MetadataLog,
        clock: HybridClock,
        pod_of_writer: Callable[[WriterId], PodId | None],
        strategy_for: Callable[[str], Strategy],
        has_room: Callable[[], bool],
        versions: Callable[[], int],
    ) -> None:
        super().__init__(view, Display(view), pod_of_writer)
        self._log = log
        self._clock: HybridClock | BorrowedClock = clock
        self._author: WriterId | None = None
        """Whose the records are that are being written; None: this pod's own."""
        self._strategy_for = strategy_for
        self._has_room = has_room
        self._versions = versions
        self._listeners: list[Callable[[Delta], None]] = []
        log.on_delta = self._deliver

    @property
    def is_catching_up(self) -> bool:
        """Whether much of what others wrote is being shown at this time."""
        return self._log.incoming.is_showing

    def on_delta(self, listener: Callable[[Delta], None]) -> None:
        """Call ``listener`` after every local operation and every applied remote transaction."""
        self._listeners.append(listener)

    def pods_changed(self) -> None:
        """Call losers of conflicts after their pods as these are called now."""
        if delta := self.view.naming.pods_changed():
            self._deliver(delta)

    def _deliver(self, delta: Delta) -> None:
        self.changed(delta)
        for listener in self._listeners:
            listener(delta)

    @contextmanager
    def on_behalf(self, author: WriterId, stamp: int) -> Iterator[None]:
        """Write what is done inside (``with``, without waiting) as somebody who has no log: a client pod.

        The records stand in this pod's segments as adopted ones do, by their author and with clocks from ``stamp`` on. So
        whoever does the same operation again, here or on another pod, writes the same records: it is done once.
        """
        own, self._author = self._clock, author
        self._clock = borrowed = BorrowedClock(stamp)
        try:
            yield
        finally:
            self._author, self._clock = None, own
            if isinstance(own, HybridClock):
                own.observe(borrowed.last)

    @property
    def _writer(self) -> WriterId:
        """The author of what is being written."""
        return self._author or self._log.writer

    def _write(self, records: Records, obsolete: Sequence[Key] = ()) -> None:
        author = self._author
        if author is None:
            self._deliver(self._log.write(records, obsolete))
            return
        held = [(Key.of(body, node)._replace(author=author), encode(body, node), body) for node, body in records]
        self._deliver(self._log.hold(held, [key._replace(author=author) for key in obsolete]))

    def _need_room(self) -> None:
        if not self._has_room():
            raise FileSystemError(errno.ENOSPC)

    # -- conflicts ----------------------------------------------------------------------------------------------------

    def _settled_entry(self, parent: InodeId, name: bytes) -> Entry:
        """Return what a name shows, after what conflicts with it was written down. Raises ENOENT.

        And what would be shown under this name if it went: a name that was removed is free.
        """
        entry = self.display.lookup(parent, name)
        heirs = self.view.naming.heirs(parent, name)
        if entry is not None and (records := self._settling([entry.link, *entry.hidden, *heirs])):
            self._write(records)
            entry = self.display.lookup(parent, name)
        if entry is None:
            raise FileSystemError(errno.ENOENT)
        return entry

    def _settle(self, inode: InodeId, but: Sequence[Dot] = ()) -> None:
        """Write down what conflicts with a file, given by its own id or by a sibling's, as files of their own.

        A sibling whose contents are all among ``but`` is left: they are about to be replaced.
        """
        if not self.view.naming.claims:
            return
        owner = self.view.sibling_owner.get(inode, inode)
        records = self._settling(self.view.links.living(owner), but if owner == inode else ())
        if records:
            self._write(records)

    def _settling(self, links: Sequence[LinkRow], but: Sequence[Dot] = ()) -> Records:
        """Return the records that give everything in conflict with these links a name of its own."""
        if not self.view.naming.claims:
            return []
        links = list(links)
        for owner in {link.inode for link in links} & self.view.contested:
            first = self.view.links.first(owner)
            if first is not None and first not in links:
                links.append(first)
        losers = {(one.link.id, one.id): one for link in links for one in self.display.losers(link)}
        records: Records = []
        settled: dict[InodeId, list[Dot]] = {}
        for one in losers.values():
            if one.sibling is None:
                records.append((one.link.id, Name(self._stamp(one.link.id), one.name)))
                continue
            dots = (one.sibling.dot, *one.sibling.more_dots)
            if not set(dots) <= set(but):
                records += self._own_inode(one, one.sibling)
                settled.setdefault(one.inode.id, []).extend(dots)
        for owner, named in settled.items():
            earlier = self._own(owner, Settled)
            union = dict.fromkeys((*(() if earlier is None else earlier.dots), *named))
            purged = () if earlier is None else earlier.purged
            records.append((owner, Settled(self._clock.tick(), tuple(union), purged)))
        return records

    def _own_inode(self, entry: Entry, sibling: SiblingRow) -> Records:
        """Return the records that make a sibling a file of its own; two pods that do it write the same file."""
        row, now = entry.inode, self._clock.tick()
        birth = Birth(
            *(now, Kind.FILE, row.mode, row.uid, row.gid, sibling.mtime_ns),
            content=sibling.content,
            size=sibling.size,
            strategy=row.strategy,
            origin=sibling.dot,
        )
        return [(sibling.id, birth), (sibling.id, LinkBirth(now, sibling.id, entry.link.parent, entry.name))]

    def _own(self, node: bytes, kind: type[B]) -> B | None:
        """Return the record of a kind that this pod wrote of a node."""
        for writer, body in self._records_of(node, KINDS[kind]):
            if writer == self._writer and isinstance(body, kind):
                return body
        return None

    def _records_of(self, node: bytes, kinds: str) -> Sequence[Written]:
        return self.view.records.of(node, kinds)

    def _stamp(self, node: bytes, latest: int = 0) -> int:
        """Return a clock later than ``latest`` and every record of a node, even where a broken clock gave them theirs."""
        return min(max(self._clock.tick(), self._latest(node, latest) + 1), MAX_CLOCK)

    def _latest(self, node: bytes, latest: int = 0) -> int:
        """Return the latest clock of a node's records, or ``latest``."""
        for _, body in self._records_of(node, "icasvxlpn"):
            if body.clock > latest:
                latest = body.clock
        return latest

    def _dot_clock(self, node: bytes) -> int:
        """Return a clock for a new content: new, and later than every record of the node that isn't absurd."""
        latest = self._latest(node)
        now = self._clock.tick()
        return now if latest >= ABSURD_CLOCK else max(now, latest + 1)

    def _touched(self, directory: InodeId) -> int:
        """Return the clock of the last change of a directory's entries."""
        group = self.display.group(directory)
        if len(group) == 1:
            return self.view.rows.directory(directory)[0]
        return max(self.view.rows.directory(one)[0] for one in group)

    def _timed(self, *directories: InodeId) -> Records:
        """Return the records that give directories whose entries change now a time, where a broken clock hides this.

        Usually none: then the change itself is the latest. (Its own clock must not follow the broken one, which would
        spread to everything beside it.)
        """
        now, records = self._clock.last, Records()
        for directory in dict.fromkeys(directories):
            touched = self._touched(directory)
            if touched > now:
                for member in self.display.group(directory):
                    earlier = self._own(member, Attributes)
                    stamp = self._stamp(member, touched)
                    values = {**(earlier.values if earlier else {}), "mtime_ns": (stamp, nanoseconds(now))}
                    records.append((member, Attributes(stamp, values)))
        return records
