"""Real pods with a large tree: start, memory, status, and a second pod that learns everything over loopback."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.growth import percentile
from benchmarks.prepared import FAN, copied
from benchmarks.targets import wormhole
from crdt_meta.rows import TOTALS

Figures = list[tuple[str, str, str, str]]
"""Rows of (what, measured, target, note)."""

IDLE_S = 10.0
LEARN_LIMIT_S = 600.0
QUIET_S = 20.0
"""Pods are equal once nothing has come for so long: segments are written anew in turns of six seconds."""


class Probe(threading.Thread):
    """Uses a mount as a person would, and notes how long each use takes (ms)."""

    def __init__(self, use: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._use = use
        self._ended = threading.Event()
        self.took: list[float] = []
        self.failed = 0

    def run(self) -> None:
        """Measure until `end`."""
        while not self._ended.wait(0.01):
            start = time.perf_counter()
            try:
                self._use()
            except OSError:
                self.failed += 1
            self.took.append(1000 * (time.perf_counter() - start))

    def end(self) -> str:
        """Stop; return p50, p99 and the slowest."""
        self._ended.set()
        self.join(60)
        took = self.took or [0.0]
        p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
        return f"p50 {p50:.1f}, p99 {p99:.1f}, slowest {max(took):.0f} ms of {len(took)}, {self.failed} failed"


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


def shown(home: Path) -> int:
    """Return how many files a pod shows, as committed, read beside it."""
    with contextlib.closing(sqlite3.connect(f"file:{home / 'metadata.db'}?mode=ro", uri=True, timeout=5)) as database:
        row = database.execute("SELECT value FROM meta WHERE key = ?", (TOTALS,)).fetchone()
    return int(row[0].split()[0]) if row else 0


def progress(home: Path) -> tuple[dict[bytes, int], list[int]]:
    """Return up to which transaction of each writer a pod has the log, and the numbers of its own holdings and others'."""
    with contextlib.closing(sqlite3.connect(f"file:{home / 'metadata.db'}?mode=ro", uri=True, timeout=5)) as database:
        log = dict(database.execute("SELECT writer, sequence FROM writer WHERE sequence > 0"))
    with contextlib.closing(sqlite3.connect(f"file:{home / 'holdings.db'}?mode=ro", uri=True, timeout=5)) as database:
        query = "SELECT coalesce(max(sequence), 0) FROM own UNION ALL SELECT coalesce(max(sequence), 0) FROM peer"
        return log, [sequence for (sequence,) in database.execute(query)]


def wait_until_equal(homes: list[Path]) -> None:
    """Return once two pods know the same, and write nothing more: who has what is told long after the tree is shown."""
    end, since, before = time.monotonic() + LEARN_LIMIT_S, time.monotonic(), None
    while time.monotonic() < min(end, since + QUIET_S):
        one, other = now = [progress(home) for home in homes]
        if now != before or one[0] != other[0] or one[1] != other[1][::-1]:
            since, before = time.monotonic(), now
        time.sleep(0.5)


