"""Group commit while much is written: it comes to an end, and the write-ahead log stays short."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from crdt_meta import store
from crdt_meta.committer import Committer
from tests.unit.crdt_meta.pods import Pod

LONG_BYTES = 1 << 20


async def test_the_write_ahead_log_stays_short_while_changes_never_cease(
    ann: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "CHECKPOINT_BYTES", LONG_BYTES // 4)
    monkeypatch.setattr(store, "LONG_BYTES", LONG_BYTES)
    monkeypatch.setattr(store, "RESERVED_BYTES", 0)
    committer, was_long, anew = Committer(ann.log, ann.meta.store), False, 0
    async with anyio.create_task_group() as group:
        await group.start(committer.run)
        with anyio.fail_after(60):
            while anew < 3:
                ann.save("/f", f"{anew}")
                ann.log.commit()  # as whoever applies what comes from others
                await anyio.lowlevel.checkpoint()
                is_long = ann.meta.store._is_log_long
                anew += was_long and not is_long
                was_long = is_long
        group.cancel_scope.cancel()
