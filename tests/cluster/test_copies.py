"""Homes that were restored from a backup, or copied; clocks that are wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.cluster.lab import WORMHOLE, Host, Lab, run, wait_until
from tests.cluster.test_strangers import refused


def tree(mount: Path) -> dict[str, bytes]:
    return {str(path.relative_to(mount)): path.read_bytes() for path in sorted(mount.rglob("*")) if path.is_file()}


def write(host: Host, *names: str) -> dict[str, bytes]:
    files = {name: f"{name} of {host.name}".encode() for name in names}
    for name, data in files.items():
        (host.mount / name).parent.mkdir(exist_ok=True)
        (host.mount / name).write_bytes(data)
    return files


def status(host: Host) -> Any:
    return host.wormhole("status", check=False)


def all_show(hosts: list[Host], wanted: dict[str, bytes]) -> None:
    wait_until(lambda: all(set(tree(host.mount)) >= set(wanted) for host in hosts), 30, "files everywhere")
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
    up = desktop.run(WORMHOLE, "up", "--home", copy, check=False)
    assert "runs with this pod's key" in refused(up)
    assert "`wormhole join`" in up.stderr
    refused(desktop.run(WORMHOLE, "status", "--home", copy, check=False), 7)
    assert "runs with this pod's key" in refused(desktop.run(WORMHOLE, "up", "--home", copy, check=False))
    assert "runs with this pod's key" in (copy / "pod.log").read_text()
    desktop.run(WORMHOLE, "up")
    wanted |= write(nas, "c")
    all_show(hosts, wanted)
    for host in hosts:
        assert status(host)["pods"] == {"total": 3, "alive": 3, "absent": 0}


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
    assert "runs with this pod's key" in (copy / "pod.log").read_text()
    assert status(laptop)["pid"]
