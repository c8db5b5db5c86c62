"""What the machine itself can do at this moment: the raw figures that belong beside every measurement."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path


def raw_figures() -> list[tuple[str, str]]:
    """Measure the machine; rows of (what, figure)."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            ("fdatasync after 4 KiB, median", f"{_sync_ms(Path(folder)):.2f} ms"),
            ("SHA-256, one core", f"{_hash_mb_s():,.0f} MB/s"),
            ("a loop of 10,000,000 additions", f"{_loop_s():.2f} s"),
            (
                "SQLite insert (16 random bytes, 100 B) into 200,000, groups of 100",
                f"{_insert_us(Path(folder)):.1f} µs",
            ),
            ("processors, load", f"{os.cpu_count()}, {os.getloadavg()[0]:.1f}"),
        ]


def _sync_ms(folder: Path) -> float:
    took = []
    with open(folder / "sync", "wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(1000 * (time.perf_counter() - start))
    return statistics.median(took)


def _hash_mb_s() -> float:
    data = bytes(64 << 20)
    start = time.perf_counter()
    hashlib.sha256(data).digest()
    return len(data) / 1e6 / (time.perf_counter() - start)


def _loop_s() -> float:
    start, total = time.perf_counter(), 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - start


def _insert_us(folder: Path) -> float:
    database = sqlite3.connect(folder / "insert.db", isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute("CREATE TABLE rows (id BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
    start = time.perf_counter()
    for _ in range(2000):
        database.execute("BEGIN")
        database.executemany("INSERT INTO rows VALUES (?, ?)", [(os.urandom(16), bytes(100)) for _ in range(100)])
        database.execute("COMMIT")
    took = time.perf_counter() - start
    database.close()
    return 1e6 * took / 200_000
