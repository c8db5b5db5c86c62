"""Finding and reading pieces on the disk; `store` adds the writing.

Nothing is served from here before it matched its hash once in this process. What doesn't match is set aside.
Methods that don't say otherwise may be called from any thread.
"""

# Paths are plain strings here: building Path objects costs more than the system calls.
# ruff: noqa: PTH110, PTH104

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from base.errors import DamagedError
from base.ids import ChunkId, hash_bytes
from transfer import disk
from transfer.offload import INLINE_BYTES, Offload
from transfer.packfile import Spot
from transfer.packs import Packs
from transfer.quickdisk import QuickDisk

MAX_DESCRIPTORS: Final = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
"""Kept open: what is open needs no look at cold folders again."""
MAX_VERIFIED: Final = 65_536
WARM_BYTES: Final = 1 << 20
"""Most that is read inline: through one buffer that stays mapped (a fresh one costs 1 ms of page faults a MiB)."""


class Area(IntEnum):
    """Where a piece stands; a greater one never gives way to a smaller."""

    CACHED = 1
    KEPT = 2


FOLDERS: Final = {Area.KEPT: "chunks", Area.CACHED: "cache"}


@dataclass(slots=True)
class Fresh:
    """A piece that isn't durable yet."""

    piece: ChunkId
    path: str
    size: int
    area: Area
    moved: bool = False
    data: bytes | None = None
    """Its bytes while they are in memory only: they go into a pack with the next sync."""


