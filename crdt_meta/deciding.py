"""Deciding a conflict: one of the versions that want a name keeps it, the others go to the trash."""

from __future__ import annotations

import errno
from collections.abc import Collection

from base.errors import FileSystemError
from base.ids import ContentId, Dot, InodeId
from crdt_meta.display import Entry
from crdt_meta.node import Kind, Node
from crdt_meta.records import Why
from crdt_meta.trash import Trash


class Deciding(Trash):
    """See the module."""

    def keep(self, path: bytes, version: InodeId) -> Node:
        """Let the version that is shown under this inode id have the name of a conflict, and trash the others.

        Raises ENOENT when there is no such version, EISDIR when a directory has the name.
        """
        above, _, name = path.rpartition(b"/")
        entry = self.display.lookup(self.resolve(above).inode, name)
        if entry is None:
            raise FileSystemError(errno.ENOENT)
        entries = [entry, *self.display.losers(entry.link)]
        kept = next((one for one in entries if one.id == version), None)
        if kept is None:
            raise FileSystemError(errno.ENOENT)
        if entry.inode.kind is Kind.DIRECTORY:
            raise FileSystemError(errno.EISDIR)
        self._need_room()
        links = dict.fromkeys((*(one.link for one in entries), *entry.hidden))
        records = self._deleted((link for link in links if link != kept.link), Why.CONFLICT)
        dots = self._all_dots(kept.inode.id)
        if kept.sibling is None and len(dots) == 1 + len(kept.inode.more_dots):
            if records:
                self._write(records)
            return self._must(kept.inode.id)
        self._publish(
            *(kept.inode.id, kept.link.id, *_content(kept), dots), with_records=records, path=path, always=Why.CONFLICT
        )
        return self._must(kept.inode.id)

    @property
    def has_conflicts(self) -> bool:
        """Whether anything is shown under another name than its own."""
        return bool(self.view.naming.shown)

    def lost_name(self, inode: InodeId) -> tuple[InodeId, bytes, bytes] | None:
        """Return (directory, its own name, the name that it is shown by) of a file whose name another one has."""
        for directory, shown in self.view.naming.shown.items():
            for name, loser in shown.items():
                if loser.id == inode and not loser.sibling:
                    return directory, loser.base, name
        return None

    def stands_beside(self, inode: InodeId, dots: Collection[Dot], content: ContentId) -> bool:
        """Tell whether a file shows another content than this one, of these dots, though nobody replaced it."""
        row = self.view.rows.inode(inode)
        return row is not None and row.content != content and not set(self._all_dots(inode)).isdisjoint(dots)

    def _all_dots(self, inode: InodeId) -> tuple[Dot, ...]:
        """Return the dots of all that a file shows, under whatever name."""
        row = self.view.rows.inode(inode)
        found: list[Dot] = [] if row is None else [row.dot, *row.more_dots]
        if inode in self.view.contested:
            found += [dot for one in self.view.rows.siblings(inode) for dot in (one.dot, *one.more_dots)]
        return tuple(found)


def _content(entry: Entry) -> tuple[ContentId, int, int]:
    row = entry.inode if entry.sibling is None else entry.sibling
    return row.content, row.size, row.mtime_ns
