"""Bytes between two pods on one machine, beside sshfs and blocking TLS 1.3 sockets, interleaved; medians and ratios.

    .venv/bin/python -m benchmarks.reading [--rounds 5] [--megabytes 512] [--only unseen,first-byte,small,scrub,memory]

``unseen``: a file that the reading side never saw, and the same file again. ``first-byte``: one byte at a random offset of
a file never seen. ``small``: 2,000 files of 4 KiB made on one side until all are read on the other. ``scrub``: `wormhole
scrub` of what the unseen files left, and its processor while another program works. ``memory``: the most that either pod
takes while 4 GiB move (chunks of random data, so nothing is stored twice).
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks import links
from benchmarks.compare import read_blocks, timed, write_blocks
from benchmarks.machine import raw_figures
from benchmarks.targets import Target, drop_kernel_caches, sshfs, two_pods, wormhole
from tests.cluster.lab import processes_of, wait_until
from tests.unit.mesh.cluster import found

SMALL_FILES = 2000
GLANCES = 5
GLANCE_MIB = 72
"""Larger than what is cached as a whole at the first look (64 MiB)."""
MEMORY_MIB = 4096
Figures = dict[tuple[str, str], list[float]]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def blocking_tls(folder: Path) -> Iterator[int]:
    """Serve `links.PIECES` MiB over blocking TLS sockets; yield the port."""
    found(folder / "tls")
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=links.serve_blocking, args=(folder / "tls", there))
    server.start()
    try:
        yield int(here.recv())
    finally:
        server.kill()


def unseen(targets: list[Target], figures: Figures, port: int, number: int, megabytes: int) -> None:
    figures["unseen file, MB/s", "raw TLS"].append(links.through_blocking(port) / 1e6)
    for target in targets:
        write_blocks(target.write / f"large-{number}", megabytes)
        target.settle()
        drop_kernel_caches()
        for what in ("unseen file, MB/s", "the same again, MB/s"):
            took = timed(lambda target=target: read_blocks(target.read / f"large-{number}"))  # type: ignore[misc]
            figures[what, target.name].append(megabytes * 1.048576 / took)


def first_byte(targets: list[Target], figures: Figures, number: int) -> None:
    for target in targets:
        for glance in range(GLANCES):
            path = f"glance-{number}-{glance}"
            write_blocks(target.write / path, GLANCE_MIB)
        target.settle()
        drop_kernel_caches()
        for glance in range(GLANCES):
            with open(target.read / f"glance-{number}-{glance}", "rb", buffering=0) as file:
                started = time.perf_counter()
                file.seek(random.randrange(GLANCE_MIB << 20))
                assert len(file.read(1)) == 1
                figures["first byte, ms", target.name].append(1000 * (time.perf_counter() - started))


def small(targets: list[Target], figures: Figures, number: int) -> None:
    data = [os.urandom(4096) for _ in range(SMALL_FILES)]
    for target in targets:

        def work(target: Target = target) -> None:
            folder = target.write / f"small-{number}"
            folder.mkdir()
            for index, block in enumerate(data):
                (folder / f"{index:05}").write_bytes(block)
            made = time.perf_counter()
            for index, block in enumerate(data):
                path, end = target.read / f"small-{number}" / f"{index:05}", time.perf_counter() + 30
                while True:
                    with contextlib.suppress(FileNotFoundError):
                        if path.read_bytes() == block:
                            break
                    if time.perf_counter() > end:
                        raise SystemExit(f"{target.name}: not visible within 30 s")
            figures["of it reading, s", target.name].append(time.perf_counter() - made)

        figures["small files until read, files/s", target.name].append(SMALL_FILES / timed(work))


def processor_s(home: Path) -> float:
    """Return the seconds of processor that a pod has used so far."""
    ticks = 0
    for pid in processes_of(home):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def scrub(target: Target) -> None:
    assert target.home is not None
    for busy in (False, True):
        drop_kernel_caches()
        before, started = processor_s(target.home), time.perf_counter()
        with contextlib.ExitStack() as stack:
            if busy:
                other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                stack.callback(other.wait)
                stack.callback(other.kill)
            found = wormhole(target.home, "scrub")
        took = time.perf_counter() - started
        worked = (processor_s(target.home) - before) / took
        rate = int(str(found["bytes"])) / took / 1e6
        say(f"scrub, {'beside other work' if busy else 'idle'}: {rate:.0f} MB/s, {worked:.0%} of a processor")


def memory(target: Target) -> None:
    assert target.home is not None
    homes, most, done = [target.home, target.home.parent / "b"], [0.0, 0.0], threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            for index, home in enumerate(homes):
                for pid in processes_of(home):
                    with contextlib.suppress(OSError, StopIteration):
                        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
                        most[index] = max(most[index], kib / 1024)

    watcher = threading.Thread(target=look)
    watcher.start()
    for part in range(MEMORY_MIB // 1024):
        name = f"moving-{part}"
        write_blocks(target.write / name, 1024)
        seen = target.read / name
        wait_until(lambda seen=seen: seen.exists() and seen.stat().st_size == 1 << 30)  # type: ignore[misc]
        read_blocks(seen)
        say(f"moved {part + 1} GiB: at most {most[0]:.0f} MiB where it is written, {most[1]:.0f} MiB where it is read")
        (target.write / name).unlink()
    done.set()
    watcher.join()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--only", default="unseen,first-byte,small,scrub,memory")
    options = parser.parse_args()
    only, figures = options.only.split(","), defaultdict[tuple[str, str], list[float]](list)
    folder = Path(tempfile.mkdtemp(prefix="whb-"))
    try:
        with sshfs(folder) as other, two_pods(folder) as pods, blocking_tls(folder) as port:
            targets = [target for target in (other, pods) if target is not None]
            for number in range(options.rounds):
                if "unseen" in only:
                    unseen(targets, figures, port, number, options.megabytes)
                if "first-byte" in only:
                    first_byte(targets, figures, number)
                if "small" in only:
                    small(targets, figures, number)
            if "scrub" in only:
                scrub(pods)
            if "memory" in only:
                memory(pods)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for what, name in figures:
        values = sorted(figures[what, name])
        say(f"{what:34} {name:10} median {statistics.median(values):9.1f}   from {values[0]:9.1f} to {values[-1]:9.1f}")
    say("; ".join(f"{what}: {figure}" for what, figure in raw_figures()))


if __name__ == "__main__":
    main()
