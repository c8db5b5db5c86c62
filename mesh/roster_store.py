"""Keeps the roster in SQLite: a record is on the disk before anybody is told of it.

Also remembers where each pod was last reached, so that a pod that starts alone knows whom to look for.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from base.errors import DamagedError, MachineError
from base.ids import PodId
from mesh.records import RecordId, record_id
from mesh.roster import Roster

SCHEMA_VERSION: Final = 1
ADVICE: Final = "Put it back if it was moved; else give this pod up with `wormhole destroy --force` and join anew."
SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS records (number INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS seen (pod TEXT PRIMARY KEY, address TEXT NOT NULL, last_seen REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS heard (id BLOB PRIMARY KEY, at REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS starts (only INTEGER PRIMARY KEY CHECK (only = 0), count INTEGER NOT NULL) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where and when a pod was last reached (``HOST:PORT``; wall-clock seconds since the epoch)."""

    address: str
    last_seen: float


class RosterStore:
    """A roster and its file. `roster` is for the loop thread; `persist` may run in another one."""

    def __init__(self, path: Path) -> None:
        """Open or make the file and load the roster.

        Raises `MachineError` when the file can't be opened and `DamagedError` when it isn't a sound roster.
        """
        self._lock = threading.Lock()
        self.on_added: Callable[[], None] = lambda: None
        """Called after `add`."""
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise MachineError(f"{path} was written by a newer Wormhole.", "Install the newer version.")
            self._db.executescript(SCHEMA)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            stored = [bytes(row[0]) for row in self._db.execute("SELECT data FROM records ORDER BY number")]
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise MachineError(f"{path} can't be opened: {error}.", "Check the disk of the home.") from error
            raise DamagedError(f"{path} is damaged: {error}.", ADVICE) from error
        self.roster = Roster()
        if len(self.roster.add_all(stored)) != len(stored):
            raise DamagedError(f"{path} holds records that aren't valid.", ADVICE)

    def add(self, records: Iterable[bytes]) -> list[bytes]:
        """Add records and make them durable; return those that were new. Blocks for an fsync."""
        added = self.roster.add_all(records)
        self.persist(added)
        self.on_added()
        return added

    def persist(self, records: Sequence[bytes]) -> None:
        """Write records that `Roster.add_all` returned. Blocks for an fsync. Raises `MachineError`."""
        if not records:
            return
        now = time.time()
        self._write(
            ("INSERT INTO records (data) VALUES (?)", [(record,) for record in records]),
            ("INSERT OR IGNORE INTO heard VALUES (?, ?)", [(record_id(record), now) for record in records]),
        )

    def heard_since(self, since: float) -> set[RecordId]:
        """Return the records that came here later than a time (wall-clock seconds), whenever they say they were made."""
        with self._lock:
            return {bytes(key) for (key,) in self._db.execute("SELECT id FROM heard WHERE at >= ?", (since,))}

    def remember(self, seen: Sequence[tuple[PodId, Seen]]) -> None:
        """Keep where pods were last reached. Blocks for an fsync."""
        if not seen:
            return
        statement = (
            "INSERT INTO seen VALUES (?, ?, ?) ON CONFLICT (pod) DO UPDATE SET address = excluded.address, "
            "last_seen = excluded.last_seen"
        )
        self._write((statement, [(pod, entry.address, entry.last_seen) for pod, entry in seen]))

    def remembered(self) -> dict[PodId, Seen]:
        """Return where each pod was last reached."""
        with self._lock:
            rows = self._db.execute("SELECT pod, address, last_seen FROM seen").fetchall()
        return {PodId(pod): Seen(address, last_seen) for pod, address, last_seen in rows}

    def count_start(self) -> int:
        """Count a start of this pod durably and return the number, from 1."""
        self._write(("INSERT INTO starts VALUES (0, 1) ON CONFLICT (only) DO UPDATE SET count = count + 1", [()]))
        with self._lock:
            (count,) = self._db.execute("SELECT count FROM starts").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _write(self, *statements: tuple[str, Sequence[tuple[object, ...]]]) -> None:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                for statement, rows in statements:
                    self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise MachineError(f"The roster can't be written: {error}.", "Check the disk of the home.") from error
