"""How soon a new file on one pod can be listed and read on another: percentiles over many files.

.venv/bin/python -m benchmarks.visible [--files 100]
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.targets import two_pods


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="whb-"))
    took: list[float] = []
    try:
        with two_pods(folder) as target:
            for number in range(options.files):
                start = time.perf_counter()
                (target.write / f"{number}").write_bytes(b"hello")
                while True:
                    with contextlib.suppress(FileNotFoundError):
                        if (target.read / f"{number}").read_bytes() == b"hello":
                            break
                    time.sleep(0.0005)
                took.append(1000 * (time.perf_counter() - start))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    took.sort()
    p99 = took[min(len(took) - 1, round(0.99 * len(took)))]
    print(f"{len(took)} files: p50 {statistics.median(took):.1f} ms, p99 {p99:.1f} ms, slowest {took[-1]:.1f} ms")


if __name__ == "__main__":
    main()
