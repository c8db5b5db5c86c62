"""Kill -9 at any moment: the holdings never claim what isn't whole on the disk, and the next start goes on."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from base.home import Home
from base.ids import ChunkId, ContentId, hash_bytes
from tests.simulation.transfer.local_mesh import Network, Shelf
from tests.simulation.transfer.pods import Pod, cluster
from transfer import manifest, packfile
from transfer.api import ContentInfo
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.offload import Offload
from transfer.settings import TransferSettings

ROOT = Path(__file__).parents[3]

WRITER = """
import anyio, os, sys
from pathlib import Path
from tests.simulation.transfer.pods import cluster

async def main():
    async with cluster(Path(sys.argv[1]), 2, threads=True) as pods:
        number = 0
        while True:
            size = (number * 7919) % 3_000_000 + 1
            content = await pods[0].write(number.to_bytes(8, "big") * (size // 8 + 1), copies=2)
            while not number and pods[0].transfer.local(content) != "kept":  # so that something is claimed
                await anyio.sleep(0.001)
            number += 1
            os.write(1, b".")

anyio.run(main, backend="trio")
"""


@pytest.mark.parametrize("count", [3, 30, 61])
async def test_holdings_never_claim_too_much(tmp_path: Path, count: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(count)
        process.kill()
    claimed = 0
    for name in ("0", "1"):
        home = Home(tmp_path / name)
        database = HoldingsDb(home.holdings_db, Offload())
        assert not database.was_clean
        for content, holding in database.latest(10_000):
            assert holding is Holding.KEPT
            data = read_kept(home, ChunkId(content))
            assert hash_bytes(data) == content
            if content.hex()[:2] and data[:1] == b"\x94" and len(data) < 1000:
                for piece in manifest.decode(data).chunks:
                    assert hash_bytes(read_kept(home, piece)) == piece
            claimed += 1
    assert claimed > 0
    async with cluster(tmp_path, 2, threads=True) as pods:
        content = await pods[0].write(b"goes on", copies=2)
        await pods[0].transfer.wait_copies([content], 2, 30)


def read_kept(home: Home, piece: ChunkId) -> bytes:
    path = home.store / "chunks" / piece.hex()[:2] / piece.hex()
    if path.exists():
        return path.read_bytes()
    found = (
        packfile.records(str(home.store / "packs" / f"{number:08}.pack"), number)
        for number in packfile.numbers(str(home.store))
    )
    return next(each.data for each in itertools.chain(*found) if each.piece == piece)


async def test_an_unclean_start_checks_what_it_claimed_and_sweeps_the_cache(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2, threads=True) as pods:
        first = await pods[0].write(b"1" * 5_000_000, copies=2)
        second = await pods[0].write(b"2" * 5_000_000, copies=2)
        await pods[0].transfer.wait_copies([first, second], 2, 30)
        shelf = pods[0].shelf
    store = tmp_path / "1" / "store"
    lost = hash_bytes(b"2" * (1 << 20)).hex()
    (store / "chunks" / lost[:2] / lost).unlink()
    orphan = hash_bytes(b"orphan").hex()
    (store / "cache" / orphan[:2]).mkdir(parents=True)
    (store / "cache" / orphan[:2] / orphan).write_bytes(b"orphan")
    database = HoldingsDb(tmp_path / "1" / "holdings.db", Offload())
    database.set_meta_now("clean", 0)
    network = Network()
    alone, other = network.add(2), network.add(1)
    network.set_up(other.pod_id, False)
    pod = Pod(tmp_path / "1", alone, shelf, pods[1].settings, True)
    async with anyio.create_task_group() as group:
        await group.start(pod.run)
        assert pod.transfer.local(first) == "kept"
        assert pod.transfer.local(second) == "partial"
        assert not (store / "cache" / orphan[:2] / orphan).exists()
        group.cancel_scope.cancel()
    pod.transfer.close()


SEALER = """
import anyio, os, sys
from pathlib import Path
from tests.simulation.transfer.pods import cluster
from transfer.settings import TransferSettings

async def main():
    async with cluster(Path(sys.argv[1]), 1, threads=True, settings=TransferSettings(packed_bytes=0)) as [pod]:
        await pod.transfer.wait_copies([await pod.write(b"p" * 3_000_000)], 1, 30)
        await pod.transfer.sync()
        for letter in b"jo":
            draft = pod.transfer.draft()
            await draft.write(0, bytes([letter]) * 3_000_000)
            await draft.seal()
        await pod.transfer.sync()
        os.write(1, b".")
        await anyio.sleep_forever()

anyio.run(main, backend="trio")
"""


def content_of(letter: bytes, size: int = 3_000_000) -> ContentId:
    data, step = letter * size, 1 << 20
    return manifest.content_id(size, [ChunkId(hash_bytes(data[at : at + step])) for at in range(0, size, step)])


async def start_again(folder: Path, known: bytes, journalled: bytes) -> set[str]:
    """Start on what a killed process left, with a tree that knows these contents; return the pieces that stay."""
    mesh = Network().add(1)
    shelf = Shelf([mesh.pod_id])
    for number in known:
        content = content_of(bytes([number]))
        shelf.add(ContentInfo(content, 3_000_000, mesh.pod_id, 1, True, False))
    shelf.journal = {content_of(bytes([number])): 3_000_000 for number in journalled}
    pod = Pod(folder, mesh, shelf, TransferSettings(packed_bytes=0), True)
    async with anyio.create_task_group() as group:
        await group.start(pod.run)
        group.cancel_scope.cancel()
    pod.transfer.close()
    return pod.kept()


def names(letter: bytes) -> set[str]:
    full, rest = hash_bytes(letter * (1 << 20)), hash_bytes(letter * (3_000_000 - (2 << 20)))
    return {full.hex(), rest.hex(), content_of(letter).hex()}


async def test_a_start_after_a_kill_removes_what_nothing_refers_to(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SEALER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        process.kill()
    home = tmp_path / "0"
    everything = names(b"p") | names(b"j") | names(b"o")
    assert {path.name for path in (home / "store" / "chunks").rglob("*") if path.is_file()} == everything
    for hurt in ("unknown tree", "damaged list", "new books"):
        copy = tmp_path / hurt
        shutil.copytree(home, copy)
        match hurt:
            case "unknown tree":
                assert await start_again(copy, b"", b"") == everything
            case "damaged list":
                listed = content_of(b"j").hex()
                path = copy / "store" / "chunks" / listed[:2] / listed
                path.write_bytes(b"rot" + path.read_bytes()[3:])
                assert await start_again(copy, b"p", b"j") == everything - {listed}
                database = HoldingsDb(copy / "holdings.db", Offload())
                database.set_meta_now("clean", 0)
                assert await start_again(copy, b"p", b"") == everything - {listed}
            case "new books":
                for path in copy.glob("holdings.db*"):
                    path.unlink()
                assert await start_again(copy, b"p", b"") == everything
    assert await start_again(home, b"p", b"j") == names(b"p") | names(b"j")
    assert await start_again(home, b"p", b"") == names(b"p") | names(b"j")  # the last end was clean


async def test_superseded_contents_in_the_holdings_outlive_the_sweep(tmp_path: Path) -> None:
    async with cluster(tmp_path, 1, threads=True) as [pod]:
        old = await pod.write(b"o" * 3_000_000)
        await pod.transfer.wait_copies([old], 1, 30)
        del pod.shelf.infos[old]
        await pod.transfer.wait_copies([await pod.write(b"n" * 3_000_000)], 1, 30)
        shelf = pod.shelf
    database = HoldingsDb(tmp_path / "0" / "holdings.db", Offload())
    database.set_meta_now("clean", 0)
    again = Pod(tmp_path / "0", Network().add(1), shelf, TransferSettings(), True)
    async with anyio.create_task_group() as group:
        await group.start(again.run)
        group.cancel_scope.cancel()
    again.transfer.close()
    assert again.kept() == names(b"o") | names(b"n")
