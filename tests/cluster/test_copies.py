"""Homes that were restored from a backup, or copied; clocks that are wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.lab import ROOT, WORMHOLE, Host, Lab, below, run, wait_until
from tests.cluster.test_strangers import refused


def tree(mount: Path) -> dict[str, bytes]:
    return {path: data for path, data in below(mount).items() if data is not None}


def write(host: Host, *names: str) -> dict[str, bytes]:
    files = {name: f"{name} of {host.name}".encode() for name in names}
    for name, data in files.items():
        (host.mount / name).parent.mkdir(exist_ok=True)
        (host.mount / name).write_bytes(data)
    return files


def status(host: Host) -> Any:
    return host.wormhole("status", check=False)


def all_show(hosts: list[Host], wanted: dict[str, bytes]) -> None:
    def differing() -> list[str]:
        return [host.name for host in hosts if tree(host.mount) != wanted]

    with contextlib.suppress(AssertionError):
        wait_until(lambda: not differing(), 90)
    for host in hosts:
        assert tree(host.mount) == wanted, host.name


def test_a_restored_pod_that_writes_before_it_links_up(bare: Lab, tmp_path: Path) -> None:
    hosts = bare.cluster()
    laptop, _, nas = hosts
    wanted = write(nas, "before", "docs/first")
    nas.wormhole("sync")
    writer = status(nas)["writer"]
    nas.run(WORMHOLE, "down")
    run("cp", "-a", nas.home, tmp_path / "backup")
    nas.run(WORMHOLE, "up")
    assert status(nas)["writer"] == writer, "an ordinary start keeps its writer"
    wanted |= write(nas, "after", "docs/second")
    nas.wormhole("sync")
    nas.run(WORMHOLE, "down")
    shutil.rmtree(nas.home)
    run("cp", "-a", tmp_path / "backup", nas.home)
    nas.cut()
    nas.run(WORMHOLE, "up")
    wanted |= write(nas, "alone", "docs/third")
    nas.plug()
    all_show(hosts, wanted)
    restored = status(nas)
    assert restored["writer"] != writer
    wanted |= write(nas, "later") | write(laptop, "meanwhile")
    all_show(hosts, wanted)
    nas.run(WORMHOLE, "down")
    nas.run(WORMHOLE, "up")
    assert status(nas)["writer"] == restored["writer"]
    all_show(hosts, wanted)
    for host in hosts:
        assert " ERROR " not in (host.home / "pod.log").read_text()


def test_a_pod_whose_disk_was_reset_is_reborn_when_it_links_up(bare: Lab, tmp_path: Path) -> None:
    """Nothing on the machine tells that the metadata is an older state; the other pods do."""
    hosts = bare.cluster()
    laptop, _, nas = hosts
    wanted = write(nas, "before", "docs/first")
    nas.wormhole("sync")
    writer = status(nas)["writer"]
    nas.run(WORMHOLE, "down")
    shutil.copy(nas.home / "metadata.db", tmp_path / "metadata.db")
    nas.run(WORMHOLE, "up")
    wanted |= write(nas, "after", "docs/second")
    nas.wormhole("sync")
    nas.run(WORMHOLE, "down")
    for file in nas.home.glob("metadata.db*"):
        file.unlink()
    shutil.copy(tmp_path / "metadata.db", nas.home / "metadata.db")
    nas.cut()
    nas.run(WORMHOLE, "up")
    assert status(nas)["writer"] == writer
    wanted |= write(nas, "alone", "docs/third")
    nas.plug()
    all_show(hosts, wanted)
    restored = status(nas)["writer"]
    assert restored != writer
    wait_until(lambda: "this pod goes on as the writer" in (nas.home / "pod.log").read_text(), what="it is told")
    wanted |= write(nas, "later") | write(laptop, "meanwhile")
    all_show(hosts, wanted)
    nas.run(WORMHOLE, "down")
    nas.run(WORMHOLE, "up")
    all_show(hosts, wanted)
    assert status(nas)["writer"] == restored
    for host in hosts:
        assert " ERROR " not in (host.home / "pod.log").read_text()


def test_a_pod_that_was_reset_meets_one_that_knows_no_better_first(bare: Lab, tmp_path: Path) -> None:
    """Laptop takes what contradicts; when desktop comes, all three have both histories."""
    hosts = bare.cluster()
    laptop, desktop, nas = hosts
    wanted = write(nas, "before")
    all_show(hosts, wanted)
    nas.wormhole("sync")
    laptop.run(WORMHOLE, "down")
    nas.run(WORMHOLE, "down")
    shutil.copy(nas.home / "metadata.db", tmp_path / "metadata.db")
    nas.run(WORMHOLE, "up")
    for name in ("after", "docs/second", "docs/third"):
        wanted |= write(nas, name)
    all_show([desktop, nas], wanted)
    nas.run(WORMHOLE, "down")
    desktop.cut()
    for file in nas.home.glob("metadata.db*"):
        file.unlink()
    shutil.copy(tmp_path / "metadata.db", nas.home / "metadata.db")
    nas.run(WORMHOLE, "up")
    laptop.run(WORMHOLE, "up")
    known = {"before": wanted["before"]} | write(nas, "alone") | write(nas, "docs/fourth")
    all_show([laptop, nas], known)
    desktop.plug()
    wanted |= known
    all_show(hosts, wanted)
    wanted |= write(nas, "later") | write(laptop, "meanwhile") | write(desktop, "too")
    all_show(hosts, wanted)
    assert "its pod was restored" in (laptop.home / "pod.log").read_text()


def test_a_copy_beside_its_living_original_stops(bare: Lab, tmp_path: Path) -> None:
    laptop, desktop, nas = hosts = bare.cluster()
    wanted = write(laptop, "a") | write(nas, "b")
    all_show(hosts, wanted)
    desktop.run(WORMHOLE, "down")
    copy = desktop.folder / "copy"
    desktop.homes.append(copy)
    run("cp", "-a", nas.home, copy)
    toml = copy / "pod.toml"
    toml.write_text(toml.read_text().replace(str(nas.mount), str(desktop.folder / "mount")))

    def turned_away() -> str:
        """Come up; return why not. While the original stands still nobody knows, but the copy ends when it goes on."""
        up = desktop.run(WORMHOLE, "up", "--home", copy, check=False)
        return refused(up) if up.returncode else ""

    told = wait_until(turned_away, what="the copy is turned away")
    assert "runs with this pod's key" in told
    assert "`wormhole join`" in told
    refused(desktop.run(WORMHOLE, "status", "--home", copy, check=False), 7)
    assert "runs with this pod's key" in refused(desktop.run(WORMHOLE, "up", "--home", copy, check=False))
    assert "runs with this pod's key" in (copy / "pod.log").read_text()
    desktop.run(WORMHOLE, "up")
    wanted |= write(nas, "c")
    all_show(hosts, wanted)
    bare.settled()
    for host in hosts:
        assert status(host)["pods"]["total"] == 3


def test_a_copy_whose_only_peer_is_the_original(bare: Lab) -> None:
    laptop, desktop, _ = bare.hosts
    laptop.new("home")
    copy = desktop.folder / "copy"
    desktop.homes.append(copy)
    laptop.run(WORMHOLE, "down")
    run("cp", "-a", laptop.home, copy)
    laptop.run(WORMHOLE, "up")
    toml = copy / "pod.toml"
    toml.write_text(toml.read_text().replace(str(laptop.mount), str(desktop.mount)))
    desktop.run(WORMHOLE, "up", "--home", copy, check=False)
    wait_until(lambda: desktop.run(WORMHOLE, "status", "--home", copy, check=False).returncode == 7, 30)
    wait_until(lambda: "runs with this pod's key" in (copy / "pod.log").read_text(), what="the copy says why it ended")
    assert status(laptop)["pid"]


YEAR_S = 365 * 86_400.0


def other_clock(host: Host, ahead_s: float) -> None:
    """Let the host's pod and commands run with another wall clock from now on."""
    usual = host.environment()
    more = {"PYTHONPATH": str(ROOT / "tests" / "cluster" / "other_clock"), "CLOCK_AHEAD_S": str(ahead_s)}
    host.environment = lambda: usual | more  # type: ignore[method-assign]


