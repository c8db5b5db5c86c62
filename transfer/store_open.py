"""Opening a store: its marker, what a killed process left, and the listing that needs no running pod."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from base.errors import MachineError
from base.ids import hash_bytes
from transfer import disk, packfile
from transfer.marker import ADVICE, MARKER
from transfer.offload import Offload
from transfer.pieces import FOLDERS, files_below
from transfer.store import PACKED_BYTES, ChunkStore, Room


def open_store(
    path: Path,
    *,
    expected_id: str | None,
    offload: Offload,
    room: Room | None = None,
    used: int = 0,
    packed_bytes: int = PACKED_BYTES,
) -> ChunkStore:
    """Open the store at ``path``, or make it when it was never there; blocking.

    ``expected_id`` is what this pod remembers of its store (None: a new pod); ``used`` the bytes
    last known to be in it (`ChunkStore.recount` corrects them).
    Raises `MachineError` when the store has vanished or is another one: it is never taken for an empty one.
    """
    marker = path / MARKER
    try:
        found = marker.read_text("ascii").strip()
    except FileNotFoundError:
        found = ""
    except OSError as error:
        raise disk.plain_error(error, f"the store {path} can't be read") from error
    if not found:
        if expected_id is not None or (path / "chunks").exists():
            raise MachineError(f"The store {path} has vanished: its marker file is gone.", ADVICE)
        found = os.urandom(16).hex()
        _make(path, found)
    elif expected_id is not None and found != expected_id:
        raise MachineError(f"The store {path} belongs to another pod.", ADVICE)
    store = ChunkStore(path, found, offload, room or Room(), used, packed_bytes)
    _take_up_new(store)
    return store


def _make(path: Path, store_id: str) -> None:
    try:
        for part in ("chunks", "cache", "new", "damaged"):
            (path / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path / f".{MARKER}"
        temporary.write_text(store_id + "\n", "ascii")
        disk.fsync_path(temporary)
        temporary.rename(path / MARKER)
        disk.fsync_path(path)
        disk.fsync_path(path.parent)
    except OSError as error:
        raise disk.plain_error(error, f"the store {path} can't be made") from error


def _take_up_new(store: ChunkStore) -> None:
    """Keep what was written whole and not yet synced; remove what is torn or was only for the cache."""
    for entry in list(os.scandir(store.path / "new")):
        data = b"" if entry.name.endswith("c") else Path(entry.path).read_bytes()
        if data and hash_bytes(data).hex() == entry.name.partition(".")[0]:
            store.take_up(entry.path, data)
        else:
            Path(entry.path).unlink()


def listing(path: Path) -> Iterator[tuple[str, int]]:
    """Read every stored piece from the disk: BLAKE3 of its bytes in hexadecimal, and their number.

    Needs no running pod; what moves or goes meanwhile may be listed or not.
    """
    folders = [entry.path for entry in os.scandir(path / "new")]
    folders += [entry.path for name in FOLDERS.values() for entry in files_below(str(path / name))]
    for file in sorted(folders):
        try:
            data = Path(file).read_bytes()
        except FileNotFoundError:
            continue
        yield hash_bytes(data).hex(), len(data)
    yield from packfile.listing(str(path))
