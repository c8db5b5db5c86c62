"""A disk that loses what wasn't synced: any subset of the blocks written since the last sync survives a power cut.

What SQLite promises of its own syncs is taken as given: a checkpoint syncs the database before it returns, the
write-ahead log is used from its start again only after that, and its new header is synced before anything behind it is
written (ticket ff5be73dee of SQLite). Everything else is torn and reordered.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.unit.crdt_meta.pods import Pod

BLOCK_BYTES = 4096
HEADER_BYTES = 32
"""Of the write-ahead log."""


class Files(NamedTuple):
    """What lies on the disk."""

    db: bytes
    wal: bytes

    def write(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "metadata.db").write_bytes(self.db)
        (folder / "metadata.db-wal").write_bytes(self.wal)


def torn(rng: random.Random, safe: bytes, now: bytes) -> bytes:
    """Return a file of which any of the blocks that were written since it was safe have reached the disk."""
    if safe == now:
        return now
    keep = rng.choice((0.0, 0.05, 0.5, 0.95, 1.0))
    length = rng.choice((len(safe), len(now), rng.randint(*sorted((len(safe), len(now))))))
    found = bytearray(safe[:length].ljust(length, b"\0"))
    for at in range(0, length, BLOCK_BYTES):
        block = now[at : min(at + BLOCK_BYTES, length)]
        if rng.random() < keep:
            found[at : at + len(block)] = block
    return bytes(found)


class Disk:
    """The disk below one pod's metadata."""

    def __init__(
        self,
        pod: Pod,
        rng: random.Random,
        patch: pytest.MonkeyPatch,
        check: Callable[[Files], object],
        on_told: Callable[[], object],
    ) -> None:
        """``check`` is called with what a power cut during a checkpoint leaves; ``on_told`` after the pod told something."""
        self.checkpoints = 0
        self._pod = pod
        self._rng = rng
        self._check = check
        self._on_told = on_told
        sync, store = pod.meta.store.sync, pod.meta.store
        if rng.random() < 0.5:
            store.reserve()
        self._safe = self._now()

        def note(fd: int) -> None:
            if os.readlink(f"/proc/self/fd/{fd}") == f"{store.path}-wal":
                self._safe = self._safe._replace(wal=self._now().wal)

        def whole_sync() -> None:
            sync()
            self._checkpointed()

        patch.setattr(os, "fdatasync", note)
        patch.setattr(store, "sync", whole_sync)
        patch.setattr(pod, "tell", self.tell)

    def _now(self) -> Files:
        path = self._pod.meta.store.path
        wal = Path(f"{path}-wal")
        return Files(path.read_bytes(), wal.read_bytes() if wal.exists() else b"")

    def _checkpointed(self) -> None:
        now = self._now()
        if now.db != self._safe.db:
            self.checkpoints += 1
            for _ in range(3):
                self._check(Files(torn(self._rng, self._safe.db, now.db), self._safe.wal))
            self._safe = self._safe._replace(db=now.db)

    def tell(self) -> list[object]:
        """Commit, sync, and only then tell."""
        committed = self._pod.log.commit()
        self._pod.meta.store.sync()
        entries = self._pod.log.durable(committed)
        self._on_told()
        return [*entries]

    def after_a_power_cut(self, number: int) -> Iterator[Files]:
        """Yield some of the states that a power cut may leave now."""
        now = self._now()
        assert now.db == self._safe.db, "a checkpoint that nobody noticed"
        safe = now.wal[:HEADER_BYTES] + self._safe.wal[HEADER_BYTES:]
        for _ in range(number):
            yield Files(now.db, torn(self._rng, safe, now.wal))
