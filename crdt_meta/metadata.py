"""The metadata of one pod, put together: store, log, view, tree and committer over one SQLite file."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack

from base.errors import DamagedError
from base.ids import PodId, WriterId, new_writer_id
from crdt_meta.acknowledgement import Acknowledgements
from crdt_meta.adoption import Adoption
from crdt_meta.committer import Committer
from crdt_meta.hlc import HybridClock
from crdt_meta.log import MetadataLog
from crdt_meta.peers import Retired
from crdt_meta.rebirth import rewrite
from crdt_meta.records import Strategy
from crdt_meta.store import Store
from crdt_meta.tidying import Tidying
from crdt_meta.transaction import header_of
from crdt_meta.tree import Tree
from crdt_meta.view import View

RESERVE_BYTES: Final = 8 << 20
"""So much of the disk stays free for the metadata's own bookkeeping: operations that add are refused before. While
many files are removed the write-ahead log grows by 5 MiB between two checkpoints (measured)."""
GIVEN_UP: Final = "given up "
LOOK_EVERY_S: Final = 0.25

logger = logging.getLogger(__name__)


class RoomOnDisk:
    """Tells whether the disk of a file has room, looking at it a few times a second at most."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_s = float("-inf")
        self._has = True

    def __call__(self) -> bool:
        """Return whether more than the reserve is free."""
        now = time.monotonic()
        if now - self._looked_s > LOOK_EVERY_S:
            self._looked_s = now
            found = os.statvfs(self._path)
            self._has = found.f_bavail * found.f_frsize > RESERVE_BYTES
        return self._has


@dataclass(frozen=True)
class Roots:
    """What the engine must be told about the cluster; all are quick and must not raise."""

    sign: Callable[[bytes], bytes]
    verify: Callable[[WriterId, bytes, bytes], bool]
    """(writer, signature, data) → whether the writer's pod signed; False for unknown writers."""
    pod_of_writer: Callable[[WriterId], PodId | None]
    pod_name_of: Callable[[WriterId], str]
    strategy_for: Callable[[str], Strategy]
    versions: Callable[[], int] = lambda: 10
    """How many overwritten contents of a file the trash keeps."""


class Metadata:
    """See the module. Use on the loop thread."""

    def __init__(
        self,
        path: Path,
        roots: Roots,
        *,
        now: Callable[[], float] = time.time,
        has_room: Callable[[], bool] | None = None,
    ) -> None:
        """Open or make the file at ``path``. Raises `MachineError` or `DamagedError`."""
        self.store = Store(path)
        writer = self.store.get_meta("writer")
        if writer is None:
            writer = new_writer_id()
            self.store.set_meta("writer", writer)
            self.store.commit()
        self.store.sync()  # what a killed process had committed will be told as durable
        clock = HybridClock(now)
        self.view = View(self.store, roots.pod_name_of)
        try:
            self.log = MetadataLog(self.store, self.view, clock, WriterId(writer), roots.sign, roots.verify)
        except DamagedError as error:
            raise DamagedError(f"{path} is damaged: {error.message}", "Leave with --force and join anew.") from error
        self._set_clock(clock)
        self.clock = clock
        self.tree = Tree(
            self.view,
            self.log,
            clock,
            roots.pod_of_writer,
            roots.strategy_for,
            has_room or RoomOnDisk(path.parent),
            roots.versions,
        )
        self.committer = Committer(self.log, self.store)
        self.acknowledgements = Acknowledgements(self.view, self.log, clock)
        adoption = Adoption(self.view, self.log)
        self.tidying = Tidying(self.store, self.view, self.log, self.acknowledgements, adoption, self.tree.heal)
        self.store.commit()

    @property
    def writer(self) -> WriterId:
        """The id that this pod writes under."""
        return self.log.writer

    def reborn(self, after: int, owed: int | None, *, set_back: bool = False) -> WriterId:
        """Go on under a new writer id, which is returned; nothing of the old one is told any more.

        ``after``: the last transaction of this pod that others have. ``owed``: this pod is a restored copy, and the log
        that the others have goes on at least to this transaction; it is fetched anew. None: the old writer is retired,
        and others hold its records up to ``after``; ``set_back``: and other ones of it, since this pod is a restored
        copy. Everything is committed with one stroke.
        """
        old, new = self.writer, new_writer_id()
        restored = set_back or owed is not None
        rewrite(self.view, self.log, self.clock, new, after, self.acknowledgements.in_use(), restored=restored)
        self.log.seal()
        if owed is None:
            last, done = self.log.table.received[old], self.log.table.received[new]
            lives = self.log.table.digest(old, last), self.log.table.earlier(old, last)
            copies = Retired(last, new, done, after, 0, *lives)
            self.store.set_meta(GIVEN_UP + old.hex(), msgpack.packb(copies))
            self.log.table.cut(old, after)
        else:
            self.log.set_aside(old, owed)
        self.store.set_meta("writer", new)
        self.log.commit()
        logger.warning("this pod goes on as the writer %s", new.hex())
        return new

    def given_up(self) -> dict[WriterId, Retired]:
        """Return the retired writers that were this pod's, with what it holds of each that their adopters had not."""
        query = "SELECT key, value FROM meta WHERE key > ?1 AND key < ?1 || 'g' ORDER BY key"
        rows = self.store.db.execute(query, (GIVEN_UP,)).fetchall()
        return {
            WriterId(bytes.fromhex(key[len(GIVEN_UP) :])): Retired(*msgpack.unpackb(value, use_list=False))
            for key, value in rows
        }

    def _set_clock(self, clock: HybridClock) -> None:
        """Let the clock go on behind what was written here, and what was seen."""
        lasts = {writer: self.log.table.last(writer) for writer in self.log.table.received}
        clocks = {writer: header_of(last.header).clock for writer, last in lasts.items() if last is not None}
        clock.last = clocks.pop(self.writer, 0)
        for seen in clocks.values():
            clock.observe(seen)

    def close(self) -> None:
        """Close the file; what `Committer.finish` has not committed is gone."""
        self.store.close()
