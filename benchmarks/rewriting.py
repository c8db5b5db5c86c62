"""What files leave behind that are written again and again: bytes and memory after compaction, beside those of fresh ones.

.venv/bin/python -m benchmarks.rewriting [--files 10000] [--times 100]
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import anyio

from base.ids import ROOT_INODE, ContentId, InodeId, WriterId
from benchmarks.learning import rss_mib
from benchmarks.machine import raw_figures
from benchmarks.metadata import GROUP, open_roots
from crdt_meta.metadata import Metadata
from crdt_meta.node import Kind
from crdt_meta.peers import Retired

PER_DIRECTORY = 1000
TURNS = 1000
"""Turns of the housekeeping that write everything anew that is worth it."""


class Alone:
    """Implements `crdt_meta.peers.Peers` for a pod that has no others."""

    forget_after_s = 1e9

    def counted(self) -> Mapping[WriterId, float | None]:
        return {}

    def orphans(self, forgotten: Collection[WriterId] = ()) -> Collection[WriterId]:
        return ()

    def retired(self) -> Mapping[WriterId, Collection[Retired]]:
        return {}

    async def retire(self, writer: WriterId, retired: Retired) -> None:
        raise AssertionError("nobody else writes here")

    def is_caught_up(self) -> bool:
        return True

    def is_short_of_room(self) -> bool:
        return False

    def clock_agrees(self) -> bool:
        return True


def make(one: Metadata, files: int) -> list[InodeId]:
    """Make empty files."""
    made: list[InodeId] = []
    for index in range(files):
        if index % PER_DIRECTORY == 0:
            name = b"dir-%04d" % (index // PER_DIRECTORY)
            parent = one.tree.create(ROOT_INODE, name, Kind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime_ns=1).inode
        name = b"file-%06d.txt" % index
        made.append(one.tree.create(parent, name, Kind.FILE, mode=0o644, uid=0, gid=0, mtime_ns=1).inode)
        if index % GROUP == GROUP - 1:
            one.log.commit()
    return made


def write(one: Metadata, made: list[InodeId]) -> None:
    """Give each file another content."""
    for index, inode in enumerate(made):
        node = one.tree.get(inode)
        assert node is not None
        one.tree.publish(inode, node.link, ContentId(os.urandom(32)), 4096, 1, node.shown)
        if index % GROUP == GROUP - 1:
            one.log.commit()


async def tidy(one: Metadata, turns: int) -> None:
    for _ in range(turns):
        await one.tidying.turn(Alone(), time.time())


def used(one: Metadata) -> int:
    """Return the bytes of the file."""
    one.log.commit()
    one.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return one.store.path.stat().st_size


async def run(files: int, times: int, folder: Path) -> None:
    roots = replace(open_roots(), versions=lambda: 0)
    one = Metadata(folder / "metadata.db", roots)
    made = make(one, files)
    write(one, made)
    await tidy(one, TURNS)
    fresh, fresh_mib = used(one), rss_mib(os.getpid())
    print(f"fresh, compacted             {fresh / files:8.0f} B a file, {fresh_mib:.0f} MiB of memory")
    start = time.perf_counter()
    for number in range(1, times):
        write(one, made)
        await tidy(one, 20 if number % 5 == 0 else 0)  # as often as a pod's housekeeping comes by
    took_s = time.perf_counter() - start
    print(f"written {times} times, {took_s:5.0f} s    {used(one) / files:8.0f} B a file")
    await tidy(one, TURNS)
    gc.collect()
    after, after_mib = used(one), rss_mib(os.getpid())
    print(f"compacted again              {after / files:8.0f} B a file, {after_mib:.0f} MiB of memory")
    print(f"ratio (goal: 2 at most)      {after / fresh:8.2f} of the disk, {after_mib / fresh_mib:.2f} of the memory")
    one.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=100)
    options = parser.parse_args()
    for name, figure in raw_figures():
        print(f"the machine: {name}: {figure}")
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(run, options.files, options.times, Path(folder), backend="trio")


if __name__ == "__main__":
    main()
