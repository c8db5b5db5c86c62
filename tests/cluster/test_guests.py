"""R26, R39, F2: a pod that holds a part of what another one is writing says so, and stays until that is closed."""

from __future__ import annotations

import os

from tests.cluster.lab import WORMHOLE, Lab, shows, wait_until

MiB = 1 << 20


def test_whoever_holds_a_part_of_an_open_file_stays(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster()
    laptop.wormhole("config", "set", "redundancy.copies", "1")
    laptop.run(WORMHOLE, "config", "set", "storage.limit", "24 MiB", "--pod-level")
    data = os.urandom(48 * MiB)
    others = [desktop, nas]
    with (laptop.mount / "large").open("wb", buffering=0) as file:
        for start in range(0, len(data), MiB):
            file.write(data[start : start + MiB])
        wait_until(
            lambda: [host.wormhole("safe-to-unplug", check=False)["untold"] for host in others].count(True) == 1,
            what="one of them holds a part",
        )
        holder = next(host for host in others if host.wormhole("safe-to-unplug", check=False)["untold"])
        refused = holder.run(WORMHOLE, "leave", "--yes", check=False)
        assert refused.returncode == 4
        assert "1 file that this one holds a part of" in refused.stderr
    wait_until(shows(laptop.mount / "large", data), 30, "all of it")
    wait_until(lambda: set(laptop.ask("where", path="/large")["kept"]) & {"desktop", "nas"}, what="kept elsewhere")
    assert holder.run(WORMHOLE, "leave", "--yes", timeout_s=120).returncode == 0
    for host in (laptop, *others):
        if host is not holder:
            wait_until(shows(host.mount / "large", data), 30, "what it held is elsewhere")
