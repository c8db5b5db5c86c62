"""R40, R45, F1, P6: who stays away is replaced by copies elsewhere, at the rate allowed; a planned absence does nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.cluster.lab import WORMHOLE, Host, Lab, shows, wait_until

CONFIGURATION = """
[cluster]
name = "home"
[redundancy]
copies = 2
absent_after = "5s"
repair_after = "1h"
[[rule]]
match = "single"
copies = 1
"""


REPAIR_BYTES_PER_S = 200_000


def kept(host: Host, names: list[str]) -> list[list[str]]:
    """Return which alive pods have each file, in their order; nobody has read any, so all that have one keep it."""
    return [os.getxattr(host.mount / name, "user.wormhole.holders").decode().split(",") for name in names]


def test_copies_of_who_stays_away_are_made_anew_and_count_again_when_it_returns(bare: Lab, tmp_path: Path) -> None:
    configuration = tmp_path / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    laptop, desktop, nas = bare.cluster("home", "--from", str(configuration))
    contents = {f"file {number}": os.urandom(3000 + number) for number in range(12)}
    contents |= {f"large {number}": os.urandom(300_000) for number in range(4)}
    for name, data in contents.items():
        (nas.mount / name).write_bytes(data)
    names = list(contents)
    contents["single"] = b"only on the nas"
    (nas.mount / "single").write_bytes(contents["single"])
    nas.wormhole("sync")
    assert all(len(pods) == 2 and "nas" in pods for pods in kept(nas, names))

    before = laptop.stored() | desktop.stored()
    nas.run(WORMHOLE, "down")  # said so: nothing is done about it, however long it takes
    laptop.wormhole("config", "set", "redundancy.repair_after", "0s")
    bare.in_force(laptop, laptop, desktop)
    for host in (laptop, desktop):
        assert host.wormhole("status")["files"]["total"] == len(contents)
    assert laptop.stored() | desktop.stored() == before
    nas.run(WORMHOLE, "up")
    bare.settled()
    bare.configure("redundancy.repair_after", "1h")

    everything = laptop.wormhole("plan", "--lose", "laptop,desktop,nas", check=False)
    assert everything["lost"] == sorted(f"/{name}" for name in contents)
    assert everything["situation"] == "critical"
    assert laptop.wormhole("plan", "--lose", "desktop")["lost"] == []
    plan = laptop.wormhole("plan", "--lose", "nas", check=False)
    assert (plan["lost"], plan["short_of_copies"], plan["reaction"]) == (["/single"], len(names), "continue")
    bare.configure("redundancy.repair_limit", f"{REPAIR_BYTES_PER_S} B/s")
    bare.measured()
    nas.kill()

    def as_planned() -> bool:
        status = laptop.ask("status")
        files, absent = status["files"], status["pods"]["absent"]
        seen = (absent, files["missing"], files["short_of_copies"], status["situation"])
        return seen == (1, 1, len(names), plan["situation"])

    wait_until(as_planned, what="it is as it was planned")
    before_it, began = [host.received_bytes() for host in (laptop, desktop)], time.monotonic()
    laptop.wormhole("config", "set", "redundancy.repair_after", "1s")
    wait_until(lambda: not laptop.ask("status")["files"]["short_of_copies"], 60, "copies on those left")
    took_s = time.monotonic() - began
    received = [host.received_bytes() - was for host, was in zip((laptop, desktop), before_it, strict=True)]
    assert sum(received) > 4 * 300_000, "it is made of what was copied"
    assert max(received) / took_s <= REPAIR_BYTES_PER_S, f"{received} bytes in {took_s:.1f} s"
    wait_until(lambda: kept(laptop, names) == [["desktop", "laptop"]] * len(names), what="both have all")
    nas.run(WORMHOLE, "up")
    bare.settled()
    wait_until(lambda: all("nas" in pods for pods in kept(laptop, names)), 30, "its copies count again")
    for host in bare.hosts:
        for name, data in contents.items():
            wait_until(shows(host.mount / name, data))
