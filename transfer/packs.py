"""Small pieces, one behind another in larger files: a thousand of them cost one write, one fsync and no file each.

    store/packs/<number>.pack   records: a head (`HEAD`), then the bytes of the piece; only ever appended to
    store/packs.db              where each piece lies (SQLite); made anew from the packs when it is gone or behind

A record is found again without the index: its head has a checksum, and its bytes have the piece's hash. Bytes are
forced down before the index names them. The index itself isn't: at the start everything behind the part of a pack
that it knows is read again, up to the first record that isn't whole. So a power cut takes away nothing that was synced.

Removing a piece marks its record dead (one byte) and strikes it from the index, some time later and many together: a
crash in between leaves an orphan. A pack that is half dead is rewritten: its living records are appended to the current
pack, forced down, named by the index durably, and only then the file goes.

Must never: change a byte of a record but that mark; append behind what isn't whole; remove a pack that the index may
still name.
"""

# Paths are plain strings here: building Path objects costs more than the system calls.
# ruff: noqa: PTH103, PTH108

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final

from base.errors import MachineError
from base.ids import ChunkId, hash_bytes
from transfer import disk
from transfer.packfile import DEAD, HEAD, MARK_AT, Spot, head_of, numbers, path_of, records

_THREE: Final = struct.Struct("<3I")

PACK_BYTES: Final = 16 << 20
"""A pack this large is followed by the next one."""
WORTH_BYTES: Final = 1 << 20
"""Less dead bytes than this aren't worth rewriting what lives beside them."""
ROWS: Final = 200
"""Places written with one statement."""
KNOWN_LIMIT: Final = 16_384
"""Places kept in memory (about 4 MB)."""

