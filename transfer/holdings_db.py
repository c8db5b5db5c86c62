"""Holdings in SQLite (``holdings.db``): this pod's own table, what is known of the others, and the cache's books.

Own changes are committed with ``synchronous=FULL`` before anybody is told; what others told can be asked for again and
is committed without waiting for the disk. The loop thread reads through one connection (a few µs a row); everything is
written through another one, in a thread, one transaction at a time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.lowlevel

from base.errors import MachineError
from base.ids import ChunkId, ContentId, PodId
from transfer.holdings import GENERATION_BYTES, PAGE_ROWS, Cursor, Holding, Page, Verdict, judge
from transfer.lodgers_db import SCHEMA as LODGERS_SCHEMA
from transfer.lodgers_db import LodgersDb
from transfer.offload import Offload

T = TypeVar("T")

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS own (content BLOB PRIMARY KEY, state INTEGER NOT NULL, sequence INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS own_sequence ON own (sequence);
CREATE TABLE IF NOT EXISTS peer (pod TEXT PRIMARY KEY, generation BLOB NOT NULL, sequence INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS theirs (content BLOB, pod TEXT, state INTEGER NOT NULL, PRIMARY KEY (content, pod))
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS theirs_pod ON theirs (pod);
CREATE TABLE IF NOT EXISTS cached (content BLOB PRIMARY KEY, bytes INTEGER NOT NULL, used_s REAL NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cached_used ON cached (used_s);
CREATE TABLE IF NOT EXISTS cached_piece (piece BLOB, content BLOB, PRIMARY KEY (piece, content)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS cached_piece_content ON cached_piece (content);
CREATE TABLE IF NOT EXISTS dropping (content BLOB PRIMARY KEY) WITHOUT ROWID;
"""


OWN_LIMIT: Final = 8192
"""Answers of `HoldingsDb.own` kept in memory."""


