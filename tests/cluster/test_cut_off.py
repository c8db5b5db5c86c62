"""R5, R8, R16, R41, R43, R47, R48: a pod that is cut off, pods without room, and traffic that is slowed down."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.lab import WORMHOLE, Host, Lab, lab, wait_until
from tests.cluster.test_crisis import frozen, outcome, status

CONFIGURATION = """
[cluster]
name = "home"
[redundancy]
copies = 2
absent_after = "1s"
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


def pod_set(host: Host, key: str, value: str) -> None:
    host.wormhole("config", "set", key, value, "--pod-level", check=False)


def test_full_disks_and_a_loss_are_degraded_and_fewer_copies_go_on(hosts: Lab) -> None:
    laptop, desktop, nas = hosts.hosts
    for host in hosts.hosts:
        pod_set(host, "cache.limit", "1 MB")
        pod_set(host, "storage.limit", "8 MB")
    for number in range(9):
        (hosts.hosts[number % 3].mount / f"{number}").write_bytes(os.urandom(MB))
    for host in hosts.hosts:
        host.wormhole("sync")
    contents = {f"{number}": (laptop.mount / f"{number}").read_bytes() for number in range(9)}

    def planned() -> list[str]:
        plan = laptop.wormhole("plan", "--lose", "nas", check=False)
        return [plan["situation"], plan["reaction"], *plan["lost"]]

    wait_until(lambda: planned() == ["degraded", "fewer-copies"], 15, "everybody has said how full it is")
    nas.kill()
    for host in (laptop, desktop):
        wait_until(lambda host=host: status(host)["doing"], 30, "reacts")  # type: ignore[misc]
    assert laptop.wormhole("where", "/0")["copies_wanted"] == 1

    wait_until(lambda: status(laptop)["files"]["short_of_copies"] == len(contents), 30, "room is made")
    time.sleep(1)
    assert status(desktop)["situation"] == "degraded", "what it did doesn't look like a solution"
    for host in (laptop, desktop):
        pod_set(host, "storage.limit", "90%")  # there is room again
    wait_until(lambda: not status(laptop)["doing"], 20, "solved")
    wait_until(lambda: status(laptop)["files"]["short_of_copies"] == 0, 60, "as many copies as before")
    assert {name: (desktop.mount / name).read_bytes() for name in contents} == contents
    nas.run(WORMHOLE, "up")
    hosts.settled()
    pod_set(nas, "storage.limit", "90%")
    (laptop.mount / "kept").write_text("x")
    laptop.wormhole("sync")


def test_traffic_stays_below_what_is_allowed(hosts: Lab) -> None:
    laptop, desktop, nas = hosts.hosts
    sizes = {"up": 1, "throttled": 1, "free": 2}
    laptop.wormhole("config", "set", "redundancy.copies", "1")
    for host in hosts.hosts:
        pod_set(host, "network.upload_limit", "400 kB/s")
    for name, size in sizes.items():
        (laptop.mount / name).write_bytes(os.urandom(size * MB))
    wait_until(lambda: all((nas.mount / name).exists() and (nas.mount / name).stat().st_size for name in sizes))

    def rate_of(name: str) -> float:
        reader = next(host for host in (nas, desktop) if host.wormhole("where", f"/{name}")["local"] == "none")
        before, begun = reader.received_bytes(), time.monotonic()
        (reader.mount / name).read_bytes()
        return (reader.received_bytes() - before) / (time.monotonic() - begun)

    assert 250_000 < rate_of("up") <= 400_000
    for host in hosts.hosts:
        pod_set(host, "network.upload_limit", "none")
    laptop.wormhole("config", "set", "continuity.critical", "throttle")
    rehearsal = desktop.start(WORMHOLE, "drill", "critical", "--for", "60s")
    wait_until(lambda: status(nas)["transfers"]["limit_bytes_per_s"]["in"] == 500_000, what="throttled")
    assert 300_000 < rate_of("throttled") <= 500_000
    begun = time.monotonic()
    (nas.mount / "local").write_bytes(bytes(MB))
    assert time.monotonic() - begun < 1, "local work is not slowed down"
    nas.wormhole("unfreeze")
    rehearsal.wait(10)
    wait_until(lambda: status(nas)["transfers"]["limit_bytes_per_s"]["in"] is None, what="free again")
    assert rate_of("free") > 2 * MB
    (nas.mount / "local").unlink()  # nobody else has it
    laptop.wormhole("config", "set", "continuity.critical", "freeze")
    laptop.wormhole("config", "set", "redundancy.copies", "2")
    laptop.wormhole("sync")


def test_the_cut_off_pod_freezes_and_thaws_and_its_owner_is_told(hosts: Lab, tmp_path: Path) -> None:
    _, desktop, nas = hosts.hosts
    told = tmp_path / "told"
    pod_set(nas, "disconnected.reaction", "freeze")
    words = "$WORMHOLE_EVENT|$WORMHOLE_REACTION|$WORMHOLE_POD|$(cat)"
    pod_set(nas, "disconnected.notify", f'echo "{words}" >> {told}')
    nas.cut()
    wait_until(lambda: frozen(nas), 15, "the cut side freezes")
    assert not frozen(desktop)
    seen = nas.run(WORMHOLE, "status", check=False)
    assert seen.returncode == 1
    assert "cut off" in seen.stdout
    assert not status(nas)["connected"]
    pod_set(nas, "disconnected.reaction", "stop")
    assert outcome(lambda: os.listdir(nas.mount)) == errno.ENODEV
    assert status(nas)["stopped"]
    pod_set(nas, "disconnected.reaction", "continue")
    assert outcome((nas.mount / "written while cut off").mkdir) == 0
    pod_set(nas, "disconnected.reaction", "freeze")
    (desktop.mount / "written meanwhile").write_text("y")
    nas.plug()
    hosts.settled()
    wait_until(lambda: not frozen(nas), 15, "normal after the rejoin")
    wait_until(lambda: (nas.mount / "written meanwhile").read_text() == "y")
    wait_until(lambda: told.exists() and len(told.read_text().splitlines()) == 2, what="told of both")
    cut, back = told.read_text().splitlines()
    assert cut == "cut-off|freeze|nas|This pod is cut off: it reaches 0 of 2 other pods."
    assert back.startswith("rejoined||nas|")
    wait_until((desktop.mount / "written while cut off").is_dir, what="what it did alone is there")


def test_no_more_is_stored_than_the_cluster_offers(hosts: Lab) -> None:
    laptop, _, nas = hosts.hosts
    used = sum(path.stat().st_size for path in laptop.mount.iterdir() if path.is_file())
    limit = used + 4 * MB
    laptop.wormhole("config", "set", "cluster.storage_limit", f"{limit} B")
    wait_until(lambda: f"{limit} B" in (nas.home / "cluster.toml").read_text(), what="told")
    for host in (laptop, nas):
        room = os.statvfs(host.mount)
        assert abs(room.f_blocks * room.f_frsize - limit) < MB / 10, "df agrees"
        assert abs(room.f_bavail * room.f_frsize - 4 * MB) < MB / 10
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
