"""What it costs the engine alone to learn a tree from the log of another pod, as a new pod does.

.venv/bin/python -m benchmarks.catching_up [--files 100000] [--whole 60]

The first ``--whole`` segments are written anew before, as a running pod does with its oldest: then nothing is shown before
all of the log is here (catch-up is staged). With ``--whole 0`` every transaction is applied as it comes.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import tempfile
import time
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint

from base.home import Home
from benchmarks.growth import IDLE_MS, SOMEBODY, percentile, read_pages
from benchmarks.metadata import open_replica, report
from benchmarks.prepared import copied, open_metadata, prepared
from crdt_meta.metadata import Metadata
from mesh.api import Entry
from pod import COLLECT


def served(files: int, whole: int, folder: Path) -> tuple[list[list[Entry]], int]:
    """Return what a pod with so many files sends of its log, in pages, and how many files it shows."""
    copied(prepared(files), folder / "home")
    metadata = open_metadata(Home(folder / "home"))
    metadata.log.durable(metadata.log.commit())
    for segment in range(min(whole, metadata.log.open_segment)):
        metadata.log.compact(segment)
        metadata.log.durable(metadata.log.commit())
    pages, shown = list(read_pages(metadata)), metadata.tree.totals().files
    metadata.close()
    return pages, shown


def written() -> int:
    """Return the bytes that this process has written."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


async def learn(learner: Metadata, pages: list[list[Entry]], files: int) -> None:
    """Receive everything beside a task that notes how long it doesn't get its turn; print what it took."""
    gaps: list[float] = []

    async def probe() -> None:
        while True:
            start = time.perf_counter()
            await checkpoint()
            gaps.append(1000 * (time.perf_counter() - start))

    async with anyio.create_task_group() as group:
        group.start_soon(probe)
        await group.start(learner.committer.run)
        start, processor, before = time.perf_counter(), time.process_time(), written()
        for page in pages:  # each in a message of its own
            await checkpoint()
            await learner.log.receive(page, SOMEBODY)
        await learner.committer.durable()
        report("learning, a file", files, start, processor)
        print(f"{'written':34} {(written() - before) / files:8.0f} B a file")
        group.cancel_scope.cancel()
    gaps = [one for one in gaps if one > IDLE_MS]
    print(
        f"{'slices':34} p50 {percentile(gaps, 0.5):.1f}, p99 {percentile(gaps, 0.99):.1f}, longest {max(gaps):.0f} ms"
    )
    assert learner.tree.totals().files == files


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--whole", type=int, default=60, help="segments that were written anew")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="whb-"))
    try:
        pages, files = served(options.files, options.whole, folder)
        gc.freeze()
        gc.set_threshold(*COLLECT)  # as in a pod
        learner = open_replica(folder / "learner")
        anyio.run(learn, learner, pages, files, backend="trio")
        learner.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
