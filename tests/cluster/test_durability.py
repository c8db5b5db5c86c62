"""What fsync and sync promise, and when copies are made: three real pods."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from base.ids import hash_bytes
from tests.cluster.lab import WORMHOLE, Host, Lab, at_once, shows, wait_until

MiB = 1 << 20
EDITS = 100
INTERVAL_S = 3.0


def synced(path: Path, data: bytes) -> int:
    """Write and fsync a file; return the error number, 0 when it was synced."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(descriptor, data)
        try:
            os.fsync(descriptor)
        except OSError as error:
            return error.errno or -1
        return 0
    finally:
        os.close(descriptor)


def kept(host: Host, path: str) -> set[str]:
    return set(host.ask("where", path=path)["kept"])


def test_fsync_waits_for_other_disks_and_copies_for_their_time(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster()
    laptop.wormhole("config", "set", "redundancy.replicate", "interval", check=False)
    bare.configure("redundancy.interval", f"{INTERVAL_S:g}s")

    bare.measured()
    # of a hundred edits of 1 MiB each pod fetches at most one at each of its ticks, and the last one crosses the network
    before, began = [host.received_bytes() for host in (desktop, nas)], time.monotonic()
    for _ in range(EDITS):
        (laptop.mount / "edited").write_bytes(last := os.urandom(MiB))
        time.sleep(0.03)  # as a person who saves often, so that each version could be copied
    wait_until(lambda: len(kept(laptop, "/edited")) == 2, 2 * INTERVAL_S + 5, "the last version is copied")
    received = sum(host.received_bytes() - was for host, was in zip((desktop, nas), before, strict=True))
    ticks = 2 * ((time.monotonic() - began) / INTERVAL_S + 1)
    most = (ticks + 2) * 1.3 * MiB  # who seems to be away for a moment ends the waiting, too
    assert received < min(most, EDITS / 2 * MiB), f"{received / MiB:.1f} MiB at {ticks:.1f} ticks"
    for host in (desktop, nas):
        wait_until(shows(host.mount / "edited", last), what="the last version")

    # sync doesn't wait for the interval, and has as many copies made as it is asked for
    bare.configure("redundancy.interval", "1h")
    (laptop.mount / "wanted").write_bytes(data := os.urandom(2 * MiB + 5))
    assert laptop.wormhole("sync", "wanted", "--copies", "3")["copies"] == 3
    pieces = {hash_bytes(data[start : start + MiB]).hex() for start in range(0, len(data), MiB)}
    assert all(pieces <= host.stored() for host in bare.hosts)

    # fsync returns when two pods have it: the writer may die at once
    bare.configure("redundancy.acknowledge", "2")
    promised = os.urandom(3 * MiB)
    assert synced(laptop.mount / "promised", promised) == 0
    laptop.kill()
    for host in (desktop, nas):
        wait_until(shows(host.mount / "promised", promised), what="what was promised")

    # too few alive: EIO at once, and what was written is kept
    nas.kill()
    wait_until(lambda: synced(desktop.mount / "alone", b"first") != 0, 20, "the last pod knows that it is alone")
    assert at_once(lambda: synced(desktop.mount / "alone", b"kept all the same")) == errno.EIO
    assert (desktop.mount / "alone").read_bytes() == b"kept all the same"
    nas.run(WORMHOLE, "up")
    wait_until(lambda: synced(desktop.mount / "alone", b"together") == 0, 30, "two pods again")
    wait_until(shows(nas.mount / "alone", b"together"), what="what two pods have")
