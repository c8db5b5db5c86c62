"""Cold reads stay on the loop only while the disk is quick."""

from __future__ import annotations

import os
from pathlib import Path

from transfer import quickdisk
from transfer.quickdisk import QuickDisk

MS = 1_000_000
S = 1000 * MS


def test_a_quick_disk_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    descriptor = os.open(path, os.O_RDONLY)
    found = QuickDisk()
    assert found.read(descriptor, 2, 3) == b"234"
    assert found.read(descriptor, 8, 30) == b"89"
    assert found.read(descriptor, 0, quickdisk.MOST_BYTES + 1) is None
    os.close(descriptor)


def test_one_slow_read_is_forgiven_and_several_are_not() -> None:
    found = QuickDisk()
    found.note(0, 5 * MS)
    assert found.is_quick(5 * MS)
    found.note(5 * MS, 10 * MS)
    assert not found.is_quick(10 * MS)
    assert not found.is_quick(10 * MS + S - 1)
    assert found.is_quick(10 * MS + S)


def test_pauses_grow_up_to_a_minute_and_shrink_after_quick_reads() -> None:
    found, now = QuickDisk(), 0
    for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
        found.note(now, now + 20 * MS)
        now += 20 * MS
        assert not found.is_quick(now + seconds * S - 1)
        now += seconds * S
        assert found.is_quick(now)
    for _ in range(quickdisk.QUICK_IN_A_ROW):
        found.note(now, now + MS // 10)
    found.note(now, now + 20 * MS)
    assert found.is_quick(now + 20 * MS + S)
