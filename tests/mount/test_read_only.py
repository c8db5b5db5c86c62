"""What a rule makes read only can't be changed in any way on the mount, and the rule is in force at once."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from tests.mount.conftest import pytestmark  # noqa: F401

RULES = '[[rule]]\nmatch = "/archive/**"\nread_only = true\n[[rule]]\nmatch = "/archive/inbox/**"\nread_only = false\n'
FOLDER = '[[rule]]\nmatch = "frozen"\nread_only = true\n[[rule]]\nmatch = "*.lock"\nread_only = true\n'


@pytest.fixture
def ruled(pod):
    """The pod with a way to set its rules; none afterwards."""
    yield lambda text: pod.ask("configure", text=text)
    pod.ask("configure", text="")


def refused(attempt) -> int:
    """Return the error number that an attempt ends with; 0: it was done."""
    try:
        attempt()
    except OSError as error:
        return error.errno or 0
    return 0


def changes(there: Path, other: Path):
    """Every way to change what is in the folder ``there``, which holds ``old``, ``below`` and ``link``."""
    return {
        "make": lambda: (there / "new").write_bytes(b"x"),
        "overwrite": lambda: (there / "old").write_bytes(b"x"),
        "append": lambda: os.close(os.open(there / "old", os.O_WRONLY | os.O_APPEND)),
        "open to change": lambda: os.close(os.open(there / "old", os.O_RDWR)),
        "truncate": lambda: os.truncate(there / "old", 1),
        "unlink": (there / "old").unlink,
        "mkdir": (there / "new").mkdir,
        "rmdir": (there / "below").rmdir,
        "symlink": lambda: (there / "new").symlink_to("old"),
        "fifo": lambda: os.mkfifo(there / "new"),
        "rename within": lambda: (there / "old").rename(there / "new"),
        "rename out": lambda: (there / "old").rename(other / "out"),
        "rename in": lambda: (other / "file").rename(there / "in"),
        "rename over": lambda: (other / "file").replace(there / "old"),
        "link in": lambda: os.link(other / "file", there / "in"),
        "link out": lambda: os.link(there / "old", other / "out"),
        "chmod": lambda: (there / "old").chmod(0o600),
        "chmod of a folder": lambda: (there / "below").chmod(0o700),
        "utimes": lambda: os.utime(there / "old", (1, 1)),
        "setxattr": lambda: os.setxattr(there / "old", "user.a", b"b"),
        "removexattr": lambda: os.removexattr(there / "old", "user.mark"),
        "through the other name": lambda: (other / "twin").write_bytes(b"x"),
    }


def test_nothing_in_a_protected_folder_can_be_changed(pod, ruled):
    there, other = pod.mount / "archive", pod.mount / "desk"
    for folder in (there, other, there / "below", there / "inbox"):
        folder.mkdir()
    (there / "old").write_bytes(b"as it was")
    os.setxattr(there / "old", "user.mark", b"m")
    os.link(there / "old", other / "twin")
    (other / "file").write_bytes(b"elsewhere")
    ruled(RULES)
    before = (there / "old").stat()
    for way, attempt in changes(there, other).items():
        assert refused(attempt) == errno.EROFS, way
    assert (there / "old").read_bytes() == b"as it was"
    assert sorted(os.listdir(there)) == ["below", "inbox", "old"], "nothing came or went"
    assert sorted(os.listdir(other)) == ["file", "twin"]
    after = (there / "old").stat()
    assert (after.st_mtime_ns, after.st_ctime_ns, after.st_mode) == (
        before.st_mtime_ns,
        before.st_ctime_ns,
        before.st_mode,
    )
    (there / "inbox" / "letter").write_bytes(b"a later rule wins")
    (other / "file").write_bytes(b"the rest can be changed")
    assert refused(lambda: there.rename(pod.mount / "elsewhere")) == errno.EROFS, "moving the folder is no way out"
    ruled("")
    (there / "old").write_bytes(b"x")
    there.rename(pod.mount / "elsewhere")


def test_a_folder_that_matches_protects_itself_and_what_is_in_it(pod, ruled):
    top = pod.mount / "top"
    (top / "frozen" / "deep").mkdir(parents=True)
    (top / "frozen" / "deep" / "file").write_bytes(b"1")
    (top / "a.lock").write_bytes(b"1")
    ruled(FOLDER)
    assert refused((top / "frozen" / "deep" / "file").unlink) == errno.EROFS
    assert refused(lambda: (top / "frozen").rename(top / "thawed")) == errno.EROFS
    assert refused(lambda: top.rename(pod.mount / "other")) == errno.EROFS, "something in it is protected"
    assert refused((pod.mount / "x").mkdir) == 0
    assert refused(lambda: (pod.mount / "x").rename(top / "frozen")) == errno.EROFS
    assert refused((top / "a.lock").unlink) == errno.EROFS
    assert refused((top / "b.lock").touch) == errno.EROFS
    assert refused((top / "b.txt").touch) == 0


def test_a_rule_is_in_force_for_open_files_and_keeps_what_was_written(pod, ruled):
    top = pod.mount / "live"
    top.mkdir()
    with (top / "log").open("wb", buffering=0) as log:
        log.write(b"before")
        ruled('[[rule]]\nmatch = "/live/"\nread_only = true\n')
        with pytest.raises(OSError) as error:
            log.write(b"after")
        assert error.value.errno == errno.EROFS
    assert (top / "log").read_bytes() == b"before"
    pod.settled()
    assert pod.ask("far_tree")["shown"]["/live/log"][-1] == len(b"before"), "it was published all the same"


def test_the_rule_costs_little_where_it_doesn_t_apply(pod, ruled):
    """A pod with 20 rules answers other requests while a big folder is looked through."""
    top = pod.mount / "many"
    top.mkdir()
    for number in range(400):
        (top / str(number)).write_bytes(b"")
    ruled("".join(f'[[rule]]\nmatch = "/r{number}/**"\nread_only = true\n' for number in range(20)))
    thread = threading.Thread(target=lambda: top.rename(pod.mount / "more"))
    thread.start()
    answered, began = 0, time.monotonic()
    while thread.is_alive():
        pod.mount.stat()
        os.listdir(pod.mount)
        answered += 1
    thread.join()
    assert answered > 3 or time.monotonic() - began < 0.5
    assert len(os.listdir(pod.mount / "more")) == 400