FILTER_BYTES: Final = 2 << 20
"""A million pieces: one question in a hundred about others asks the index for nothing."""
_FILTER_MASK: Final = 8 * FILTER_BYTES - 1

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS piece (id BLOB PRIMARY KEY, pack INTEGER NOT NULL, at INTEGER NOT NULL,
    length INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pack (number INTEGER PRIMARY KEY, indexed INTEGER NOT NULL, dead INTEGER NOT NULL);
"""


class Packs:
    """The packs of one store. Methods may be called from any thread; those that say *blocking* wait for the disk."""

    def __init__(self, root: str) -> None:
        """Open the packs below a store's folder and read what the index doesn't know; blocking."""
        self._root = root
        self._lock = threading.Lock()
        """Guards memory and the reading connection; never held while waiting for the disk's platter."""
        self._writing = threading.Lock()
        """Held by whoever changes files or the index."""
        self._known: OrderedDict[ChunkId, Spot] = OrderedDict()
        self._maybe = bytearray(FILTER_BYTES)
        """A Bloom filter of the ids in the index: most questions are about pieces that were never here."""
        self._dead: dict[Spot, ChunkId] = {}
        self._moving = False
        self._forgotten: set[ChunkId] = set()
        """What was removed while a pack is rewritten."""
        self._descriptor = -1
        self._number = self._end = 0
        self.bytes_used = 0
        """Bytes of all packs, dead records included."""
        os.makedirs(f"{root}/packs", mode=0o700, exist_ok=True)
        try:
            self._writer = self._connect()
            self._writer.executescript(SCHEMA)
            self._reader = self._connect()
            self._catch_up()
        except sqlite3.Error as error:
            raise MachineError(
                f"The index {root}/packs.db can't be read ({error}).", "Remove it: it is made anew from the packs."
            ) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(f"{self._root}/packs.db", isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute("PRAGMA cache_size=-2048")
        return connection

    def path(self, number: int) -> str:
        """Return the path of a pack."""
        return path_of(self._root, number)

    # -- the start

    def _catch_up(self) -> None:
        indexed = dict(self._writer.execute("SELECT number, indexed FROM pack").fetchall())
        for number in numbers(self._root):
            if os.stat(self.path(number)).st_size == 0:  # noqa: PTH116
                os.unlink(self.path(number))
        there = numbers(self._root)
        for number in indexed.keys() - set(there):  # can't happen by itself: somebody removed a file
            self._writer.execute("DELETE FROM piece WHERE pack = ?", (number,))
            self._writer.execute("DELETE FROM pack WHERE number = ?", (number,))
        for number in there:
            size = os.stat(self.path(number)).st_size  # noqa: PTH116
            self.bytes_used += size
            if size != indexed.get(number, 0):
                self._read_anew(number, indexed.get(number, 0), size)
        self._number, self._end = max((*there, *indexed), default=0), PACK_BYTES
        for (piece,) in self._writer.execute("SELECT id FROM piece"):
            self._mark(piece)
        size = indexed.get(self._number, 0)
        if self._number in there and os.stat(self.path(self._number)).st_size == size:  # noqa: PTH116
            self._descriptor = os.open(self.path(self._number), os.O_RDWR | os.O_CLOEXEC)
            self._end = size

    def _read_anew(self, number: int, start: int, size: int) -> None:
        found = [each for each in records(self.path(number), number, start) if hash_bytes(each.data) == each.piece]
        disk.fsync_path(self.path(number))
        living = [(each.piece, each.spot) for each in found if each.living]
        dead = max(0, size - start) - sum(spot.record_bytes for _, spot in living)
        self._write_index(number, size, living, dead)

    def _write_index(
        self, number: int, indexed: int, rows: Iterable[tuple[ChunkId, Spot]], dead: int = 0, emptied: int | None = None
    ) -> None:
        """Name places, in one transaction; a pack that was ``emptied`` is struck, durably."""
        with self._transaction(durable=emptied is not None) as writer:
            found = list(rows)
            for start in range(0, len(found), ROWS):  # each step of a statement lets other threads have the interpreter
                some = found[start : start + ROWS]
                places = ", ".join(["(?, ?, ?, ?)"] * len(some))
                values = [value for piece, spot in some for value in (piece, *spot)]
                writer.execute(f"INSERT OR REPLACE INTO piece VALUES {places}", values)  # noqa: S608 - fixed text
            writer.execute("INSERT OR IGNORE INTO pack VALUES (?, 0, 0)", (number,))
            writer.execute("UPDATE pack SET indexed = ?, dead = dead + ? WHERE number = ?", (indexed, dead, number))
            if emptied is not None:
                writer.execute("DELETE FROM pack WHERE number = ?", (emptied,))

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        writer = self._writer
        writer.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        writer.execute("BEGIN IMMEDIATE")
        try:
            yield writer
            writer.execute("COMMIT")
        except BaseException:
            writer.execute("ROLLBACK")
            raise

    def _mark(self, piece: bytes) -> None:
        for each in _THREE.unpack_from(piece):
            self._maybe[(each & _FILTER_MASK) >> 3] |= 1 << (each & 7)

    # -- reading

    def find(self, piece: ChunkId) -> Spot | None:
        """Return where a piece lies, or None."""
        maybe = self._maybe
        for each in _THREE.unpack_from(piece):
            if not maybe[(each & _FILTER_MASK) >> 3] >> (each & 7) & 1:
                return None
        with self._lock:
            if piece in self._forgotten:
                return None
            spot = self._known.get(piece)
            if spot is None:
                row = self._reader.execute("SELECT pack, at, length FROM piece WHERE id = ?", (piece,)).fetchone()
                if row is None:
                    return None
                spot = Spot(*row)
                if spot in self._dead:  # not remembered: it is struck soon
                    return None
                self._remember(piece, spot)
            return spot

    def _remember(self, piece: ChunkId, spot: Spot) -> None:
        self._known[piece] = spot
        if len(self._known) > KNOWN_LIMIT:
            self._known.popitem(last=False)

    def pieces(self) -> Iterator[ChunkId]:
        """Iterate over the packed pieces; what comes or goes meanwhile may be among them or not."""
        after = b""
        while True:
            with self._lock:
                rows = self._reader.execute(
                    "SELECT id, pack, at, length FROM piece WHERE id > ? ORDER BY id LIMIT 1000", (after,)
                ).fetchall()
                living = [ChunkId(row[0]) for row in rows if Spot(*row[1:]) not in self._dead]
            yield from living
            if not rows:
                return
            after = rows[-1][0]

    def in_order(self) -> Generator[ChunkId]:
        """Iterate over the packed pieces as they lie on the disk, past the page cache; blocking.

        What comes meanwhile isn't among them, and a pack that is rewritten meanwhile may be read from memory.
        """
        own = self._connect()
        try:  # a table of its own: the order needs no memory, and no transaction is held open
            own.execute("PRAGMA temp_store = FILE")
            own.execute("CREATE TEMP TABLE line AS SELECT id, pack FROM piece ORDER BY pack, at")
            row = pack = 0
            page = "SELECT id, pack FROM line WHERE rowid > ? ORDER BY rowid LIMIT 500"
            while found := own.execute(page, (row,)).fetchall():
                for piece, number in found:
                    if number != pack:
                        pack = number
                        self._drop_pages(number)
                    yield ChunkId(piece)
                row += len(found)
        finally:
            own.close()

    def _drop_pages(self, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self.path(number), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    # -- writing

    def append(self, pieces: Sequence[tuple[ChunkId, bytes]]) -> int:
        """Write pieces, durable when it returns; blocking. Returns the bytes written. Raises `OSError`."""
        with self._writing:
            return self._append(pieces, None)

    def _append(self, pieces: Sequence[tuple[ChunkId, bytes]], emptied: int | None) -> int:
        if self._end >= PACK_BYTES:
            self._begin()
        parts: list[bytes] = []
        places: list[tuple[ChunkId, Spot]] = []
        end = self._end
        for piece, data in pieces:
            parts += (head_of(piece, len(data)), data)
            places.append((piece, Spot(self._number, end + HEAD.size, len(data))))
            end += HEAD.size + len(data)
        try:
            disk.pwrite_all(self._descriptor, b"".join(parts), self._end)
            os.fdatasync(self._descriptor)
            self._index(places, end, emptied)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._end)
            self._end = PACK_BYTES  # whatever is there now is never appended to
            raise
        written, self._end = end - self._end, end
        self.bytes_used += written
        return written

    def _index(self, places: list[tuple[ChunkId, Spot]], end: int, emptied: int | None) -> None:
        try:
            self._write_index(self._number, end, places, emptied=emptied)
        except sqlite3.Error as error:
            raise OSError(str(error)) from error
        with self._lock:
            for piece, spot in places:
                self._mark(piece)
                self._remember(piece, spot)

    def _begin(self) -> None:
        """Start the next pack."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._number += 1
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._descriptor = os.open(self.path(self._number), flags, 0o600)
        disk.fsync_path(f"{self._root}/packs")
        self._end = 0

    def mend(self, piece: ChunkId) -> bool:
        """Write a piece anew whose bytes are whole and whose record's head isn't; tell whether that was so; blocking.

        Without its head a record is lost once the index is, or the pack is rewritten. Raises `OSError`.
        """
        spot = self.find(piece)
        if spot is None:
            return False
        try:
            with open(self.path(spot.pack), "rb") as file:  # noqa: PTH123 - a plain string
                file.seek(spot.at - HEAD.size)
                record = file.read(spot.record_bytes)
        except FileNotFoundError:  # it was just rewritten
            return False
        data = record[HEAD.size :]
        if record[:MARK_AT] == head_of(piece, spot.length)[:MARK_AT] or hash_bytes(data) != piece:
            return False
        self.append([(piece, data)])
        with self._lock:
            self._dead[spot] = piece
        return True

    # -- removing

    def forget(self, piece: ChunkId) -> int:
        """Remove a piece, on the disk with the next `tidy`; return the bytes of its record, 0 when it isn't here."""
        spot = self.find(piece)
        if spot is None:
            return 0
        with self._lock:
            self._dead[spot] = piece
            self._known.pop(piece, None)
            if self._moving:
                self._forgotten.add(piece)
        return spot.record_bytes

    @property
    def untidy(self) -> bool:
        """Whether there is something for `tidy` to do."""
        return bool(self._dead)

    def tidy(self) -> list[int]:
        """Mark dead what was removed and rewrite packs that are half dead; blocking.

        Returns the numbers of packs that are gone. Raises `OSError`.
        """
        with self._writing:
            try:
                self._bury()
                rows = self._writer.execute(
                    "SELECT number FROM pack WHERE dead >= indexed OR (dead * 2 >= indexed AND dead >= ?)",
                    (WORTH_BYTES,),
                ).fetchall()
                for (number,) in rows:
                    self._rewrite(number)
                return [number for (number,) in rows]
            except sqlite3.Error as error:
                raise OSError(str(error)) from error

    def _bury(self) -> None:
        with self._lock:
            dead = dict(self._dead)
        by_pack: dict[int, list[Spot]] = {}
        for spot in dead:
            by_pack.setdefault(spot.pack, []).append(spot)
        for number, spots in by_pack.items():
            descriptor = os.open(self.path(number), os.O_WRONLY | os.O_CLOEXEC)
            try:
                for spot in spots:
                    os.pwrite(descriptor, DEAD, spot.at - HEAD.size + MARK_AT)
            finally:
                os.close(descriptor)
        with self._transaction() as writer:
            writer.executemany(
                "DELETE FROM piece WHERE id = ? AND pack = ? AND at = ?",
                [(piece, spot.pack, spot.at) for spot, piece in dead.items()],
            )
            writer.executemany(
                "UPDATE pack SET dead = dead + ? WHERE number = ?",
                [(sum(spot.record_bytes for spot in spots), number) for number, spots in by_pack.items()],
            )
        with self._lock:
            for spot in dead:
                del self._dead[spot]

    def _rewrite(self, number: int) -> None:
        """Move what lives in a pack into the current one and remove it."""
        path = self.path(number)
        size = os.stat(path).st_size  # noqa: PTH116
        if number == self._number:
            self._end = PACK_BYTES
        self._moving = True
        try:
            living = [each for each in records(path, number) if self.find(each.piece) == each.spot]
            if living:
                self._append([(each.piece, each.data) for each in living], number)
            else:
                with self._transaction(durable=True) as writer:
                    writer.execute("DELETE FROM pack WHERE number = ?", (number,))
        finally:
            self._moved()
        with self._lock:
            for spot in [spot for spot in self._dead if spot.pack == number]:
                del self._dead[spot]
        os.unlink(path)
        disk.fsync_path(f"{self._root}/packs")
        self.bytes_used -= size

    def _moved(self) -> None:
        """Have the copies of what was removed meanwhile removed as well."""
        with self._lock:
            self._moving = False
            for piece in self._forgotten:
                self._known.pop(piece, None)
                row = self._reader.execute("SELECT pack, at, length FROM piece WHERE id = ?", (piece,)).fetchone()
                if row is not None:
                    self._dead[Spot(*row)] = piece
            self._forgotten.clear()

    def close(self) -> None:
        """Write down what was removed and let go of files; blocking."""
        with contextlib.suppress(OSError):
            self.tidy()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._reader.close()
        self._writer.close()
