"""R10, R13, R26, R34, R35, R50, R51, R53: copies lie where they should, by what is on the disks and in the counters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from base.ids import hash_bytes
from tests.cluster.lab import WORMHOLE, Host, Lab, lab, run, shows, wait_until

CONFIGURATION = """
[cluster]
name = "home"
[redundancy]
copies = 3
[[rule]]
match = "one/**"
copies = 1
"""
MIB = 1 << 20


@pytest.fixture
def four() -> Iterator[Lab]:
    """Four hosts without any pod."""
    with lab(4) as made:
        yield made


def sent_bytes(host: Host) -> int:
    link = json.loads(run("ip", "-n", host.namespace, "-s", "-j", "link", "show", "eth0").stdout)[0]
    return int(link["stats64"]["tx"]["bytes"])


def tasks_of(pid: int) -> list[Path]:
    return list(Path(f"/proc/{pid}/task").glob("*/stat"))


def disk_bytes(host: Host) -> int:
    """What the store takes on its disk. The pod is stopped meanwhile: what comes and goes would be counted twice."""
    pid = int(host.ask("status")["pid"])
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: all(task.read_text().rpartition(")")[2].split()[0] == "T" for task in tasks_of(pid)))
        folders = os.walk(host.home / "store")
        return sum(
            os.lstat(os.path.join(folder, name)).st_blocks * 512 for folder, _, names in folders for name in names
        )
    finally:
        os.kill(pid, signal.SIGCONT)


def test_copies_lie_where_they_belong(four: Lab, tmp_path: Path) -> None:
    configuration = tmp_path / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    laptop, desktop, nas, attic = four.hosts
    three = [laptop, desktop, nas]
    laptop.new("home", "--from", str(configuration))
    for host in three[1:]:
        host.join(laptop.invite())
    for host in three:
        wait_until(lambda host=host: host.ask("status")["pods"]["alive"] == 3, what="alive")  # type: ignore[misc]
    four.measured(*three)

    # the writer sends a file once, for three copies; more of it when another pod stands still for seconds, so once is enough
    sent: list[list[float]] = []

    def crosses_once() -> bool:
        before = [sent_bytes(host) for host in three]
        (laptop.mount / "big").write_bytes(big := os.urandom(32 * MIB))
        laptop.wormhole("sync")
        sent.append([(sent_bytes(host) - was) / len(big) for host, was in zip(three, before, strict=True)])
        return sent[-1][0] <= 1.15 and max(sent[-1]) <= 2.15

    assert any(crosses_once() for _ in range(3)), sent

    # an empty pod takes its share of what all the others have, and what is too much goes from their disks
    (laptop.mount / "many").mkdir()
    wait_until(lambda: all((host.mount / "many").is_dir() for host in three), what="seen")
    contents = set()
    for number in range(160):
        (three[number % 3].mount / "many" / f"{number}").write_bytes(data := os.urandom(100_000))
        contents.add(hash_bytes(data).hex())

    def shares(hosts: list[Host]) -> list[int]:
        return [len(contents & host.stored()) for host in hosts]

    # not by `sync`: what that waited for is kept for a minute, whatever the placement says
    wait_until(lambda: sum(shares(three)) == 3 * 160, 60, "copied")
    (laptop.mount / "big").unlink()
    attic.join(laptop.invite())
    wait_until(lambda: sum(found := shares(four.hosts)) == 3 * 160 and min(found) >= 100, 60, "balanced")

    # new files land where they are wished for; a writer beyond its limit hands them on
    attic.run(WORMHOLE, "config", "set", "affinity.new_files", "5", "--pod-level")
    laptop.run(WORMHOLE, "config", "set", "storage.limit", "48 MiB", "--pod-level")
    (laptop.mount / "one").mkdir()
    for number in range(60):
        (laptop.mount / "one" / f"{number}").write_bytes(os.urandom(MIB))
        assert disk_bytes(laptop) <= 48 * MIB
    wait_until(
        lambda: [laptop.ask("where", path=path)["kept"] for path in ("/one/7", "/one/59")] == [["attic"]] * 2,
        60,
        "handed over",
    )
    reasons = {pod["name"]: pod["reason"] for pod in laptop.wormhole("why", "/one/59")["pods"]}
    assert "affinity.new_files = 5" in reasons["attic"]

    # one file larger than the writer's store goes through to another pod
    source = tmp_path / "large"
    source.write_bytes(large := os.urandom(120 * MIB))
    copying, most = subprocess.Popen(["cp", source, laptop.mount / "large"]), 0
    while copying.poll() is None:
        most = max(most, disk_bytes(laptop))
    assert copying.returncode == 0
    assert most <= 48 * MIB
    for host in four.hosts:
        wait_until(shows(host.mount / "large", large), what="all of it")
    (laptop.mount / "large").unlink()

    # a pod leaves once others have what it has; refused where nobody has room
    assert desktop.run(WORMHOLE, "leave", "--yes", timeout_s=300).returncode == 0
    nas.run(WORMHOLE, "config", "set", "storage.limit", "24 MiB", "--pod-level")
    wait_until(lambda: attic.ask("pods")["pods"][3]["bytes_limit"] == 24 * MIB, what="told")
    refused = attic.run(WORMHOLE, "leave", "--yes", check=False)
    assert refused.returncode == 4
    assert "room" in refused.stderr
