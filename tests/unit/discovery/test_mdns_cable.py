"""Discovery across a veth pair between two network namespaces: interfaces that come, go, and lose their carrier.

Needs root for the namespaces; each side is a process of its own, since a namespace belongs to a thread.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SIDE = """
import sys, anyio
from base.ids import ClusterId, PodId
from discovery.mdns import Announcer
from discovery.service import Service

def tell(word):
    return lambda service: print(word, service.pod_name, service.endpoints[0], flush=True)

async def main(name, digit):
    service = Service(ClusterId("c" * 32), "home", PodId(digit * 32), name, "code", 7420, ())
    await Announcer(service, on_found=tell("found"), on_lost=tell("lost")).run()

anyio.run(main, *sys.argv[1:], backend="trio")
"""


def ip(*arguments: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True).returncode == 0


class Side:
    """One announcing process in a namespace of its own."""

    def __init__(self, namespace: str, name: str, digit: str) -> None:
        command = ["ip", "netns", "exec", namespace, sys.executable, "-c", SIDE, name, digit]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self._text = b""

    def until(self, line: str, deadline_s: float = 60.0) -> None:
        """Read on until the process has said ``line``; what it said up to there is used up."""
        assert self.process.stdout is not None
        end = time.monotonic() + deadline_s
        while line.encode() not in self._text:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{line!r} was not said; {self._text!r} was"
            piece = os.read(self.process.stdout.fileno(), 65536)
            assert piece, f"the process ended after {self._text!r}"
            self._text += piece
        self._text = self._text[self._text.index(line.encode()) + len(line) :]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    one, two = f"wh-mdns-a-{os.getpid()}", f"wh-mdns-b-{os.getpid()}"
    if not ip("netns", "add", one, check=False):
        pytest.skip("network namespaces need root")
    ip("netns", "add", two)
    ip("-n", one, "link", "set", "lo", "up")
    ip("-n", two, "link", "set", "lo", "up")
    yield one, two
    ip("netns", "del", one, check=False)
    ip("netns", "del", two, check=False)


def plug(one: str, two: str) -> None:
    ip("-n", one, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", two)
    for namespace, address in ((one, "10.77.0.1/24"), (two, "10.77.0.2/24")):
        ip("-n", namespace, "address", "add", address, "dev", "eth0")
        ip("-n", namespace, "link", "set", "eth0", "up")


def test_a_cable_plugged_pulled_and_plugged_again(namespaces):
    one, two = namespaces
    sides: list[Side] = []
    try:
        laptop = Side(one, "laptop", "1")
        sides.append(laptop)
        nas = Side(two, "nas", "2")
        sides.append(nas)
        plug(one, two)  # whether they have started or not
        laptop.until("found nas 10.77.0.2:7420")
        nas.until("found laptop 10.77.0.1:7420")
        # the other side goes and comes back as another process: it must be seen again
        ip("-n", two, "link", "set", "eth0", "down")
        nas.stop()
        again = Side(two, "desktop", "3")
        sides.append(again)
        ip("-n", two, "link", "set", "eth0", "up")
        laptop.until("found desktop 10.77.0.2:7420")
        again.until("found laptop 10.77.0.1:7420")
        # the whole interface goes and comes back
        ip("-n", one, "link", "del", "eth0")
        plug(one, two)
        late = Side(one, "tablet", "4")
        sides.append(late)
        again.until("found tablet 10.77.0.1:7420")
        late.until("found desktop 10.77.0.2:7420")
    finally:
        for side in sides:
            side.stop()


def test_two_pods_in_a_namespace_with_the_loopback_only(namespaces):
    one, _ = namespaces
    sides = [Side(one, "laptop", "1"), Side(one, "nas", "2")]
    try:
        sides[0].until("found nas 127.0.0.1:7420")
        sides[1].until("found laptop 127.0.0.1:7420")
    finally:
        for side in sides:
            side.stop()
