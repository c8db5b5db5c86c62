"""The figures that the mount has to reach, against sshfs over loopback and the local file system, in one run.

    .venv/bin/python -m benchmarks.mount_figures [--rounds 5] [--only NAME ...] [--files 5000] [--megabytes 1024]

Interleaved: every round runs each piece of work on every target in turn; the first round isn't counted unless it is the
only one. Printed are medians, the ratio to what the goal is set against, and the goal. Ratios are "times as fast";
only they mean something. ``--only`` takes the beginnings of names of work (see `WORK`), ``--profile FILE`` keeps
what py-spy sees of the pod meanwhile (where py-spy is on the path).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.compare import make_files, read_blocks, remove, timed, write_blocks
from benchmarks.targets import Target, drop_kernel_caches, local, one_pod, sshfs, wormhole

LISTED: Final = 10_000
STATTED: Final = 2000
CREATED: Final = 1000
APPENDS: Final = 200
RANDOM_READS: Final = 2000
IDLE_FILES: Final = 100_000
IDLE_S: Final = 30.0
SMALL: Final = 4096


@dataclass(frozen=True)
class Inputs:
    """What is prepared once, on the local file system."""

    folder: Path
    files: int
    megabytes: int
    prepared: set[tuple[str, str]] = field(default_factory=set)

    @property
    def archive(self) -> Path:
        """A tar file of many small files."""
        return self.folder / "many.tar"

    @property
    def repository(self) -> Path:
        """A bare git repository of as many."""
        return self.folder / "many.git"

    def once(self, target: Target, what: str, make: Callable[[Path], object]) -> Path:
        """Return a path on the target that ``make`` filled at its first use."""
        path = target.read / what
        if (target.name, what) not in self.prepared:
            make(path)
            target.settle()
            self.prepared.add((target.name, what))
        return path


Figures = dict[str, float]
Work = Callable[[Target, str, Inputs], Figures]
"""Returns how much was done in a second, by the name of the figure."""


@dataclass(frozen=True)
class Goal:
    """One figure: its unit, and the least ratios to other targets."""

    unit: str
    ratios: tuple[tuple[str, float], ...]


GOALS: Final = {
    "stat, cold": Goal("1/s", (("sshfs", 4),)),
    "stat, warm": Goal("1/s", (("ext4", 0.75),)),
    "ls -l of 10,000, first": Goal("entries/s", (("sshfs", 5),)),
    "ls -l of 10,000, again": Goal("entries/s", (("ext4", 0.4),)),
    "open + read 4 KiB + close": Goal("1/s", (("sshfs", 5),)),
    "create + write 4 KiB + close": Goal("1/s", (("sshfs", 4),)),
    "untar": Goal("files/s", (("sshfs", 3),)),
    "rm -rf": Goal("files/s", (("sshfs", 3),)),
    "git clone": Goal("files/s", (("sshfs", 2),)),
    "git status, warm": Goal("files/s", (("ext4", 0.5),)),
    "sequential read, cold": Goal("MB/s", (("sshfs", 2.5),)),
    "sequential read, warm": Goal("MB/s", (("sshfs", 8),)),
    "sequential write + fsync": Goal("MB/s", (("sshfs", 1.5),)),
    "random 4 KiB read, cold": Goal("1/s", (("sshfs", 3),)),
    "4 KiB append + fsync": Goal("1/s", (("sshfs", 1),)),
}


def stats(target: Target, tag: str, inputs: Inputs) -> Figures:
    """Run stat over many files, with nothing and with everything in the kernel's memory."""
    folder = inputs.once(target, "statted", lambda path: make_files(path, STATTED, b"x"))
    paths = [str(folder / f"file-{index:05}") for index in range(STATTED)]
    drop_kernel_caches()
    cold = timed(lambda: [os.stat(path) for path in paths])
    warm = timed(lambda: [os.stat(path) for path in paths for _ in range(5)])
    return {"stat, cold": STATTED / cold, "stat, warm": 5 * STATTED / warm}


def listings(target: Target, tag: str, inputs: Inputs) -> Figures:
    """List a large directory with all attributes, twice."""
    folder = inputs.once(target, "listed", lambda path: make_files(path, LISTED, b"x"))

    def work() -> None:
        with os.scandir(folder) as entries:
            assert sum(entry.stat(follow_symlinks=False).st_size >= 0 for entry in entries) == LISTED

    drop_kernel_caches()
    first = timed(work)
    return {"ls -l of 10,000, first": LISTED / first, "ls -l of 10,000, again": LISTED / timed(work)}


