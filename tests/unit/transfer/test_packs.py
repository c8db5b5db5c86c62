"""Packs: found again whatever becomes of the index, nothing torn is served, what is removed gives its room back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from base.errors import DamagedError, MachineError
from base.ids import ChunkId, hash_bytes
from transfer import packfile, packs
from transfer.offload import Offload
from transfer.packfile import HEAD
from transfer.packs import Packs
from transfer.pieces import Area
from transfer.store import ChunkStore
from transfer.store_open import listing, open_store

SMALL = b"small piece"


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], ChunkStore]:
    return lambda: open_store(tmp_path / "store", expected_id=None, offload=Offload())


def files(store: Path) -> list[Path]:
    return sorted((store / "packs").glob("*.pack"))


def some(count: int, size: int = 1000, seed: int = 0) -> dict[ChunkId, bytes]:
    rng = random.Random(seed)
    return {ChunkId(hash_bytes(data)): data for data in (rng.randbytes(size) for _ in range(count))}


def opened(root: Path) -> Packs:
    return Packs(str(root))


def held(found: Packs) -> set[ChunkId]:
    return set(found.pieces())


def read(found: Packs, piece: ChunkId) -> bytes:
    spot = found.find(piece)
    assert spot is not None
    with open(found.path(spot.pack), "rb") as file:
        file.seek(spot.at)
        return file.read(spot.length)


async def test_small_pieces_share_a_file_and_read_back(make: Callable[[], ChunkStore]) -> None:
    store = make()
    pieces = some(50)
    for data in pieces.values():
        store.put(data)
    assert files(store.path) == []
    assert all(store.read_now(piece, 10, 5) == data[10:15] for piece, data in pieces.items())
    await store.sync()
    assert len(files(store.path)) == 1
    again = make()
    for found in (store, again):
        for piece, data in pieces.items():
            assert (found.where(piece), found.size(piece)) == (Area.KEPT, len(data))
            assert await found.read(piece, 10, 5) == data[10:15]
            assert await found.read(piece, 0, 5000) == found.read_now(piece, 0, 5000) == data
            assert found.read_now(piece, 2000, 5) == b""
    assert store.bytes_used == sum(len(data) + HEAD.size for data in pieces.values())


async def test_a_piece_removed_before_the_sync_never_reaches_the_disk(make: Callable[[], ChunkStore]) -> None:
    store = make()
    piece = store.put(SMALL)
    assert store.remove_unneeded(piece) == len(SMALL)
    await store.sync()
    assert not store.has(piece)
    assert store.bytes_used == 0
    assert files(store.path) == []


async def test_a_failed_fsync_is_told(make: Callable[[], ChunkStore], monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()
    store.put(SMALL)

    def fail(_descriptor: int) -> None:
        raise OSError(5, "")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(MachineError):
        await store.sync()
    monkeypatch.undo()
    with pytest.raises(MachineError):
        store.put(b"more")


async def test_damaged_bytes_are_set_aside_and_never_served(make: Callable[[], ChunkStore]) -> None:
    store = make()
    piece = store.put(SMALL)
    await store.sync()
    path = files(store.path)[0]
    path.write_bytes(path.read_bytes().replace(b"small", b"smalL"))
    again = make()
    assert again.read_now(piece, 0, 5) is None
    with pytest.raises(DamagedError):
        await again.read(piece, 0, 5)
    assert not again.has(piece)
    assert [each.read_bytes() for each in (store.path / "damaged").iterdir()] == [b"smalL piece"]
    again.put(SMALL)
    await again.sync()
    assert await again.read(piece, 0, 50) == SMALL


@pytest.mark.parametrize("loss", ["nothing", "index", "tail", "garbage", "zeros", "index and tail"])
def test_what_was_synced_is_found_again(tmp_path: Path, loss: str) -> None:
    pieces, torn = some(20), some(1, seed=1)
    first = opened(tmp_path)
    first.append(list(pieces.items()))
    path = files(tmp_path)[0] if (tmp_path / "packs").exists() else tmp_path
    head = packfile.head_of(next(iter(torn)), 1000)
    match loss:
        case "tail" | "index and tail":
            path.write_bytes(path.read_bytes() + head + b"half of it")
        case "garbage":
            path.write_bytes(path.read_bytes() + os.urandom(5000))
        case "zeros":
            path.write_bytes(path.read_bytes() + bytes(5000))
    if "index" in loss:
        for each in tmp_path.glob("packs.db*"):
            each.unlink()
    again = opened(tmp_path)
    assert held(again) == set(pieces)
    assert all(read(again, piece) == data for piece, data in pieces.items())
    again.append(list(torn.items()))
    assert held(opened(tmp_path)) == {*pieces, *torn}
    assert {name for name, _ in packfile.listing(str(tmp_path))} == {piece.hex() for piece in (*pieces, *torn)}


def test_a_record_behind_what_the_index_knows_counts_only_when_its_bytes_match(tmp_path: Path) -> None:
    [(whole, data)], [(other, _)] = some(1).items(), some(1, seed=1).items()
    first = opened(tmp_path)
    first.append(list(some(3, seed=2).items()))
    path = files(tmp_path)[0]
    unwritten = packfile.head_of(other, 1000) + bytes(1000)  # the size came to the disk, the bytes did not
    path.write_bytes(path.read_bytes() + unwritten + packfile.head_of(whole, len(data)) + data)
    assert held(opened(tmp_path)) == {*some(3, seed=2), whole}


def test_what_was_removed_gives_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 20_000)
    monkeypatch.setattr(packs, "WORTH_BYTES", 5000)
    pieces = some(100)
    found = opened(tmp_path)
    for piece, data in pieces.items():
        found.append([(piece, data)])
    full = found.bytes_used
    assert full == sum(path.stat().st_size for path in files(tmp_path))
    gone = list(pieces)[:80]
    for piece in gone:
        assert found.forget(piece) == 1000 + HEAD.size
        assert found.forget(piece) == 0
    assert held(found) == set(pieces) - set(gone)
    found.tidy()
    assert found.bytes_used == sum(path.stat().st_size for path in files(tmp_path)) < full / 2
    rest = {piece: pieces[piece] for piece in pieces if piece not in gone}
    for store in (found, opened(tmp_path)):
        assert held(store) == set(rest)
        assert all(read(store, piece) == data for piece, data in rest.items())
    assert {name for name, _ in packfile.listing(str(tmp_path))} == {piece.hex() for piece in rest}
    for piece in rest:
        found.forget(piece)
    found.tidy()
    assert found.bytes_used == 0
    assert files(tmp_path) == []


def test_a_piece_stored_again_outlives_its_removal(tmp_path: Path) -> None:
    [(piece, data)] = some(1).items()
    found = opened(tmp_path)
    found.append([(piece, data)])
    found.forget(piece)
    assert found.find(piece) is None
    found.append([(piece, data)])
    found.tidy()
    for store in (found, opened(tmp_path)):
        assert read(store, piece) == data
    for each in tmp_path.glob("packs.db*"):
        each.unlink()
    assert held(opened(tmp_path)) == {piece}


def test_a_store_of_files_goes_on_with_packs(tmp_path: Path) -> None:
    old = open_store(tmp_path / "store", expected_id=None, offload=Offload(), packed_bytes=0)
    piece = old.put(SMALL)
    new = open_store(tmp_path / "store", expected_id=None, offload=Offload())
    assert new.put(SMALL) == piece
    assert [size for _, size in listing(tmp_path / "store")] == [len(SMALL)]


def test_whatever_happens_the_index_and_the_packs_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "PACK_BYTES", 8000)
    monkeypatch.setattr(packs, "WORTH_BYTES", 1000)
    rng = random.Random(5)
    found, model, pool = opened(tmp_path), dict[ChunkId, bytes](), list(some(60, 700).items())
    for _ in range(400):
        match rng.randrange(10):
            case 0:
                found.tidy()
            case 1:
                found.close()
                if rng.random() < 0.3:
                    for each in tmp_path.glob("packs.db*"):
                        each.unlink()
                found = opened(tmp_path)
            case 2 | 3 | 4 if model:
                piece = rng.choice(list(model))
                found.forget(piece)
                del model[piece]
            case _:
                batch = [(piece, data) for piece, data in rng.sample(pool, 4) if piece not in model]
                found.append(batch)
                model.update(batch)
        assert held(found) == set(model)
        assert all(read(found, piece) == data for piece, data in model.items())
