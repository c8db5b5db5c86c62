"""Speed of the byte store: chunks in and out, small drafts, a large draft, local reads. One table on stdout.

usage: python benchmarks/bench_transfer.py [FOLDER]    (default: the system's folder for temporary files)
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio

from base.ids import EMPTY_CONTENT, ChunkId, hash_bytes
from transfer.access import Access
from transfer.draft import Draft, Sealed
from transfer.draft_bytes import DraftMemory
from transfer.fetch import Candidates
from transfer.fetcher import Fetcher
from transfer.offload import Offload
from transfer.reader import Reader
from transfer.settings import TransferSettings
from transfer.store_open import open_store

MIB = 1 << 20
ROUNDS = 5
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
    for name, values in run.results.items():
        print(f"{name:42} median {statistics.median(values):9.1f}   from {min(values):9.1f} to {max(values):9.1f}")
    run.offload.close()
    run.store.close()


def main() -> None:
    base = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        anyio.run(bench, Path(folder), backend="trio")


if __name__ == "__main__":
    main()
