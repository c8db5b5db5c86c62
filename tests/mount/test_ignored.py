"""Names in a ``.wormholeignore`` stay on this pod: they look like others on the mount, and never get into the tree."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.mount.conftest import pytestmark  # noqa: F401

RULES = "# made by tools\n*.log\nbuild/\n!keep.log\n/only-here\n"


@pytest.fixture
def top(work):
    (work / ".wormholeignore").write_text(RULES)
    return work


def shared(pod) -> set[str]:
    """Return what another pod sees."""
    return set(pod.ask("far_tree")["shown"])


def names(pod, top: Path) -> set[str]:
    base = f"/{top.name}/"
    pod.settled()
    return {path.removeprefix(base) for path in shared(pod) if path.startswith(base)}


def refused(attempt) -> int:
    try:
        attempt()
    except OSError as error:
        return error.errno or -1
    return 0


def test_ignored_names_are_here_and_nowhere_else(pod, top):
    for name in ("a.log", "keep.log", "a.txt", "only-here"):
        (top / name).write_text(name)
    (top / "build" / "deep").mkdir(parents=True)
    (top / "build" / "deep" / "object.o").write_bytes(b"o" * 100_000)
    (top / "sub").mkdir()
    (top / "sub" / "b.log").write_text("below as well")
    (top / "sub" / "only-here").write_text("not this one: the pattern begins with a slash")
    (top / "build" / "link").symlink_to("deep/object.o")
    os.mkfifo(top / "pipe.log")
    assert names(pod, top) == {".wormholeignore", "keep.log", "a.txt", "sub", "sub/only-here"}
    assert sorted(os.listdir(top)) == [
        ".wormholeignore", "a.log", "a.txt", "build", "keep.log", "only-here", "pipe.log", "sub"
    ]  # fmt: skip
    assert (top / "a.log").read_text() == "a.log"
    assert (top / "build" / "link").read_bytes() == b"o" * 100_000
    found = (top / "a.log").stat()
    assert (found.st_size, found.st_uid, found.st_nlink) == (5, os.getuid(), 1)
    assert sorted(os.listdir(top / "sub")) == ["b.log", "only-here"]


def test_they_do_what_files_do(pod, top):
    path = top / "x.log"
    with path.open("w+b") as file:
        file.write(b"0123456789")
        file.seek(4)
        assert file.read(2) == b"45"
        file.truncate(6)
        os.fsync(file.fileno())
        assert os.fstat(file.fileno()).st_size == 6
    with path.open("ab") as file:
        file.write(b"end")
    assert path.read_bytes() == b"012345end"
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18 + 5))
    os.setxattr(path, "user.a", b"b")
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_mtime_ns, os.listxattr(path)) == (0o640, 10**18 + 5, ["user.a"])
    os.link(path, top / "y.log")
    assert (top / "y.log").stat().st_nlink == 2
    path.rename(top / "z.log")
    assert not path.exists()
    assert (top / "z.log").read_bytes() == b"012345end"
    with (top / "z.log").open("rb") as file:
        (top / "z.log").unlink()
        assert (os.fstat(file.fileno()).st_nlink, file.read(3)) == (1, b"012")
    assert refused(lambda: os.close(os.open(top / "y.log", os.O_CREAT | os.O_EXCL | os.O_WRONLY))) == errno.EEXIST
    (top / "build").mkdir()
    for number in range(300):
        (top / "build" / f"{number}").write_text(str(number))
    assert len(os.listdir(top / "build")) == 300
    assert refused((top / "build").rmdir) == errno.ENOTEMPTY
    shutil.rmtree(top / "build")
    assert refused(lambda: os.stat(top / "build")) == errno.ENOENT
    assert names(pod, top) == {".wormholeignore"}


def test_a_rename_between_ignored_and_shared_loses_nothing(pod, top):
    data = os.urandom(3_000_000)
    (top / "new.log").write_bytes(data)
    os.utime(top / "new.log", ns=(10**18, 10**18))
    (top / "new.log").chmod(0o600)
    (top / "result").write_bytes(b"old")
    (top / "new.log").replace(top / "result")
    assert (top / "result").read_bytes() == data
    found = (top / "result").stat()
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o600, 10**18)
    assert names(pod, top) == {".wormholeignore", "result"}
    assert sorted(os.listdir(top)) == [".wormholeignore", "result"]
    (top / "result").rename(top / "again.log")
    assert (top / "again.log").read_bytes() == data
    with (top / "again.log").open("ab") as file:
        file.write(b"more")
    assert (top / "again.log").read_bytes() == data + b"more"
    assert names(pod, top) == {".wormholeignore"}
    (top / "folder").mkdir()
    (top / "folder" / "file").write_bytes(b"in it")
    assert refused(lambda: (top / "folder").rename(top / "build")) == errno.EXDEV
    subprocess.run(["mv", top / "folder", top / "build"], check=True)
    assert (top / "build" / "file").read_bytes() == b"in it"
    assert names(pod, top) == {".wormholeignore"}
    subprocess.run(["mv", top / "build", top / "folder"], check=True)
    assert names(pod, top) == {".wormholeignore", "folder", "folder/file"}
    with (top / "open.log").open("wb") as file:
        file.write(b"x")
        assert refused(lambda: (top / "open.log").rename(top / "open")) == errno.EBUSY


def test_they_go_along_with_their_folder_and_keep_it(pod, top):
    (top / "project").mkdir()
    (top / "project" / "a.log").write_text("here")
    (top / "project").rename(top / "renamed")
    assert (top / "renamed" / "a.log").read_text() == "here"
    assert refused((top / "renamed").rmdir) == errno.ENOTEMPTY
    (top / "renamed" / "a.log").unlink()
    (top / "renamed").rmdir()


def test_what_another_pod_shares_under_the_name_and_what_is_here_are_both_shown(pod, top):
    (top / "mine.log").write_text("private")
    pod.settled()
    pod.remote_write(top / "mine.log", b"shared")
    pod.forget()
    shown = {name: (top / name).read_bytes() for name in os.listdir(top) if name.startswith("mine")}
    assert sorted(shown.values()) == [b"private", b"shared"]
    assert shown["mine.log"] == b"shared"
    (top / "mine.log").write_text("what was shared stays shared")
    assert "mine.log" in names(pod, top)


def test_rules_are_those_of_the_moment(pod, work):
    (work / "a.log").write_text("shared")
    with (work / ".wormholeignore").open("w") as file:
        file.write("*.log\n")
        file.flush()
        (work / "b.log").write_text("private")
    (work / "deep").mkdir()
    (work / "deep" / ".wormholeignore").write_text("!*.log\n")
    (work / "deep" / "c.log").write_text("shared: the nearest decides")
    (work / ".wormholeignore").unlink()
    (work / "d.log").write_text("shared")
    (work / "b.log").write_text("private until it is renamed")
    assert names(pod, work) == {"a.log", "deep", "deep/.wormholeignore", "deep/c.log", "d.log"}
    (work / "b.log").rename(work / "e.log")
    assert "e.log" in names(pod, work)


def test_they_last(fresh):
    (fresh.mount / ".wormholeignore").write_text("*.log\n")
    (fresh.mount / "folder").mkdir()
    (fresh.mount / "folder" / "a.log").write_bytes(b"x" * 5000)
    fresh.settled()
    fresh.kill()
    fresh.start()
    assert (fresh.mount / "folder" / "a.log").read_bytes() == b"x" * 5000
    assert os.listdir(fresh.mount / "folder") == ["a.log"]
    store = b"".join(path.read_bytes() for path in (fresh.home / "store").rglob("*") if path.is_file())
    assert b"x" * 5000 not in store


def test_rules_that_come_later_count_at_once(pod, work):
    deep = work / "a" / "b"
    deep.mkdir(parents=True)
    (work / "c").mkdir()
    (deep / "before.log").write_text("nothing is ignored yet, and that is remembered as long as nothing is private")
    (work / ".wormholeignore").write_text("*.log\n")
    (deep / "hidden.log").write_text("rules above")
    assert "a/b/hidden.log" not in names(pod, work)
    (deep / "hidden.log").unlink()
    (work / ".wormholeignore").unlink()
    (deep / "between.log").write_text("nothing is ignored any more")
    (work / "rules").write_text("*.log\n")
    (work / "rules").rename(work / "a" / ".wormholeignore")
    (deep / "later.log").write_text("rules under another name before")
    assert "a/b/later.log" not in names(pod, work)
    (deep / "later.log").unlink()
    (work / "c" / "beside.log").write_text("no rules here")
    (work / "c").rename(deep / "c")
    (deep / "c" / "moved.log").write_text("the directory has come below rules")
    assert {name.rpartition("/")[2] for name in names(pod, work) if name.endswith(".log")} == {
        "before.log",
        "between.log",
        "beside.log",
    }
