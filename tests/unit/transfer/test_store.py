"""The chunk store: durable before told, nothing served that doesn't match, never empty by mistake."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio
import pytest

from base.errors import DamagedError, MachineError, NoSpaceError
from base.ids import ChunkId, hash_bytes
from transfer import disk
from transfer.disk import BLOCK_BYTES, blocks
from transfer.offload import Offload
from transfer.pieces import Area
from transfer.store import ChunkStore, Room
from transfer.store_open import listing, open_store

ROOT = Path(__file__).parents[3]
BIG = os.urandom(300_000)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., ChunkStore]:
    def made(expected: str | None = None, room: Room | None = None, packed_bytes: int = 0) -> ChunkStore:
        return open_store(
            tmp_path / "store", expected_id=expected, offload=Offload(), room=room, packed_bytes=packed_bytes
        )

    return made


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_a_piece_is_below_new_until_it_is_synced(make: Callable[..., ChunkStore]) -> None:
    store = make()
    piece = store.put(BIG)
    assert piece == hash_bytes(BIG)
    assert names(store.path / "chunks") == []
    assert store.has(piece)
    assert await store.read(piece, 10, 20) == BIG[10:30]
    await store.sync()
    assert names(store.path / "chunks") == [piece.hex()]
    assert names(store.path / "new") == []
    assert await store.read(piece, 0, 1 << 20) == BIG
    assert store.read_now(piece, 299_990, 100) == BIG[-10:]
    assert store.size(piece) == len(BIG)
    assert (
        store.bytes_used
        == blocks(len(BIG))
        == os.stat(next((store.path / "chunks").rglob(piece.hex()))).st_blocks * 512
    )


@pytest.mark.parametrize("count", [1, 40])
async def test_files_are_forced_down_before_they_are_renamed_and_folders_after(
    make: Callable[..., ChunkStore], monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    store = make()
    told: list[tuple[str, list[str]]] = []
    really_sync, really_rename = disk.sync_paths, os.rename

    def sync_paths(paths: Iterable[str], root: str) -> None:
        told.append(("sync", list(paths)))
        really_sync(told[-1][1], root)

    def rename(source: str, target: str) -> None:
        told.append(("rename", [source, target]))
        really_rename(source, target)

    monkeypatch.setattr(disk, "sync_paths", sync_paths)
    monkeypatch.setattr(os, "rename", rename)
    pieces = [store.put(b"%d" % number) for number in range(count)]
    await store.sync()
    assert [kind for kind, _ in told[:1]] == ["sync"]
    done = [paths for kind, paths in told if kind == "rename" and Path(paths[1]).exists()]
    assert {source for source, _ in done} == set(told[0][1])
    assert len(told[0][1]) == len(pieces)
    assert told[-1][0] == "sync"
    assert set(told[-1][1]) >= {str(Path(target).parent) for _, target in done} | {str(store.path / "chunks")}


async def test_a_failed_fsync_is_told_and_nothing_is_promised_any_more(
    make: Callable[..., ChunkStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make()
    store.put(b"bytes")

    def fail(_paths: Iterable[str], _root: str) -> None:
        raise OSError(errno.EIO, "")

    monkeypatch.setattr(disk, "sync_paths", fail)
    with pytest.raises(MachineError):
        await store.sync()
    monkeypatch.undo()
    with pytest.raises(MachineError):
        await store.sync()
    with pytest.raises(MachineError):
        store.put(b"more")


async def test_equal_bytes_are_stored_once(make: Callable[..., ChunkStore]) -> None:
    store = make()
    store.put(b"same")
    store.put(b"same")
    await store.sync()
    store.put(b"same")
    assert store.unsynced == 0
    assert store.bytes_used == BLOCK_BYTES


async def test_many_at_once_are_all_durable_and_calls_share_the_work(make: Callable[..., ChunkStore]) -> None:
    store = make()
    pieces = [store.put(b"%d" % number) for number in range(100)]
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(store.sync)
    assert len(names(store.path / "chunks")) == 100
    assert {piece for piece, _ in store.pieces()} == set(pieces)


async def test_promotion_takes_a_piece_out_of_the_caches_reach(make: Callable[..., ChunkStore]) -> None:
    store = make()
    one, two = store.put(b"one", Area.CACHED), store.put(b"two", Area.CACHED)
    await store.sync()
    assert (store.where(one), store.where(two)) == (Area.CACHED, Area.CACHED)
    assert store.promote(one)
    assert not store.promote(ChunkId(bytes(32)))
    assert store.remove_cached(one) == 0
    assert store.remove_cached(two) == 3
    await store.sync()
    assert (store.where(one), store.where(two)) == (Area.KEPT, None)
    fresh = store.put(b"fresh", Area.CACHED)
    store.put(b"fresh", Area.KEPT)
    await store.sync()
    assert store.where(fresh) is Area.KEPT


async def test_a_damaged_piece_is_set_aside_and_never_served(make: Callable[..., ChunkStore]) -> None:
    store = make()
    small, big = store.put(b"some bytes"), store.put(BIG)
    await store.sync()
    assert store.read_now(small, 0, 10) == b"some bytes"
    again = make(store.store_id)
    for piece in (small, big):
        path = store.path / "chunks" / piece.hex()[:2] / piece.hex()
        data = path.read_bytes()
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        assert again.read_now(piece, 0, 5) is None
        with pytest.raises(DamagedError):
            await again.read(piece, 0, 5)
        assert await again.read(piece, 0, 5) is None
        assert not again.has(piece)
    again.put(b"some bytes")
    assert again.read_now(small, 0, 10) == b"some bytes"
    assert len(names(store.path / "damaged")) == 2


async def test_what_was_verified_and_replaced_is_read_from_the_new_file(make: Callable[..., ChunkStore]) -> None:
    store = make()
    piece = store.put(BIG)
    await store.sync()
    assert store.read_now(piece, 0, 3) == BIG[:3]
    path = store.path / "chunks" / piece.hex()[:2] / piece.hex()
    path.write_bytes(b"rot" + BIG[3:])
    assert not store.verify(piece)
    store.put(BIG)
    assert store.read_now(piece, 0, 3) == BIG[:3]


def test_a_vanished_or_foreign_store_is_never_taken_for_an_empty_one(make: Callable[..., ChunkStore]) -> None:
    store = make()
    with pytest.raises(MachineError, match="another pod"):
        make("0" * 32)
    (store.path / "store.id").unlink()
    with pytest.raises(MachineError, match="vanished"):
        make()
    with pytest.raises(MachineError, match="vanished"):
        make(store.store_id)
    store.path.rename(store.path.with_name("elsewhere"))
    with pytest.raises(MachineError, match="vanished"):
        make(store.store_id)
    assert not store.path.exists()


async def test_leftovers_are_taken_up_whole_or_removed(make: Callable[..., ChunkStore]) -> None:
    store = make()
    whole = store.put(b"whole")
    cached = store.put(b"cached", Area.CACHED)
    torn = store.path / "new" / f"{hash_bytes(b'torn').hex()}.7"
    torn.write_bytes(b"to")
    (store.path / "new" / "tmpabc").write_bytes(b"spilled")
    again = make(store.store_id)
    assert again.has(whole)
    assert not again.has(cached)
    assert len(names(store.path / "new")) == 1
    await again.sync()
    assert names(store.path / "chunks") == [whole.hex()]


def test_limits_of_room(make: Callable[..., ChunkStore], tmp_path: Path) -> None:
    store = make(room=Room(limit_bytes=3 * BLOCK_BYTES))
    store.put(b"12345")
    store.put(bytes(BLOCK_BYTES))
    with pytest.raises(NoSpaceError) as caught:
        store.put(bytes(BLOCK_BYTES + 1))
    assert caught.value.errno == errno.ENOSPC
    full = open_store(tmp_path / "full", expected_id=None, offload=Offload(), room=Room(full_share=0.0))
    with pytest.raises(NoSpaceError):
        full.put(b"1")


async def test_a_full_disk_leaves_nothing_behind(make: Callable[..., ChunkStore]) -> None:
    store = make()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(MachineError):
            store.put(BIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert names(store.path / "new") == []
    assert disk.plain_error(OSError(errno.ENOSPC, ""), "x").errno == errno.ENOSPC


WRITER = """
import anyio, os, sys
from pathlib import Path
from transfer.offload import Offload
from transfer.store_open import open_store