def reading(mount: Path, files: int) -> Callable[[], object]:
    """Return a use of the mount: look at one file anywhere, list its folder now and then, write a small file."""
    drawn = random.Random(2)

    def use() -> None:
        one = drawn.randrange(files // FAN)
        folder = mount / "home" / "user" / f"d-{one // FAN:05}" / f"s-{one % FAN:02}"
        kind = drawn.random()
        if kind < 0.1:
            os.listdir(folder)
        elif kind < 0.2:
            (mount / f"note-{drawn.randrange(20)}").write_bytes(b"hello")
        else:
            os.stat(folder / f"file-{drawn.randrange(FAN):02}.txt")

    return use


def writing(mount: Path) -> Callable[[], object]:
    """Return a use of a mount that has no files yet: list the root, write and read a small file."""
    drawn = random.Random(3)

    def use() -> None:
        name = mount / f"new-{drawn.randrange(20)}"
        os.listdir(mount)
        name.write_bytes(b"hello")
        name.read_bytes()

    return use


@contextlib.contextmanager
def running(home: Path, mount: Path, *arguments: str) -> Iterator[dict[str, object]]:
    """Start a pod with `wormhole up` or ``arguments``; stop it in the end."""
    try:
        yield wormhole(home, *(arguments or ("up",)))
    finally:
        with contextlib.suppress(SystemExit):
            wormhole(home, "down")
        subprocess.run(["fusermount3", "-u", "-z", "-q", str(mount)], check=False)


def with_mount(home: Path, mount: Path) -> None:
    """Write the mount point into pod.toml."""
    toml = home / "pod.toml"
    lines = [line for line in toml.read_text().splitlines() if not line.strip().startswith("mount")]
    at = lines.index("[pod]") + 1
    toml.write_text("\n".join([*lines[:at], f'mount = "{mount}"', *lines[at:], ""]))


def measure_pods(prepared: Path, folder: Path, files: int) -> Figures:
    """Measure with real pods."""
    homes, mounts = [folder / "a", folder / "b"], [folder / "a.mount", folder / "b.mount"]
    copied(prepared, homes[0])
    with_mount(homes[0], mounts[0])
    figures: Figures = []
    start = time.perf_counter()
    with running(homes[0], mounts[0]):
        names = os.listdir(mounts[0] / "home" / "user")
        took = time.perf_counter() - start
        figures.append(("start until the first `ls` answers", f"{took:.2f} s", "≤ 5 s", f"{len(names)} names"))
        time.sleep(IDLE_S)
        status = wormhole(homes[0], "status")
        pid = int(str(status["pid"]))
        figures.append(("memory after the start, idle", f"{rss_mib(pid):.0f} MiB", "≤ 300 MiB", ""))
        start = time.perf_counter()
        wormhole(homes[0], "status")
        figures.append(("`wormhole status`", f"{time.perf_counter() - start:.2f} s", "", "with the start of a process"))
        quiet = Probe(reading(mounts[0], files))
        quiet.start()
        time.sleep(IDLE_S)
        figures.append(("mount of that pod, quiet", quiet.end(), "", ""))
        figures += measure_learning(homes, mounts, files, pid)
        figures.append(("memory of the serving pod afterwards", f"{rss_mib(pid):.0f} MiB", "", ""))
    return figures


def measure_learning(homes: list[Path], mounts: list[Path], files: int, serving: int) -> Figures:
    """Let a second pod join and learn."""
    code = wormhole(homes[0], "invite")
    join = ("join", "--code", str(code["code"]), "--peer", str(wormhole(homes[0], "status")["address"]))
    served = Probe(reading(mounts[0], files))
    served.start()
    start = time.perf_counter()
    figures: Figures = []
    with running(homes[1], mounts[1], *join, "--mount", str(mounts[1]), "--listen", "127.0.0.1:0", "--pod", "b"):
        joined = time.perf_counter() - start
        used = Probe(writing(mounts[1]))
        used.start()
        pid = int((homes[1] / "pod.lock").read_text().split()[0])
        most = 0.0
        while shown(homes[1]) < files and time.perf_counter() - start < LEARN_LIMIT_S:
            time.sleep(0.5)
            most = max(most, rss_mib(pid))
        took = time.perf_counter() - start
        figures.append(("a new pod learns everything", f"{took:.0f} s", "≤ 90 s", f"mounted after {joined:.1f} s"))
        figures.append(("  its mount meanwhile", used.end(), "usable", "list the root, write and read a file"))
        figures.append(("  mount of the serving pod meanwhile", served.end(), "p99 ≤ 50 ms", ""))
        figures.append(("  its memory at most", f"{most:.0f} MiB", "", ""))
        count = sum(len(os.listdir(one)) for one in (mounts[1] / "home" / "user" / "d-00000").iterdir())
        figures.append(("  files in the first folders there", f"{count}", f"{min(files, FAN * FAN)}", ""))
        time.sleep(IDLE_S)
        figures.append(("  its memory, idle", f"{rss_mib(pid):.0f} MiB", "", ""))
        wait_until_equal(homes)
    figures += measure_equal(homes, mounts, serving)
    return figures


def measure_equal(homes: list[Path], mounts: list[Path], serving: int) -> Figures:
    """Start the second pod again when nothing has changed: the bytes that two equal pods exchange, all included."""
    start = time.perf_counter()
    with running(homes[1], mounts[1]):
        os.listdir(mounts[1])
        took = time.perf_counter() - start
        time.sleep(2)
        size = link_bytes(serving)
    return [
        ("start of the second pod, linked and mounted", f"{took:.2f} s", "≤ 5 s", ""),
        ("  bytes of its links to an equal pod since", f"{size:,} B", "≤ 64 KiB", "handshakes and gossip included"),
    ]


def link_bytes(pid: int) -> int:
    """Return the bytes that went both ways over the open connections of a process."""
    done = subprocess.run(["ss", "-tinp"], capture_output=True, text=True, check=False)
    total, ours = 0, False
    for line in done.stdout.splitlines():
        if not line.startswith((" ", "\t")):
            ours = f"pid={pid}," in line
        elif ours:
            fields = dict(field.split(":", 1) for field in line.split() if ":" in field)
            total += int(fields.get("bytes_sent", 0)) + int(fields.get("bytes_received", 0))
    return total
