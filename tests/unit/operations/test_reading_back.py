"""What an import with ``--move`` asks before it removes a source: whether the bytes are on the disk as they should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from base.ids import EMPTY_CONTENT
from tests.unit.operations.pods import cluster


@pytest.mark.parametrize("size", [500, 50_000, 2_500_000])
async def test_damage_on_the_disk_is_seen(tmp_path: Path, size: int) -> None:
    async with cluster(tmp_path) as made:
        (pod,) = made.pods
        content, _ = await pod.store(data := os.urandom(size))
        assert await pod.transfer.reread(content, size)
        assert await pod.transfer.reread(EMPTY_CONTENT, 0)
        files = [
            path for path in (tmp_path / "founder").rglob("*") if path.is_file() and data[:500] in path.read_bytes()
        ]
        assert len(files) == 1
        at = files[0].read_bytes().index(data[:500])
        with files[0].open("r+b") as file:
            file.seek(at)
            file.write(bytes([data[0] ^ 1]))
        assert not await pod.transfer.reread(content, size)


async def test_what_is_not_here_can_t_be_read_back(tmp_path: Path) -> None:
    async with cluster(tmp_path, "desktop") as made:
        laptop, desktop = made.pods
        content, size = await laptop.store(b"x" * 5000)
        assert not await desktop.transfer.reread(content, size)
