"""The disk of a running pod's store goes, or can't be written any more: it is told, nothing is lost, nothing deleted."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.runner import LOCAL, Person, processes
from tests.cluster.lab import shows, wait_until


def write_and_sync(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def test_a_store_that_goes_or_is_read_only(person: Person) -> None:
    home, mount = person.folder / "h", person.folder / "m"
    store, away = home / "store", person.folder / "away"
    assert person.run("new", "home", "--home", home, "--mount", mount, "--pod", "laptop", *LOCAL).code == 0
    data = {f"{number}": os.urandom(100_000) for number in range(10)}
    for name, content in data.items():
        (mount / name).write_bytes(content)
    assert person.run("sync", "--home", home).code == 0

    # moved away, as a disk that is unplugged: the pod ends, and writes nothing in its place
    store.rename(away)
    store.mkdir()
    wait_until(lambda: not processes(person.folder), 20, "the pod has ended")
    assert list(store.iterdir()) == []
    assert "has vanished" in (home / "pod.log").read_text()
    assert "vanished" in person.fails(9, "up", "--home", home)
    store.rmdir()
    away.rename(store)
    assert person.run("up", "--home", home).code == 0
    assert {name: (mount / name).read_bytes() for name in data} == data

    # read-only: reading goes on, writing fails, and status says so
    subprocess.run(["mount", "--bind", store, store], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
    with pytest.raises(OSError, match=r"Read-only|Input/output"):
        write_and_sync(mount / "new", bytes(3_000_000))
    assert {name: (mount / name).read_bytes() for name in data} == data
    assert "read-only" in str(person.run("status", "--home", home, "--json").json["warnings"])
    subprocess.run(["mount", "-o", "remount,bind,rw", store], check=True)
    assert person.run("down", "--home", home).code == 0
    subprocess.run(["umount", "-l", store], check=True)
    assert person.run("up", "--home", home).code == 0
    time.sleep(1)
    assert {name: (mount / name).read_bytes() for name in data} == data


def test_the_metadata_of_a_pod_that_learns_no_longer_fit_on_its_disk(person: Person) -> None:
    """The pod ends and says why; once there is room its next start fetches what it could not write."""
    mounts = [person.folder / name for name in ("m", "other")]
    homes = [person.folder / name for name in ("h", "o")]
    assert person.run("new", "home", "--home", homes[0], "--mount", mounts[0], "--pod", "laptop", *LOCAL).code == 0
    said = [person.run(word, "--home", homes[0], "--json").json for word in ("invite", "status")]
    invited = ("--code", said[0]["code"], "--peer", said[1]["address"])
    assert person.run("join", *invited, "--home", homes[1], "--mount", mounts[1], "--pod", "nas", *LOCAL).code == 0
    (mounts[0] / "first").write_text("first")
    wait_until(shows(mounts[1] / "first", "first"), 20)

    pid = int((homes[1] / "pod.lock").read_text().split()[0])
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    names = [f"{number:03}" for number in range(300)]
    for name in names:
        (mounts[0] / name).write_text(name)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), 30, "the pod has ended")
    assert "The metadata can't be written" in (homes[1] / "pod.log").read_text()

    assert person.run("up", "--home", homes[1]).code == 0
    wait_until(lambda: sorted(os.listdir(mounts[1])) == [*names, "first"], 30, "everything was fetched")
    assert all((mounts[1] / name).read_text() == name for name in names)
