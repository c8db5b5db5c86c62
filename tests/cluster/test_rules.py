"""What is said of a folder and of a file in it holds on every pod: copies, keep, read only; three real pods."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from base.ids import hash_bytes
from tests.cluster.lab import WORMHOLE, Host, Lab, wait_until

RULES = """
[[rule]]
match = "/deep/**"
copies = 3
[[rule]]
match = "/archive"
read_only = true
[[rule]]
match = "/passing"
copies = 1
cache = false
"""
MiB = 1 << 20
COPIES, KEEP, HOLDERS = (f"user.wormhole.{name}" for name in ("copies", "keep", "holders"))


def refused(attempt: Callable[[], object]) -> int:
    """Return the error number that an attempt ends with; 0: it was done."""
    try:
        attempt()
    except OSError as error:
        return error.errno or -1
    return 0


def on_disks(bare: Lab, data: bytes) -> int:
    """Count the hosts on whose disks these bytes, fewer than a chunk, really are."""
    return sum(hash_bytes(data).hex() in host.stored() for host in bare.hosts)


def read_if_there(path: Path) -> bytes:
    """Read a file of a running pod, which may rename or remove it meanwhile."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def told(host: Host, path: Path, name: str) -> str:
    return os.getxattr(host.mount / path, name).decode()


def test_rules_and_what_stands_at_a_file(bare: Lab) -> None:
    laptop, desktop, nas = bare.cluster()
    for folder in ("deep", "other", "archive"):
        (laptop.mount / folder).mkdir()
    (laptop.mount / "archive" / "1999").write_bytes(b"as it was")
    config = laptop.folder / "rules.toml"
    config.write_text(str(laptop.wormhole("config", "export")["toml"]) + RULES)
    laptop.wormhole("config", "apply", config)
    bare.in_force(laptop)

    # the folder says 3, one file in it says 1; it goes on saying so elsewhere, and on other pods
    ordinary, single = os.urandom(5000), os.urandom(5001)
    (laptop.mount / "deep" / "ordinary").write_bytes(ordinary)
    with (laptop.mount / "deep" / "single").open("wb") as file:
        os.setxattr(file.fileno(), COPIES, b"1")
        file.write(single)
    laptop.wormhole("sync")
    assert (on_disks(bare, ordinary), on_disks(bare, single)) == (3, 1)
    assert laptop.wormhole("where", "deep/single")["copies_wanted"] == 1
    assert "at the file itself" in laptop.wormhole("why", "deep/single")["rule"]
    (laptop.mount / "deep" / "single").rename(laptop.mount / "other" / "single")
    for host in bare.hosts:
        wait_until(lambda host=host: told(host, Path("other/single"), COPIES) == "1")  # type: ignore[misc]
    assert told(nas, Path("deep/ordinary"), COPIES) == "3"
    wait_until(lambda: told(nas, Path("deep/ordinary"), HOLDERS) == "desktop,laptop,nas")
    assert os.listxattr(nas.mount / "other" / "single") == []
    os.setxattr(nas.mount / "other" / "single", COPIES, b"2")
    wait_until(lambda: on_disks(bare, single) == 2, 30, "more copies are made when more are asked for")

    # what is ignored stays on its pod: neither name nor bytes get elsewhere, and it outlives a restart
    project = laptop.mount / "project"
    project.mkdir()
    (project / ".wormholeignore").write_text("*.secret\nout/\n")
    (project / "out").mkdir()
    (project / "out" / "unheardof").write_bytes(hidden := os.urandom(6000))
    (project / "unheardof.secret").write_bytes(hidden)
    (project / "known").write_bytes(b"shared")
    source = laptop.folder / "import"
    source.mkdir()
    (source / "unheardof.secret").write_bytes(hidden)
    laptop.run(WORMHOLE, "import", source, "/project/in", check=False)
    laptop.wormhole("sync")
    wait_until(lambda: sorted(os.listdir(nas.mount / "project")) == [".wormholeignore", "in", "known"])
    assert os.listdir(nas.mount / "project" / "in") == []
    for home in (desktop.home, nas.home, *(laptop.home / name for name in ("store", "metadata.db", "metadata.db-wal"))):
        files = [home] if home.is_file() else [path for path in home.rglob("*") if path.is_file()]
        assert not [path for path in files if hidden in (data := read_if_there(path)) or b"unheardof" in data]
    laptop.run(WORMHOLE, "down")
    laptop.run(WORMHOLE, "up")
    assert (project / "unheardof.secret").read_bytes() == (project / "out" / "unheardof").read_bytes() == hidden
    assert laptop.run(WORMHOLE, "destroy", "--yes", check=False).returncode == 4

    # what isn't to be cached leaves the store of who reads it as it was, however often
    (laptop.mount / "passing").mkdir()
    (laptop.mount / "passing" / "film").write_bytes(film := os.urandom(1_500_000))
    laptop.wormhole("sync")
    wait_until(lambda: (nas.mount / "passing" / "film").stat().st_size == len(film))
    for _ in range(3):
        os.posix_fadvise(fd := os.open(nas.mount / "passing" / "film", os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.read(fd, len(film)) + os.read(fd, len(film)) == film
        os.close(fd)
    pieces = {hash_bytes(film[start : start + MiB]).hex() for start in range(0, len(film), MiB)}
    assert pieces <= laptop.stored()
    assert not pieces & nas.stored()
    assert nas.ask("where", path="/passing/film")["local"] == "none"

    # keep: every pod has it, whatever the rules say
    (laptop.mount / "other" / "kept").write_bytes(kept := os.urandom(5002))
    laptop.wormhole("sync")
    assert on_disks(bare, kept) == 2
    os.setxattr(laptop.mount / "other" / "kept", KEEP, b"1")
    wait_until(lambda: on_disks(bare, kept) == 3, 30, "kept on every pod")
    assert (told(nas, Path("other/kept"), KEEP), told(nas, Path("deep/ordinary"), KEEP)) == ("1", "0")

    # what can't be said, and who may say it
    path = laptop.mount / "other" / "kept"
    assert refused(lambda: os.setxattr(path, COPIES, b"many")) == errno.EINVAL
    assert refused(lambda: os.setxattr(path, HOLDERS, b"me")) == errno.EPERM
    assert refused(lambda: os.setxattr(laptop.mount / "deep", COPIES, b"1")) == errno.EISDIR
    bare.configure("cluster.administrators", '["laptop"]')
    assert refused(lambda: os.setxattr(nas.mount / "other" / "kept", KEEP, b"0")) == errno.EPERM
    assert refused(lambda: os.setxattr(path, KEEP, b"0")) == 0

    # read only, on every pod
    for host in bare.hosts:
        there = host.mount / "archive"
        assert refused(lambda there=there: (there / "1999").write_bytes(b"x")) == errno.EROFS  # type: ignore[misc]
        assert refused((there / "1999").unlink) == errno.EROFS
        assert refused((there / "2000").touch) == errno.EROFS
        assert (there / "1999").read_bytes() == b"as it was"
