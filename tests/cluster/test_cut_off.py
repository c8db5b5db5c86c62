"""R5, R8, R16, R41, R43, R47, R48: a pod that is cut off, pods without room, and traffic that is slowed down."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.lab import WORMHOLE, Host, Lab, at_once, lab, shows, wait_until
from tests.cluster.test_crisis import frozen, outcome, status, writable

CONFIGURATION = """
[cluster]
name = "home"
[redundancy]
copies = 2
absent_after = "5s"
repair_after = "0s"
[continuity]
degraded = "fewer-copies"
critical = "freeze"
throttle = "500 kB/s"
"""
MB = 1_000_000


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    assert os.geteuid() == 0, "network namespaces need root: run the tests as root"
    configuration = tmp_path_factory.mktemp("configuration") / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    with lab(3) as made:
        made.cluster("home", "--from", str(configuration))
        yield made


TRIES = 4
"""What must be quick once, on a machine that may have something else to do."""


def incoming_limit(host: Host) -> Any:
    return status(host)["transfers"]["limit_bytes_per_s"]["in"]


def pod_set(host: Host, key: str, value: str) -> None:
    host.wormhole("config", "set", key, value, "--pod-level", check=False)


def test_full_disks_and_a_loss_are_degraded_and_fewer_copies_go_on(hosts: Lab) -> None:
    laptop, desktop, nas = hosts.hosts
    for host in hosts.hosts:
        pod_set(host, "cache.limit", "1 MB")
        pod_set(host, "storage.limit", "8 MB")
    contents = {f"{number}": os.urandom(MB) for number in range(9)}
    for number, (name, data) in enumerate(contents.items()):
        (hosts.hosts[number % 3].mount / name).write_bytes(data)
    for host in hosts.hosts:
        host.wormhole("sync")
    for name, data in contents.items():
        wait_until(shows(laptop.mount / name, data))

    def planned() -> list[str]:
        plan = laptop.wormhole("plan", "--lose", "nas", check=False)
        return [plan["situation"], plan["reaction"], *plan["lost"]]

    wait_until(lambda: planned() == ["degraded", "fewer-copies"], 30, "everybody has said how full it is")
    nas.kill()
    for host in (laptop, desktop):
        wait_until(lambda host=host: status(host)["doing"], 30, "reacts")  # type: ignore[misc]
    wait_until(lambda: laptop.ask("where", path="/0")["copies_wanted"] == 1, what="one copy will do")

    wait_until(lambda: status(laptop)["files"]["short_of_copies"] == len(contents), 60, "room is made")
    time.sleep(1)
    assert status(desktop)["situation"] == "degraded", "what it did doesn't look like a solution"
    for host in (laptop, desktop):
        pod_set(host, "storage.limit", "90%")  # there is room again
    wait_until(lambda: not status(laptop)["doing"], 60, "solved")
    wait_until(lambda: status(laptop)["files"]["short_of_copies"] == 0, 60, "as many copies as before")
    for name, data in contents.items():
        wait_until(shows(desktop.mount / name, data))
    nas.run(WORMHOLE, "up")
    hosts.settled()
    pod_set(nas, "storage.limit", "90%")
    (laptop.mount / "kept").write_text("x")
    laptop.wormhole("sync")


def test_traffic_stays_below_what_is_allowed(hosts: Lab) -> None:
    laptop, desktop, nas = hosts.hosts
    sizes = {"up": 1, "throttled": 1} | {f"free {number}": 2 for number in range(TRIES)}
    hosts.measured()
    hosts.configure("redundancy.copies", "1")
    for host in hosts.hosts:
        pod_set(host, "network.upload_limit", "400 kB/s")
    for name, size in sizes.items():
        (laptop.mount / name).write_bytes(os.urandom(size * MB))
    for host in (desktop, nas):
        wait_until(lambda host=host: all((host.mount / name).stat().st_size for name in sizes))  # type: ignore[misc]

    def rate_of(name: str) -> float:
        reader = next(host for host in (nas, desktop) if host.wormhole("where", f"/{name}")["local"] == "none")
        before, begun = reader.received_bytes(), time.monotonic()
        (reader.mount / name).read_bytes()
        return (reader.received_bytes() - before) / (time.monotonic() - begun)

    assert 100_000 < rate_of("up") <= 400_000
    for host in hosts.hosts:
        pod_set(host, "network.upload_limit", "none")
    hosts.configure("continuity.critical", "throttle")
    rehearsal = desktop.start(WORMHOLE, "drill", "critical", "--for", "10m")
    for host in hosts.hosts:
        wait_until(lambda host=host: incoming_limit(host) == 500_000, what="throttled")  # type: ignore[misc]
    assert 100_000 < rate_of("throttled") <= 500_000
    at_once(lambda: (nas.mount / "local").write_bytes(bytes(MB)))  # local work is not slowed down
    nas.wormhole("unfreeze")
    rehearsal.wait(90)
    for host in hosts.hosts:
        wait_until(lambda host=host: incoming_limit(host) is None, what="free again")  # type: ignore[misc]
    assert any(rate_of(f"free {number}") > 2 * MB for number in range(TRIES)), "much more than it was"
    (nas.mount / "local").unlink()  # nobody else has it
    hosts.configure("continuity.critical", "freeze")
    hosts.configure("redundancy.copies", "2")
    laptop.wormhole("sync")


def test_the_cut_off_pod_freezes_and_thaws_and_its_owner_is_told(hosts: Lab, tmp_path: Path) -> None:
    _, desktop, nas = hosts.hosts
    told = tmp_path / "told"
    pod_set(nas, "disconnected.reaction", "freeze")
    words = "$WORMHOLE_EVENT|$WORMHOLE_REACTION|$WORMHOLE_POD|$(cat)"
    pod_set(nas, "disconnected.notify", f'echo "{words}" >> {told}')
    nas.cut()
    wait_until(lambda: frozen(nas), 30, "the cut side freezes")
    assert writable(desktop)
    seen = nas.run(WORMHOLE, "status", check=False)
    assert seen.returncode == 1
    assert "cut off" in seen.stdout
    assert not status(nas)["connected"]
    pod_set(nas, "disconnected.reaction", "stop")
    wait_until(lambda: outcome(lambda: os.listdir(nas.mount)) == errno.ENODEV, what="it stops instead")
    assert status(nas)["stopped"]
    pod_set(nas, "disconnected.reaction", "continue")
    wait_until(lambda: outcome((nas.mount / "written while cut off").mkdir) == 0, what="it goes on instead")
    pod_set(nas, "disconnected.reaction", "freeze")
    (desktop.mount / "written meanwhile").write_text("y")
    nas.plug()
    hosts.settled()
    wait_until(lambda: writable(nas), 30, "normal after the rejoin")
    wait_until(shows(nas.mount / "written meanwhile", "y"))
    wait_until(lambda: len(told.read_text().splitlines()) == 2, what="told of both")
    cut, back = told.read_text().splitlines()
    assert cut == "cut-off|freeze|nas|This pod is cut off: it reaches 0 of 2 other pods."
    assert back.startswith("rejoined||nas|")
    wait_until((desktop.mount / "written while cut off").is_dir, what="what it did alone is there")


def test_no_more_is_stored_than_the_cluster_offers(hosts: Lab) -> None:
    laptop, _, nas = hosts.hosts
    used = sum(path.stat().st_size for path in laptop.mount.iterdir() if path.is_file())
    limit = used + 4 * MB
    hosts.configure("cluster.storage_limit", f"{limit} B")

    def df_agrees(host: Host) -> bool:
        room = os.statvfs(host.mount)
        size, left = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
        return abs(size - limit) < MB / 10 and abs(left - 4 * MB) < MB / 10

    for host in (laptop, nas):
        wait_until(lambda host=host: df_agrees(host), what=f"df agrees on {host.name}")  # type: ignore[misc]
        much = host.mount / f"too much by {host.name}"
        assert outcome(partial(much.write_bytes, bytes(8 * MB))) == errno.ENOSPC
        much.unlink()
        gone = laptop.mount / much.name
        wait_until(lambda gone=gone: not gone.exists(), what="what came of it is gone")  # type: ignore[misc]
    (nas.mount / "fits").write_bytes(os.urandom(3 * MB))
    fits = laptop.mount / "fits"
    wait_until(lambda: fits.exists() and fits.stat().st_size == 3 * MB, what="it is known how large it became")
    assert outcome(lambda: (laptop.mount / "fits no more").write_bytes(bytes(2 * MB))) == errno.ENOSPC
    laptop.wormhole("config", "set", "cluster.storage_limit", "none")
    assert outcome(lambda: (laptop.mount / "fits no more").write_bytes(bytes(2 * MB))) == 0
