import errno

import pyfuse3
import pytest
import trio

from base.errors import FileSystemError, NoSpaceError, UnreachableError
from vfs.boundary import guarded


class Panic(BaseException):
    """What pycrdt's Rust raises: no Exception."""


def outcome(error):
    @guarded
    async def handler():
        raise error

    with pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(handler)
    return caught.value.errno


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FileSystemError(errno.ENOTEMPTY), errno.ENOTEMPTY),
        (NoSpaceError("The disk is full."), errno.ENOSPC),
        (UnreachableError("Nobody answers."), errno.EIO),
        (pyfuse3.FUSEError(errno.EXDEV), errno.EXDEV),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
        (OSError(errno.ECONNRESET, "reset"), errno.EIO),
        (KeyError("a bug"), errno.EIO),
        (Panic("a panic"), errno.EIO),
        (ExceptionGroup("several", [NoSpaceError("full")]), errno.ENOSPC),
    ],
)
def test_every_error_becomes_a_number(error, number):
    assert outcome(error) == number


def test_an_unknown_error_is_logged_with_its_traceback_once(caplog):
    @guarded
    async def handler():
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(pyfuse3.FUSEError):
            trio.run(handler)
    assert len(caplog.records) == 3
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]


def test_cancellation_passes():
    @guarded
    async def handler():
        await trio.sleep_forever()

    async def main():
        with trio.move_on_after(0) as scope:
            await handler()
        assert scope.cancelled_caught

    trio.run(main)


def test_results_pass():
    @guarded
    async def handler(value):
        return value

    assert trio.run(handler, 5) == 5
