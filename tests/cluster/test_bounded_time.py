"""F8: whatever happens to the others, every call on the mount returns within its deadline, and local work doesn't wait."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cluster.lab import Host, Lab, lab, processes_of, wait_until

DEADLINE_S = 4.0
SLACK_S = 2.0
AT_ONCE_S = 2.0
"""On a loaded machine; alone it takes milliseconds."""

CONFIGURATION = """
[cluster]
name = "home"
[redundancy]
copies = 1
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three hosts; what the others wrote isn't on the first one, whose deadline is short."""
    assert os.geteuid() == 0, "network namespaces need root: run the tests as root"
    configuration = tmp_path_factory.mktemp("configuration") / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    with lab(3) as made:
        made.cluster("home", "--from", str(configuration))
        first = made.hosts[0]
        first.wormhole("down")
        toml = first.home / "pod.toml"
        lines = [line for line in toml.read_text().splitlines() if not line.startswith("deadline")]
        lines.insert(lines.index("[network]") + 1, f'deadline = "{DEADLINE_S:g}s"')
        toml.write_text("\n".join(lines) + "\n")
        first.wormhole("up")
        made.settled()
        yield made


def timed(*command: str | Path) -> tuple[float, int]:
    """Run a command; return seconds and exit code."""
    start = time.monotonic()
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=100, check=False)
    return time.monotonic() - start, done.returncode


def prepare(made: Lab, folder: str) -> Path:
    """Write here and far away; return the folder as the first host sees it."""
    first, _, nas = made.hosts
    far, here = nas.mount / folder, first.mount / folder
    far.mkdir()
    for number in range(8):
        (far / f"far-{number}").write_bytes(os.urandom(2_500_000 if number % 2 else 3000))
    wait_until(lambda: sorted(os.listdir(here)) == [f"far-{number}" for number in range(8)])
    wait_until(lambda: (here / "far-7").stat().st_size == 2_500_000)
    (here / "local").write_bytes(b"local" * 1000)
    return here


def check(top: Path) -> None:
    """Use everything at once: before anybody is known to be away, and then again."""
    remote = {
        "cat": ("cat", top / "far-0"),
        "cat large": ("cat", top / "far-1"),
        "cp": ("cp", top / "far-3", "/dev/null"),
        "append": ("sh", "-c", f"echo more >> {top}/far-4"),
        "truncate": ("truncate", "-s", "5", top / "far-5"),
    }
    local = {
        "ls": ("ls", top),
        "stat": ("stat", top / "far-0"),
        "df": ("df", top),
        "rm": ("rm", top / "far-6"),
        "mkdir": ("mkdir", top / "new"),
        "write": ("sh", "-c", f"echo data > {top}/written"),
        "overwrite": ("sh", "-c", f"echo data > {top}/far-7"),
        "fsync": ("dd", "if=/dev/zero", f"of={top}/synced", "bs=4k", "count=1", "conv=fsync"),
        "mv": ("mv", top / "far-2", top / "moved"),
        "cat local": ("cmp", top / "local", top / "local"),
    }
    with ThreadPoolExecutor(len(remote) + len(local)) as pool:
        under_way = {name: pool.submit(timed, *words) for name, words in (remote | local).items()}
    took = {name: one.result() for name, one in under_way.items()}
    for name in remote:
        seconds, code = took[name]
        assert code != 0, f"{name} can't have worked"
        assert seconds <= DEADLINE_S + SLACK_S, f"{name} took {seconds:.1f} s"
    for name in local:
        seconds, code = took[name]
        assert code == 0, f"{name} failed"
        assert seconds <= AT_ONCE_S, f"{name} waited {seconds:.1f} s"


def test_every_other_pod_is_stopped(alone: Lab) -> None:
    top = prepare(alone, "stopped")
    others = [pid for host in alone.hosts[1:] for pid in processes_of(host.home)]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        check(top)
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)
    alone.settled()
    wait_until(lambda: reads(top / "far-0", 3000), what="readable again")


def test_the_network_is_cut(alone: Lab) -> None:
    top = prepare(alone, "cut")
    first: Host = alone.hosts[0]
    first.cut()
    try:
        check(top)
    finally:
        first.plug()
    alone.settled()
    wait_until(lambda: reads(top / "far-0", 3000), what="readable again")


def reads(path: Path, length: int) -> bool:
    """Tell whether a file can be read."""
    try:
        return len(path.read_bytes()) == length
    except OSError:
        return False
