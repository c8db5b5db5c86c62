"""Whether the kernel tells of interfaces. Needs root for a network namespace of its own."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from mesh.cables import Cables

ROOT = Path(__file__).resolve().parents[3]
SIDE = """
import anyio, math
from mesh.cables import Cables

async def main():
    cables = Cables()
    while cables.are_watched:
        print("waiting", flush=True)
        await cables.changed(math.inf)
        print("changed", flush=True)

anyio.run(main, backend="trio")
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"wh-cables-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces need root")
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def says(process: subprocess.Popen[bytes], word: str) -> None:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0], f"{word} within 30 s"
    assert process.stdout.readline().decode().strip() == word


def test_the_kernel_tells_of_interfaces_addresses_and_cables(namespace: str) -> None:
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", SIDE]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, bufsize=0
    )
    try:
        says(process, "waiting")
        for change in (
            "link add eth0 type veth peer name eth1",
            "address add 10.77.0.1/24 dev eth0",
            "link set eth0 up",
            "address del 10.77.0.1/24 dev eth0",
            "link del eth0",
        ):
            subprocess.run(["ip", "-n", namespace, *change.split()], check=True)
            says(process, "changed")
            says(process, "waiting")  # what one change says of itself comes together
    finally:
        process.kill()
        process.wait()


async def test_without_news_the_wait_ends_when_it_should() -> None:
    cables = Cables()
    try:
        with anyio.fail_after(20):
            await cables.changed(anyio.current_time() + 0.05)
    finally:
        cables.close()
    assert not cables.are_watched
    with anyio.fail_after(20):
        await cables.changed(anyio.current_time() + 0.05)