class HoldingsDb(LodgersDb):
    """The tables of one pod. Methods are for the loop thread."""

    def __init__(self, path: Path, offload: Offload) -> None:
        """Open or make the database; raises `MachineError` when it can't be used."""
        self._offload = offload
        self._lock = anyio.Lock()
        self._own: OrderedDict[ContentId, Holding] = OrderedDict()
        try:
            self._writer = self._connect(path)
            self._writer.executescript(SCHEMA + LODGERS_SCHEMA)
            self._reader = self._connect(path)
        except sqlite3.Error as error:
            raise MachineError(
                f"The database {path} can't be opened ({error}).",
                "Check this machine's disk; restore or remove the file.",
            ) from error
        self.was_clean = self._open_meta()
        self._dropping = {
            ContentId(content) for (content,) in self._reader.execute("SELECT content FROM dropping").fetchall()
        }
        top = self._reader.execute("SELECT max(sequence) FROM own").fetchone()[0]
        self.own_cursor = Cursor(self.meta_bytes("generation"), top or 0)

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("PRAGMA cache_size=-2048")
        return connection

    def _open_meta(self) -> bool:
        execute = self._writer.execute
        execute("PRAGMA synchronous=FULL")
        execute("BEGIN IMMEDIATE")
        execute("INSERT OR IGNORE INTO meta VALUES ('generation', ?)", (os.urandom(GENERATION_BYTES),))
        execute("INSERT OR IGNORE INTO meta VALUES ('made', ?)", (int(time.time()),))
        clean = execute("SELECT value FROM meta WHERE key = 'clean'").fetchone()
        execute("INSERT OR REPLACE INTO meta VALUES ('clean', 0)")
        execute("COMMIT")
        return clean is None or bool(clean[0])

    # -- small values

    def meta(self, key: str) -> object:
        """Return a remembered value, or None."""
        row = self._reader.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def meta_bytes(self, key: str) -> bytes:
        """Return a remembered value that is bytes, or none at all."""
        value = self.meta(key)
        return value if isinstance(value, bytes) else b""

    def _meta_int(self, key: str) -> int:
        value = self.meta(key)
        return value if isinstance(value, int) else 0

    @property
    def made_s(self) -> int:
        """When these tables were made, in seconds since the epoch."""
        return max(0, self._meta_int("made"))

    @property
    def bytes_used(self) -> int:
        """Bytes in the store when it was last noted."""
        return self._meta_int("bytes_used")

    def set_meta_now(self, key: str, value: str | int) -> None:
        """Remember a value durably, blocking; for the start and the end of a pod."""
        self._writer.execute("PRAGMA synchronous=FULL")
        self._writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # -- writing

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool) -> T:
        async with self._lock:
            return await self._offload.run(self._transaction, work, durable)

    def _transaction(self, work: Callable[[sqlite3.Connection], T], durable: bool) -> T:
        writer = self._writer
        try:
            writer.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            writer.execute("BEGIN IMMEDIATE")
            try:
                result = work(writer)
                writer.execute("COMMIT")
            except BaseException:
                writer.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise MachineError(
                f"The database of holdings can't be written ({error}).", "Check this machine's disk and its free space."
            ) from error
        return result

    async def record(self, changes: Mapping[ContentId, Holding]) -> None:
        """Change this pod's own table; durable when it returns. What is unchanged gets no new number."""

        def work(writer: sqlite3.Connection) -> int:
            sequence = self.own_cursor.sequence
            for content, state in changes.items():
                row = writer.execute("SELECT state FROM own WHERE content = ?", (content,)).fetchone()
                if (row[0] if row else 0) == state:
                    continue
                sequence += 1
                writer.execute("INSERT OR REPLACE INTO own VALUES (?, ?, ?)", (content, int(state), sequence))
            return sequence

        try:
            upto = await self._write(work, durable=True)
        finally:
            for content in changes:
                self._own.pop(content, None)
        self.own_cursor = Cursor(self.own_cursor.generation, max(upto, self.own_cursor.sequence))

    async def mark_dropping(self, contents: Collection[ContentId], *, on: bool) -> None:
        """Say that contents are being dropped, or no longer; durable when it returns, counted from the call on."""
        marked = [(content,) for content in contents]

        def work(writer: sqlite3.Connection) -> None:
            statement = "INSERT OR IGNORE INTO dropping VALUES (?)" if on else "DELETE FROM dropping WHERE content = ?"
            writer.executemany(statement, marked)

        if on:
            self._dropping |= set(contents)
        await self._write(work, durable=on)
        if not on:
            self._dropping -= set(contents)

    def is_dropping(self, content: ContentId) -> bool:
        """Tell whether a content is being dropped: nobody may rely on this pod's copy."""
        return content in self._dropping

    def dropping(self) -> list[ContentId]:
        """Return what is being dropped, or was when the pod was stopped."""
        return sorted(self._dropping)

    async def begin_anew(self) -> None:
        """Give this pod's own table another generation: others know a later one than this, which was restored."""
        generation = os.urandom(GENERATION_BYTES)

        def work(writer: sqlite3.Connection) -> None:
            writer.execute("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", (generation,))

        await self._write(work, durable=True)
        self.own_cursor = Cursor(generation, self.own_cursor.sequence)

    async def apply(self, pod: PodId, page: Page) -> Verdict:
        """Take a page of another pod's table if it fits (`judge`)."""
        if not page.rows and not self._lock.locked() and judge(self.cursor(pod), page) is Verdict.IGNORE:
            await anyio.lowlevel.checkpoint()
            return Verdict.IGNORE  # nothing new, as nearly always where nothing happens: no thread is woken for that

        def work(writer: sqlite3.Connection) -> Verdict:
            row = writer.execute("SELECT generation, sequence FROM peer WHERE pod = ?", (pod,)).fetchone()
            verdict = judge(Cursor(*row) if row else None, page)
            if verdict in {Verdict.IGNORE, Verdict.ASK}:
                return verdict
            if verdict is Verdict.ANEW:
                writer.execute("DELETE FROM theirs WHERE pod = ?", (pod,))
            gone = [(content, pod) for content, state in page.rows if state is Holding.NONE]
            held = [(content, pod, int(state)) for content, state in page.rows if state is not Holding.NONE]
            writer.executemany("DELETE FROM theirs WHERE content = ? AND pod = ?", gone)
            writer.executemany("INSERT OR REPLACE INTO theirs VALUES (?, ?, ?)", held)
            writer.execute("INSERT OR REPLACE INTO peer VALUES (?, ?, ?)", (pod, page.generation, page.upto))
            return verdict

        return await self._write(work, durable=False)

    # -- reading

    def own(self, content: ContentId) -> Holding:
        """Return what this pod has of a content, as it told the others."""
        holding = self._own.get(content)
        if holding is None:
            row = self._reader.execute("SELECT state FROM own WHERE content = ?", (content,)).fetchone()
            holding = self._own[content] = Holding(row[0]) if row else Holding.NONE
            if len(self._own) > OWN_LIMIT:
                self._own.popitem(last=False)
        return holding

    def holds(self, content: ContentId) -> bool:
        """Tell whether this pod said that it has a content."""
        return self.own(content) is not Holding.NONE

    def others(self, content: ContentId) -> dict[PodId, Holding]:
        """Return which other pods said that they hold a content."""
        rows = self._reader.execute("SELECT pod, state FROM theirs WHERE content = ?", (content,)).fetchall()
        return {PodId(pod): Holding(state) for pod, state in rows}

    def cursor(self, pod: PodId) -> Cursor | None:
        """Return how far another pod's table is known, or None when not at all."""
        row = self._reader.execute("SELECT generation, sequence FROM peer WHERE pod = ?", (pod,)).fetchone()
        return Cursor(*row) if row else None

    def page(self, before: int) -> Page:
        """Return changes of this pod's own table after a sequence number."""
        rows = self._reader.execute(
            "SELECT content, state, sequence FROM own WHERE sequence > ? ORDER BY sequence LIMIT ?", (before, PAGE_ROWS)
        ).fetchall()
        more = len(rows) == PAGE_ROWS
        upto = rows[-1][2] if more else max(self.own_cursor.sequence, before)
        found = [(ContentId(content), Holding(state)) for content, state, _ in rows]
        return Page(self.own_cursor.generation, before, upto, more, found)

    def latest(self, limit: int) -> list[tuple[ContentId, Holding]]:
        """Return this pod's latest changes that say it holds something."""
        rows = self._reader.execute(
            "SELECT content, state FROM own WHERE state > 0 ORDER BY sequence DESC LIMIT ?", (limit,)
        ).fetchall()
        return [(ContentId(content), Holding(state)) for content, state in rows]

    def held_between(self, after: ContentId | None, upto: ContentId | None) -> set[ContentId]:
        """Return the contents behind one, up to another, in the order of their ids, that this pod holds; None: no end."""
        query, given = "SELECT content FROM own WHERE state > 0 AND content > ?", [after or b""]
        if upto is not None:
            query, given = f"{query} AND content <= ?", [*given, upto]
        return {ContentId(content) for (content,) in self._reader.execute(query, given).fetchall()}

    def held(self) -> list[ContentId]:
        """Return all contents that this pod holds, as it told the others."""
        rows = self._reader.execute("SELECT content FROM own WHERE state > 0").fetchall()
        return [ContentId(content) for (content,) in rows]

    # -- the cache's books

    async def cache_begin(
        self, pieces: Mapping[ContentId, Iterable[ChunkId]], sizes: Mapping[ContentId, int], now_s: float
    ) -> None:
        """Note that pieces of contents may lie in the cache."""
        rows = [(content, size, now_s) for content, size in sizes.items()]
        references = [(piece, content) for content, needed in pieces.items() for piece in needed]

        def work(writer: sqlite3.Connection) -> None:
            writer.executemany("INSERT OR REPLACE INTO cached VALUES (?, ?, ?)", rows)
            writer.executemany("INSERT OR IGNORE INTO cached_piece VALUES (?, ?)", references)

        await self._write(work, durable=False)

    def is_in_books(self, piece: ChunkId) -> bool:
        """Tell whether a cached content needs a piece, or another pod for which it is held here."""
        row = self._reader.execute("SELECT 1 FROM cached_piece WHERE piece = ? LIMIT 1", (piece,)).fetchone()
        return row is not None or self.is_lodged(piece)

    async def cache_used(self, when_s: Mapping[ContentId, float]) -> None:
        """Note when cached contents were read last (seconds since the epoch)."""
        rows = [(used_s, content) for content, used_s in when_s.items()]

        def work(writer: sqlite3.Connection) -> None:
            writer.executemany("UPDATE cached SET used_s = ? WHERE content = ?", rows)

        await self._write(work, durable=False)

    def cache_bytes(self) -> int:
        """Return the bytes of all contents in the cache's books, whole or not."""
        total = self._reader.execute("SELECT sum(bytes) FROM cached").fetchone()[0]
        return int(total or 0)

    def cache_oldest(self, limit: int) -> list[tuple[ContentId, int]]:
        """Return the contents in the cache that were read longest ago, with their bytes."""
        rows = self._reader.execute("SELECT content, bytes FROM cached ORDER BY used_s LIMIT ?", (limit,)).fetchall()
        return [(ContentId(content), size) for content, size in rows]

    def in_cache(self, content: ContentId) -> bool:
        """Tell whether the cache's books know a content."""
        return self._reader.execute("SELECT 1 FROM cached WHERE content = ?", (content,)).fetchone() is not None

    async def cache_forget(self, content: ContentId) -> list[ChunkId]:
        """Strike a content from the books and return its pieces that no other cached content needs."""

        def work(writer: sqlite3.Connection) -> list[ChunkId]:
            writer.execute("DELETE FROM cached WHERE content = ?", (content,))
            rows = writer.execute("SELECT piece FROM cached_piece WHERE content = ?", (content,)).fetchall()
            writer.execute("DELETE FROM cached_piece WHERE content = ?", (content,))
            shared = "SELECT 1 FROM cached_piece WHERE piece = ? LIMIT 1"
            return [ChunkId(piece) for (piece,) in rows if writer.execute(shared, (piece,)).fetchone() is None]

        return await self._write(work, durable=False)

    def close(self, bytes_used: int) -> None:
        """Note a clean end and close."""
        self.set_meta_now("bytes_used", bytes_used)
        self.set_meta_now("clean", 1)
        self._reader.close()
        self._writer.close()
