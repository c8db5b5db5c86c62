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

DEADLINE_S = 12.0
SLACK_S = 12.0
AT_ONCE_S = 10.0
"""What waits for nobody takes milliseconds, on a loaded machine seconds; what waits for somebody takes the deadline."""

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


def prepare(made: Lab, other: Host, folder: str) -> Path:
    """Write here and far away; return the folder as the first host sees it."""
    first = made.hosts[0]
    far, here = other.mount / folder, first.mount / folder
    far.mkdir()
    for number in range(8):
        (far / f"far-{number}").write_bytes(os.urandom(2_500_000 if number % 2 else 3000))
    wait_until(lambda: sorted(os.listdir(here)) == [f"far-{number}" for number in range(8)])
    wait_until(lambda: (here / "far-7").stat().st_size == 2_500_000)
    (here / "local").write_bytes(b"local" * 1000)
    return here


def check(tops: list[Path]) -> None:
    """Use everything at once, before anybody is known to be away."""
    remote: dict[str, tuple[str | Path, ...]] = {}
    local: dict[str, tuple[str | Path, ...]] = {}
    for top in tops:
        remote |= {
            f"cat {top}": ("cat", top / "far-0"),
            f"cat large {top}": ("cat", top / "far-1"),
            f"cp {top}": ("cp", top / "far-3", "/dev/null"),
            f"append {top}": ("sh", "-c", f"echo more >> {top}/far-4"),
            f"truncate {top}": ("truncate", "-s", "5", top / "far-5"),
        }
        local |= {
            f"ls {top}": ("ls", top),
            f"stat {top}": ("stat", top / "far-0"),
            f"df {top}": ("df", top),
            f"rm {top}": ("rm", top / "far-6"),
            f"mkdir {top}": ("mkdir", top / "new"),
            f"write {top}": ("sh", "-c", f"echo data > {top}/written"),
            f"overwrite {top}": ("sh", "-c", f"echo data > {top}/far-7"),
            f"fsync {top}": ("dd", "if=/dev/zero", f"of={top}/synced", "bs=4k", "count=1", "conv=fsync"),
            f"mv {top}": ("mv", top / "far-2", top / "moved"),
            f"cat local {top}": ("cmp", top / "local", top / "local"),
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


def test_one_other_pod_is_stopped_and_one_is_cut_off(alone: Lab) -> None:
    _, desktop, nas = alone.hosts
    tops = [prepare(alone, desktop, "stopped"), prepare(alone, nas, "cut")]
    stopped = processes_of(desktop.home)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    nas.cut()
    try:
        check(tops)
    finally:
        nas.plug()
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    alone.settled()
    for top in tops:
        wait_until(lambda top=top: len((top / "far-0").read_bytes()) == 3000, what="readable again")  # type: ignore[misc]