class Pieces:
    """The pieces below one directory."""

    def __init__(self, path: Path, offload: Offload) -> None:
        self.path = path
        self._root = str(path)
        self._offload = offload
        self._lock = threading.RLock()
        self._fresh: dict[ChunkId, Fresh] = {}
        self._syncing_now = False
        self.packs = Packs(self._root)
        self._descriptors: OrderedDict[ChunkId | int, int] = OrderedDict()
        """Of files by their piece, of packs by their number; loop thread only."""
        self._verified: OrderedDict[ChunkId, None] = OrderedDict()
        self._stale: set[ChunkId | int] = set()
        self._scratch = memoryview(bytearray(WARM_BYTES))
        self._disk = QuickDisk()

    def _final(self, piece: ChunkId, area: Area) -> str:
        name = piece.hex()
        return f"{self._root}/{FOLDERS[area]}/{name[:2]}/{name}"

    def where(self, piece: ChunkId) -> Area | None:
        """Return the area that a piece is in, or None when it isn't here."""
        fresh = self._fresh.get(piece)
        if fresh is not None:
            return fresh.area
        if self.packs.find(piece) is not None or os.path.exists(self._final(piece, Area.KEPT)):
            return Area.KEPT
        return Area.CACHED if os.path.exists(self._final(piece, Area.CACHED)) else None

    def has(self, piece: ChunkId) -> bool:
        """Tell whether a piece is here."""
        return self.where(piece) is not None

    def size(self, piece: ChunkId) -> int | None:
        """Return the bytes of a piece, or None when it isn't here."""
        fresh = self._fresh.get(piece)
        if fresh is not None:
            return fresh.size
        spot = self.packs.find(piece)
        if spot is not None:
            return spot.length
        try:
            descriptor = self._open_file(piece)
        except FileNotFoundError:
            return None
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _in_memory(self, piece: ChunkId) -> bytes | None:
        fresh = self._fresh.get(piece)
        return None if fresh is None else fresh.data

    def read_now(self, piece: ChunkId, offset: int, length: int) -> bytes | None:
        """Return a range from the page cache without ever waiting for the disk; loop thread only.

        None: not here, not yet verified, or not in memory; then `read` knows. Less than ``length`` at the end.
        """
        if self._stale:
            self._drop_stale()
        data = self._in_memory(piece)
        if data is not None:
            return data[offset : offset + length]
        if piece not in self._verified:
            return self._read_small_now(piece, offset, length)
        if piece not in self._descriptors:
            spot = self.packs.find(piece)
            if spot is not None:
                return self._read_packed(spot, offset, length)
        try:
            descriptor = self._descriptor(piece, lambda: self._open_file(piece))
        except FileNotFoundError:
            return None
        return self._read_warm(descriptor, offset, length)

    def _descriptor(self, key: ChunkId | int, make: Callable[[], int]) -> int:
        """Return the descriptor kept for a file or pack. Raises `FileNotFoundError`."""
        descriptor = self._descriptors.get(key)
        if descriptor is None:
            descriptor = self._descriptors[key] = make()
            if len(self._descriptors) > MAX_DESCRIPTORS:
                os.close(self._descriptors.popitem(last=False)[1])
        else:
            self._descriptors.move_to_end(key)
        return descriptor

    def _drop_stale(self) -> None:
        """Forget descriptors of files that were removed or set aside: the piece may come back as another file."""
        with self._lock:
            stale, self._stale = self._stale, set()
        for key in stale:
            descriptor = self._descriptors.pop(key, None)
            if descriptor is not None:
                os.close(descriptor)

    def _read_packed(self, spot: Spot, offset: int, length: int) -> bytes | None:
        length = min(length, spot.length - offset)
        if length <= 0:
            return b""
        path = self.packs.path(spot.pack)
        try:
            descriptor = self._descriptor(spot.pack, lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError:  # it was just rewritten
            return None
        data = self._read_warm(descriptor, spot.at + offset, length)
        return data if data is None or len(data) == length else None

    def _read_warm(self, descriptor: int, offset: int, length: int) -> bytes | None:
        if length > WARM_BYTES:
            return None
        buffer = self._scratch
        try:
            got = os.preadv(descriptor, [buffer[:length]], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return self._disk.read(descriptor, offset, length)
        except (OSError, AttributeError):  # a file system or system without RWF_NOWAIT
            return disk.pread_all(descriptor, length, offset)
        if got < length and offset + got < os.fstat(descriptor).st_size:
            return self._disk.read(descriptor, offset, length)
        return bytes(buffer[:got])

    def _read_small_now(self, piece: ChunkId, offset: int, length: int) -> bytes | None:
        """Verify and read a small piece at its first use here; None when it is large, missing, cold or damaged."""
        spot = self.packs.find(piece)
        if spot is not None:
            data = self._read_packed(spot, 0, spot.length)
        else:
            try:
                descriptor = self._descriptor(piece, lambda: self._open_file(piece))
            except FileNotFoundError:
                return None
            size = os.fstat(descriptor).st_size
            if size > INLINE_BYTES:
                return None
            data = self._read_warm(descriptor, 0, size)
        if data is None or hash_bytes(data) != piece:
            return None
        self._mark_verified(piece)
        return data[offset : offset + length]

    async def read(self, piece: ChunkId, offset: int, length: int) -> bytes | None:
        """Return a range, waiting for the disk if need be; None when the piece isn't here.

        Raises `DamagedError` when the piece doesn't match its hash; it is set aside then.
        """
        found = self.read_now(piece, offset, length)
        if found is not None:
            return found
        return await self._offload.run(self.read_blocking, piece, offset, length)

    def read_blocking(self, piece: ChunkId, offset: int, length: int) -> bytes | None:
        """Do what `read` does, on a thread of the caller."""
        try:
            descriptor, start, size = self._open(piece)
        except FileNotFoundError:
            return self._in_memory(piece)
        try:
            if piece in self._verified:
                return disk.pread_all(descriptor, min(length, max(0, size - offset)), start + offset)
            data = disk.pread_all(descriptor, size, start)
        except OSError as error:
            self._set_aside(piece)
            raise _damaged(piece) from error
        finally:
            os.close(descriptor)
        if hash_bytes(data) != piece:
            self._set_aside(piece)
            raise _damaged(piece)
        self._mark_verified(piece)
        return data if len(data) <= length and not offset else data[offset : offset + length]

    def read_unverified(self, piece: ChunkId, length: int) -> bytes:
        """Return the first bytes of a piece as they lie there, nothing when it isn't here; blocking."""
        data = self._in_memory(piece)
        if data is not None:
            return data[:length]
        try:
            descriptor, start, size = self._open(piece)
        except FileNotFoundError:
            return b""
        try:
            return disk.pread_all(descriptor, min(length, size), start)
        finally:
            os.close(descriptor)

    def on_disk(self) -> Generator[ChunkId]:
        """Iterate over the durable pieces, those of packs in the order in which they lie there; blocking."""
        for area in FOLDERS:
            yield from self._below(area)
        yield from self.packs.in_order()

    def set_aside(self) -> dict[ChunkId, list[str]]:
        """Return the damaged pieces that were set aside, each with the paths of its remains; blocking."""
        found: dict[ChunkId, list[str]] = {}
        with os.scandir(f"{self._root}/damaged") as entries:
            for entry in entries:
                with contextlib.suppress(ValueError):
                    found.setdefault(ChunkId(bytes.fromhex(entry.name.partition(".")[0])), []).append(entry.path)
        return found

    def has_damaged(self) -> bool:
        """Tell whether damaged pieces were set aside; blocking."""
        with os.scandir(f"{self._root}/damaged") as entries:
            return any(True for _ in entries)

    def verify(self, piece: ChunkId) -> bool:
        """Read a piece from the disk again and compare its hash; a damaged one is set aside. False when missing."""
        try:
            return self.reread(piece) is not None
        except DamagedError:
            return False

    def reread(self, piece: ChunkId) -> int | None:
        """Compare a piece on the disk, not in the page cache, with its hash; return its bytes, None when it isn't here.

        Raises `DamagedError`; the piece is set aside then. Of packs `Packs.in_order` drops the cached pages.
        """
        self._verified.pop(piece, None)
        if self.packs.find(piece) is None:
            with contextlib.suppress(FileNotFoundError):
                descriptor = self._open_file(piece)
                try:
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                finally:
                    os.close(descriptor)
        data = self.read_blocking(piece, 0, 1 << 62)
        return None if data is None else len(data)

    def _open(self, piece: ChunkId) -> tuple[int, int, int]:
        """Return (descriptor of its own, where the piece begins, its bytes). Raises `FileNotFoundError`."""
        for _ in range(2):  # a pack may be rewritten while we look
            spot = self.packs.find(piece)
            if spot is not None:
                with contextlib.suppress(FileNotFoundError):
                    return os.open(self.packs.path(spot.pack), os.O_RDONLY | os.O_CLOEXEC), spot.at, spot.length
        descriptor = self._open_file(piece)
        return descriptor, 0, os.fstat(descriptor).st_size

    def _open_file(self, piece: ChunkId) -> int:
        fresh = self._fresh.get(piece)
        paths = [self._final(piece, Area.KEPT), self._final(piece, Area.CACHED)]
        if fresh is not None and fresh.data is None:
            paths.insert(0, fresh.path)
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if (fresh is not None and fresh.data is None) or self._has_file(piece):  # it moved while we looked
            return os.open(self._final(piece, Area.KEPT), os.O_RDONLY | os.O_CLOEXEC)
        raise FileNotFoundError(piece.hex())

    def _has_file(self, piece: ChunkId) -> bool:
        return any(os.path.exists(self._final(piece, area)) for area in Area)

    def _mark_verified(self, piece: ChunkId) -> None:
        with self._lock:
            self._verified[piece] = None
            if len(self._verified) > MAX_VERIFIED:
                self._verified.popitem(last=False)

    def _set_aside(self, piece: ChunkId) -> None:
        aside = f"{self._root}/damaged/{piece.hex()}.{time.time_ns()}"
        with self._lock:
            self._verified.pop(piece, None)
            self._stale.add(piece)
            fresh = self._fresh.get(piece)
            if fresh is not None and not fresh.moved:
                if self._syncing_now:
                    return
                del self._fresh[piece]
                os.rename(fresh.path, aside)
                return
            for area in Area:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self._final(piece, area), aside)
            spot = self.packs.find(piece)
            if spot is not None:
                with contextlib.suppress(OSError):
                    disk.write_file(aside, self._raw(spot))
                self.packs.forget(piece)

    def _raw(self, spot: Spot) -> bytes:
        with open(self.packs.path(spot.pack), "rb") as file:  # noqa: PTH123 - a plain string
            file.seek(spot.at)
            return file.read(spot.length)

    def pieces(self) -> Iterator[tuple[ChunkId, Area]]:
        """Iterate over what is stored; what comes or goes meanwhile may be in it or not."""
        for fresh in list(self._fresh.values()):
            yield fresh.piece, fresh.area
        for area in FOLDERS:
            for piece in self._below(area):
                yield piece, area
        for piece in self.packs.pieces():
            yield piece, Area.KEPT

    def cached_pieces(self) -> list[ChunkId]:
        """Return the pieces that may go at any time; blocking."""
        return list(self._below(Area.CACHED))

    def _below(self, area: Area) -> Iterator[ChunkId]:
        for entry in files_below(f"{self._root}/{FOLDERS[area]}"):
            with contextlib.suppress(ValueError):
                yield ChunkId(bytes.fromhex(entry.name))

    def close(self) -> None:
        """Let go of descriptors. What isn't synced stays below ``new`` and is taken up at the next start."""
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])
        self.packs.close()


def _damaged(piece: ChunkId) -> DamagedError:
    return DamagedError(
        f"The stored piece {piece.hex()[:16]} is damaged and was set aside.",
        "It is fetched again from another pod that holds it; check this machine's disk.",
    )


def files_below(root: str) -> Iterator[os.DirEntry[str]]:
    """Iterate over the files in the folders of a folder; nothing when it is missing."""
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as directories:
        for directory in directories:
            with os.scandir(directory.path) as entries:
                yield from entries
