"""What the metadata engine costs: microseconds an operation, bytes a file.

.venv/bin/python -m benchmarks.metadata [--files 20000]
"""

from __future__ import annotations

import argparse
import gc
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import anyio

from base.ids import ROOT_INODE, ContentId, InodeId, PodId
from benchmarks.machine import raw_figures
from crdt_meta.metadata import Metadata, Roots
from crdt_meta.node import Kind
from crdt_meta.records import Strategy
from pod import COLLECT

GROUP = 100
"""Operations a commit."""


def open_roots() -> Roots:
    """Return roots that sign nothing and trust everybody."""
    return Roots(
        sign=lambda data: bytes(64),
        verify=lambda writer, signature, data: True,
        pod_of_writer=lambda writer: PodId(writer.hex() * 2),
        pod_name_of=lambda writer: writer.hex()[:4],
        strategy_for=lambda path: Strategy.KEEP_BOTH,
    )


def open_replica(folder: Path) -> Metadata:
    folder.mkdir()
    return Metadata(folder / "metadata.db", open_roots())


def measured(name: str, number: int, work: Callable[[int], object], commit: Callable[[], object]) -> None:
    start, processor = time.perf_counter(), time.process_time()
    for index in range(number):
        work(index)
        if index % GROUP == GROUP - 1:
            commit()
    commit()
    report(name, number, start, processor)


def report(name: str, number: int, start: float, processor: float) -> None:
    """Print what each of ``number`` operations took on the wall's clock and of the processor since both were read."""
    wall_us = 1e6 * (time.perf_counter() - start) / number
    processor_us = 1e6 * (time.process_time() - processor) / number
    print(f"{name:34} {wall_us:8.1f} µs {processor_us:8.1f} µs of the processor")


async def run(files: int, folder: Path) -> None:
    one, two = open_replica(folder / "one"), open_replica(folder / "two")
    tree = one.tree
    per_directory = 1000
    directories = [
        tree.create(ROOT_INODE, b"dir-%04d" % n, Kind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime_ns=1).inode
        for n in range((files + per_directory - 1) // per_directory)
    ]
    made: list[InodeId] = []

    def create(index: int) -> None:
        parent = directories[index // per_directory]
        name = b"file-%06d.txt" % index
        made.append(tree.create(parent, name, Kind.FILE, mode=0o644, uid=0, gid=0, mtime_ns=1).inode)

    def publish(index: int) -> None:
        node = tree.get(made[index])
        assert node is not None
        tree.publish(node.inode, node.link, ContentId(os.urandom(32)), 4096, 1, node.shown)

    def rename(index: int) -> None:
        parent = directories[index // per_directory]
        tree.rename(parent, b"file-%06d.txt" % index, parent, b"renamed-%06d.txt" % index)

    def lookup(index: int) -> None:
        assert tree.lookup(directories[index // per_directory], b"renamed-%06d.txt" % index) is not None

    measured("create", files, create, one.log.commit)
    measured("publish a content", files, publish, one.log.commit)
    one.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = sum(path.stat().st_size for path in (folder / "one").iterdir())
    measured("chmod", files, lambda index: tree.set_attributes(made[index], mode=0o600), one.log.commit)
    measured("rename", files, rename, one.log.commit)
    measured("lookup", files, lookup, lambda: None)
    start, processor = time.perf_counter(), time.process_time()
    for directory in directories:
        tree.children(directory)
    report("children, an entry", files, start, processor)
    one.log.durable(one.log.commit())
    start, processor = time.perf_counter(), time.process_time()
    after = 0
    while entries := one.log.read(one.writer, after, 1 << 20):
        await two.log.receive(entries, PodId("0" * 32))
        after = entries[-1].sequence
    report("remote change applied", 4 * files, start, processor)
    print(f"{'disk after create and publish':34} {size / files:8.0f} B a file")
    one.close()
    two.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    options = parser.parse_args()
    for name, figure in raw_figures():
        print(f"the machine: {name}: {figure}")
    gc.freeze()
    gc.set_threshold(*COLLECT)  # as in a pod
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(run, options.files, Path(folder), backend="trio")


if __name__ == "__main__":
    main()
