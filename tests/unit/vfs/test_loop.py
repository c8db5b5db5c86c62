import errno
import os
from typing import Any

import pyfuse3 as pyfuse3_module
import pytest
import trio
import trio.testing

from vfs import loop

pyfuse3: Any = pyfuse3_module


@pytest.fixture
def pipe():
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_pyfuse3_still_has_what_is_replaced():
    assert pyfuse3.__version__ == "3.5.0"
    originals = pyfuse3._wait_fuse_readable, pyfuse3._session_loop
    read, write = os.pipe()
    try:
        loop.install(read)
        assert pyfuse3._wait_fuse_readable is not originals[0]
        assert pyfuse3._session_loop is not originals[1]
        assert not os.get_blocking(read)
        loop.restore()
        assert (pyfuse3._wait_fuse_readable, pyfuse3._session_loop) == originals
    finally:
        os.close(read)
        os.close(write)


class Parking:
    """Stands for pyfuse3's own wait: whoever comes stays."""

    def __init__(self):
        self.cars = 0

    async def __call__(self):
        self.cars += 1
        await trio.sleep_forever()


def test_what_is_there_is_taken_without_waiting_once_one_worker_waits(pipe):
    async def main():
        os.write(pipe[1], b"x")
        original, traffic = Parking(), loop.Traffic()
        wait = loop.poll_first(pipe[0], original, traffic)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(100):
                assert await wait()
            assert (original.cars, traffic.count) == (1, 101)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_request_that_another_worker_took_is_waited_for_again(pipe):
    """Two workers wake up for one request: the second must not believe it."""
    turns: list[int] = []

    async def original():
        turns.append(len(turns))
        await trio.lowlevel.wait_readable(pipe[0])
        if len(turns) == 1:
            os.read(pipe[0], 1)
        elif len(turns) == 3:
            return False
        return True

    async def main():
        os.write(pipe[1], b"x")
        waits = loop.poll_first(pipe[0], original, loop.Traffic())
        os.read(pipe[0], 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            assert await waits()

    async def feed():
        while len(turns) < 1:
            await trio.lowlevel.checkpoint()
        os.write(pipe[1], b"y")
        while len(turns) < 2:
            await trio.lowlevel.checkpoint()
        os.write(pipe[1], b"z")

    trio.run(main)
    assert len(turns) == 2


def test_what_a_request_has_set_off_comes_before_looking_for_the_next(pipe, monkeypatch):
    monkeypatch.setattr(loop, "SLICE_NS", 1 << 60)

    async def main():
        original, steps = Parking(), []
        wait = loop.poll_first(pipe[0], original, loop.Traffic())

        async def work():
            steps.append(original.cars)

        async def serve():
            nursery.start_soon(work)
            await wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(serve)
            await trio.testing.wait_all_tasks_blocked()
            assert (steps, original.cars) == ([1], 2)
            nursery.cancel_scope.cancel()

    for _ in range(20):  # in whatever order the tasks have their turns
        trio.run(main)


def test_the_end_of_the_session_is_passed_on(pipe):
    async def ended():
        return False

    assert trio.run(loop.poll_first(pipe[0], ended, loop.Traffic())) is False


def test_a_stream_of_requests_does_not_starve_the_other_tasks(pipe):
    async def main():
        os.write(pipe[1], b"x")
        wait = loop.poll_first(pipe[0], Parking(), loop.Traffic())
        seen = trio.Event()

        async def other():
            seen.set()

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(other)
                while not seen.is_set():
                    assert await wait()
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_vanished_request_starts_the_session_loop_again_and_other_errors_do_not():
    calls = []

    async def original(nursery, low, high):
        calls.append((nursery, low, high))
        if len(calls) < 3:
            raise OSError(errno.EAGAIN, "vanished")
        if len(calls) == 4:
            raise OSError(errno.EIO, "broken")

    again = loop.again_on_eagain(original)
    trio.run(again, None, 1, 2)
    assert calls == [(None, 1, 2)] * 3
    with pytest.raises(OSError, match="broken"):
        trio.run(again, None, 1, 2)
