"""The metadata engine over trees of different size: the same work on each, in turns, and the ratio of what it cost."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint

from base.ids import ContentId, InodeId, PodId
from benchmarks.metadata import open_roots
from benchmarks.prepared import FAN, GROUP, directory, fill
from crdt_meta.metadata import Metadata
from crdt_meta.node import Kind
from mesh.antientropy import AntiEntropy
from mesh.api import Entry
from mesh.wire import encode

SOMEBODY = PodId("0" * 32)
ROUNDS = 3
COPIED = 1000
"""Files that a program which copies makes between two commits."""
IDLE_MS = 0.2
"""What takes less is the loop's own turning while it waits for the disk."""
WORKING_SET = 20
"""Directories, anywhere in the tree, whose files are changed in one round."""


class Stopwatch:
    """Wall time, and what the processor worked for this process (all threads)."""

    def __init__(self) -> None:
        self._started, self._worked = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Return (seconds since, seconds worked since)."""
        return time.perf_counter() - self._started, time.process_time() - self._worked


class Subject:
    """One tree that is measured: a copy of a prepared file."""

    def __init__(self, name: str, prepared: Path, folder: Path, files: int) -> None:
        self.name, self.files = name, files
        self.path = folder / f"{name}.db"
        shutil.copy(prepared / "metadata.db", self.path)
        start = time.perf_counter()
        self.metadata = Metadata(self.path, open_roots())
        self.opened_s = time.perf_counter() - start
        self.took: dict[str, list[float]] = defaultdict(list)
        self.worked: dict[str, list[float]] = defaultdict(list)
        """The processor's time of the same: what counts when others use the machine, too."""
        self.random = random.Random(1)

    def timed(self, name: str, number: int, work: Callable[[], object]) -> None:
        """Note µs an operation."""
        start = Stopwatch()
        work()
        self.note(name, start, number)

    def note(self, name: str, start: Stopwatch, number: int) -> None:
        """Note what a number of operations took since ``start``."""
        took_s, worked_s = start.read()
        self.took[name].append(1e6 * took_s / number)
        self.worked[name].append(1e6 * worked_s / number)

    def grouped(self, works: Iterator[object]) -> None:
        """Draw from an iterator of operations, committing now and then."""
        for count, _ in enumerate(works, start=1):
            if count % GROUP == 0:
                self.metadata.log.commit()
        self.metadata.log.commit()

    def places(self) -> list[bytes]:
        """Return paths of directories drawn at random."""
        drawn = self.random.sample(range(self.files // FAN), WORKING_SET)
        return [b"/home/user/d-%05d/s-%02d" % (one // FAN, one % FAN) for one in drawn]

    def round(self, number: int) -> None:
        """Measure everything local once."""
        tree, count = self.metadata.tree, WORKING_SET * FAN
        base = tree.resolve(b"/home/user").inode
        made: list[InodeId] = []
        top = directory(tree, base, b"round-%d" % number)

        def create() -> Iterator[object]:
            parent = top
            for index in range(count):
                if index % FAN == 0:
                    parent = directory(tree, top, b"s-%d" % index)
                name = b"file-%02d.txt" % (index % FAN)
                node = tree.create(parent, name, Kind.FILE, mode=0o644, uid=1, gid=1, mtime_ns=1)
                made.append(node.inode)
                yield node

        def publish() -> Iterator[object]:
            for inode in made:
                node = tree.get(inode)
                assert node is not None
                yield tree.publish(inode, node.link, ContentId(os.urandom(32)), 4096, 1, node.shown)

        self.timed("create", count, lambda: self.grouped(create()))
        self.timed("publish a content", count, lambda: self.grouped(publish()))
        self._old_files()
        paths = [place + b"/file-%02d.txt" % n for place in self.places() for n in range(FAN)]
        self.random.shuffle(paths)
        self._colds(paths[:400])
        for path in paths[:400]:
            tree.resolve(path)
        self.timed("lookup, depth 5, warm", 400, lambda: [tree.resolve(path) for path in paths[:400]])

    def _old_files(self) -> None:
        """Change files that were there long before, first as they come from the disk, then again."""
        tree = self.metadata.tree
        parents = [tree.resolve(place).inode for place in self.places()]
        names = [(parent, b"file-%02d.txt" % n) for parent in parents for n in range(FAN)]
        count = len(names)

        def chmod(mode: int) -> Iterator[object]:
            for parent, name in names:
                node = tree.lookup(parent, name)
                assert node is not None
                yield tree.set_attributes(node.inode, mode=mode)

        def rename(old: bytes, new: bytes) -> Iterator[object]:
            for parent, name in names:
                yield tree.rename(parent, name.replace(b"file", old), parent, name.replace(b"file", new))

        self.timed("chmod (and lookup), not seen lately", count, lambda: self.grouped(chmod(0o600)))
        self.timed("chmod (and lookup)", count, lambda: self.grouped(chmod(0o640)))
        self.timed("rename", count, lambda: self.grouped(rename(b"file", b"renamed")))
        self.grouped(rename(b"renamed", b"file"))

    def _forget(self) -> None:
        self.metadata.store.flush()
        for forget in self.metadata.store.on_clear:
            forget()
        self.metadata.tree._nodes.clear()

    def _colds(self, paths: list[bytes]) -> None:
        """Look paths up when nothing is in this process's own caches."""
        took_s = worked_s = 0.0
        for path in paths:
            self._forget()
            start = Stopwatch()
            self.metadata.tree.resolve(path)
            took_s, worked_s = took_s + start.read()[0], worked_s + start.read()[1]
        self.took["lookup, depth 5, cold"].append(1e6 * took_s / len(paths))
        self.worked["lookup, depth 5, cold"].append(1e6 * worked_s / len(paths))

    def disk(self) -> tuple[float, list[tuple[str, float]]]:
        """Return bytes a file, and those of each table and index."""
        self.metadata.log.commit()
        database = self.metadata.store.db
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = database.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name ORDER BY 2 DESC").fetchall()
        return self.path.stat().st_size / self.files, [(name, size / self.files) for name, size in rows]


def merge(subjects: list[Subject], folder: Path, changes: int) -> dict[str, list[float]]:
    """Let each subject apply what another pod wrote; return the slices (ms) for which that held up the loop."""
    (folder / "other").mkdir(exist_ok=True)
    other = Metadata(folder / "other" / "metadata.db", open_roots())
    fill(other, changes // 2, prefix=b"o", group=COPIED)
    other.log.durable(other.log.commit())
    pages = list(read_pages(other))
    slices = {one.name: anyio.run(receive, one, pages, changes, backend="trio") for one in subjects}
    other.close()
    return slices


def read_pages(other: Metadata) -> Iterator[list[Entry]]:
    """Yield the log of a pod as anti-entropy would send it."""
    after = 0
    while entries := other.log.read(other.writer, after, 256 << 10):
        yield entries
        after = entries[-1].sequence


async def receive(subject: Subject, pages: list[list[Entry]], changes: int) -> list[float]:
    """Apply pages beside a task that notes how long it doesn't get its turn (ms)."""
    gaps: list[float] = []

    async def probe() -> None:
        while True:
            start = time.perf_counter()
            await checkpoint()
            gaps.append(1000 * (time.perf_counter() - start))

    async with anyio.create_task_group() as group:
        group.start_soon(probe)
        await group.start(subject.metadata.committer.run)
        start = Stopwatch()
        for page in pages:
            await subject.metadata.log.receive(page, SOMEBODY)
        await subject.metadata.committer.durable()
        subject.note("remote change applied", start, changes)
        group.cancel_scope.cancel()
    return [one for one in gaps if one > IDLE_MS]


def equal_pods(subject: Subject) -> tuple[int, float]:
    """Return (bytes, ms) of one exchange between two pods that have the same log."""
    log = subject.metadata.log
    start = time.perf_counter()
    one, two = (AntiEntropy(PodId(digit * 32), random.Random(1)) for digit in "12")
    two.link_up(one.me, log.vector(), 0.0)
    size = 0
    sends = one.link_up(two.me, log.vector(), 0.0).sends
    while sends:
        size += sum(len(encode(send.tag, send.message)) for send in sends)
        sends = [more for send in sends for more in two.on_vector(one.me, send.message, log.vector(), 0.0).sends]
    return 2 * size, 2000 * (time.perf_counter() - start)


def percentile(values: list[float], share: float) -> float:
    """Return the value that ``share`` (0-1) of all don't exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]
