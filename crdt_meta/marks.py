"""Wishes that stand at files themselves: their extended attributes below ``user.wormhole.``.

Few files have any, and every content is judged by them. So the view knows which inodes do, and asks the records of those.
"""

from __future__ import annotations

from typing import Final

from base.ids import InodeId
from crdt_meta.derive import merged_xattrs
from crdt_meta.recordtable import Records
from crdt_meta.store import Store

OWN_XATTRS: Final = b"user.wormhole."


class Marks:
    """The inodes that have such attributes: a table of the view, all of it in memory."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store = store
        self._records = records
        self._inodes: set[InodeId] = set()

    def __len__(self) -> int:
        return len(self._inodes)

    def reload(self) -> None:
        """Read the table anew."""
        self._inodes = {InodeId(bytes(row[0])) for row in self._store.query("SELECT inode FROM mark", ())}

    def of(self, inode: InodeId) -> dict[bytes, bytes]:
        """Return the attributes of an inode, by their full names."""
        return self._read(inode) if inode in self._inodes else {}

    def _read(self, inode: InodeId) -> dict[bytes, bytes]:
        found = merged_xattrs(self._records.of(inode, "x"))
        return {name: value for name, value in found.items() if name.startswith(OWN_XATTRS)}

    def refresh(self, inode: InodeId) -> bool:
        """Look again after a change of an inode's attributes; tell whether it has, or had, such ones."""
        has, had = bool(self._read(inode)), inode in self._inodes
        if has and not had:
            self._store.begin()
            self._store.db.execute("INSERT OR REPLACE INTO mark VALUES (?)", (inode,))
            self._inodes.add(inode)
        elif had and not has:
            self._store.begin()
            self._store.db.execute("DELETE FROM mark WHERE inode = ?", (inode,))
            self._inodes.discard(inode)
        return has or had
