"""What fsync and sync promise, and when copies are made: three real pods."""

from __future__ import annotations

import os
import time
from pathlib import Path

from base.ids import hash_bytes
from tests.cluster.lab import WORMHOLE, Host, Lab, wait_until

MiB = 1 << 20
EDITS = 100
INTERVAL_S = 3.0


def synced(path: Path, data: bytes) -> tuple[int, float]:
    """Write and fsync a file; return the error number (0: none) and how long the fsync took (s)."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, data)
        began = time.monotonic()
        try:
            os.fsync(descriptor)
        except OSError as error:
            return error.errno or -1, time.monotonic() - began
        return 0, time.monotonic() - began
    finally:
        os.close(descriptor)


def kept(host: Host, path: str) -> set[str]:
    return set(host.wormhole("where", path)["kept"])


def test_fsync_waits_for_other_disks_and_copies_for_their_time(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster()
    laptop.wormhole("config", "set", "redundancy.replicate", "interval", check=False)
    laptop.wormhole("config", "set", "redundancy.interval", f"{INTERVAL_S:g}s", check=False)

    # a hundred edits of 1 MiB cross the network as often as there are intervals, and the last one does
    wait_until(lambda: nas.wormhole("config", "get", "redundancy.interval")["value"] == f"{INTERVAL_S:g}s", 10)
    before, began = [host.received_bytes() for host in (desktop, nas)], time.monotonic()
    for _ in range(EDITS):
        (laptop.mount / "edited").write_bytes(last := os.urandom(MiB))
        time.sleep(0.03)  # as a person who saves often, so that each version could be copied
    intervals = (time.monotonic() - began) / INTERVAL_S + 2
    wait_until(lambda: len(kept(laptop, "edited")) == 2, 2 * INTERVAL_S + 5, "the last version is copied")
    received = sum(host.received_bytes() - was for host, was in zip((desktop, nas), before, strict=True))
    assert received < (intervals + 1) * 1.3 * MiB, f"{received / MiB:.1f} MiB for {intervals:.1f} intervals"
    assert all((host.mount / "edited").read_bytes() == last for host in (desktop, nas))

    # sync doesn't wait for the interval, and has as many copies made as it is asked for
    (laptop.mount / "wanted").write_bytes(data := os.urandom(2 * MiB + 5))
    began = time.monotonic()
    assert laptop.wormhole("sync", "wanted", "--copies", "3")["copies"] == 3
    assert time.monotonic() - began < INTERVAL_S
    pieces = {hash_bytes(data[start : start + MiB]).hex() for start in range(0, len(data), MiB)}
    assert all(pieces <= host.stored() for host in bare.hosts)

    # fsync returns when two pods have it: the writer may die at once
    laptop.wormhole("config", "set", "redundancy.acknowledge", "2")
    assert synced(laptop.mount / "promised", promised := os.urandom(3 * MiB))[0] == 0
    laptop.kill()
    assert all((host.mount / "promised").read_bytes() == promised for host in (desktop, nas))

    # too few alive: EIO soon, and what was written is kept
    nas.kill()
    wait_until(lambda: synced(desktop.mount / "alone", b"first")[0] != 0, 20, "the last pod knows that it is alone")
    number, took_s = synced(desktop.mount / "alone", b"kept all the same")
    assert (number, took_s < 1.0) == (5, True)
    assert (desktop.mount / "alone").read_bytes() == b"kept all the same"
    nas.run(WORMHOLE, "up")
    wait_until(lambda: synced(desktop.mount / "alone", b"together")[0] == 0, 30, "two pods again")
    assert (nas.mount / "alone").read_bytes() == b"together"
