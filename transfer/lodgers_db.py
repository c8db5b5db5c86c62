"""The books of what is held for other pods (`lodging`), a part of ``holdings.db``."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from typing import Final, NamedTuple, TypeVar

from base.errors import NoSpaceError, RefusedError
from base.ids import ChunkId, ContentId, PodId

T = TypeVar("T")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS lodger (draft BLOB PRIMARY KEY, pod TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lodged (draft BLOB, piece BLOB, PRIMARY KEY (draft, piece)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lodged_piece ON lodged (piece);
CREATE TABLE IF NOT EXISTS lodged_as (draft BLOB, content BLOB, PRIMARY KEY (draft, content)) WITHOUT ROWID;
"""


class Lodger(NamedTuple):
    """A draft of another pod, of which this one holds a part."""

    draft: bytes
    pod: PodId
    contents: tuple[ContentId, ...]
    """What it was sealed as."""


class LodgersDb:
    """The part of `HoldingsDb` that knows them. Methods are for the loop thread."""

    _reader: sqlite3.Connection

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool) -> T:
        raise NotImplementedError

    async def lodge(
        self,
        pod: PodId,
        draft: bytes,
        pieces: Collection[ChunkId],
        content: ContentId | None,
        *,
        most_pieces: int,
        most_contents: int,
    ) -> None:
        """Note that pieces belong to a pod's draft, sealed as ``content``; durable when it returns.

        Raises `NoSpaceError` when it would be too many in all, `RefusedError` for a draft of another pod.
        """

        def work(writer: sqlite3.Connection) -> None:
            writer.execute("INSERT OR IGNORE INTO lodger VALUES (?, ?)", (draft, pod))
            if writer.execute("SELECT pod FROM lodger WHERE draft = ?", (draft,)).fetchone() != (pod,):
                raise RefusedError("This is another pod's file.")
            writer.executemany("INSERT OR IGNORE INTO lodged VALUES (?, ?)", [(draft, piece) for piece in pieces])
            if writer.execute("SELECT count(*) FROM lodged").fetchone()[0] > most_pieces:
                raise NoSpaceError("This pod holds too much for others already.")
            if content is not None:
                writer.execute("INSERT OR IGNORE INTO lodged_as VALUES (?, ?)", (draft, content))
                count = writer.execute("SELECT count(*) FROM lodged_as WHERE draft = ?", (draft,)).fetchone()[0]
                if count > most_contents:
                    raise RefusedError("This file was sealed too often.")

        await self._write(work, durable=True)

    async def unlodge(self, draft: bytes) -> set[ChunkId]:
        """Strike a draft from the books, durably; return its pieces."""

        def work(writer: sqlite3.Connection) -> set[ChunkId]:
            rows = writer.execute("SELECT piece FROM lodged WHERE draft = ?", (draft,)).fetchall()
            for table in ("lodger", "lodged", "lodged_as"):
                writer.execute(f"DELETE FROM {table} WHERE draft = ?", (draft,))  # noqa: S608 - a constant
            return {ChunkId(piece) for (piece,) in rows}

        return await self._write(work, durable=True)

    def lodgers(self) -> list[Lodger]:
        """Return the drafts of which this pod holds a part."""
        contents: dict[bytes, list[ContentId]] = {}
        for draft, content in self._reader.execute("SELECT draft, content FROM lodged_as").fetchall():
            contents.setdefault(draft, []).append(ContentId(content))
        rows = self._reader.execute("SELECT draft, pod FROM lodger").fetchall()
        return [Lodger(draft, PodId(pod), tuple(contents.get(draft, ()))) for draft, pod in rows]

    def is_lodged(self, piece: ChunkId) -> bool:
        """Tell whether this pod holds a piece for another one."""
        row = self._reader.execute("SELECT 1 FROM lodged WHERE piece = ? LIMIT 1", (piece,)).fetchone()
        return row is not None