def warnings(host: Host) -> str:
    return " ".join(status(host)["warnings"])


@pytest.mark.parametrize("ahead_s", [YEAR_S, -time.time()], ids=["a-year-ahead", "in-1970"])
def test_a_wrong_clock_freezes_nothing_and_is_told(bare: Lab, ahead_s: float) -> None:
    laptop, desktop, nas = hosts = bare.hosts
    other_clock(nas, ahead_s)
    bare.cluster()
    wanted = write(nas, "of nas", "both") | write(laptop, "of laptop")
    all_show(hosts, wanted)
    for turn, host in enumerate([laptop, nas, desktop, nas, laptop]):
        before = (host.mount / "both").stat()
        saved = f"{turn}".encode()
        wanted |= {"both": saved, f"{turn}/{host.name}": b"new"}
        (host.mount / "both").write_bytes(saved)
        (host.mount / f"{turn}").mkdir()
        (host.mount / f"{turn}" / host.name).write_bytes(b"new")
        for mount in mounts(hosts):
            wait_until(lambda file=mount / "both", saved=saved: file.read_bytes() == saved)  # type: ignore[misc]
        all_show(hosts, wanted)
        assert (host.mount / "both").stat().st_mtime_ns != before.st_mtime_ns
    os.rename(laptop.mount / "of nas", laptop.mount / "renamed")
    os.unlink(desktop.mount / "of laptop")
    del wanted["of laptop"]
    wanted["renamed"] = wanted.pop("of nas")
    wait_until(lambda: all(tree(mount).keys() == wanted.keys() for mount in mounts(hosts)))
    all_show(hosts, wanted)
    wait_until(lambda: status(laptop)["files"]["total"] == len(wanted), what="all are counted")
    word = "ahead of" if ahead_s > 0 else "behind"
    wait_until(lambda: f"{word} the others' (median of 2 pods)" in warnings(nas), 20)
    wait_until(lambda: "The clock of nas is" in warnings(laptop), 20)
    wait_until(lambda: "The clock of nas is" in warnings(desktop), 20)
    assert "clock of this pod" not in warnings(desktop)


def mounts(hosts: list[Host]) -> list[Path]:
    return [host.mount for host in hosts]
