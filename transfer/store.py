"""Pieces (chunks and manifests) on the disk, named by their hash.

    store/store.id          marker: without it the store has vanished, it isn't empty
    store/new/<hex>.<n>     written, not yet durable; ``c`` at the end: bound for the cache
    store/packs/            kept pieces that are small, many in a file (`packs`)
    store/chunks/ab/<hex>   durable, held for good
    store/cache/ab/<hex>    durable, may go at any time
    store/damaged/          what didn't match its hash, set aside

The order *must* be: write below ``new``, fsync, rename into place, fsync the directory; so a name below ``chunks`` or
``cache`` is complete whatever happens. Small ones wait in memory until they are forced down together. A piece lives in
one area; eviction only ever touches ``cache``, so it can't harm what is kept. What only drafts
wrote is listed with its owners (`ledger`), and goes when they all let it go.

Methods that don't say otherwise may be called from any thread.
"""

# Paths are plain strings here: building Path objects costs more than the system calls.
# ruff: noqa: PTH103, PTH104, PTH108, PTH110, PTH112, PTH116, PTH120

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel

from base.errors import MachineError
from base.ids import ChunkId, hash_bytes
from transfer import disk
from transfer.ledger import Ledger, Owner
from transfer.marker import Marker
from transfer.offload import INLINE_BYTES, Offload
from transfer.pieces import FOLDERS, Area, Fresh, Pieces, files_below
from transfer.room import RoomCheck, RoomNews

PACKED_BYTES: Final = 32 * 1024
"""Kept pieces up to this size go into packs: a file each would cost more than their bytes."""
MOST_WAITING_BYTES: Final = 8 << 20
"""Small pieces that wait in memory for the next sync; beyond, each gets a file."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much may be stored: at most ``limit_bytes`` in all, and no growth once the file system is this full."""

    limit_bytes: int | None = None
    full_share: float | None = None


