"""Publishing: a file gets a new content, and what that overwrites becomes a version in the trash."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Sequence

from base.errors import FileSystemError
from base.ids import EMPTY_CONTENT, ContentId, Dot, InodeId, LinkId
from crdt_meta.derive import Version, Written, succession, versions_of
from crdt_meta.display import Entry
from crdt_meta.hlc import nanoseconds
from crdt_meta.links import LinkRow
from crdt_meta.node import Kind, Node
from crdt_meta.records import Content, Deletion, Key, Strategy, Why
from crdt_meta.settling import Records, Settling
from crdt_meta.versions import NOTHING_KEPT, Kept, overwritten, purge


class Publishing(Settling):
    """See the module."""

    def publish(
        self,
        inode: InodeId,
        link: LinkId,
        content: ContentId,
        size: int,
        mtime_ns: int,
        replaces: Sequence[Dot],
        ctime_ns: int | None = None,
    ) -> Node:
        """Give a file a content in place of the dots that its handle showed; it was written at ``ctime_ns`` (None: now).

        Raises ENOENT when the file is unknown.
        """
        self._settle(inode, replaces)
        if not self.view.records.of(inode, "i"):
            raise FileSystemError(errno.ENOENT)
        return self._publish(inode, self._via(inode, link), content, size, mtime_ns, replaces, ctime_ns)

    def _publish(
        self,
        inode: InodeId,
        via: LinkId,
        content: ContentId,
        size: int,
        mtime_ns: int,
        replaces: Sequence[Dot],
        ctime_ns: int | None = None,
        *,
        path: bytes | None = None,
        with_records: Records | None = None,
        always: Why | None = None,
    ) -> Node:
        """Write a content, with the versions that it makes and with other records.

        ``path``: that of the file, if it isn't shown now. ``always``: keep what is overwritten however young the last
        version is, as what ``always`` says.
        """
        path = path or self.path(inode)
        strategy = Strategy.KEEP_BOTH if path is None else self._strategy_for(path.decode("utf-8", "surrogateescape"))
        found = self._records_of(inode, "icsv")
        now = self._dot_clock(inode)
        kept = self._kept(inode, found, content, replaces, always)
        named, floor, obsolete = succession(self._writer, found, replaces, now)
        age_ns = 0 if ctime_ns is None else max(0, nanoseconds(now) - ctime_ns)
        record = Content(now, content, size, mtime_ns, via, named, strategy, floor, age_ns)
        records: Records = [(inode, body) for body in kept.versions]
        records += [*(with_records or ()), (inode, record)]
        gone = [Key("c", inode, clock) for clock in obsolete]
        if kept.purged:
            more, keys = self._purged(inode, kept.purged)
            records += more
            gone += keys
        self._write(records, gone)
        return self._must(inode)

    def _kept(
        self, inode: InodeId, found: Sequence[Written], content: ContentId, replaces: Sequence[Dot], always: Why | None
    ) -> Kept:
        """Return what becomes a version, and what goes for it."""
        row, limit = self.view.rows.inode(inode), self._versions()
        if row is None or row.more_dots or inode in self.view.contested:
            versions = versions_of(inode, found)
        elif row.dot not in replaces or row.content in (EMPTY_CONTENT, content) or not (limit or always):
            return NOTHING_KEPT
        else:  # there is nothing but what it shows
            versions = [Version(row.dot, row.content, row.size, row.mtime_ns, LinkId(inode), row.strategy, None)]
        return overwritten(versions, found, replaces, content, self._clock.tick, limit, always)

    def _purged(self, inode: InodeId, dots: Iterable[Dot], shown: Collection[Dot] = ()) -> tuple[Records, list[Key]]:
        """Return the records that purge contents from the trash of a file, and those that can go then.

        ``shown``: what it stands for and goes on to, hidden versions included.
        """
        settled, gone = purge(self._writer, self._records_of(inode, "icsv"), dots, shown, self._clock.tick())
        return [(inode, settled)], [Key("v", inode, clock) for clock in gone]

    def _via(self, inode: InodeId, link: LinkId) -> LinkId:
        """Return the link through which a content comes: the handle's, another one if that was removed meanwhile.

        When all were removed it is the handle's, which comes back by that.
        """
        living = self.view.links.living(inode)
        if any(one.id == link for one in living):
            return link
        if living:
            return living[0].id
        return link if link in self.view.links.to(inode) else LinkId(inode)

    def _strategy_of(self, parent: InodeId, name: bytes) -> Strategy:
        above = self._directory_path(parent)
        if above is None:
            return Strategy.KEEP_BOTH
        return self._strategy_for((above + b"/" + name).decode("utf-8", "surrogateescape"))

    def _deleted(self, links: Iterable[LinkRow], why: Why = Why.DELETED) -> Records:
        """Return the records that delete links, naming the contents that they showed."""
        now = self._clock.tick()
        return [(link.id, Deletion(now, self._named(link.id, link.inode), why)) for link in links]

    def _buried(self, entry: Entry) -> Records:
        """Return the records that delete what is hidden behind an entry."""
        if not entry.hidden:
            return []
        lost = [link for link in entry.hidden if not self._same(link, entry)]
        return self._deleted(lost, Why.CONFLICT) + self._deleted(link for link in entry.hidden if link not in lost)

    def _same(self, link: LinkRow, entry: Entry) -> bool:
        row = self.view.rows.inode(link.inode)
        return row is not None and row.content == entry.inode.content

    def _named(self, link: LinkId, inode: InodeId) -> tuple[Dot, ...]:
        row = self.view.rows.inode(inode)
        if row is None or row.kind is Kind.DIRECTORY:
            return ()
        earlier = self._own(link, Deletion)
        dots = dict.fromkeys(() if earlier is None else earlier.dots)
        if inode in self.view.contested:  # of a file that was hidden behind another, not shown beside it
            siblings = self.view.rows.siblings(inode)
            dots |= dict.fromkeys(dot for one in siblings for dot in (one.dot, *one.more_dots))
        return tuple(dots | dict.fromkeys((row.dot, *row.more_dots)))
