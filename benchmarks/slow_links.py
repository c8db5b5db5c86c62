"""Real pods on links of 100 Mbit/s (network namespaces, `tc tbf`): several sources, and repair. As root.

    .venv/bin/python -m benchmarks.slow_links [sources] [repair] [balance]

``sources``: a file of 64 MiB from two pods beside the same from one. ``repair``: two of three pods keep 200 files of 1 MiB
each; one is killed, how fast the third gets them, and what `stat` and small reads on its mount take meanwhile.
``balance``: how long until a fourth, empty pod has its share of 160 files with three copies, and how many bytes that takes.
"""

from __future__ import annotations

import os
import statistics
import sys
import threading
import time

from operations.wishing import PROBE_BYTES, PROBES
from tests.cluster.lab import WORMHOLE, Host, Lab, lab, run, wait_until

MIB = 1 << 20
RATE_BYTES = 12_500_000
FILES = 200
SOURCE_MIB = 64


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def slow(host: Host) -> None:
    """Let a host send at most 100 Mbit/s."""
    shape = ("rate", "100mbit", "burst", "64kb", "latency", "400ms")
    run("tc", "-n", host.namespace, "qdisc", "replace", "dev", "eth0", "root", "tbf", *shape)


def made(here: Lab, copies: int, more: str = "") -> list[Host]:
    """Form a cluster with so many copies."""
    toml = here.folder / "cluster.toml"
    toml.write_text(f'[cluster]\nname = "home"\n[redundancy]\ncopies = {copies}\n{more}')
    return here.cluster("home", "--from", str(toml))


def sources() -> None:
    with lab(3) as here:
        reader, *others = made(here, 2)
        for host in others:
            slow(host)
        took: dict[int, list[float]] = {1: [], 2: []}
        number = 0
        for number_of in (2, 1):
            if number_of == 1:
                others[1].run(WORMHOLE, "down")
                wait_until(lambda: reader.wormhole("status", check=False)["pods"]["alive"] == 2, 10)
            for _ in range(3):
                while True:
                    number += 1
                    path = others[0].mount / f"file-{number}"
                    path.write_bytes(os.urandom(SOURCE_MIB * MIB))
                    if number_of == 1:
                        break
                    others[0].wormhole("sync", timeout_s=120)
                    kept = set(others[0].wormhole("where", path.name)["kept"])
                    if kept == {host.name for host in others}:
                        break
                seen = reader.mount / f"file-{number}"
                wait_until(lambda seen=seen: seen.exists() and seen.stat().st_size == SOURCE_MIB * MIB)  # type: ignore[misc]
                began = time.monotonic()
                assert len(seen.read_bytes()) == SOURCE_MIB * MIB
                took[number_of].append(time.monotonic() - began)
        one, two = statistics.median(took[1]), statistics.median(took[2])
        rate = SOURCE_MIB * MIB / two / 1e6
        say(f"sources: {one:.1f} s from one, {two:.1f} s from two: {one / two:.2f} times as fast, {rate:.1f} MB/s")


def repair() -> None:
    with lab(3) as here:
        first, second, third = made(here, 2, 'repair_after = "10s"\n')
        (first.mount / "many").mkdir()
        for number in range(FILES):
            (first.mount / "many" / f"{number}").write_bytes(os.urandom(MIB))
        first.wormhole("sync", timeout_s=120)
        for host in here.hosts:
            slow(host)
        lost = [number for number in range(FILES) if "nas" in first.wormhole("where", f"/many/{number}")["kept"]]
        before = second.received_bytes()
        third.kill()
        took: list[float] = []
        done = threading.Event()

        def use() -> None:
            while not done.is_set():
                started = time.perf_counter()
                os.stat(first.mount / "many" / f"{len(took) % FILES}")
                with open(first.mount / f"note-{len(took) % 50}", "w") as file:
                    file.write("x")
                took.append(1000 * (time.perf_counter() - started))
                time.sleep(0.02)

        def received() -> int:
            return second.received_bytes() - before  # the first has all, which it wrote

        user = threading.Thread(target=use)
        user.start()
        wait_until(lambda: received() > 5 * MIB, 60, "repair has begun")
        began, at_first = time.monotonic(), received()
        wait_until(lambda: received() >= len(lost) * MIB, 180, "repaired")
        seconds = time.monotonic() - began
        done.set()
        user.join()
        rate = (received() - at_first) / seconds
        p99 = sorted(took)[len(took) * 99 // 100]
        say(
            f"repair: {len(lost)} files of 1 MiB in {seconds:.1f} s, {rate / 1e6:.1f} MB/s "
            f"({rate / RATE_BYTES:.2f} of the link's); mount meanwhile p50 {statistics.median(took):.1f} ms, p99 {p99:.1f} ms"
        )


BALANCED, BALANCED_BYTES = 640, 50_000


def balance() -> None:
    with lab(4) as here:
        *three, fourth = here.hosts
        toml = here.folder / "cluster.toml"
        toml.write_text('[cluster]\nname = "home"\n[redundancy]\ncopies = 3\n')
        three[0].new("home", "--from", str(toml))
        for host in three[1:]:
            host.join(three[0].invite())
        wait_until(lambda: three[0].wormhole("status", check=False)["pods"]["alive"] == 3)
        (three[0].mount / "many").mkdir()
        wait_until(lambda: all((host.mount / "many").is_dir() for host in three))
        for number in range(BALANCED):
            (three[number % 3].mount / "many" / f"{number}").write_bytes(os.urandom(BALANCED_BYTES))
        for host in three:
            host.wormhole("sync")
        names = [three[0].mount / "many" / f"{number}" for number in range(BALANCED)]
        contents = {os.getxattr(path, "user.wormhole.content").decode() for path in names}
        before = fourth.received_bytes()
        fourth.join(three[0].invite())
        began = time.monotonic()
        shares: list[int] = []
        while time.monotonic() - began < 150:
            shares = [len(contents & host.stored()) for host in here.hosts]
            if sum(shares) == 3 * BALANCED and min(shares) >= 0.625 * BALANCED:
                break
            time.sleep(0.2)
        took_s, received = time.monotonic() - began, fourth.received_bytes() - before
        probed = [(fourth, "network was measured"), *((host, f"measured with {fourth.name}") for host in three)]
        probes = sum((host.home / "pod.log").read_text().count(text) for host, text in probed)
        moved = [
            most / (0.75 * BALANCED * BALANCED_BYTES) for most in (received - probes * PROBES * PROBE_BYTES, received)
        ]
        say(
            f"balance: {took_s:.1f} s, {shares}, {moved[0]:.2f} times what is necessary came to the fourth, "
            f"{moved[1]:.2f} with what the network was measured with"
        )


if __name__ == "__main__":
    for name in sys.argv[1:] or ["sources", "repair", "balance"]:
        {"sources": sources, "repair": repair, "balance": balance}[name]()
