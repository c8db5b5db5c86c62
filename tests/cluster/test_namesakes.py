"""Clusters of one name, machines that have joined already, foreign identities, and peers that stand still."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time

import pytest

from tests.cluster.lab import WORMHOLE, Lab, at_once, wait_until
from tests.cluster.test_strangers import refused


def test_two_clusters_of_one_name_on_one_machine(bare: Lab) -> None:
    laptop, desktop, nas = bare.hosts
    toml = laptop.folder / "open.toml"
    toml.write_text('[cluster]\nname = "home"\nadmission = "open"\n')
    laptop.new("home", "--from", str(toml))
    usual = {**nas.environment()}
    usual.pop("WORMHOLE_HOME")
    nas.environment = lambda: usual  # type: ignore[method-assign]
    homes = nas.folder / ".local" / "state" / "wormhole"
    nas.homes.append(homes / "home")
    joined = wait_until(lambda: nas.wormhole("join", check=False), what="the cluster is heard of within 3 s")
    assert joined["mount"] == str(nas.folder / "Wormhole")
    for line in ((), ("home",), (laptop.wormhole("status")["cluster_id"],), ("--code", laptop.invite())):
        assert "wormhole up" in refused(nas.run(WORMHOLE, "join", *line, check=False))
    desktop.new("home")
    other = desktop.wormhole("status")["cluster_id"]
    nas.homes.append(homes / f"home-{other[:8]}")
    wait_until(lambda: len(laptop.wormhole("nearby")["clusters"]) == 2, what="both are announced")
    assert "choose" in refused(laptop.run(WORMHOLE, "join", "--home", laptop.folder / "x", check=False), 2)
    joined = nas.wormhole("join", "home", "--code", desktop.invite())
    assert joined["mount"] == str(nas.folder / "Wormhole-home")
    (nas.folder / "Wormhole" / "a").write_text("a")
    (nas.folder / "Wormhole-home" / "b").write_text("b")
    wait_until(lambda: os.listdir(laptop.mount) == ["a"])
    wait_until(lambda: os.listdir(desktop.mount) == ["b"])
    second = f"home-{other[:8]}"
    nas.wormhole("sync", "--cluster", second)
    nas.run(WORMHOLE, "leave", "--force", "--cluster", second)
    assert "has left" in refused(nas.run(WORMHOLE, "up", "--cluster", second, check=False))
    nas.run(WORMHOLE, "destroy", "--yes", "--force", "--cluster", second)
    assert nas.wormhole("pods", "--cluster", "home")["pods"]


def test_a_foreign_identity_is_refused(bare: Lab) -> None:
    laptop, _, nas = bare.hosts
    laptop.new("home")
    spy = nas.folder / "spy"
    nas.homes.append(spy)
    nas.run(WORMHOLE, "new", "home", "--no-mount", "--pod", "spy", "--home", spy)
    nas.run(WORMHOLE, "down", "--home", spy)
    toml = spy / "pod.toml"
    toml.write_text(toml.read_text().replace("peers = []", f'peers = ["{laptop.address}:7420"]'))
    nas.run(WORMHOLE, "up", "--home", spy)
    wait_until(lambda: "verify failed" in (spy / "pod.log").read_text(), 20)
    assert [pod["name"] for pod in laptop.wormhole("pods")["pods"]] == ["laptop"]
    nas.run(WORMHOLE, "down", "--home", spy)
    shutil.copy(laptop.home / "roster.db", spy / "roster.db")  # as if the records had been stolen: they are no key
    for end in ("-wal", "-shm"):
        if (laptop.home / f"roster.db{end}").exists():
            shutil.copy(laptop.home / f"roster.db{end}", spy / f"roster.db{end}")
    refused(nas.run(WORMHOLE, "up", "--home", spy, check=False), 8)


def test_peers_that_stand_still_hold_no_call_beyond_the_deadline(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster("home")
    for number in range(6):
        (laptop.mount / f"{number}").write_bytes(os.urandom(50_000))
    laptop.wormhole("sync")
    kept = {f"{number}": laptop.ask("where", path=f"/{number}")["kept"] for number in range(6)}
    lone = next(host for host in (nas, desktop) if any(host.name not in names for names in kept.values()))
    lacking = [name for name, names in kept.items() if lone.name not in names]
    wait_until(lambda: [path.stat().st_size for path in lone.mount.iterdir()] == [50_000] * 6)
    others = [host.pid() for host in bare.hosts if host is not lone]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with pytest.raises(OSError) as failed:
            (lone.mount / lacking[0]).read_bytes()
        assert failed.value.errno == errno.EIO
        assert time.monotonic() - start < 30, "the deadline is 10 s"
        wait_until(lambda: not lone.ask("status")["connected"], what="it is known that nobody answers")

        def use() -> None:
            assert len(os.listdir(lone.mount)) >= 6
            (lone.mount / "new").write_text("works")
            with pytest.raises(OSError):
                (lone.mount / lacking[0]).read_bytes()

        at_once(use, 3.0)  # a known absence is told at once
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)
    bare.settled()
    wait_until(lambda: len((lone.mount / lacking[0]).read_bytes()) == 50_000, what="readable again")
    wait_until((laptop.mount / "new").exists)
