"""Clusters from a file, imports from several machines, and the ways of a pod to go."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.lab import WORMHOLE, Host, Lab, mounts_below, processes_of, run, shows, wait_until

ONE_COPY = '[cluster]\nname = "lab"\n\n[redundancy]\ncopies = 1\n'
FILES = {f"paper {number}.txt": os.urandom(1000 + number) for number in range(40)}


def folder_of_files(folder: Path, prefix: str) -> dict[str, bytes]:
    folder.mkdir()
    wanted = {f"{prefix} {name}": data for name, data in FILES.items()}
    for name, data in wanted.items():
        (folder / name).write_bytes(data)
    return wanted


def test_three_folders_become_one_tree_and_a_pod_leaves(bare: Lab, tmp_path: Path) -> None:
    hosts = bare.cluster("office")
    want: dict[str, bytes] = {}
    for host in hosts:
        source = tmp_path / host.name
        want |= folder_of_files(source, host.name)
        done = host.wormhole("import", source, "/shared", "--move")
        assert done["files"] == len(FILES)
        assert not list(source.rglob("*")), "a moved source is freed"
    for host in hosts:
        wait_until(lambda host=host: len(os.listdir(host.mount / "shared")) == len(want))  # type: ignore[misc]
        for name, data in want.items():
            wait_until(shows(host.mount / "shared" / name, data))
    laptop, desktop, nas = hosts
    nas.wormhole("leave")
    assert not nas.home.exists()
    assert not processes_of(nas.home)
    assert not mounts_below(nas.folder)
    for host in (laptop, desktop):
        wait_until(lambda host=host: state_of(host, "nas") == "left")  # type: ignore[misc]
    for host in (laptop, desktop):
        wait_until(lambda host=host: is_calm(host), what="nothing lacks copies")  # type: ignore[misc]
    stored = laptop.stored() & desktop.stored()
    for name, data in want.items():
        assert laptop.wormhole("where", f"/shared/{name}")["content"] in stored
        wait_until(shows(laptop.mount / "shared" / name, data))
        break
    laptop.run(WORMHOLE, "leave")
    last = desktop.run(WORMHOLE, "leave", check=False)
    assert last.returncode == 4
    assert "destroy" in last.stderr
    for name, data in want.items():
        assert (desktop.mount / "shared" / name).read_bytes() == data


def state_of(host: Host, name: str) -> str:
    return next(str(pod["state"]) for pod in host.ask("pods")["pods"] if pod["name"] == name)


def is_calm(host: Host) -> bool:
    status = host.ask("status")
    return (status["situation"], status["files"]["short_of_copies"]) == ("favourable", 0)


def test_the_only_copy_is_not_destroyed(bare: Lab, tmp_path: Path) -> None:
    laptop, desktop, _ = bare.hosts
    toml = tmp_path / "lab.toml"
    toml.write_text(ONE_COPY)
    laptop.new("lab", "--from", str(toml))
    desktop.join(laptop.invite())
    (desktop.mount / "only here").write_text("precious")
    desktop.wormhole("sync")
    wait_until(lambda: (laptop.mount / "only here").stat().st_size == len("precious"))
    assert desktop.wormhole("where", "/only here")["kept"] == ["desktop"]
    assert not laptop.stored(), "copies = 1: nothing is replicated"
    refused = desktop.run(WORMHOLE, "destroy", "--yes", check=False)
    assert refused.returncode == 4
    assert "only here" in refused.stderr
    wait_until(shows(laptop.mount / "only here", "precious"))
    done = laptop.run(WORMHOLE, "destroy", "--yes", check=False)
    assert done.returncode == 0, done.stderr
    assert not laptop.home.exists()
    assert (desktop.mount / "only here").read_text() == "precious"


def test_an_import_keeps_times_modes_links_and_attributes(bare: Lab, tmp_path: Path) -> None:
    laptop = bare.hosts[0]
    laptop.new("home")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "tool").write_text("#!/bin/sh\n")
    (source / "sub" / "tool").chmod(0o755)
    (source / "empty").touch()
    (source / "link").symlink_to("sub/tool")
    os.mkfifo(source / "pipe")
    os.setxattr(source / "sub" / "tool", "user.origin", b"a shop")
    for path in ("sub/tool", "sub"):
        os.utime(source / path, ns=(10**18, 10**18 + 7))
    assert laptop.wormhole("import", source, "/in")["skipped"] == []
    there = laptop.mount / "in"
    run("diff", "-r", "--no-dereference", "--exclude=pipe", source, there)
    assert (there / "pipe").is_fifo()
    assert os.readlink(there / "link") == "sub/tool"
    assert (there / "sub" / "tool").stat().st_mode & 0o777 == 0o755
    assert os.getxattr(there / "sub" / "tool", "user.origin") == b"a shop"
    for path in ("sub/tool", "sub"):
        assert (there / path).stat().st_mtime_ns == 10**18 + 7
    again = laptop.wormhole("import", source, "/in")
    assert again["different"] == []
    (source / "sub" / "tool").write_text("changed")
    done = laptop.run(WORMHOLE, "import", source, "/in", "--json", check=False)
    assert done.returncode == 1, "something there is different"
    assert (there / "sub" / "tool").read_text() == "#!/bin/sh\n"
    limit = laptop.wormhole("status", check=False)["bytes"]["limit"]
    assert limit > 0


@pytest.mark.parametrize("times", [5])
def test_down_and_up_again_and_again(bare: Lab, times: int) -> None:
    laptop, desktop, _ = bare.hosts
    laptop.new("home")
    desktop.join(laptop.invite())
    for number in range(times):
        (desktop.mount / f"before {number}").write_text("a")
        (laptop.mount / f"here {number}").write_text("b")
        desktop.wormhole("down")
        (laptop.mount / f"meanwhile {number}").write_text("c")
        desktop.wormhole("up")
        assert os.path.ismount(desktop.mount)
    want = {f"{what} {number}" for what in ("before", "here", "meanwhile") for number in range(times)}
    for host in (laptop, desktop):
        wait_until(lambda host=host: set(os.listdir(host.mount)) == want)  # type: ignore[misc]
    assert len(mounts_below(bare.folder)) == 2
    run("umount", laptop.mount)
    laptop.wormhole("mount")
    assert set(os.listdir(laptop.mount)) == want
