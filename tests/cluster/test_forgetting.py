"""A pod that was away for longer than `forget_after`: the others go on without it, and nothing that it did is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.lab import WORMHOLE, Host, Lab, below, lab, wait_until

CONFIGURATION = """
[cluster]
name = "home"
forget_after = "8s"
"""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Lab]:
    """Three hosts whose pods forget who is away for eight seconds, longer than a busy machine holds one up."""
    assert os.geteuid() == 0, "network namespaces need root: run the tests as root"
    configuration = tmp_path / "cluster.toml"
    configuration.write_text(CONFIGURATION)
    with lab(3) as found:
        found.cluster("home", "--from", str(configuration))
        yield found


def tree(host: Host) -> dict[str, bytes]:
    return {path: data for path, data in below(host.mount).items() if data is not None}


def status(host: Host) -> Any:
    return host.wormhole("status", check=False)


def all_show(hosts: list[Host], wanted: dict[str, bytes]) -> None:
    wait_until(lambda: all(tree(host) == wanted for host in hosts), 60, f"everywhere {sorted(wanted)}")


def log_of(host: Host) -> str:
    return (host.home / "pod.log").read_text(errors="replace")


def forgotten(hosts: list[Host], writer: str) -> bool:
    return any(f"adopted the records of the writer {writer}" in log_of(host) for host in hosts)


def collected(hosts: list[Host]) -> bool:
    return any("records of what was deleted" in log_of(host) for host in hosts)


@pytest.mark.parametrize("away", ["down", "cut off"])
def test_a_forgotten_pod_comes_back_with_an_edit_that_nobody_saw(made: Lab, away: str) -> None:
    laptop, desktop, nas = made.hosts
    first = {"docs/sub/note": b"first\n", "docs/sub/other": b"other\n", "kept": b"kept\n"}
    (laptop.mount / "docs" / "sub").mkdir(parents=True)
    for name, data in first.items():
        (laptop.mount / name).write_bytes(data)
    all_show(made.hosts, first)
    for host in made.hosts:
        host.wormhole("sync")
    writer = status(nas)["writer"]
    nas.cut()
    (nas.mount / "docs" / "sub" / "note").write_bytes(b"edited by nas\n")
    (nas.mount / "docs" / "new of nas").write_bytes(b"new\n")
    if away == "down":
        nas.run(WORMHOLE, "down")
    laptop.run("rm", "-r", laptop.mount / "docs")
    wait_until(lambda: tree(desktop) == {"kept": b"kept\n"}, 30, "deleted on desktop")
    laptop.run(WORMHOLE, "trash", "empty", "--yes")
    wait_until(lambda: forgotten([laptop, desktop], writer), 120, "nas is forgotten")
    wait_until(lambda: collected([laptop, desktop]), 120, "what was deleted is collected")
    nas.plug()
    if away == "down":
        nas.run(WORMHOLE, "up")
    made.settled()
    wanted = {"docs/sub/note": b"edited by nas\n", "docs/new of nas": b"new\n", "kept": b"kept\n"}
    all_show(made.hosts, wanted)
    assert status(nas)["writer"] != writer
    (nas.mount / "later").write_bytes(b"later\n")
    (laptop.mount / "docs" / "meanwhile").write_bytes(b"meanwhile\n")
    all_show(made.hosts, wanted | {"later": b"later\n", "docs/meanwhile": b"meanwhile\n"})
    for host in made.hosts:
        assert " ERROR " not in log_of(host), log_of(host)[-3000:]


def test_databases_set_back_under_a_pod_that_was_forgotten(made: Lab) -> None:
    """What it wrote before it was away, and what it writes when it is set back and alone, are there.

    As with the image of a whole disk nothing on the machine tells. The others have adopted its first life meanwhile.
    """
    laptop, desktop, nas = made.hosts
    (laptop.mount / "kept").write_bytes(b"kept\n")
    all_show(made.hosts, {"kept": b"kept\n"})
    writer = status(nas)["writer"]
    nas.run(WORMHOLE, "down")
    backup = [nas.home / name for name in ("metadata.db", "metadata.db-wal", "roster.db", "roster.db-wal")]
    saved = {path: path.read_bytes() for path in backup if path.exists()}
    nas.run(WORMHOLE, "up")
    made.settled()
    (nas.mount / "first").write_bytes(b"first life\n")
    (nas.mount / "kept").write_bytes(b"kept, first life\n")
    both = {"kept": b"kept, first life\n", "first": b"first life\n"}
    all_show(made.hosts, both)
    for host in made.hosts:
        host.wormhole("sync")
    nas.run(WORMHOLE, "down")
    wait_until(lambda: forgotten([laptop, desktop], writer), 120, "nas is forgotten")
    for path in backup:
        path.unlink(missing_ok=True)
    for path, data in saved.items():
        path.write_bytes(data)
    nas.cut()
    nas.run(WORMHOLE, "up")
    assert tree(nas) == {"kept": b"kept\n"}
    (nas.mount / "second").write_bytes(b"second life\n")
    (nas.mount / "third").write_bytes(b"second life\n")
    nas.plug()
    made.settled()
    all_show(made.hosts, both | {"second": b"second life\n", "third": b"second life\n"})
    assert status(nas)["writer"] != writer
    for host in made.hosts:
        assert " ERROR " not in log_of(host), log_of(host)[-3000:]
