"""Client pods: they use the files through full pods, survive the death of the one that serves them, and only read alone."""

from __future__ import annotations

import errno
import os
import re
import threading
from pathlib import Path

import pytest

from tests.cluster.lab import Host, Lab, below, lab, shows, wait_until


def join_as_client(host: Host, code: str, *more: str) -> None:
    answer = host.join(code, *more)
    assert answer["mount"] == str(host.mount)


def refused(attempt: object) -> int:
    """Return the error number that an attempt ends with; 0 when it succeeds."""
    try:
        attempt()  # type: ignore[operator]
    except OSError as error:
        return error.errno or -1
    return 0


def roles(host: Host) -> dict[str, tuple[str, str]]:
    return {pod["name"]: (pod["role"], pod["state"]) for pod in host.ask("pods")["pods"]}


class Writer(threading.Thread):
    """Writes files on a client for as long as it may; remembers which it closed."""

    def __init__(self, client: Host) -> None:
        super().__init__()
        self.client = client
        self.closed: dict[str, bytes | None] = {}
        self.errors: list[OSError] = []
        self.ends = threading.Event()

    def run(self) -> None:
        while not self.ends.is_set():
            name, data = f"{len(self.closed)}.txt", os.urandom(100)
            try:
                (self.client.mount / name).write_bytes(data)
            except OSError as error:
                if ("full", "alive") in roles(self.client).values():
                    self.errors.append(error)
                    return
                self.ends.wait(0.1)  # the only one left stands still for a moment, so it was refused with reason
            else:
                self.closed[name] = data

    def finish(self) -> None:
        self.ends.set()
        self.join()
        assert not self.errors, self.errors


def posix(mount: Path) -> None:
    """Do on a client what programs do."""
    folder = mount / "folder"
    folder.mkdir()
    large = os.urandom(3_000_000)
    (folder / "a").write_bytes(large)
    os.replace(folder / "a", folder / "b")
    os.link(folder / "b", folder / "c")
    os.symlink("c", folder / "d")
    (folder / "b").chmod(0o600)
    os.setxattr(folder / "b", "user.colour", b"blue")
    os.truncate(folder / "b", 1_000_000)
    with (folder / "d").open("ab") as file:
        file.write(b"more")
        file.flush()
        os.fsync(file.fileno())
    (folder / "e").write_text("over")
    os.replace(folder / "e", folder / "b")
    (folder / "nothing").mkdir()
    (folder / "nothing").rmdir()
    (folder / "c").read_bytes()
    assert refused((folder / "missing").unlink) == errno.ENOENT
    assert refused(folder.rmdir) == errno.ENOTEMPTY
    assert refused(folder.mkdir) == errno.EEXIST
    assert sorted(os.listdir(folder)) == ["b", "c", "d"]
    assert (folder / "c").read_bytes() == large[:1_000_000] + b"more"
    assert (folder / "b").read_text() == "over"
    assert os.getxattr(folder / "c", "user.colour") == b"blue"


def cut_off(client: Host, full: Host) -> None:
    """A client without full pods only reads, what it has read before."""
    (full.mount / "read before").write_text("known")
    wait_until(shows(client.mount / "read before", "known"))
    wait_until(lambda: client.ask("where", path="/read before")["local"] == "cached")
    client.cut()
    wait_until(lambda: refused((client.mount / "new").mkdir) == errno.EROFS, 30)
    kept = client.mount / "read before"
    for attempt in (
        lambda: kept.write_text("x"),
        kept.unlink,
        lambda: kept.rename(client.mount / "y"),
        lambda: kept.chmod(0o600),
        lambda: os.truncate(kept, 0),
        lambda: os.setxattr(kept, "user.a", b"b"),
    ):
        assert refused(attempt) == errno.EROFS
    assert kept.read_text() == "known"

    def tells() -> bool:
        status = client.ask("status")
        return (status["connected"], status["situation"]) == (False, "degraded")

    wait_until(tells, what="it says that it is cut off")
    client.plug()
    wait_until(lambda: refused((client.mount / "newer").mkdir) in (0, errno.EEXIST), 30)


@pytest.fixture
def four() -> object:
    assert os.geteuid() == 0, "network namespaces need root: run the tests as root"
    with lab(4) as made:
        yield made


def test_client_pods(four: Lab, tmp_path: Path) -> None:
    laptop, desktop, nas, attic = four.hosts
    laptop.new("work")
    desktop.join(laptop.invite())
    join_as_client(attic, laptop.invite(), "--client")  # a full code, narrowed
    invitation = laptop.wormhole("invite", "--client")
    assert invitation["role"] == "client"
    full = {"laptop": ("full", "alive"), "desktop": ("full", "alive")}
    for host in (attic, laptop):
        wait_until(lambda host=host: roles(host) == full | {"attic": ("client", "alive")})  # type: ignore[misc]

    posix(attic.mount)
    wait_until(lambda: below(attic.mount) == below(laptop.mount) == below(desktop.mount))
    (desktop.mount / "back").write_text("from the desktop")
    wait_until(shows(attic.mount / "back", "from the desktop"))

    source = tmp_path / "source"
    source.mkdir()
    (source / "letter").write_text("dear")
    assert attic.wormhole("import", source, "/imported")["files"] == 1
    (attic.mount / "imported" / "letter").unlink()
    assert attic.wormhole("trash", "restore", "/imported/letter")["restored_as"] == "/imported/letter"

    def kept_by_both() -> bool:
        where = laptop.ask("where", path="/folder/c")
        return (where["kept"], where["cached"]) == (["desktop", "laptop"], [])

    wait_until(kept_by_both, what="what a client wrote is kept by two full pods")
    assert os.statvfs(attic.mount).f_bavail > 0

    writer = Writer(attic)
    writer.start()
    wait_until(lambda: len(writer.closed) > 5)
    for host in (desktop, laptop):  # one of them serves
        host.kill()
        many = len(writer.closed)
        wait_until(lambda many=many: len(writer.closed) > many + 5, 20)  # type: ignore[misc]
        host.wormhole("up")
        wait_until(lambda: full.items() <= roles(attic).items())
    writer.finish()
    for host in (laptop, desktop):
        wait_until(lambda host=host: writer.closed.items() <= below(host.mount).items())  # type: ignore[misc]
        assert host.wormhole("conflicts")["conflicts"] == []

    cut_off(attic, laptop)

    logs = [host.home / "pod.log" for host in (laptop, desktop)]
    before = [log.read_text() for log in logs]
    join_as_client(nas, invitation["code"])
    (nas.mount / "of nas").write_text("nas")
    nas.kill()
    attic.wormhole("leave")
    assert not attic.home.exists()
    wait_until(lambda: roles(laptop) == full | {"nas": ("client", "absent"), "attic": ("client", "left")})
    wait_until(shows(desktop.mount / "of nas", "nas"))
    for log, text in zip(logs, before, strict=True):
        events = [line for line in log.read_text()[len(text) :].splitlines() if " mesh." in line]
        events = [line for line in events if re.search(r"\b(nas|attic) \(", line)]
        assert not [line for line in events if "admitted" not in line and "has left" not in line]

    def is_calm() -> bool:
        status = laptop.ask("status")
        pods, short = status["pods"], status["files"]["short_of_copies"]
        return (status["situation"], pods, short) == ("favourable", {"total": 2, "alive": 2, "absent": 0}, 0)

    wait_until(is_calm, what="clients come and go, and nobody minds")
