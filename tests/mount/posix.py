"""What the POSIX tests share."""

import errno
import time

import pytest


def fails(number, function, *args, **kwargs):
    """Check that a call fails with exactly this error number."""
    with pytest.raises(OSError) as caught:
        function(*args, **kwargs)
    assert caught.value.errno == number, errno.errorcode.get(caught.value.errno or 0)


def next_millisecond():
    """Wait for the next tick of the tree's clock: changes within one share their time."""
    start = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == start:
        pass
