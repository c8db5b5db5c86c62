"""R40, R45, F1: a machine that stays away is replaced by copies elsewhere; one whose absence is planned isn't."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tests.cluster.lab import WORMHOLE, Host, Lab, wait_until

CONFIGURATION = """
[cluster]
name = "home"
[redundancy]
copies = 2
absent_after = "1s"
repair_after = "3s"
[[rule]]
match = "single"
copies = 1
"""


def kept(host: Host, names: list[str]) -> list[list[str]]:
    found: list[list[str]] = []
    for name in names:
        where: dict[str, Any] = host.wormhole("where", f"/{name}")
        found.append(sorted(where["kept"]))
    return found


def test_copies_of_who_stays_away_are_made_anew_and_count_again_when_it_returns(bare: Lab, tmp_path: Path) -> None:
    configuration = tmp_path / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    laptop, desktop, nas = bare.cluster("home", "--from", str(configuration))
    contents = {f"file {number}": os.urandom(3000 + number) for number in range(12)}
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
    wait_until(lambda: desktop.wormhole("config", "get", "redundancy.repair_after")["value"] == "0s", what="told")
    for host in (laptop, desktop):
        assert host.wormhole("status")["files"]["total"] == len(contents)
    assert laptop.stored() | desktop.stored() == before
    nas.run(WORMHOLE, "up")
    bare.settled()

    everything = laptop.wormhole("plan", "--lose", "laptop,desktop,nas", check=False)
    assert everything["lost"] == sorted(f"/{name}" for name in contents)
    assert everything["situation"] == "critical"
    assert laptop.wormhole("plan", "--lose", "desktop")["lost"] == []
    plan = laptop.wormhole("plan", "--lose", "nas", check=False)
    assert (plan["lost"], plan["short_of_copies"], plan["reaction"]) == (["/single"], len(names), "continue")
    laptop.wormhole("config", "set", "redundancy.repair_after", "1h")
    nas.kill()
    wait_until(lambda: laptop.wormhole("pods")["pods"][2]["state"] == "absent", what="absent")
    status = laptop.wormhole("status", check=False)
    assert (status["files"]["missing"], status["files"]["short_of_copies"]) == (1, len(names))
    assert status["situation"] == plan["situation"]
    laptop.wormhole("config", "set", "redundancy.repair_after", "1s")
    wait_until(lambda: kept(laptop, names) == [["desktop", "laptop"]] * len(names), 60, "copies on those left")
    status = laptop.wormhole("status", check=False)
    assert status["files"]["short_of_copies"] == 0
    nas.run(WORMHOLE, "up")
    bare.settled()
    wait_until(lambda: all("nas" in pods for pods in kept(laptop, names)), 30, "its copies count again")
    for host in bare.hosts:
        for name, data in contents.items():
            assert (host.mount / name).read_bytes() == data
