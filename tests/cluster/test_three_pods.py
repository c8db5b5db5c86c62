"""One folder on three machines: the stories of a household, with real mounts, real TLS and real multicast."""

from __future__ import annotations

import contextlib
import errno
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from functools import partial
from pathlib import Path

import pytest

from base.ids import hash_bytes
from tests.cluster.lab import Host, Lab, run, shows, wait_until

SOURCE = Path(sysconfig.get_paths()["stdlib"])
CHUNK = 1 << 20

SAVING = """
import os, sys
d = sys.argv[1]
os.makedirs(d, exist_ok=True)
i = 0
while True:
    with open(f"{d}/{i % 5}.tmp", "wb") as file:
        file.write((b"%08d" % i) * 4096)
        file.flush()
        os.fsync(file.fileno())
    os.replace(f"{d}/{i % 5}.tmp", f"{d}/{i % 5}")
    folder = os.open(d, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    print(i, flush=True)
    i += 1
"""


def chunks_of(path: Path) -> set[str]:
    data = path.read_bytes()
    return {hash_bytes(data[i : i + CHUNK]).hex() for i in range(0, len(data), CHUNK)}


def holders(path: Path) -> set[str]:
    return set(filter(None, os.getxattr(path, "user.wormhole.holders").decode().split(",")))


def real_tree(folder: Path) -> Path:
    """Copy a thousand real files from the standard library."""
    for name in ("asyncio", "concurrent", "ctypes", "email", "encodings", "idlelib", "json", "test", "unittest"):
        if (SOURCE / name).is_dir() and sum(1 for _ in folder.rglob("*.py")) < 1100:
            run("cp", "-r", SOURCE / name, folder / name)
    run("find", folder, "-name", "__pycache__", "-prune", "-exec", "rm", "-rf", "{}", "+")
    assert sum(1 for path in folder.rglob("*") if path.is_file()) >= 1000
    return folder


def test_a_tree_copied_here_is_there_and_fetched_when_read(three: Lab, tmp_path: Path) -> None:
    laptop, desktop, nas = three.hosts
    source = real_tree(tmp_path)
    run("cp", "-r", source, laptop.mount / "lib", timeout_s=300)
    laptop.wormhole("sync", "/lib", "--timeout", "4m", timeout_s=300)
    chunks = {path: chunks_of(path) for path in source.rglob("*") if path.is_file() and path.stat().st_size}

    def owners() -> dict[str, set[str]]:
        """Return who is said to have each chunk: equal files share chunks."""
        found: dict[str, set[str]] = {}
        for path, some in chunks.items():
            for chunk in some:
                found.setdefault(chunk, set()).update(holders(laptop.mount / "lib" / path.relative_to(source)))
        return found

    def said_otherwise() -> list[tuple[str, str]]:
        said, stored = owners(), {host.name: host.stored() for host in three.hosts}
        return [
            (chunk, name)
            for chunk, names in said.items()
            for name, there in stored.items()
            if (chunk in there) != (name in names)
        ]

    wait_until(lambda: said_otherwise() == [], what="who is said to have something has it, and nobody else")
    said = owners().values()
    assert all("laptop" in names for names in said)
    assert sum("desktop" not in names for names in said) > 100, "the pods share the copies"
    run("diff", "-r", source, desktop.mount / "lib", timeout_s=300)
    wait_until(lambda: set(owners()) <= desktop.stored(), what="small files that were read are cached")
    run("diff", "-r", source, nas.mount / "lib", timeout_s=300)


def test_each_copy_lies_on_another_pod(three: Lab) -> None:
    laptop = three.hosts[0]
    (laptop.mount / "two copies").write_bytes(os.urandom(3 * CHUNK + 17))
    laptop.wormhole("sync", "/two copies")
    where = laptop.wormhole("where", "/two copies")
    assert where["copies_wanted"] == 2
    assert len(set(where["kept"])) == 2
    assert set(where["chunks"]) == chunks_of(laptop.mount / "two copies")
    holding = [host.name for host in three.hosts if set(where["chunks"]) <= host.stored()]
    assert sorted(holding) == sorted(where["kept"])


def test_a_new_file_is_visible_elsewhere_at_once(three: Lab) -> None:
    laptop, desktop, _ = three.hosts
    laptop.mount.joinpath("quick").mkdir()
    wait_until((desktop.mount / "quick").is_dir)
    took = []
    for number in range(30):
        name = f"quick/{number}"
        start = time.perf_counter()
        (laptop.mount / name).write_text(f"hello {number}")
        while True:
            with contextlib.suppress(FileNotFoundError):
                if (desktop.mount / name).read_text() == f"hello {number}":
                    break
            assert time.perf_counter() - start < 60
        took.append(time.perf_counter() - start)
        assert f"{number}" in os.listdir(desktop.mount / "quick")
    assert statistics.median(took) < 2


def test_a_change_a_rename_and_a_deletion_are_visible_elsewhere(three: Lab) -> None:
    laptop, desktop, nas = three.hosts
    (laptop.mount / "notes.txt").write_text("first")
    wait_until(shows(desktop.mount / "notes.txt", "first"))
    (desktop.mount / "notes.txt").write_text("second, longer")
    wait_until(shows(laptop.mount / "notes.txt", "second, longer"))
    os.rename(laptop.mount / "notes.txt", laptop.mount / "renamed.txt")
    wait_until(lambda: (nas.mount / "renamed.txt").exists() and not (nas.mount / "notes.txt").exists())
    os.unlink(nas.mount / "renamed.txt")
    wait_until(lambda: not (laptop.mount / "renamed.txt").exists() and not (desktop.mount / "renamed.txt").exists())


