"""Everything on a disk is verified now and then without being asked: rot is found, set aside and told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from operations.scrubbing import SCRUB_EVERY_S, Scrubs
from tests.unit.operations.pods import cluster


async def test_rot_is_found_without_being_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with cluster(tmp_path, "desktop") as made:
        pod = made.pods[0]
        now_s = float(pod.transfer.joined_s)
        scrubs = Scrubs(pod, lambda: now_s)  # type: ignore[arg-type]
        assert not scrubs.is_due()
        content, _ = await pod.store(data := os.urandom(50_000))
        path = next(path for path in tmp_path.rglob(content.hex()))
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        now_s += SCRUB_EVERY_S + 1
        assert scrubs.is_due()
        with caplog.at_level("INFO"):
            await scrubs.scrub()
        assert "1 damaged" in caplog.text
        assert not path.exists(), "set aside"
        assert not scrubs.is_due()
        now_s += SCRUB_EVERY_S - 10
        assert not scrubs.is_due()
        now_s += 20
        assert scrubs.is_due()
        now_s = 5.0
        assert scrubs.is_due(), "a clock that was far ahead puts it off for no longer"
