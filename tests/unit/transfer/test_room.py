"""The limit holds to within a MiB, on small disks and large, and the file system is seldom asked."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass

import anyio
import pytest

from base.errors import NoSpaceError
from transfer.room import NEWS_BYTES, RESERVE_BYTES, RoomCheck, RoomNews

MIB = 1 << 20
BLOCK = 4096


@dataclass
class Disk:
    """A file system of so many bytes, as `os.statvfs` shows it."""

    size: int
    used: int = 0
    asked: int = 0

    def statvfs(self, _path: str) -> os.statvfs_result:
        self.asked += 1
        free = (self.size - self.used) // BLOCK
        return os.statvfs_result((BLOCK, BLOCK, self.size // BLOCK, free, free, 0, 0, 0, 0, 255))


def fill(disk: Disk, check: RoomCheck, rng: random.Random, most: int) -> int:
    """Write pieces until one is refused; return how many were written."""
    count = 0
    while True:
        size = rng.randint(1, most)
        try:
            check.check(disk.used, size)
        except NoSpaceError:
            return count
        disk.used += size
        count += 1


@pytest.mark.parametrize("size", [200 * MIB, 4 << 30])
@pytest.mark.parametrize("most", [4096, MIB])
def test_a_share_of_the_disk_holds(monkeypatch: pytest.MonkeyPatch, size: int, most: int) -> None:
    disk = Disk(size)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    check = RoomCheck("/", None, 0.9)
    fill(disk, check, random.Random(1), max(most, size // 1000))
    assert 0.9 * size - MIB - size // 1000 <= disk.used <= 0.9 * size
    disk.used -= 5 * MIB
    check.check(disk.used, 4 * MIB)


def test_limits_can_be_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(1 << 30)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    check = RoomCheck("/", 10 * MIB, None)
    with pytest.raises(NoSpaceError):
        check.check(9 * MIB, 2 * MIB)
    check.set_limits(20 * MIB, None)
    check.check(9 * MIB, 2 * MIB)
    check.set_limits(None, 0.5)
    disk.used = 600 * MIB
    with pytest.raises(NoSpaceError):
        check.check(9 * MIB, 1)


def test_what_waits_in_memory_takes_room_that_the_disk_does_not_know_of(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(1 << 30)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    check = RoomCheck("/", None, 0.9)
    disk.used = int(0.9 * disk.size) - 4 * MIB
    check.check(disk.used, 3 * MIB)
    with pytest.raises(NoSpaceError):
        RoomCheck("/", None, 0.9).check(disk.used, 3 * MIB, 2 * MIB)


def test_the_file_system_is_asked_seldom_and_a_limit_in_bytes_leaves_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(4 << 30)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    count = fill(disk, RoomCheck("/", 1 << 40, None), random.Random(2), MIB)
    assert (4 << 30) - RESERVE_BYTES - MIB <= disk.used <= (4 << 30) - RESERVE_BYTES
    assert count > 5000
    assert disk.asked < 60


def test_what_others_write_is_noticed_within_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, now_s = Disk(1 << 30), 0.0
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    monkeypatch.setattr(time, "monotonic", lambda: now_s)
    check = RoomCheck("/", None, 0.9)
    check.check(0, 1)
    disk.used = 1000 * MIB
    now_s = 1.0
    with pytest.raises(NoSpaceError):
        check.check(1, 1)


@pytest.mark.anyio
async def test_others_are_told_at_once_when_much_came_or_went() -> None:
    news, told = RoomNews(), 0

    async def listen() -> None:
        nonlocal told
        while True:
            await news.changed()
            told += 1

    async with anyio.create_task_group() as group:
        group.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        for used, left, times in (
            (NEWS_BYTES, 0, 0),
            (NEWS_BYTES + 1, 0, 1),
            (NEWS_BYTES + MIB, 8 * MIB, 1),
            (NEWS_BYTES + MIB + 2, 8 * MIB, 2),
            (2, 8 * MIB, 3),
        ):
            news.look(used, left)
            await anyio.wait_all_tasks_blocked()
            assert told == times, used
        group.cancel_scope.cancel()


def test_what_is_left_is_known_without_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(1 << 30)
    monkeypatch.setattr(os, "statvfs", disk.statvfs)
    check = RoomCheck("/", 64 * MIB, None)
    check.check(0, MIB)
    asked = disk.asked
    assert 60 * MIB <= check.left_bytes(MIB) < 63 * MIB, "folders take some"
    assert check.left_bytes(63 * MIB) == 0
    assert disk.asked == asked