def test_what_was_synced_survives_the_death_of_its_writer(three: Lab) -> None:
    laptop, desktop, nas = three.hosts
    want = {f"f{number:03}": os.urandom(5000 + number) for number in range(200)}
    (laptop.mount / "precious").mkdir()
    for name, data in want.items():
        (laptop.mount / "precious" / name).write_bytes(data)
    laptop.wormhole("sync", "/precious")
    laptop.kill()
    for host in (desktop, nas):
        wait_until(partial(has_entries, host.mount / "precious", 200))
        for name, data in want.items():
            wait_until(shows(host.mount / "precious" / name, data))
    (desktop.mount / "while laptop is dead").write_text("works")
    wait_until(lambda: state_of(desktop, "laptop") in ("suspect", "absent"), 10)
    laptop.wormhole("up")
    wait_until(lambda: laptop.ask("status")["connected"])
    wait_until(shows(laptop.mount / "while laptop is dead", "works"))
    three.settled()


def has_entries(folder: Path, number: int) -> bool:
    return len(os.listdir(folder)) == number


def state_of(host: Host, name: str) -> str:
    return next(str(pod["state"]) for pod in host.ask("pods")["pods"] if pod["name"] == name)


def test_a_cut_cable_stops_nobody_and_heals(three: Lab) -> None:
    laptop, desktop, nas = three.hosts
    (desktop.mount / "here").write_text("local on desktop")
    (laptop.mount / "there").write_bytes(os.urandom(100_000))
    desktop.wormhole("sync")
    laptop.wormhole("sync")
    lone = next((host for host in (desktop, nas) if host.name not in holders(laptop.mount / "there")), None)
    assert lone is not None
    others = [host for host in three.hosts if host is not lone]
    wait_until(lambda: (lone.mount / "there").stat().st_size == 100_000)
    (lone.mount / "mine").write_text("written here")
    lone.cut()
    start = time.monotonic()
    with pytest.raises(OSError) as refused:
        (lone.mount / "there").read_bytes()
    assert refused.value.errno == errno.EIO
    assert time.monotonic() - start < 30, "the deadline is 10 s"
    wait_until(lambda: state_of(others[0], lone.name) != "alive", 10, "a cut pod is suspect")
    assert "there" in os.listdir(lone.mount)
    assert (lone.mount / "mine").read_text() == "written here"
    (lone.mount / "cut off").write_text("written while cut off")
    (others[0].mount / "meanwhile").write_text("written by the others")
    lone.plug()
    wait_until(shows(lone.mount / "meanwhile", "written by the others"), 60)
    for host in others:
        wait_until(shows(host.mount / "cut off", "written while cut off"), 60)
    wait_until(lambda: len((lone.mount / "there").read_bytes()) == 100_000)
    three.settled()


def test_down_and_up_under_load_lose_nothing(three: Lab) -> None:
    laptop, desktop, _ = three.hosts
    (laptop.mount / "load").mkdir()
    wait_until((desktop.mount / "load").is_dir)
    three.measured(desktop)
    script = f"i=0; while :; do echo $i > {laptop.mount}/load/$i && echo $i; i=$((i+1)); done 2>/dev/null"
    writer = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        for _ in range(3):
            desktop.wormhole("down")
            assert not os.path.ismount(desktop.mount)
            desktop.wormhole("up")
            assert os.path.ismount(desktop.mount)
    finally:
        writer.terminate()
    written = writer.communicate()[0].split()
    assert len(written) > 20
    laptop.wormhole("sync", "/load")
    wait_until(lambda: len(os.listdir(desktop.mount / "load")) >= len(written))
    for name in written:
        wait_until(shows(desktop.mount / "load" / name, f"{name}\n"))
    three.measured(desktop)
    since = (desktop.home / "pod.log").read_text().rpartition(" starting\n")[2]
    assert " minutes ago" in since, "a restart costs no megabytes"


def test_killed_while_writing_what_was_synced_is_whole(three: Lab) -> None:
    laptop, desktop, _ = three.hosts
    for _ in range(3):
        command = [sys.executable, "-c", SAVING, str(laptop.mount / "torn")]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert writer.stdout is not None
        for _ in range(20):
            assert writer.stdout.readline()
        laptop.kill()
        last = int((writer.communicate(timeout=120)[0].split() or [b"19"])[-1])
        laptop.wormhole("up")
        for slot in range(5):
            data = (laptop.mount / "torn" / f"{slot}").read_bytes()
            assert len(data) == 8 * 4096
            assert data == data[:8] * 4096, "torn"
            newest = max(i for i in range(last + 1) if i % 5 == slot)
            assert int(data[:8]) >= newest, "what was synced is there"
        wait_until(lambda: laptop.ask("status")["situation"] == "favourable")
    three.settled()
    wait_until(lambda: (desktop.mount / "torn" / "0").read_bytes() == (laptop.mount / "torn" / "0").read_bytes())
