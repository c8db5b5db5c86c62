"""Speed of the byte store: chunks in and out, small drafts, a large draft, local reads. One table on stdout.

    python -m benchmarks.bench_transfer [FOLDER]          one store
    python -m benchmarks.bench_transfer pods [FOLDER]     two processes over TLS on loopback

FOLDER is where the files lie (default: the system's folder for temporary files). ``pods`` measures how fast one process
keeps what the other holds: 2,000 files of 4 KiB asked for one by one and in batches, and reading a file of 256 MiB.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import anyio

from base.home import Home
from base.ids import EMPTY_CONTENT, ChunkId, ContentId, PodId, hash_bytes
from mesh.identity import Identity
from mesh.node import MeshNode
from mesh.roster_store import RosterStore
from tests.unit.mesh import cluster as mesh_cluster
from transfer.access import Access
from transfer.api import ContentInfo
from transfer.draft import Draft, Sealed
from transfer.draft_bytes import DraftMemory
from transfer.fetch import Candidates
from transfer.fetcher import Fetcher
from transfer.offload import Offload
from transfer.reader import Reader
from transfer.service import Transfer
from transfer.settings import CacheMode, TransferSettings
from transfer.store_open import open_store

MIB = 1 << 20
ROUNDS = 5
SMALL_FILES = 2000
NOBODY = Candidates(frozenset(), frozenset())


class Bench:
    def __init__(self, folder: Path) -> None:
        self.offload = Offload()
        self.store = open_store(folder / "store", expected_id=None, offload=self.offload)
        fetcher = Fetcher(None, self.offload, 1.0, lambda _wanted, _urgency: NOBODY)  # type: ignore[arg-type]
        self.access = Access(self.store, fetcher, self.offload, TransferSettings())
        self.memory = DraftMemory(128 * MIB)
        self.results: dict[str, list[float]] = {}

    def note(self, name: str, value: float) -> None:
        self.results.setdefault(name, []).append(value)

    def draft(self) -> Draft:
        return Draft(self.access, self.memory, EMPTY_CONTENT, 0, None, 0)

    async def chunks(self) -> None:
        chunks = [os.urandom(MIB) for _ in range(64)]
        started_at = time.perf_counter()
        for chunk in chunks:
            await self.offload.run(self.store.put, chunk)
        await self.store.sync()
        self.note("chunk put + sync, MB/s", 64 * MIB / (time.perf_counter() - started_at) / 1e6)
        pieces = [ChunkId(hash_bytes(chunk)) for chunk in chunks]
        for name in ("chunk get, verified before, MB/s", "chunk get, first use (verify), MB/s"):
            started_at = time.perf_counter()
            for piece in pieces:
                await self.store.read(piece, 0, MIB)
            self.note(name, 64 * MIB / (time.perf_counter() - started_at) / 1e6)
            self.store._verified.clear()

    async def small(self) -> None:
        contents = [os.urandom(4096) for _ in range(1000)]
        sealed: list[Sealed] = []
        started_at = time.perf_counter()
        for data in contents:
            draft = self.draft()
            assert draft.write_now(0, data)
            sealed.append(await draft.seal())
            draft.discard()
        self.note("small draft: create, 4 KiB, seal, us", (time.perf_counter() - started_at) * 1000)
        started_at = time.perf_counter()
        await self.store.sync()
        self.note("sync of 1,000 small pieces, ms", (time.perf_counter() - started_at) * 1000)
        started_at = time.perf_counter()
        for each in sealed:
            assert Reader(self.access, each.content, each.size, None).read_now(0, 4096) is not None
        self.note("open + read 4 KiB, us", (time.perf_counter() - started_at) * 1000)

    async def large(self) -> None:
        view = memoryview(os.urandom(256 * MIB))
        started_at = time.perf_counter()
        draft = self.draft()
        for offset in range(0, len(view), MIB):
            if not draft.write_now(offset, view[offset : offset + MIB]):
                await draft.write(offset, view[offset : offset + MIB])
        sealed = await draft.seal()
        self.note("sequential write by 1 MiB + seal, MB/s", sealed.size / (time.perf_counter() - started_at) / 1e6)
        draft.discard()
        started_at = time.perf_counter()
        reader = Reader(self.access, sealed.content, sealed.size, None)
        for offset in range(0, sealed.size, MIB):
            if reader.read_now(offset, MIB) is None:
                await reader.read(offset, MIB)
        self.note("sequential local read by 1 MiB, MB/s", sealed.size / (time.perf_counter() - started_at) / 1e6)
        await self.store.sync()


async def bench(folder: Path) -> None:
    run = Bench(folder)
    for _ in range(ROUNDS):
        await run.chunks()
        await run.small()
        await run.large()
    show(run.results)
    run.offload.close()
    run.store.close()


class Files:
    """The catalogue of both processes: everything is wanted by everybody, but the stream."""

    def __init__(self) -> None:
        self.infos: dict[ContentId, ContentInfo] = {}
        self.pods: list[PodId] = []

    def info(self, content: ContentId) -> ContentInfo | None:
        return self.infos.get(content)

    def page(self, after: ContentId | None, limit: int) -> Sequence[ContentInfo]:
        return [self.infos[each] for each in sorted(self.infos) if after is None or each > after][:limit]

    def is_behind(self) -> bool:
        return False

    def place(self, info: ContentInfo) -> Sequence[PodId]:
        return self.pods[: info.copies]


async def serve(folder: Path) -> None:
    """Write what is to be fetched, print the address and the contents, and serve until killed."""
    home = mesh_cluster.found(folder / "a")
    other = mesh_cluster.admit(home, folder / "b")
    other.store.add(home.roster.records())
    node = MeshNode(home.identity, home.store, listen="127.0.0.1:0", log=None)
    files = Files()
    transfer = Transfer(Home(folder / "a"), node, files, TransferSettings())
    async with anyio.create_task_group() as group:
        await group.start(node.run)
        await group.start(transfer.run)
        told: list[str] = []
        sizes = [4096] * (SMALL_FILES * 2 * ROUNDS) + [256 * MIB] * ROUNDS
        for size in sizes:
            draft = transfer.draft()
            for offset in range(0, size, MIB):
                await draft.write(offset, os.urandom(min(MIB, size - offset)))
            sealed = await draft.seal()
            files.infos[sealed.content] = ContentInfo(sealed.content, size, node.pod_id, 1, True, False)
            transfer.published(sealed.content)
            draft.discard()
            told.append(f"{sealed.content.hex()} {size}")
        await transfer.wait_copies(list(files.infos), 1, 300)
        print("\n".join([node.address, str(node.pod_id), *told, ""]), flush=True)
        await anyio.sleep_forever()


async def fetch(folder: Path, address: str, author: PodId, told: list[tuple[ContentId, int]]) -> dict[str, list[float]]:
    """Join the serving process, then measure."""
    identity, roster = Identity.load(folder / "b" / "identity"), RosterStore(folder / "b" / "roster.db")
    node = MeshNode(identity, roster, listen="127.0.0.1:0", peers=[address], log=None)
    files = Files()
    files.pods = [author, PodId(node.pod_id)]
    settings = TransferSettings(cache_mode=CacheMode.STREAM)
    transfer = Transfer(Home(folder / "b"), node, files, settings)
    results: dict[str, list[float]] = {}
    small = [content for content, size in told if size == 4096]
    large = [(content, size) for content, size in told if size > 4096]
    async with anyio.create_task_group() as group:
        await group.start(node.run)
        await group.start(transfer.run)
        while True:
            if author in transfer.exchanged():
                break
            await anyio.sleep(0.05)
        plain = transfer._replication._batches.plain
        for number in range(2 * ROUNDS):
            contents = small[number * SMALL_FILES : (number + 1) * SMALL_FILES]
            for content in contents:
                files.infos[content] = ContentInfo(content, 4096, author, 2, True, False)
            plain.clear()
            plain.update({author} if number % 2 else ())
            started_at = time.perf_counter()
            transfer.noticed(contents)
            await transfer.wait_copies(contents, 2, 300)
            name = f"files of 4 KiB, {'one by one' if number % 2 else 'in batches'}, files/s"
            results.setdefault(name, []).append(SMALL_FILES / (time.perf_counter() - started_at))
        for content, size in large:
            reader = transfer.open(content, size, author)
            started_at = time.perf_counter()
            for offset in range(0, size, MIB):
                await reader.read(offset, MIB)
            rate = size / (time.perf_counter() - started_at) / 1e6
            results.setdefault("reading a remote file of 256 MiB, MB/s", []).append(rate)
            reader.close()
        group.cancel_scope.cancel()
    transfer.close()
    return results


def show(results: dict[str, list[float]]) -> None:
    for name, values in results.items():
        print(f"{name:42} median {statistics.median(values):9.1f}   from {min(values):9.1f} to {max(values):9.1f}")


def pods(folder: Path) -> None:
    line = [sys.executable, "-m", "benchmarks.bench_transfer", "serve", str(folder)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address, author = (server.stdout.readline().strip() for _ in range(2))
        told: list[tuple[ContentId, int]] = []
        for _ in range(SMALL_FILES * 2 * ROUNDS + ROUNDS):
            content, size = server.stdout.readline().split()
            told.append((ContentId(bytes.fromhex(content)), int(size)))
        try:
            show(anyio.run(fetch, folder, address, PodId(author), told, backend="trio"))
        finally:
            server.kill()


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["serve"]:
        anyio.run(serve, Path(arguments[1]), backend="trio")
        return
    two = arguments[:1] == ["pods"]
    base = next(iter(arguments[two:]), None)
    with tempfile.TemporaryDirectory(dir=base) as folder:
        if two:
            pods(Path(folder))
        else:
            anyio.run(bench, Path(folder), backend="trio")


if __name__ == "__main__":
    main()
