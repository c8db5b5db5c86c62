"""Waits of the mount on virtual time: they end after the deadline without progress, and only then."""

import anyio
import pytest
import trio.testing

from base.errors import FileSystemError, UnreachableError
from vfs.patience import DISK_S, Patience

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


async def patient(progress, wait, deadline_s=10.0):
    """Wait under watch; return how long it took and what came of it."""
    patience = Patience(deadline_s, progress)
    async with anyio.create_task_group() as group:
        group.start_soon(patience.watch)
        start = anyio.current_time()
        try:
            value = await patience.network(wait)
        except UnreachableError:
            value = "unreachable"
        group.cancel_scope.cancel()
    return anyio.current_time() - start, value


async def later(seconds, value):
    await anyio.sleep(seconds)
    return value


async def test_a_wait_without_progress_ends_at_the_deadline():
    took, value = await patient(lambda: 0, anyio.sleep_forever())
    assert value == "unreachable"
    assert 10 <= took <= 12.5


async def test_a_wait_goes_on_as_long_as_something_comes():
    took, value = await patient(lambda: int(anyio.current_time() / 8), later(300, "whole"))
    assert (took, value) == (300, "whole")


async def test_it_ends_once_nothing_comes_any_more():
    began = anyio.current_time()
    took, value = await patient(lambda: min(5, int((anyio.current_time() - began) / 8)), later(1000, "whole"))
    assert value == "unreachable"
    assert 50 <= took <= 55


async def test_quick_waits_return_what_they_wait_for_and_raise_its_errors():
    patience = Patience(1.0, lambda: 0)

    async def failing():
        raise FileSystemError(28)

    assert await patience.network(later(0, 7)) == 7
    with pytest.raises(FileSystemError) as caught:
        await patience.network(failing())
    assert caught.value.errno == 28


async def test_the_local_disk_has_a_minute():
    patience = Patience(1.0, lambda: 0)
    assert await patience.disk(later(DISK_S - 1, "slow")) == "slow"
    with pytest.raises(FileSystemError):
        await patience.disk(anyio.sleep_forever())