async def main():
    store = open_store(Path(sys.argv[1]), expected_id=None, offload=Offload(), packed_bytes=int(sys.argv[2]))
    number = 0
    while True:
        pieces = [store.put(b"%d" % n + bytes(n % 5000)) for n in range(number, number + 20)]
        number += 20
        await store.sync()
        for piece in pieces:
            os.write(1, piece.hex().encode() + b"\\n")

anyio.run(main, backend="trio")
"""


@pytest.mark.parametrize("packed_bytes", [0, 2500, 32768])
@pytest.mark.parametrize("lines", [1, 150, 400])
def test_what_was_told_durable_survives_a_kill(tmp_path: Path, lines: int, packed_bytes: int) -> None:
    path = tmp_path / "store"
    command = [sys.executable, "-c", WRITER, str(path), str(packed_bytes)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip().decode() for _ in range(lines)]
        process.kill()
        told += [line.strip().decode() for line in process.stdout]
    stored = {name for name, _ in listing(path)}
    assert {name for name in told if len(name) == 64} <= stored
    store = open_store(path, expected_id=None, offload=Offload())
    assert {name for name in told if len(name) == 64} <= {piece.hex() for piece, _ in store.pieces()}
    for piece, _ in store.pieces():
        assert store.verify(piece)


@pytest.mark.parametrize("packed_bytes", [0, 5])
async def test_hash_store_lists_every_piece(make: Callable[..., ChunkStore], tmp_path: Path, packed_bytes: int) -> None:
    store = make(packed_bytes=packed_bytes)
    first = store.put(b"first")
    await store.sync()
    second = store.put(b"second")
    expected = {(first.hex(), 5), (second.hex(), 6)}
    assert set(listing(store.path)) == expected
    done = subprocess.run([ROOT / "script/hash-store", tmp_path], capture_output=True, text=True, check=True, cwd="/")
    assert {(line.split()[0], int(line.split()[1])) for line in done.stdout.splitlines()} == expected
    assert subprocess.run([ROOT / "script/hash-store"], capture_output=True, check=False).returncode == 2
    missing = subprocess.run([ROOT / "script/hash-store", "/nowhere"], capture_output=True, text=True, check=False)
    assert missing.returncode == 3
    assert "Traceback" not in missing.stderr
