"""Group commit: what was written since the last turn becomes one transaction, is synced by a thread, and is then told.

After a rest a change is committed at once, so that other pods see it soon. While more follow they wait a few
milliseconds for company, and a steady stream, for none of which somebody waits, is cut into a few large groups a
second: a group costs about a millisecond, whatever is in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

import anyio
from anyio.abc import TaskStatus

from base.brief import Brief
from crdt_meta.log import MetadataLog
from crdt_meta.store import Store
from mesh.api import Entry

GATHER_S: Final = 0.002

STEADY_S: Final = 0.05
"""Groups that nobody waits for follow each other at this distance in the long run (s) ..."""

AT_ONCE: Final = 5
"""... but so many may follow each other at once after a rest."""

logger = logging.getLogger(__name__)


class Committer:
    """The task that commits. `request` and `arrived` are called by the log itself for every change."""

    def __init__(self, log: MetadataLog, store: Store) -> None:
        self.on_durable: Callable[[Sequence[Entry]], None] = lambda _: None
        """Told the own transactions that are newly on the disk: they may be broadcast."""
        self._log = log
        self._store = store
        self._wake = anyio.Event()
        self._hurry = anyio.Event()
        self._done = anyio.Event()
        self._syncing = Brief()
        self._requested = 0
        self._finished = 0
        self._is_own = False
        """Whether something was written here since the last turn."""
        log.on_pending, log.on_arrival = self.request, self.arrived
        store.on_failure.append(self._failed)

    def request(self) -> None:
        """Have everything written until now committed and synced soon."""
        self._is_own = True
        self.arrived()

    def arrived(self) -> None:
        """Have what came from others committed and synced: nobody waits for that but who reads it, on the same loop."""
        self._requested += 1
        self._wake.set()

    def _failed(self) -> None:
        """Have the task end with the error, and who waits for it hear of it."""
        self.arrived()
        self._tell_done()

    def _tell_done(self) -> None:
        done, self._done = self._done, anyio.Event()
        done.set()

    async def durable(self) -> None:
        """Return once everything written before the call is on the disk. Raises `NoSpaceError`."""
        self.request()
        wanted = self._requested
        self._hurry.set()
        while self._finished < wanted:
            self._store.check()
            await self._done.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Commit until cancelled. Raises `NoSpaceError` when the disk refuses: the pod can't go on then."""
        self._store.reserve()
        task_status.started()
        free_at = anyio.current_time()  # one group a STEADY_S would end at this time
        while True:
            await self._wake.wait()
            now = anyio.current_time()
            free_at = max(free_at, now - AT_ONCE * STEADY_S) + STEADY_S
            rested = now >= free_at
            await self._gather(free_at)
            await self._turn(prompt=rested)

    async def _gather(self, until: float) -> None:
        """Wait for company: until nothing came for a moment or somebody waits, at most until a time."""
        while not self._hurry.is_set() and anyio.current_time() < until:
            before = self._requested
            with anyio.move_on_after(GATHER_S):
                await self._hurry.wait()
            if self._requested == before:
                return

    async def _turn(self, *, prompt: bool = False) -> None:
        prompt = (prompt and self._is_own) or self._hurry.is_set()
        self._is_own = False
        self._wake, self._hurry = anyio.Event(), anyio.Event()
        upto = self._requested
        sequence = self._log.commit()
        await self._syncing.run(self._store.sync, prompt=prompt and not self._store.is_checkpoint_due)
        if self._store.may_start_log_anew:
            self._log.commit()
            self._store.start_log_anew()
        entries = self._log.durable(sequence)
        self._finished = upto
        self._tell_done()
        if entries:
            self.on_durable(entries)

    async def finish(self) -> None:
        """Commit and sync what is left, once `run` has ended."""
        await self._turn()
        self._store.begin()
        self._store.commit(is_last=True)