class ChunkStore(Pieces):
    """The pieces of one pod. Made by `open_store`."""

    def __init__(
        self, path: Path, store_id: str, offload: Offload, room: Room, used: int, packed_bytes: int = PACKED_BYTES
    ) -> None:
        super().__init__(path, offload)
        self.store_id = store_id
        self.marker = Marker(path, store_id)
        self.room = RoomCheck(str(path), room.limit_bytes, room.full_share)
        self.room_news = RoomNews()
        self._ledger = Ledger()
        self._dirty_directories: set[str] = set()
        self._ticket = 0
        self._durable = 0
        self._syncing: anyio.Event | None = None
        self._broken: MachineError | None = None
        self._numbers = itertools.count()
        self._used = used
        self._packed_bytes = packed_bytes
        self._waiting_bytes = 0

    # -- writing

    def put(self, data: bytes | bytearray | memoryview, area: Area = Area.KEPT, owner: Owner | None = None) -> ChunkId:
        """Store a piece and return its id; nothing is written when it is here. Durable after the next `sync`.

        ``owner``: the draft that needs it; without one it stays. Raises `NoSpaceError` and `MachineError`.
        """
        piece = ChunkId(hash_bytes(data))
        self.put_hashed(piece, data, area, owner)
        return piece

    def put_later(self, data: bytes | bytearray, owner: Owner | None = None) -> Future[ChunkId]:
        """Start a `put` in a thread; the caller must leave ``data`` unchanged until it is done."""
        return self._offload.submit(self.put, data, Area.KEPT, owner)

    def put_hashed(
        self, piece: ChunkId, data: bytes | bytearray | memoryview, area: Area, owner: Owner | None = None
    ) -> None:
        """Store a piece whose hash the caller has just computed."""
        assert data, "the empty content needs no piece"
        if self._broken is not None:
            raise self._broken
        here = self.claim(piece, area, owner)
        if here and (piece in self._verified or self.size(piece) == len(data)):
            return
        self.room.check(self._used, disk.blocks(len(data)), self._waiting_bytes)
        if area is Area.KEPT and len(data) <= self._packed_bytes and self._waiting_bytes < MOST_WAITING_BYTES:
            self._put_packed(piece, bytes(data), owner, new=not here)
            return
        suffix = "c" if area is Area.CACHED else ""
        path = f"{self._root}/new/{piece.hex()}.{next(self._numbers)}{suffix}"
        try:
            disk.write_file(path, data)
        except OSError as error:
            raise disk.plain_error(error, "a piece can't be written") from error
        with self._lock:
            if piece in self._fresh or (not here and self.has(piece)):  # somebody else was quicker
                os.unlink(path)
                self.claim(piece, area, owner)
                return
            self._fresh[piece] = Fresh(piece, path, len(data), area)
            self._ticket += 1
            self._used += disk.blocks(len(data))
            self._mark_verified(piece)
            self._ledger.needed(piece, owner, new=not here)

    def _put_packed(self, piece: ChunkId, data: bytes, owner: Owner | None, *, new: bool) -> None:
        """Keep a small piece in memory until the next sync puts it into a pack with others."""
        with self._lock:
            if piece in self._fresh or (new and self.has(piece)):  # somebody else was quicker
                self.claim(piece, Area.KEPT, owner)
                return
            self._fresh[piece] = Fresh(piece, "", len(data), Area.KEPT, data=data)
            self._waiting_bytes += len(data)
            self._ticket += 1
            self._used += len(data)
            self._mark_verified(piece)
            self._ledger.needed(piece, owner, new=new)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of small pieces that are in memory only, until the next sync."""
        return self._waiting_bytes

    def packed_size(self, piece: ChunkId) -> int | None:
        """Return the bytes of a small piece that is kept, in a pack or on its way into one; None for any other."""
        fresh = self._fresh.get(piece)
        if fresh is not None:
            return None if fresh.data is None else fresh.size
        spot = self.packs.find(piece)
        return None if spot is None else spot.length

    def promote(self, piece: ChunkId) -> bool:
        """Hold a cached piece for good; tell whether it is here at all. Durable after the next `sync`."""
        return self.claim(piece, Area.KEPT)

    def remove_cached(self, piece: ChunkId) -> int:
        """Remove a piece from the cache and return its bytes; one that is kept, or not here, stays (0)."""
        with self._lock:
            fresh = self._fresh.get(piece)
            if fresh is not None and (fresh.area is Area.KEPT or not fresh.moved):
                return 0
            return self._unlink(self._final(piece, Area.CACHED), piece)

    def _unlink(self, path: str, piece: ChunkId) -> int:
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        self._verified.pop(piece, None)
        self._stale.add(piece)
        self._used -= disk.blocks(size)
        return size

    def claim(self, piece: ChunkId, area: Area, owner: Owner | None = None) -> bool:
        """Tell whether the piece is here; if so, see that it is held in this area at least, and for this owner."""
        with self._lock:
            here = self._see_held(piece, area)
            if here:
                self._ledger.needed(piece, owner, new=False)
            return here

    def _see_held(self, piece: ChunkId, area: Area) -> bool:
        fresh = self._fresh.get(piece)
        if fresh is not None and not fresh.moved:
            fresh.area = max(fresh.area, area)
            return True
        if self.packs.find(piece) is not None:
            return True
        kept = self._final(piece, Area.KEPT)
        if os.path.exists(kept):
            return True
        cached = self._final(piece, Area.CACHED)
        if not os.path.exists(cached):
            return False
        if area is Area.CACHED:
            return True
        try:
            self._rename(cached, kept)
        except FileNotFoundError:
            return os.path.exists(kept)
        self._dirty_directories.add(os.path.dirname(kept))
        self._ticket += 1
        return True

    def _rename(self, source: str, target: str) -> None:
        try:
            os.rename(source, target)
        except FileNotFoundError:
            directory = os.path.dirname(target)
            if os.path.isdir(directory) or not os.path.exists(source):
                raise
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._dirty_directories.add(os.path.dirname(directory))
            os.rename(source, target)

    # -- what only drafts need

    def share(self, pieces: Iterable[ChunkId], owner: Owner) -> None:
        """Add an owner to those of the pieces that only drafts need."""
        with self._lock:
            self._ledger.share(pieces, owner)

    def settle(self, pieces: Iterable[ChunkId]) -> None:
        """Note that more than drafts need these pieces from now on: they stay."""
        with self._lock:
            self._ledger.settle(pieces)

    def list_again(self, pieces: Iterable[ChunkId], owner: Owner) -> set[ChunkId]:
        """Add the pieces that are here to those that only drafts need, for an owner; return them."""
        with self._lock:
            here = {piece for piece in pieces if self.has(piece)}
            for piece in here:
                self._ledger.needed(piece, owner, new=True)
            return here

    def let_go(self, owner: Owner, pieces: Iterable[ChunkId]) -> bool:
        """Note that an owner needs pieces no more; tell whether there is something to `collect`."""
        with self._lock:
            self._ledger.let_go(owner, pieces)
            return self._ledger.has_free

    def close_owner(self, owner: Owner) -> bool:
        """Note that an owner is gone, with what is still being written for it; tell as `let_go` does."""
        with self._lock:
            owner.closed = True
            self._ledger.let_go(owner, owner.pieces)
            return self._ledger.has_free

    def collect(self, in_use: Collection[ChunkId] = ()) -> bool:
        """Remove what drafts wrote and nobody needs, but for what is in use; blocking.

        False: something is just being synced, and stays until the next call.
        """
        with self._lock:
            free = self._ledger.free(in_use)
        all_gone = True
        for piece in free:
            with self._lock:
                if self._ledger.is_free(piece) and self.remove_unneeded(piece) is None:
                    all_gone = False
        if self.packs.untidy:
            self.tidy()
        return all_gone

    def remove_unneeded(self, piece: ChunkId) -> int | None:
        """Remove a piece that nobody refers to, and return its bytes; None: it is just being synced and stays."""
        with self._lock:
            fresh = self._fresh.get(piece)
            if fresh is not None and self._syncing_now:
                return None
            size = sum(self._unlink(self._final(piece, area), piece) for area in Area)
            size += self.packs.forget(piece)
            if fresh is not None:
                del self._fresh[piece]
                if fresh.data is None:
                    size += self._unlink(fresh.path, piece)
                else:
                    self._waiting_bytes -= fresh.size
                    self._used -= fresh.size
                    size += fresh.size
            self._verified.pop(piece, None)
            self._ledger.settle([piece])
            return size

    @property
    def listed(self) -> int:
        """Pieces that only drafts need, or that nobody does."""
        return len(self._ledger)

    # -- durability

    @property
    def unsynced(self) -> int:
        """Pieces written and not yet durable."""
        return len(self._fresh)

    async def sync(self) -> None:
        """Return when everything put before is durable; calls that wait at the same time share the work.

        Raises `NoSpaceError` or `MachineError`; after a failed fsync the kernel may have dropped what it couldn't
        write, so the store refuses everything from then on.
        """
        target = self._ticket
        while self._durable < target:
            if self._broken is not None:
                raise self._broken
            if self._syncing is not None:
                await self._syncing.wait()
                continue
            done = self._syncing = anyio.Event()
            self._syncing_now = True
            try:
                with anyio.CancelScope(shield=True):
                    await self._offload.briefly(self._sync_batch, prompt=self._is_little())
            finally:
                self._syncing, self._syncing_now = None, False
                done.set()
                self.look_at_room()
        if self._broken is not None:
            raise self._broken

    def look_at_room(self) -> None:
        """Have others told how full this store is, if much came or went."""
        self.room_news.look(self._used, self.room.left_bytes(self._used))

    def _is_little(self) -> bool:
        """Tell whether what isn't durable yet is a few bytes for a pack."""
        with self._lock:
            in_packs = self._waiting_bytes <= INLINE_BYTES and not self._dirty_directories
            return in_packs and all(fresh.data is not None for fresh in self._fresh.values())

    def _sync_batch(self) -> None:
        with self._lock:
            upto = self._ticket
            batch = list(self._fresh.values())
            directories, self._dirty_directories = self._dirty_directories, set()
        packed = [(fresh.piece, fresh.data) for fresh in batch if fresh.data is not None]
        files = [fresh for fresh in batch if fresh.data is None]
        try:
            self.marker.check()
            if packed:
                self._append(packed)
            disk.sync_paths([fresh.path for fresh in files], self._root)
            for fresh in files:
                with self._lock:
                    target = self._final(fresh.piece, fresh.area)
                    self._rename(fresh.path, target)
                    fresh.moved = True
                directories.add(os.path.dirname(target))
            with self._lock:
                directories |= self._dirty_directories
                self._dirty_directories = set()
            disk.sync_paths(directories, self._root)
        except (OSError, MachineError) as error:
            failure = error if isinstance(error, MachineError) else _not_durable(error)
            self._broken = failure
            raise failure from error
        with self._lock:
            for fresh in batch:
                del self._fresh[fresh.piece]
            self._durable = upto

    def _append(self, packed: list[tuple[ChunkId, bytes]]) -> None:
        written = self.packs.append(packed)
        size = sum(len(data) for _, data in packed)
        with self._lock:
            self._used += written - size
            self._waiting_bytes -= size

    def tidy(self) -> None:
        """Take what was removed out of the packs; blocking. Raises `MachineError`, `NoSpaceError`."""
        before = self.packs.bytes_used
        try:
            gone = self.packs.tidy()
        except OSError as error:
            raise disk.plain_error(error, "packs can't be rewritten") from error
        with self._lock:
            self._stale.update(gone)
            self._used += self.packs.bytes_used - before

    # -- all of it

    def recount(self) -> None:
        """Add up what lies here, about 2 µs a piece when its directory is in memory; run it in a thread."""
        before = self._used
        counted = sum(
            disk.blocks(entry.stat().st_size)
            for name in FOLDERS.values()
            for entry in files_below(f"{self._root}/{name}")
        )
        counted += self.packs.bytes_used
        with self._lock:
            fresh = [one for one in self._fresh.values() if not one.moved]
            waiting = sum(disk.blocks(one.size) if one.data is None else one.size for one in fresh)
            if self._used == before:  # else something came or went meanwhile: the running count is as good
                self._used = counted + waiting

    def take_up(self, path: str, data: bytes) -> None:
        """Take over a file below ``new`` that a killed process wrote whole and didn't sync."""
        piece = ChunkId(hash_bytes(data))
        if self.has(piece):
            os.unlink(path)
            return
        target = f"{self._root}/new/{piece.hex()}.{next(self._numbers)}t"
        os.rename(path, target)
        self._fresh[piece] = Fresh(piece, target, len(data), Area.KEPT)
        self._ticket += 1

    def trouble(self) -> str | None:
        """Return why nothing can be written any more; None when all is well."""
        return self.marker.trouble() if self._broken is None else str(self._broken).rstrip(".")

    @property
    def bytes_used(self) -> int:
        """Bytes of all pieces, kept and cached, as the disk counts them."""
        return self._used


def _not_durable(error: OSError) -> MachineError:
    failure = disk.plain_error(error, "what was written can't be made durable")
    assert isinstance(failure, MachineError)
    return failure
