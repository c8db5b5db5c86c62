# mypy: disable-error-code="func-returns-value"
"""The long variants of the tests of the mount: `script/soak` runs rounds of them.

    python -m tests.mount.soak SEED

One round, some minutes: fresh seeds of the random operations; many kills of every
application and of the pod below it; a directory of 100,000 names; 50,000 open files; a mixed stress while another pod
changes what is used; public programs. The seed is all that varies.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.mount.applications import APPLICATIONS, kill_loop
from tests.mount.comparer import Comparer
from tests.mount.conftest import Pod
from tests.mount.programs import everything

SEEDS = 20
STEPS = 3000
KILLS = 15
NAMES = 100_000
OPEN_FILES = 50_000
HELD = 2500
STRESS_S = 60.0
WORKERS = 4


def operations(pod: Pod, top: Path, seed: int) -> None:
    """Random operations against a plain directory."""
    for number in range(seed, seed + SEEDS):
        with tempfile.TemporaryDirectory() as plain:
            mounted = top / f"{number}"
            mounted.mkdir()
            comparer = Comparer(mounted, Path(plain), number)
            comparer.run(STEPS)
            pod.settled()
            pod.forget()
            comparer.compare()
            shutil.rmtree(mounted)


def kills(pod: Pod, top: Path, seed: int) -> None:
    """Every application, killed itself and killed with the pod."""
    for name in APPLICATIONS:
        for victim in (None, pod):
            folder = top / f"{name}-{victim is None}"
            folder.mkdir()
            kill_loop(name, folder, KILLS, random.Random(seed), victim)


def names(pod: Pod, top: Path, seed: int) -> None:
    """A directory of very many names."""
    wanted = [f"{seed}-{number:06}" for number in range(NAMES)]
    for name in wanted:
        os.close(os.open(top / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    assert sorted(os.listdir(top)) == wanted
    pod.settled()
    pod.kill()
    pod.start()
    assert sorted(os.listdir(top)) == wanted
    assert all(entry.is_file(follow_symlinks=False) for entry in os.scandir(top))
    for name in wanted[::2]:
        os.unlink(top / name)
    assert sorted(os.listdir(top)) == wanted[1::2]


HOLDER = """
import os, resource, sys
top, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
files = []
for number in range(first, first + count):
    files.append(os.open(f"{top}/{number}", os.O_CREAT | os.O_RDWR))
    os.write(files[-1], b"%d" % number)
for number in range(first, first + count, 2):
    os.unlink(f"{top}/{number}")
print("open", flush=True)
sys.stdin.readline()
for number, fd in enumerate(files, start=first):
    assert os.pread(fd, 30, 0) == b"%d" % number
    assert os.fstat(fd).st_nlink == number % 2 == (number - first) % 2
"""


def open_files(pod: Pod, top: Path, seed: int) -> None:
    """Very many open files, over several processes; none of them holds a descriptor of the pod."""
    before = pod.descriptors()
    holders = []
    for first in range(0, OPEN_FILES, HELD):
        words = [sys.executable, "-c", HOLDER, str(top), str(first), str(HELD)]
        holders.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        for holder in holders:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "open\n"
        assert pod.descriptors() < before + 50
        assert len(os.listdir(top)) == OPEN_FILES // 2
        assert not [name for name in os.listdir(top) if name.startswith(".fuse_hidden")]
        for holder in holders:
            holder.communicate("now\n", timeout=300)
            assert holder.returncode == 0
    finally:
        for holder in holders:
            holder.kill()
            holder.wait()


def stress(pod: Pod, top: Path, seed: int) -> None:
    """Everything at once while another pod changes the same names: each call ends, and all agree in the end."""
    rng = random.Random(seed)
    end = time.monotonic() + STRESS_S
    failures: list[BaseException] = []

    def work(action: Callable[[random.Random], object], own: random.Random) -> None:
        while time.monotonic() < end:
            try:
                action(own)
            except OSError as error:
                if error.errno is None or error.errno in (5, 107, 103):
                    failures.append(error)
                    return

    def one(own: random.Random) -> Path:
        return top / f"{own.randrange(20)}"

    actions: list[Callable[[random.Random], object]] = [
        lambda own: one(own).read_bytes(),
        lambda own: one(own).write_bytes(b"mine" * own.randrange(50_000)),
        lambda own: (os.listdir(top), one(own).stat()),
        lambda own: os.rename(one(own), one(own)),
        lambda own: (one(own).unlink(), os.symlink("x", one(own))),
        lambda own: (os.truncate(one(own), own.randrange(3000)), os.setxattr(one(own), "user.a", b"1")),
    ]
    threads = [
        threading.Thread(target=work, args=(action, random.Random(rng.random())), daemon=True)
        for action in actions
        for _ in range(WORKERS)
    ]
    for thread in threads:
        thread.start()
    while time.monotonic() < end:
        pod.remote_write(top / f"far-{rng.randrange(20)}", b"far" * rng.randrange(9000))
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a call on the mount hangs"
    assert not failures, failures
    pod.settled()
    far = {path for path in pod.ask("far_tree")["shown"] if path.startswith(f"/{top.name}/")}
    assert far == {f"/{top.name}/{name}" for name in os.listdir(top)}


def programs(pod: Pod, top: Path, seed: int) -> None:
    """Public programs at full length."""
    everything(top)


STORIES = (operations, kills, names, open_files, stress, programs)


def main() -> None:
    """Run each story on a pod of its own."""
    seed = int(sys.argv[1])
    for story in STORIES:
        with tempfile.TemporaryDirectory() as folder:
            pod = Pod(Path(folder))
            start = time.monotonic()
            try:
                pod.start()
                top = pod.mount / story.__name__
                top.mkdir()
                story(pod, top, seed)
            finally:
                pod.clean()
        sys.stdout.write(f"mount: {story.__name__}, seed {seed}: {time.monotonic() - start:.0f} s\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
