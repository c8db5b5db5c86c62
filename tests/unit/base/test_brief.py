"""Work that lately was brief is done on the loop, other work in a thread."""

from __future__ import annotations

import threading

import pytest

from base.brief import Brief

pytestmark = pytest.mark.anyio


class Disk:
    """Takes as long as it is told, by a clock of its own; remembers in which thread it worked."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.takes_s = 0.0
        self.on_loop: list[bool] = []
        self._loop = threading.get_ident()

    def sync(self) -> None:
        self.on_loop.append(threading.get_ident() == self._loop)
        self.now_s += self.takes_s


async def test_a_quick_disk_is_not_left_to_a_thread() -> None:
    disk = Disk()
    work = Brief(now_s=lambda: disk.now_s)
    for _ in range(3):
        await work.run(disk.sync, prompt=True)
    assert disk.on_loop == [False, True, True]
    await work.run(disk.sync, prompt=False)
    assert disk.on_loop[-1] is False


async def test_a_slow_one_holds_up_the_loop_once() -> None:
    disk = Disk()
    work = Brief(now_s=lambda: disk.now_s)
    await work.run(disk.sync, prompt=True)
    disk.takes_s = 0.02
    for _ in range(20):
        await work.run(disk.sync, prompt=True)
    assert disk.on_loop.count(True) == 1
    disk.takes_s = 0.0001
    for _ in range(60):
        await work.run(disk.sync, prompt=True)
    assert disk.on_loop[-1] is True


async def test_what_it_raises_is_raised_and_counts() -> None:
    disk = Disk()
    work = Brief(now_s=lambda: disk.now_s)
    await work.run(disk.sync, prompt=True)

    def fail() -> None:
        disk.now_s += 1.0
        raise OSError

    with pytest.raises(OSError):
        await work.run(fail, prompt=True)
    await work.run(disk.sync, prompt=True)
    assert disk.on_loop[-1] is False
