"""SQLite under the metadata: the log (signed transactions in parts), the records, and the rows of the view.

One connection, used on the loop thread only. Changes gather in an open transaction until `commit`, which doesn't sync:
`sync` (from a thread, over a descriptor and a connection of its own) makes everything committed durable. Log and view
are in one file and one transaction, so a crash leaves both of the same state.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final

from base.errors import DamagedError, MachineError, NoSpaceError
from base.ids import WriterId

FORMAT: Final = 2
CHECKPOINT_BYTES: Final = 8 << 20
LONG_BYTES: Final = 64 << 20
"""What the write-ahead log must not be longer than for long: it takes room, and each look at a page searches it."""
LITTLE_BYTES: Final = 2 << 20
"""So much of it may be moved on the event loop."""
ROUNDS: Final = 4
"""So often a thread tries to leave no more than that; on a disk that is slower than what comes the log goes on growing."""
RESERVED_BYTES: Final = 4 << 20
FRAME_HEADER_BYTES: Final = 24
FRAMES_AT: Final = 16
"""Where the index of the write-ahead log says how many frames that has (https://sqlite.org/walformat.html),"""
MOVED_AT: Final = 96
"""and how many of them are in the database."""
CACHE_KIB: Final = 16384
ROWS_A_STATEMENT: Final = 64, 8, 1
LARGE_BYTES: Final = 1 << 20
"""Contents of more bytes are few in most trees, and can be found without looking at the others."""

SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS writer (id INTEGER PRIMARY KEY, writer BLOB NOT NULL UNIQUE,
    sequence INTEGER NOT NULL DEFAULT 0, applied INTEGER NOT NULL DEFAULT 0, owed INTEGER NOT NULL DEFAULT 0,
    warrant INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS tx (writer INTEGER, sequence INTEGER, header BLOB NOT NULL, signature BLOB NOT NULL,
    PRIMARY KEY (writer, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dropped (writer INTEGER, sequence INTEGER, clock INTEGER NOT NULL, digest BLOB NOT NULL,
    PRIMARY KEY (writer, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS part (writer INTEGER, segment INTEGER, sequence INTEGER, epoch INTEGER NOT NULL,
    whole INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (writer, segment, sequence)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS record (node BLOB, kind TEXT, writer INTEGER, clock INTEGER, holder INTEGER,
    segment INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY (node, kind, writer, clock, holder)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS record_dead ON record (node) WHERE kind IN ('d', 's');
CREATE TABLE IF NOT EXISTS link (id BLOB PRIMARY KEY, inode BLOB, kind INTEGER NOT NULL, parent BLOB NOT NULL,
    name BLOB NOT NULL, alive INTEGER NOT NULL, edge INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS link_by_name ON link (parent, name) WHERE alive > 0;
CREATE INDEX IF NOT EXISTS link_repaired ON link (edge) WHERE edge > 0;
CREATE INDEX IF NOT EXISTS link_kept ON link (alive) WHERE alive = 2;
CREATE TABLE IF NOT EXISTS hardlink (inode BLOB, link BLOB, PRIMARY KEY (inode, link)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inode (id BLOB PRIMARY KEY, kind INTEGER NOT NULL, mode INTEGER NOT NULL,
    uid INTEGER NOT NULL, gid INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
    size INTEGER NOT NULL, content BLOB, target BLOB, rdev INTEGER NOT NULL, writer INTEGER NOT NULL,
    clock INTEGER NOT NULL, more_dots BLOB, strategy INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS inode_large ON inode (content, size) WHERE size > {LARGE_BYTES};
CREATE TABLE IF NOT EXISTS content_start (start BLOB, inode BLOB, PRIMARY KEY (start, inode)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sibling (inode BLOB, writer INTEGER, clock INTEGER, id BLOB NOT NULL, content BLOB NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, more_dots BLOB, PRIMARY KEY (inode, writer, clock)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sibling_by_content ON sibling (content);
CREATE INDEX IF NOT EXISTS sibling_large ON sibling (content, size) WHERE size > {LARGE_BYTES};
CREATE TABLE IF NOT EXISTS directory (id BLOB PRIMARY KEY, touched INTEGER NOT NULL, subdirectories INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS twin (parent BLOB, name BLOB, PRIMARY KEY (parent, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trash (inode BLOB, dot BLOB, why INTEGER NOT NULL, content BLOB, size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL, removed INTEGER NOT NULL, by BLOB NOT NULL, more_dots BLOB, link BLOB, parent BLOB, name BLOB,
    PRIMARY KEY (inode, dot)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS trash_by_time ON trash (removed);
CREATE INDEX IF NOT EXISTS trash_by_content ON trash (content) WHERE content IS NOT NULL;
CREATE INDEX IF NOT EXISTS trash_large ON trash (content, size) WHERE size > {LARGE_BYTES};
CREATE INDEX IF NOT EXISTS trash_by_name ON trash (name) WHERE name IS NOT NULL;
CREATE INDEX IF NOT EXISTS trash_by_place ON trash (parent, name) WHERE parent IS NOT NULL;
CREATE TABLE IF NOT EXISTS mark (inode BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal (inode BLOB PRIMARY KEY, link BLOB NOT NULL, content BLOB NOT NULL,
    size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, replaces BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS journal_write (number INTEGER PRIMARY KEY, inode BLOB NOT NULL, at INTEGER NOT NULL,
    bytes BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS journal_write_inode ON journal_write (inode);
"""
VIEW_TABLES: Final = ("link", "hardlink", "inode", "content_start", "sibling", "directory", "twin", "trash", "mark")

sqlite3.register_adapter(bytes, bytes)
"""They are as SQLite takes them. To find that out for each without this costs half a microsecond a row."""


class Store:
    """See the module."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises `MachineError` or `DamagedError`."""
        self.path = path
        self._wal: int | None = None
        self._index: int | None = None
        self._side: sqlite3.Connection | None = None
        self.on_flush: list[Callable[[], None]] = []
        """Called before a commit or a query: write what waits in memory."""
        self.on_clear: list[Callable[[], None]] = []
        """Called after a rollback: forget what was read or waits."""
        self.on_commit: list[Callable[[bool], None]] = []
        """Called before a commit, after `on_flush`: write what may wait longer, too, or some of it; True: everything."""
        self.on_savepoint: list[Callable[[], None]] = []
        self.on_undo: list[Callable[[], None]] = []
        """Called when what was done since the savepoint is taken back: do so with what waits longer than that."""
        self.on_failure: list[Callable[[], None]] = []
        """Called once the file can't be written: see `failed`."""
        self.has_savepoint = False
        self._is_open = False
        """Whether a transaction was begun and not ended."""
        self._failure: NoSpaceError | None = None
        try:
            self.db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
            path.chmod(0o600)
            self.db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = NORMAL")
            self.db.execute("PRAGMA wal_autocheckpoint = 0")
            self.db.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_BYTES}")
            self.db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self.db.execute("PRAGMA temp_store = MEMORY")  # the journal of savepoints
            self.db.execute("PRAGMA secure_delete = OFF")
            self._frame_bytes = FRAME_HEADER_BYTES + int(self.db.execute("PRAGMA page_size").fetchone()[0])
            (version,) = self.db.execute("PRAGMA user_version").fetchone()
            if version > FORMAT:
                raise MachineError(f"{path} was written by a newer Wormhole.", "Install the newer version.")
            if 0 < version < FORMAT:
                advice = "Remove this pod with 'wormhole destroy --force' and join anew."
                raise MachineError(f"{path} was written by an early Wormhole whose format is no longer read.", advice)
            self.db.executescript(SCHEMA)
            self.db.execute(f"PRAGMA user_version = {FORMAT}")
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite's own message may quote what is damaged
            if isinstance(error, sqlite3.OperationalError):
                raise MachineError(f"{path} can't be opened: {error}.", "Check the disk of the pod's home.") from error
            raise DamagedError(f"{path} is damaged: {error}.", "Leave with --force and join anew.") from error
        self.vector: dict[WriterId, int] = {}
        """Writer → its last transaction that is here; kept by the log."""
        self._numbers: dict[WriterId, int] = {}
        self._writers: dict[int, WriterId] = {}
        self._read_numbers()

    # -- transactions of the file -------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Open the transaction in which changes gather, if it isn't open. Raises `NoSpaceError` after a failure."""
        if not self.db.in_transaction:
            self.check()
            self.db.execute("BEGIN IMMEDIATE")
            self._is_open = True

    def failed(self, error: sqlite3.OperationalError) -> NoSpaceError:
        """Return what to raise because the file can't be written (the disk is full, or doesn't answer).

        What memory has may not be in the file then, and would count as committed with the next transaction. So nothing
        is written any more, and the pod ends; its next start begins with what the file has.
        """
        if self._failure is None:
            self._failure = NoSpaceError(f"The metadata can't be written: {error}.", "Free some room on the disk.")
            for tell in self.on_failure:
                tell()
        return self._failure

    def check(self) -> None:
        """Raise when something failed, also where nobody said so: SQLite ends a transaction that it can't write."""
        if self._is_open and not self.db.in_transaction:
            self.failed(sqlite3.OperationalError("a transaction was lost"))
        if self._failure is not None:
            raise self._failure

    def flush(self) -> None:
        """Write what waits in memory into the open transaction."""
        for write in self.on_flush:
            write()

    def write_rows(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Insert or replace rows; many with one statement: a third less work than one after the other."""
        at = 0
        for number in ROWS_A_STATEMENT:
            if len(rows) - at >= number:
                values = f"({','.join('?' * len(rows[0]))})"
                statement = f"INSERT OR REPLACE INTO {table} VALUES {','.join([values] * number)}"  # noqa: S608 (marks only)
                while len(rows) - at >= number:
                    self.db.execute(statement, [*chain.from_iterable(rows[at : at + number])])
                    at += number

    def query(self, query: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query that isn't by key, what waits included."""
        self.flush()
        return self.db.execute(query, parameters).fetchall()

    def commit(self, *, is_last: bool = False) -> None:
        """Commit what was gathered. It survives the process from now on, and a power cut after `sync`."""
        self.check()
        if self.db.in_transaction:
            try:
                self.flush()
                for write in self.on_commit:
                    write(is_last)
                self.db.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise self.failed(error) from error
            self._is_open = False

    def savepoint(self) -> None:
        """Open a transaction within the transaction, to be ended by `release` or `undo`."""
        self.begin()
        self.flush()
        self.db.execute("SAVEPOINT inner")
        self.has_savepoint = True
        for note in self.on_savepoint:
            note()

    def release(self) -> None:
        """Make what was done since `savepoint` part of the transaction."""
        self.db.execute("RELEASE inner")
        self.has_savepoint = False

    def undo(self) -> None:
        """Take back what was done since `savepoint`."""
        for forget in (*self.on_undo, *self.on_clear):
            forget()
        try:
            self.db.execute("ROLLBACK TO inner")
            self.release()
        except sqlite3.OperationalError as error:
            raise self.failed(error) from error
        self._read_numbers()

    def reserve(self) -> None:
        """Write the first blocks of the write-ahead log ahead: a sync then has half as much to do. Before any `sync`."""
        with suppress(OSError):  # without room for that it goes on as it is
            wal = self._log_file()
            for at in range(os.fstat(wal).st_size, RESERVED_BYTES, 1 << 16):
                os.pwrite(wal, bytes(1 << 16), at)
            os.fsync(wal)

    def sync(self) -> None:
        """Make everything committed before the call durable. Blocks; for a thread; one call at a time."""
        os.fdatasync(self._log_file())
        if self.is_checkpoint_due:
            if self._side is None:
                self._side = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            for _ in range(ROUNDS):
                with suppress(sqlite3.OperationalError):
                    self._side.execute("PRAGMA wal_checkpoint(PASSIVE)")
                if not self._is_log_long or self.may_start_log_anew:
                    break

    def start_log_anew(self) -> None:
        """Have what comes next overwrite the write-ahead log from its start; after `sync`, outside of a transaction.

        While something is committed all the time, a thread never comes to the end of it, and it would grow for ever.
        Only where `may_start_log_anew`: it moves the rest.
        """
        with suppress(sqlite3.OperationalError):
            self.db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _log_file(self) -> int:
        if self._wal is None:
            self._wal = os.open(f"{self.path}-wal", os.O_RDWR | os.O_CLOEXEC)
        return self._wal

    @property
    def is_checkpoint_due(self) -> bool:
        """Whether the next `sync` will take long: it has to move what was committed into the database."""
        return self._log_bytes() > CHECKPOINT_BYTES

    @property
    def may_start_log_anew(self) -> bool:
        """Whether the log is long, and what `sync` has not moved of it is little."""
        moved = int.from_bytes(os.pread(self._index_file(), 4, MOVED_AT), sys.byteorder) * self._frame_bytes
        return self._is_log_long and self._log_bytes() - moved <= LITTLE_BYTES

    @property
    def _is_log_long(self) -> bool:
        return self._log_bytes() > LONG_BYTES

    def _log_bytes(self) -> int:
        return int.from_bytes(os.pread(self._index_file(), 4, FRAMES_AT), sys.byteorder) * self._frame_bytes

    def _index_file(self) -> int:
        if self._index is None:
            self._index = os.open(f"{self.path}-shm", os.O_RDONLY | os.O_CLOEXEC)
        return self._index

    def slim(self) -> None:
        """Forget what was read; it is read again when it is needed."""
        self.flush()
        for forget in self.on_clear:
            forget()
        self.db.execute("PRAGMA shrink_memory")

    def free_pages(self, limit_s: float) -> None:
        """Give pages of the file that are of no use back to the file system, for so long at most."""
        self.begin()
        (unused,) = self.db.execute("PRAGMA freelist_count").fetchone()
        until = time.perf_counter() + limit_s
        while unused and time.perf_counter() < until:
            # The pragma yields once a page, without a row: Python takes that for its end, whatever number it is given.
            self.db.execute("PRAGMA incremental_vacuum(1)")
            unused -= 1

    def close(self) -> None:
        """Close; what was not committed is gone."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        for connection in (self._side, self.db):
            if connection is not None:
                connection.close()
        # Not before the connections: closing any descriptor of the index gives SQLite's locks on it away.
        for descriptor in (self._wal, self._index):
            if descriptor is not None:
                os.close(descriptor)
        self._wal = self._index = None

    # -- meta ---------------------------------------------------------------------------------------------------------

    def get_meta(self, key: str) -> bytes | None:
        """Return a stored value."""
        row = self.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, key: str, value: bytes) -> None:
        """Store a value."""
        self.begin()
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    # -- writers ------------------------------------------------------------------------------------------

    def _read_numbers(self) -> None:
        self._numbers.clear()
        self._writers.clear()
        for number, raw in self.db.execute("SELECT id, writer FROM writer"):
            self._numbers[WriterId(raw)], self._writers[number] = number, WriterId(raw)

    def number_of(self, writer: WriterId) -> int:
        """Return the short number of a writer in this file."""
        number = self._numbers.get(writer)
        if number is None:
            self.begin()
            number = self.db.execute("INSERT INTO writer (writer) VALUES (?)", (writer,)).lastrowid or 0
            self._numbers[writer], self._writers[number] = number, writer
        return number

    def writer_of(self, number: int) -> WriterId:
        """Return the writer of a short number."""
        return self._writers[number]
