"""What links cost: ``python -m benchmarks.links bulk`` and, as root, ``python -m benchmarks.links idle``.

``bulk``: bytes through a link of the mesh against two blocking TLS 1.3 sockets with buffers of 1 MiB, by turns, each
side a process. ``idle``: five real pods in network namespaces, what each sends and works in 30 s, and how long until the
death of one (its cable cut) is known to the other four.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import ssl
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import anyio

from base.ids import PodId
from mesh import tls
from mesh.api import Lane
from mesh.identity import Identity
from mesh.node import MeshNode
from mesh.roster_store import RosterStore
from mesh.wire import Tag
from tests.cluster.lab import Host, lab, processes_of, wait_until
from tests.unit.mesh.cluster import admit, found, until

PIECE_BYTES = 1 << 20
PIECES = 1024
TOGETHER = 4
ROUNDS = 5
IDLE_S = 30.0


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def node_of(home: Path) -> MeshNode:
    return MeshNode(Identity.load(home / "identity"), RosterStore(home / "roster.db"), listen="127.0.0.1:0")


def serve_blocking(home: Path, ready: Connection) -> None:
    identity = Identity.load(home / "identity")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    door, piece = socket.create_server(("127.0.0.1", 0)), os.urandom(PIECE_BYTES)
    ready.send(door.getsockname()[1])
    while True:
        accepted, _ = door.accept()
        with contextlib.suppress(OSError), context.wrap_socket(accepted, server_side=True) as stream:
            for _ in range(PIECES):
                stream.sendall(piece)


def serve_link(home: Path, ready: Connection) -> None:
    piece = os.urandom(PIECE_BYTES)

    async def answer(sender: PodId, body: object) -> object:
        return piece

    async def run() -> None:
        node = node_of(home)
        node.handle(Tag.CHUNK_GET, answer)
        async with anyio.create_task_group() as group:
            await group.start(lambda task_status: node.run(task_status=task_status))
            ready.send(node.port)

    anyio.run(run, backend="trio")


def through_blocking(port: int) -> float:
    """Return bytes a second."""
    buffer, got = bytearray(PIECE_BYTES), 0
    with tls.join_context().wrap_socket(socket.create_connection(("127.0.0.1", port))) as stream:
        began = time.perf_counter()
        while count := stream.recv_into(buffer):
            got += count
        return got / (time.perf_counter() - began)


async def through_link(node: MeshNode, pod: PodId) -> float:
    """Return bytes a second, with `TOGETHER` requests under way."""
    left = [PIECES]

    async def fetch() -> None:
        while left[0] > 0:
            left[0] -= 1
            piece = await node.call(pod, Tag.CHUNK_GET, None, lane=Lane.BULK)
            assert isinstance(piece, bytes)
            assert len(piece) == PIECE_BYTES

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(TOGETHER):
            group.start_soon(fetch)
    return PIECES * PIECE_BYTES / (time.perf_counter() - began)


def bulk() -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        first = found(Path(folder) / "a")
        admit(first, Path(folder) / "b")
        ports = []
        for serve in (serve_blocking, serve_link):
            here, there = multiprocessing.Pipe()
            server = multiprocessing.get_context("spawn").Process(target=serve, args=(Path(folder) / "a", there))
            server.start()
            stack.callback(server.kill)
            ports.append(here.recv())

        async def run() -> None:
            node = node_of(Path(folder) / "b")
            async with anyio.create_task_group() as group:
                await group.start(lambda task_status: node.run(task_status=task_status))
                node.add_candidate("127.0.0.1", ports[1], first.pod)
                await until(lambda: first.pod in node.alive())
                rates: list[tuple[float, float]] = []
                for _ in range(ROUNDS):
                    blocking = await anyio.to_thread.run_sync(through_blocking, ports[0])
                    rates.append((blocking, await through_link(node, first.pod)))
                group.cancel_scope.cancel()
            ratio = statistics.median(link / blocking for blocking, link in rates)
            blocking, link = (statistics.median(column) / 1e9 for column in zip(*rates, strict=True))
            say(
                f"bulk: blocking sockets {blocking:.2f} GB/s, a link {link:.2f} GB/s, ratio {ratio:.2f} (median of {ROUNDS})"
            )

        anyio.run(run, backend="trio")


def idle() -> None:
    with lab(5) as made:
        hosts = made.cluster("home")
        time.sleep(10.0)
        before = [sample(host) for host in hosts]
        time.sleep(IDLE_S)
        for host, old in zip(hosts, before, strict=True):
            sent, worked = (new - was for new, was in zip(sample(host), old, strict=True))
            say(
                f"idle, {host.name}: {sent / IDLE_S:.0f} bytes/s sent, headers included; {100 * worked / IDLE_S:.2f} % CPU"
            )
        *others, victim = hosts
        began = time.monotonic()
        victim.cut()
        wait_until(lambda: all(state_of(host, victim.name) != "alive" for host in others), 20)
        say(f"death: known to all after at most {time.monotonic() - began:.1f} s (asked one after the other)")


def state_of(host: Host, name: str) -> str:
    return next(str(pod["state"]) for pod in host.wormhole("pods")["pods"] if pod["name"] == name)


def sample(host: Host) -> tuple[float, float]:
    """Return bytes sent and seconds of processor so far."""
    sent = float(host.run("cat", "/sys/class/net/eth0/statistics/tx_bytes").stdout)
    ticks = 0
    for pid in processes_of(host.home):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return sent, ticks / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["bulk"]:
        {"bulk": bulk, "idle": idle}[name]()
