"""What passes while the mount is frozen, and while it is stopped."""

import errno
import os

import pytest

from base.errors import FileSystemError
from vfs.hold import Hold
from vfs.operations import Operations

HANDLERS = {name for name, one in vars(Operations).items() if hasattr(one, "__wrapped__")}
CURES = {"unlink", "rmdir", "lookup", "getattr", "readlink", "getxattr", "listxattr", "read", "opendir", "readdir"}
ENDS = {"flush", "fsync", "fsyncdir", "release", "releasedir", "statfs"}


def refused(hold, handler, *args):
    try:
        hold.check(handler, (None, *args))
    except FileSystemError as error:
        return error.errno
    return 0


def plain(handler):
    return refused_with(
        handler, {"open": (5, os.O_RDWR), "setxattr": (5, b"user.a", b"b"), "removexattr": (5, b"user.a")}
    )


def refused_with(handler, special):
    return special.get(handler, (5, 0))


@pytest.mark.parametrize("handler", sorted(HANDLERS))
def test_every_handler_when_frozen_and_stopped(handler):
    frozen, stopped, free = Hold(), Hold(), Hold()
    frozen.set(frozen="because", stopped="")
    stopped.set(frozen="", stopped="because")
    assert not free.is_on
    assert refused(frozen, handler, *plain(handler)) == (0 if handler in CURES | ENDS else errno.EROFS)
    assert refused(stopped, handler, *plain(handler)) == (0 if handler in ENDS else errno.ENODEV)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDONLY | os.O_NONBLOCK])
def test_frozen_files_can_be_opened_to_be_read(flags):
    hold = Hold()
    hold.set(frozen="because", stopped="")
    assert refused(hold, "open", 5, flags) == 0
    for more in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
        assert refused(hold, "open", 5, flags | more) == errno.EROFS


def test_what_configures_a_file_goes_on():
    hold = Hold()
    hold.set(frozen="because", stopped="")
    assert refused(hold, "setxattr", 5, b"user.wormhole.copies", b"3") == 0
    assert refused(hold, "removexattr", 5, b"user.wormhole.keep") == 0


def test_the_root_answers_when_stopped_so_that_it_can_be_mounted():
    hold = Hold()
    hold.set(frozen="", stopped="because")
    assert refused(hold, "getattr", 1) == 0
    assert refused(hold, "getattr", 2) == errno.ENODEV
    hold.set(frozen="", stopped="")
    assert refused(hold, "getattr", 2) == 0
