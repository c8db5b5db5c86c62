"""A million files: what the tree costs in time, memory and bytes, each figure beside its target and the machine's own.

.venv/bin/python -m benchmarks.million [--files 1000000] [--only engine|pods]

The engine's part works on copies of prepared trees of 10,000 and of ``--files`` files. The pods' part starts real pods
with mounts (needs FUSE): one with the prepared tree, then a second one that joins over loopback and learns it all. The
first run makes the prepared trees below the folder for temporary files, which takes minutes; later ones use them again.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import statistics
import tempfile
from pathlib import Path

from benchmarks.growth import ROUNDS, Subject, equal_pods, merge, percentile
from benchmarks.learning import Figures, measure_pods
from benchmarks.machine import raw_figures
from benchmarks.prepared import prepared
from pod import COLLECT

SMALL = 10_000
CHANGES = 100_000


def measure_engine(files: int, folder: Path, changes: int) -> Figures:
    """Measure what needs no running pod."""
    small = Subject("small", prepared(SMALL), folder, SMALL)
    large = Subject("large", prepared(files), folder, files)
    disk, tables = large.disk()
    for number in range(ROUNDS):
        for one in (small, large):
            one.round(number)
    slices = merge([small, large], folder, changes)["large"]
    size, took_ms = equal_pods(large)
    figures: Figures = []
    targets = {"create": "60", "rename": "60", "chmod (and lookup)": "60", "remote change applied": "60"}
    targets |= {"lookup, depth 5, warm": "15", "lookup, depth 5, cold": "100"}
    for name in large.took:
        (took, worked), (least, least_worked) = (
            (statistics.median(one.took[name]), statistics.median(one.worked[name])) for one in (large, small)
        )
        growth = f"with {SMALL:,}: {least:.1f}, processor {least_worked:.1f} µs; ratio {worked / least_worked:.2f}"
        target = f"≤ {targets[name]} µs" if name in targets else ""
        figures.append((name, f"{took:.1f} µs, processor {worked:.1f} µs", target, growth))
    figures += [
        (
            f"slices while {changes:,} changes merge, p99",
            f"{percentile(slices, 0.99):.1f} ms",
            "≤ 20 ms",
            worst(slices),
        ),
        ("anti-entropy of equal pods", f"{size:,} B, {took_ms:.2f} ms", "≤ 64 KiB, 50 ms", ""),
        ("metadata on disk, a file", f"{disk:.0f} B", "≤ 700 B", ""),
        ("opening the file", f"{large.opened_s:.2f} s", "", f"{small.opened_s:.2f} s with {SMALL:,}"),
    ]
    figures += [(f"    {name}", f"{size:.0f} B", "", "") for name, size in tables if size >= 1]
    return figures


def worst(slices: list[float]) -> str:
    """Say how long the longest slice was."""
    return f"longest {max(slices):.1f} ms, {sum(one > 20 for one in slices)} over 20 ms"


def show(figures: Figures) -> None:
    """Print a table."""
    rows = [("what", "measured", "target", ""), *figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--changes", type=int, default=CHANGES, help="changes merged in the measurement of slices")
    parser.add_argument("--only", choices=("engine", "pods"))
    options = parser.parse_args()
    figures: Figures = [(f"the machine: {name}", figure, "", "") for name, figure in raw_figures()]
    folder = Path(tempfile.mkdtemp(prefix="whb-"))
    gc.freeze()
    gc.set_threshold(*COLLECT)  # as in a pod
    try:
        if options.only != "pods":
            figures += measure_engine(options.files, folder, options.changes)
        if options.only != "engine":
            figures += measure_pods(prepared(options.files), folder, options.files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(figures)


if __name__ == "__main__":
    main()
