"""Reading what isn't here: a glance at a large file costs a glance, and two slow sources are nearly twice one."""

from __future__ import annotations

import os
import time

from tests.cluster.lab import Host, Lab, run

MiB = 1 << 20
RATE = "20mbit"
RATE_BYTES_PER_S = 2_500_000
SIZE = 16 * MiB
TRIES = 3
"""Somebody may have something else to do while two send."""


def slow(host: Host) -> None:
    shape = ("rate", RATE, "burst", "64kb", "latency", "400ms")
    run("tc", "-n", host.namespace, "qdisc", "replace", "dev", "eth0", "root", "tbf", *shape)


def seconds(host: Host, name: str, data: bytes) -> float:
    began = time.monotonic()
    assert (host.mount / name).read_bytes() == data
    return time.monotonic() - began


def test_a_glance_is_cheap_and_sources_are_used_together(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster()
    laptop.wormhole("config", "set", "cache.mode", "stream", "--pod-level")
    with (desktop.mount / "large").open("wb") as file:
        for _ in range(32):
            file.write(os.urandom(MiB))
    contents: dict[str, bytes] = {}
    while len(contents) < TRIES:
        name = f"file{len(os.listdir(desktop.mount))}"
        (desktop.mount / name).write_bytes(data := os.urandom(SIZE))
        desktop.wormhole("sync")
        if set(desktop.wormhole("where", name)["kept"]) == {"desktop", "nas"}:
            contents[name] = data
    bare.measured()
    before, store = laptop.received_bytes(), laptop.stored()
    run("dd", f"if={laptop.mount / 'large'}", "of=/dev/null", "bs=1M", "skip=16", "count=1")
    if "laptop" not in desktop.wormhole("where", "large")["kept"]:
        assert laptop.received_bytes() - before < 3 * MiB
    assert laptop.stored() == store, "nothing is kept of what is streamed"

    laptop.wormhole("config", "set", "cache.mode", "auto", "--pod-level")
    for host in (desktop, nas):
        slow(host)
    alone_s = SIZE / RATE_BYTES_PER_S  # the network lets no more through from one
    took = [seconds(laptop, *contents.popitem())]
    while contents and alone_s / min(took) < 1.7:
        took.append(seconds(laptop, *contents.popitem()))
    assert 1.7 <= alone_s / min(took) <= 2.2, f"{took} s from two"
