"""The codes that this pod has issued, and the attempts on them, in SQLite. All calls block for an fsync or a read.

What is counted or redeemed here is on the disk when the call returns (synchronous = FULL): a crash never gives back an
attempt or a use. Codes that have ended stay for a day, so that "used" and "expired" can be told apart from "unknown",
and a joiner whose answer was lost can ask again.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from base.errors import DamagedError, MachineError, RefusedError
from base.ids import PodId
from discovery.code import NUMBERS, Code, new_code, number_symbols
from discovery.join_messages import Reason
from mesh.api import Role

SCHEMA_VERSION: Final = 1
MAX_ATTEMPTS: Final = 3
"""Wrong attempts that end a code."""
MAX_CODES: Final = 512
"""Codes kept, the ended ones included; the numbers of a tag allow 1,024."""
KEEP_ENDED_S: Final = 86_400.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS codes (
    number TEXT PRIMARY KEY, tag TEXT NOT NULL, secret TEXT NOT NULL, role TEXT NOT NULL, uses INTEGER NOT NULL,
    expires REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS redemptions (
    number TEXT NOT NULL REFERENCES codes ON DELETE CASCADE, pod TEXT NOT NULL, PRIMARY KEY (number, pod)
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Issued:
    """A code and what became of it so far."""

    code: Code
    role: Role
    uses: int
    expires: float
    """Wall-clock seconds since the epoch."""
    attempts: int
    """Wrong attempts, and those not decided yet."""
    redeemed_by: frozenset[PodId]

    @property
    def attempts_left(self) -> int:
        """How many more wrong attempts it takes."""
        return max(0, MAX_ATTEMPTS - self.attempts)

    def ended(self, pod: PodId | None, now: float) -> Reason | None:
        """Return why ``pod`` can't use this code at ``now``, None when it can.

        The pod that has redeemed it may always come again: its answer was lost.
        """
        if pod is not None and pod in self.redeemed_by:
            return None
        if self.attempts >= MAX_ATTEMPTS:
            return Reason.VOID_CODE
        if len(self.redeemed_by) >= self.uses:
            return Reason.USED_CODE
        return Reason.EXPIRED_CODE if now >= self.expires else None


class CodeStore:
    """The file; its methods may be called in any thread, one call at a time is carried out."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises `MachineError` or `DamagedError`."""
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            path.chmod(0o600)
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
                self._db.execute(f"PRAGMA {pragma}")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise MachineError(f"{path} was written by a newer Wormhole.", "Install the newer version.")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.OperationalError as error:
            raise MachineError(f"{path} can't be opened: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise DamagedError(f"{path} is damaged: {error}.", "Remove it; the codes given out end with it.") from error

    def issue(self, tag: str, role: Role, uses: int, expires: float, now: float) -> Issued:
        """Make and keep a new code. Raises `RefusedError` when there are too many, `MachineError` without disk."""
        with self._lock:
            self._write([("DELETE FROM codes WHERE expires < ?", (now - KEEP_ENDED_S,))])
            taken = {str(row[0]) for row in self._db.execute("SELECT number FROM codes")}
            if len(taken) >= MAX_CODES:
                raise RefusedError(
                    f"This pod has issued {MAX_CODES} codes within a day.", "Use `wormhole invite --uses N` instead."
                )
            number = secrets.choice([number for number in range(NUMBERS) if number_symbols(number) not in taken])
            code = new_code(tag, number)
            values = (code.number, tag, code.secret, role.value, uses, expires)
            self._write(
                [("INSERT INTO codes (number, tag, secret, role, uses, expires) VALUES (?, ?, ?, ?, ?, ?)", values)]
            )
        return Issued(code, role, uses, expires, 0, frozenset())

    def find(self, number: str) -> Issued | None:
        """Return the code of a number."""
        with self._lock:
            row = self._db.execute(
                "SELECT tag, secret, role, uses, expires, attempts FROM codes WHERE number = ?", (number,)
            ).fetchone()
            if row is None:
                return None
            pods = self._db.execute("SELECT pod FROM redemptions WHERE number = ?", (number,)).fetchall()
        tag, secret, role, uses, expires, attempts = row
        redeemed_by = frozenset(PodId(pod) for (pod,) in pods)
        return Issued(Code(tag, number, secret), Role(role), uses, expires, attempts, redeemed_by)

    def count_attempt(self, number: str) -> None:
        """Count an attempt, durably; before it is known whether it is right."""
        with self._lock:
            self._write([("UPDATE codes SET attempts = attempts + 1 WHERE number = ?", (number,))])

    def redeem(self, number: str, pod: PodId) -> None:
        """Note, durably, that ``pod`` used the code, and take back the attempt that this was."""
        with self._lock:
            self._write(
                [
                    ("UPDATE codes SET attempts = attempts - 1 WHERE number = ?", (number,)),
                    ("INSERT OR IGNORE INTO redemptions VALUES (?, ?)", (number, pod)),
                ]
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _write(self, statements: Iterable[tuple[str, tuple[object, ...]]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise MachineError(f"The join codes can't be written: {error}.", "Check the disk of the home.") from error
