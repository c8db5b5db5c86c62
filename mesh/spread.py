"""Carries the replicated log: runs the cores of broadcast and anti-entropy over the links of a pod.

Pushed entries wait in a bounded queue for one worker that applies them in order; what doesn't fit is dropped, since
anti-entropy fetches whatever is missing.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from random import Random
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup

from base.errors import RefusedError, WormholeError
from base.ids import PodId, WriterId
from mesh import antientropy
from mesh.antientropy import AntiEntropy, Fetch, Plan
from mesh.api import Entry, ReplicatedLog
from mesh.broadcast import Broadcast
from mesh.pushes import MAX_PUSH_BYTES, pushed_entries
from mesh.quiet import QuietLog
from mesh.send import Send
from mesh.wire import Tag

QUEUE_MESSAGES: Final = 1024
QUEUE_BYTES: Final = 32 << 20

logger = logging.getLogger(__name__)

Call = Callable[[PodId, Tag, object, float], Awaitable[Any]]


class Spreader:
    """Broadcast and anti-entropy of one pod."""

    def __init__(
        self,
        me: PodId,
        rng: Random,
        run_sends: Callable[[Iterable[Send]], None],
        call: Call,
        planned: Callable[[], None],
        *,
        leaf: bool = False,
    ) -> None:
        """``run_sends`` sends messages to linked pods; ``call(pod, tag, body, timeout_s)`` asks one.

        ``planned`` is called when `due` may have come forward. ``leaf``: see `Broadcast`.
        """
        self._planned = planned
        self._broadcast = Broadcast(me, rng, leaf=leaf)
        self._anti_entropy = AntiEntropy(me, rng)
        self._run_sends = run_sends
        self._call = call
        self._log: ReplicatedLog | None = None
        self._linked: set[PodId] = set()
        self._queue: deque[tuple[PodId, object, list[Entry], int]] = deque()
        self._queued_bytes = 0
        self._wake = anyio.Event()
        self._alarm = anyio.Event()
        self._group: TaskGroup | None = None
        self._fetches: deque[Fetch] = deque()
        self._receiving = anyio.Lock()
        self._heard = False
        self._progress = anyio.Event()
        self._quiet = QuietLog(logger, anyio.current_time)

    def set_log(self, log: ReplicatedLog) -> None:
        """Set what is replicated; pods linked already are told at once."""
        self._log = log
        now = anyio.current_time()
        for pod in self._linked:
            self._run_plan(self._anti_entropy.link_up(pod, log.vector(), now))

    def set_members(self, pods: Iterable[PodId]) -> None:
        """Set who belongs to the cluster."""
        self._broadcast.set_members(pods)

    def still(self) -> anyio.Lock:
        """Return what keeps received entries from being applied while it is held."""
        return self._receiving

    def link_up(self, pod: PodId) -> None:
        """Say that a pod can be reached."""
        now = anyio.current_time()
        self._linked.add(pod)
        self._broadcast.link_up(pod, now)
        if self._log is not None:
            self._run_plan(self._anti_entropy.link_up(pod, self._log.vector(), now))

    def link_down(self, pod: PodId) -> None:
        """Say that a pod can't be reached any more."""
        now = anyio.current_time()
        self._linked.discard(pod)
        self._broadcast.link_down(pod, now)
        if self._log is not None:
            self._run_plan(self._anti_entropy.link_down(pod, self._log.vector(), now))

    def refresh(self) -> None:
        """Compare logs with everybody linked: entries that were refused may count now, their writer being known."""
        if self._log is not None:
            now = anyio.current_time()
            for pod in self._linked:
                self._run_plan(self._anti_entropy.link_up(pod, self._log.vector(), now))

    def publish(self, entries: Sequence[Entry]) -> None:
        """Broadcast new durable entries of this pod."""
        self._run_sends(self._broadcast.publish(entries, anyio.current_time()))
        self._hurry()

    def pushed(self, sender: PodId, message: object) -> None:
        """Take a LOG_PUSH message."""
        if self._log is None:
            return
        entries = pushed_entries(message)
        size = sum(len(entry.blob) for entry in entries) + 64
        if len(self._queue) >= QUEUE_MESSAGES or self._queued_bytes + size > QUEUE_BYTES:
            return
        self._queue.append((sender, message, entries, size))
        self._queued_bytes += size
        self._wake.set()

    def vector(self, sender: PodId, message: object) -> None:
        """Take a LOG_VECTOR message."""
        if self._log is not None:
            now = anyio.current_time()
            self._run_plan(self._anti_entropy.on_vector(sender, message, self._log.vector(), now))
            self._heard = True
            self._progressed()

    def _progressed(self) -> None:
        done, self._progress = self._progress, anyio.Event()
        done.set()

    async def fetch(self, pod: PodId, writer: WriterId, upto: int) -> bool:
        """Fetch a writer's entries from a pod that is known to have them; tell whether they are here up to ``upto``.

        Raises `UnreachableError`.
        """
        log = self._log
        while log is not None and (here := log.vector().get(writer, 0)) < upto:
            fetch = Fetch(0, pod, writer, here, antientropy.PAGE_BYTES, antientropy.FETCH_TIMEOUT_S)
            answer = await self._call(pod, Tag.LOG_SINCE, antientropy.since_body(fetch), fetch.timeout_s)
            entries = antientropy.page_entries(answer, fetch)
            applied = await self._receive(log, entries, pod) if entries else []
            self._run_sends(self._broadcast.caught_up(pod, applied, anyio.current_time()))
            self._progressed()
            if log.vector().get(writer, 0) <= here:
                return False
        return log is not None

    async def caught_up(self) -> None:
        """Return once a pod has told what it has and nothing of that is missing here."""
        while self._log is not None and (not self._heard or self.is_behind()):
            await self._progress.wait()

    def is_behind(self) -> bool:
        """Tell whether a linked pod is known to have entries that are missing here."""
        return self._log is not None and self._anti_entropy.behind(self._log.vector())

    def due(self) -> float:
        """Return when `tick` has something to do, unless something comes before."""
        return float("inf") if self._log is None else self._anti_entropy.due()

    def tick(self) -> None:
        """Do what is due; called a few times a second."""
        if self._log is None:
            return
        now = anyio.current_time()
        self._run_plan(self._anti_entropy.tick(self._log.vector(), now))
        for reason in (*self._broadcast.complaints(), *self._anti_entropy.complaints()):
            self._quiet.warning(reason, f"a message about the log was ignored: {reason}")

    async def serve_since(self, sender: PodId, body: object) -> object:
        """Answer LOG_SINCE with a page of entries. Raises `RefusedError`."""
        asked = antientropy.parse_since(body)
        if asked is None or self._log is None:
            raise RefusedError("This pod can't answer what was asked about the log.")
        return antientropy.page_body(self._log.read(asked.writer, asked.after, asked.limit_bytes))

    async def run(self) -> None:
        """Apply pushed entries and fetch pages until cancelled."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                group.start_soon(self._keep_time)
                while self._fetches:
                    group.start_soon(self._fetch, self._fetches.popleft())
                while True:
                    while self._queue:
                        sender, message, entries, size = self._queue.popleft()
                        self._queued_bytes -= size
                        await self._apply(sender, message, entries)
                    self._wake = anyio.Event()
                    await self._wake.wait()
        finally:
            self._group = None

    async def _keep_time(self) -> None:
        """Call the broadcast whenever it is due."""
        while True:
            self._alarm = anyio.Event()
            due = self._broadcast.due()
            with anyio.move_on_after(math.inf if due is None else due - anyio.current_time()):
                await self._alarm.wait()
            due, now = self._broadcast.due(), anyio.current_time()
            if self._log is not None and due is not None and now >= due:
                self._run_sends(self._broadcast.tick(self._log.vector(), now))
                self._fill_gaps(now)
            await anyio.lowlevel.checkpoint()

    def _hurry(self) -> None:
        """Have the broadcast's time looked at again, after something that may have brought it forward."""
        if self._broadcast.due() is not None:
            self._alarm.set()

    async def _apply(self, sender: PodId, message: object, entries: list[Entry]) -> None:
        log = self._log
        if log is None:
            return
        applied = await self._receive(log, entries, sender) if entries else []
        now = anyio.current_time()
        self._run_sends(self._broadcast.received(sender, message, applied, log.vector(), now))
        for wanted in self._broadcast.wanted():
            self._run_sends(self._broadcast.resend(wanted, log.read(wanted.writer, wanted.after, MAX_PUSH_BYTES)))
        self._fill_gaps(now)
        self._hurry()

    async def _receive(self, log: ReplicatedLog, entries: list[Entry], sender: PodId) -> list[Entry]:
        """Give entries to the log; one that can't take them is logged and loses nothing."""
        try:
            async with self._receiving:
                return await log.receive(entries, sender)
        except WormholeError as error:
            self._quiet.warning(sender, f"entries from {sender} weren't applied: {error.message}")
        except Exception:
            logger.exception("entries from %s weren't applied", sender)
        return []

    def _fill_gaps(self, now: float) -> None:
        if self._log is not None:
            for gap in self._broadcast.gaps():
                self._run_plan(self._anti_entropy.on_gap(gap, self._log.vector(), now))

    def _run_plan(self, plan: Plan) -> None:
        self._run_sends(plan.sends)
        for fetch in plan.fetches:
            if self._group is None:
                self._fetches.append(fetch)
            else:
                self._group.start_soon(self._fetch, fetch)
        self._planned()

    async def _fetch(self, fetch: Fetch) -> None:
        log = self._log
        assert log is not None
        try:
            answer = await self._call(fetch.pod, Tag.LOG_SINCE, antientropy.since_body(fetch), fetch.timeout_s)
        except WormholeError:
            self._run_plan(self._anti_entropy.on_failure(fetch, log.vector(), anyio.current_time()))
            return
        entries = antientropy.page_entries(answer, fetch)
        applied = await self._receive(log, entries, fetch.pod) if entries else []
        now = anyio.current_time()
        self._run_sends(self._broadcast.caught_up(fetch.pod, applied, now))
        self._hurry()
        self._run_plan(self._anti_entropy.on_page(fetch, entries, log.vector(), now))
        self._progressed()