def opens(target: Target, tag: str, inputs: Inputs) -> Figures:
    """Open, read and close many small files, names and pages forgotten before."""
    folder = inputs.once(target, "opened", lambda path: make_files(path, STATTED, os.urandom(SMALL)))
    paths = [str(folder / f"file-{index:05}") for index in range(STATTED)]

    def work() -> None:
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            assert len(os.read(descriptor, SMALL)) == SMALL
            os.close(descriptor)

    drop_kernel_caches()
    return {"open + read 4 KiB + close": STATTED / timed(work)}


def creates(target: Target, tag: str, inputs: Inputs) -> Figures:
    """Make many small files, all different."""
    folder = target.read / tag
    folder.mkdir()
    blocks = [os.urandom(SMALL) for _ in range(CREATED)]

    def work() -> None:
        for index, block in enumerate(blocks):
            descriptor = os.open(folder / f"file-{index:05}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(descriptor, block)
            os.close(descriptor)

    return {"create + write 4 KiB + close": CREATED / timed(work)}


def archives(target: Target, tag: str, inputs: Inputs) -> Figures:
    """Unpack an archive, and remove what came out."""
    folder = target.read / tag
    folder.mkdir()
    untar = timed(lambda: subprocess.run(["tar", "-xf", inputs.archive, "-C", folder], check=True))
    target.settle()
    rm = timed(lambda: subprocess.run(["rm", "-rf", folder], check=True))
    return {"untar": inputs.files / untar, "rm -rf": inputs.files / rm}


def repositories(target: Target, tag: str, inputs: Inputs) -> Figures:
    """Clone a repository and look for changes in the clone."""
    folder = target.read / tag
    clone = ["git", "clone", "-q", f"file://{inputs.repository}", str(folder)]
    cloned = timed(lambda: subprocess.run(clone, check=True))
    target.settle()
    status = ["git", "-C", str(folder), "status", "--porcelain"]
    subprocess.run(status, check=True)
    warm = timed(lambda: subprocess.run(status, check=True))
    return {"git clone": inputs.files / cloned, "git status, warm": inputs.files / warm}


def sequential(target: Target, tag: str, inputs: Inputs) -> Figures:
    """Write a large file with a final fsync, read it from the disk, read it again."""
    path, megabytes = target.read / tag, inputs.megabytes // 4
    size = megabytes * 1.048576
    write = timed(lambda: write_blocks(path, megabytes))
    target.settle()
    drop_kernel_caches()
    cold = timed(lambda: read_blocks(path))
    warm = timed(lambda: read_blocks(path))
    return {
        "sequential write + fsync": size / write,
        "sequential read, cold": size / cold,
        "sequential read, warm": size / warm,
    }


def random_reads(target: Target, tag: str, inputs: Inputs) -> Figures:
    """Read single blocks all over a large file."""
    path = inputs.once(target, "large", lambda path: write_blocks(path, inputs.megabytes))
    rng = random.Random(tag)
    offsets = [rng.randrange(inputs.megabytes * 256) * SMALL for _ in range(RANDOM_READS)]

    def work() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        for offset in offsets:
            assert len(os.pread(descriptor, SMALL, offset)) == SMALL
        os.close(descriptor)

    drop_kernel_caches()
    return {"random 4 KiB read, cold": RANDOM_READS / timed(work)}


def appends(target: Target, tag: str, inputs: Inputs) -> Figures:
    """Append a block and wait until it is on the disk, again and again."""
    block = os.urandom(SMALL)

    def work() -> None:
        descriptor = os.open(target.read / tag, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for _ in range(APPENDS):
            os.write(descriptor, block)
            os.fsync(descriptor)
        os.close(descriptor)

    return {"4 KiB append + fsync": APPENDS / timed(work)}


WORK: Final[dict[str, Work]] = {
    "stat": stats,
    "list": listings,
    "open": opens,
    "create": creates,
    "archive": archives,
    "git": repositories,
    "sequential": sequential,
    "random": random_reads,
    "append": appends,
}


def idle(target: Target, files: int = IDLE_FILES) -> list[str]:
    """Return what the pod needs when nobody uses its mount, with many files in it."""
    if target.home is None:
        return []
    folder = target.read / "idle"
    folder.mkdir()
    for index in range(files // 1000):
        make_files(folder / f"{index:03}", 1000, index.to_bytes(4, "big"))
    target.settle()
    drop_kernel_caches()
    pid = int(str(wormhole(target.home, "status")["pid"]))
    time.sleep(10)
    before, start = cpu_s(pid), time.perf_counter()
    time.sleep(IDLE_S)
    share = (cpu_s(pid) - before) / (time.perf_counter() - start)
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    memory = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    told = f"{memory / 1024:.0f} MiB (goal 120), {share:.2%} of a core (goal 0.5 %)"
    return [f"idle with {files:,} files made by this process: {told}"]


def cpu_s(pid: int) -> float:
    """Return the processor time that a process took until now (s)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepare(folder: Path, files: int, megabytes: int, names: list[str]) -> Inputs:
    """Make the archive and the repository: source-like files of 1 to 12 KiB in folders of 50."""
    inputs = Inputs(folder, files, megabytes)
    if not {"archive", "git"}.intersection(names):
        return inputs
    tree, rng = folder / "tree", random.Random(4)
    for index in range(files):
        path = tree / f"part-{index // 50:03}" / f"module_{index:05}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.randrange(500, 6000)).hex().encode())
    with tarfile.open(inputs.archive, "w") as archive:
        archive.add(tree, "tree")
    git = ["git", "-C", str(tree), "-c", "user.name=b", "-c", "user.email=b@localhost"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"], ["gc", "-q"]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(tree), str(inputs.repository)], check=True)
    return inputs


def measure(targets: list[Target], rounds: int, names: list[str], inputs: Inputs) -> dict[tuple[str, str], list[float]]:
    """Run the work on every target in turn, round by round."""
    figures: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds + (rounds > 1)):
        for name in names:
            for target in targets:
                tag = f"{name}-{number}"
                found = WORK[name](target, tag, inputs)
                remove(target.read, tag)
                target.settle()
                if number or rounds == 1:
                    for figure, value in found.items():
                        figures[figure, target.name].append(value)
    return figures


def table(targets: list[Target], figures: dict[tuple[str, str], list[float]]) -> Iterator[str]:
    """Yield a Markdown table of medians and ratios."""
    yield "| | unit | " + " | ".join(target.name for target in targets) + " | ratio (goal) | |"
    yield "|---" * (len(targets) + 4) + "|"
    for name, goal in GOALS.items():
        values = {target.name: figures.get((name, target.name)) for target in targets}
        if not any(values.values()):
            continue
        medians = {target: statistics.median(value) for target, value in values.items() if value}
        told, reached = [], []
        for base, least in goal.ratios:
            if base in medians:
                ratio = medians["wormhole"] / medians[base]
                told.append(f"{ratio:.2f} x {base} ({least:g})")
                reached.append(ratio >= least)
        cells = [f"{medians[target.name]:,.0f}" for target in targets]
        verdict = ("yes" if all(reached) else "**no**") if reached else "-"
        yield f"| {name} | {goal.unit} | " + " | ".join(cells) + f" | {', '.join(told)} | {verdict} |"


@contextlib.contextmanager
def profiled(target: Target, output: str | None) -> Iterator[None]:
    """Let py-spy look at the pod meanwhile, if asked to."""
    if output is None or target.home is None:
        yield
        return
    pid = str(wormhole(target.home, "status")["pid"])
    spy = subprocess.Popen(["py-spy", "record", "-r", "500", "-f", "raw", "-o", output, "-p", pid])
    try:
        yield
    finally:
        spy.send_signal(2)
        spy.wait(60)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--targets", nargs="+", default=["ext4", "sshfs", "wormhole"])
    parser.add_argument("--profile")
    options = parser.parse_args()
    every = [*WORK, "idle"]
    names = [name for name in every if any(name.startswith(only) for only in options.only)]
    folder = Path(tempfile.mkdtemp(prefix="whm-"))
    try:
        inputs = prepare(folder, options.files, options.megabytes, names)
        with local(folder) as a, sshfs(folder) as b, one_pod(folder) as c:
            targets = [target for target in (a, b, c) if target is not None and target.name in options.targets]
            with profiled(c, options.profile):
                figures = measure(targets, options.rounds, [name for name in names if name in WORK], inputs)
            lines = [*table(targets, figures), *(idle(c) if "idle" in names else [])]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"medians of {options.rounds}; ratios: times as fast")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
