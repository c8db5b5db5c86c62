"""Compare a local folder, a Wormhole mount, two Wormhole pods and sshfs: one run, interleaved, ratios of medians.

    .venv/bin/python -m benchmarks.compare [--rounds 5] [--megabytes 256] [--markdown]

Absolute figures are this machine's at this moment; only ratios within one run mean something.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from benchmarks.targets import Target, drop_kernel_caches, local, one_pod, sshfs, two_pods

Workload = Callable[[Target, str, int], float]


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def visibility(target: Target, tag: str, megabytes: int) -> float:
    """Milliseconds from writing a new small file on one side to having read it on the other."""
    took = []
    for number in range(20):
        name = f"{tag}.{number}"
        start = time.perf_counter()
        (target.write / name).write_bytes(b"hello")
        while True:
            with contextlib.suppress(FileNotFoundError):
                if (target.read / name).read_bytes() == b"hello":
                    break
            if time.perf_counter() - start > 30:
                raise SystemExit(f"{target.name}: not visible within 30 s")
        took.append(time.perf_counter() - start)
    return 1000 * statistics.median(took)


def write_blocks(path: Path, megabytes: int) -> None:
    block = os.urandom(1 << 20)
    with open(path, "wb") as file:
        file.writelines(number.to_bytes(8, "big") + block[8:] for number in range(megabytes))
        file.flush()
        os.fsync(file.fileno())


def read_blocks(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass


def bulk_read(target: Target, tag: str, megabytes: int) -> float:
    """MB/s of reading a file never seen on the reading side."""
    write_blocks(target.write / tag, megabytes)
    target.settle()
    drop_kernel_caches()
    return megabytes * 1.048576 / timed(lambda: read_blocks(target.read / tag))


def sequential_read(target: Target, tag: str, megabytes: int) -> float:
    """MB/s of reading it again where it was written, kernel cache dropped."""
    write_blocks(target.read / tag, megabytes)
    target.settle()
    drop_kernel_caches()
    return megabytes * 1.048576 / timed(lambda: read_blocks(target.read / tag))


def sequential_write(target: Target, tag: str, megabytes: int) -> float:
    """MB/s of writing with a final fsync."""
    return megabytes * 1.048576 / timed(lambda: write_blocks(target.read / tag, megabytes))


def make_files(folder: Path, number: int, data: bytes) -> None:
    folder.mkdir()
    for index in range(number):
        (folder / f"file-{index:05}").write_bytes(data)


def small_files(target: Target, tag: str, megabytes: int) -> float:
    """Files of 4 KiB a second, made on one side until read on the other."""

    def work() -> None:
        make_files(target.write / tag, 500, os.urandom(4096))
        for index in range(500):
            path = target.read / tag / f"file-{index:05}"
            end = time.perf_counter() + 30
            while True:
                with contextlib.suppress(FileNotFoundError):
                    if len(path.read_bytes()) == 4096:
                        break
                if time.perf_counter() > end:
                    raise SystemExit(f"{target.name}: not visible within 30 s")

    return 500 / timed(work)


def create(target: Target, tag: str, megabytes: int) -> float:
    """Files a second: create, write 4 KiB, close."""
    return 1000 / timed(lambda: make_files(target.read / tag, 1000, os.urandom(4096)))


def stat_storm(target: Target, tag: str, megabytes: int) -> float:
    """stat calls a second over 2,000 files, kernel cache dropped."""
    folder = prepared(target, 2000)
    drop_kernel_caches()
    return 2000 / timed(lambda: [os.stat(folder / f"file-{index:05}") for index in range(2000)])


def list_long(target: Target, tag: str, megabytes: int) -> float:
    """Entries a second of `ls -l` of 10,000, kernel cache dropped."""
    folder = prepared(target, 10_000)
    drop_kernel_caches()

    def work() -> None:
        with os.scandir(folder) as entries:
            assert sum(entry.stat(follow_symlinks=False).st_size >= 0 for entry in entries) == 10_000

    return 10_000 / timed(work)


def prepared(target: Target, number: int) -> Path:
    """Return a folder of so many small files, made once."""
    folder = target.read / f"prepared-{number}"
    if not folder.exists():
        make_files(folder, number, b"x")
        target.settle()
    return folder


WORKLOADS: dict[str, tuple[Workload, str, bool]] = {
    # name: (workload, unit, greater is better)
    "visible elsewhere": (visibility, "ms", False),
    "bulk read, unseen": (bulk_read, "MB/s", True),
    "small files until read elsewhere": (small_files, "files/s", True),
    "create + 4 KiB + close": (create, "files/s", True),
    "stat, cold": (stat_storm, "1/s", True),
    "ls -l of 10,000, cold": (list_long, "entries/s", True),
    "sequential read, cold": (sequential_read, "MB/s", True),
    "sequential write + fsync": (sequential_write, "MB/s", True),
}


def measure(targets: list[Target], rounds: int, megabytes: int) -> dict[tuple[str, str], list[float]]:
    """Run every workload on every target in turn, round by round; the first round is not counted."""
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, (workload, _, _) in WORKLOADS.items():
            for target in targets:
                tag = f"{name.split(',')[0].replace(' ', '-').replace('+', 'and')}-{number}"
                value = workload(target, tag, megabytes)
                remove(target.write, tag)
                remove(target.read, tag)  # sshfs may list for a while what the server removed
                if number:
                    figures[name, target.name].append(value)
    return figures


def remove(folder: Path, tag: str) -> None:
    for left in folder.glob(f"{tag}*"):
        with contextlib.suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def table(targets: list[Target], figures: dict[tuple[str, str], list[float]], base: str) -> list[list[str]]:
    """Return rows of medians with the ratio to ``base`` (greater is better, always)."""
    rows = [["", "unit", *(target.name for target in targets)]]
    for name, (_, unit, greater) in WORKLOADS.items():
        row = [name, unit]
        reference = statistics.median(figures[name, base])
        for target in targets:
            value = statistics.median(figures[name, target.name])
            ratio = value / reference if greater else reference / value
            row.append(f"{value:,.1f} ({ratio:.2f})" if value < 100 else f"{value:,.0f} ({ratio:.2f})")
        rows.append(row)
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="whb-"))
    try:
        with local(folder) as a, sshfs(folder) as b, one_pod(folder) as c, two_pods(folder) as d:
            targets = [target for target in (a, b, c, d) if target is not None]
            figures = measure(targets, options.rounds, options.megabytes)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    base = "sshfs" if any(target.name == "sshfs" for target in targets) else "ext4"
    rows = table(targets, figures, base)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"medians of {options.rounds}; in brackets the ratio to {base}, greater is better")
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0 and options.markdown:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


if __name__ == "__main__":
    main()
