"""Carrying out `fetch`: asks pods over the mesh, verifies what comes, never fetches the same chunk twice at once.

Urgency decides who waits: a read on the mount before read-ahead before replication, which also never takes all places.
Bytes in flight are bounded; nothing that doesn't match its hash leaves this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import anyio
from anyio.abc import TaskGroup

from base.errors import DamagedError, UnreachableError, WormholeError
from base.ids import ChunkId, ContentId, PodId, hash_bytes
from mesh.api import Lane, Mesh
from mesh.wire import Tag
from transfer.fetch import Ask, Candidates, ChunkPlan, GiveUp, Outcome, Reason, Sources, Wait
from transfer.offload import INLINE_BYTES, Offload
from transfer.pace import Paces

PLACES: Final = 8
BACKGROUND_PLACES: Final = 5
MAX_FLYING_BYTES: Final = 96 << 20
CALL_LEAST_S: Final = 2.0
KNOWN_S: Final = 0.25
"""It is asked so often at most who has a content that somebody reads, unless that changed: each answer takes longer
than reading a piece from memory."""
LOOK_AGAIN_S: Final = 1.0


class Urgency(IntEnum):
    """Who waits for whom; the smaller goes first."""

    READ = 0
    AHEAD = 1
    BACKGROUND = 2


@dataclass(frozen=True, slots=True)
class Wanted:
    """A piece and the content that it is fetched for."""

    content: ContentId
    piece: ChunkId
    max_bytes: int
    author: PodId | None


@dataclass(eq=False, slots=True)
class _Flight:
    wanted: Wanted
    urgency: Urgency
    order: int
    plan: ChunkPlan
    waiters: int = 0
    running: bool = False
    background: bool = False
    go: anyio.Event = field(default_factory=anyio.Event)
    stir: anyio.Event = field(default_factory=anyio.Event)
    done: anyio.Event = field(default_factory=anyio.Event)
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    data: bytes | None = None
    error: WormholeError | None = None


class Fetcher:
    """Fetches pieces from other pods; runs inside the task group given to `start`."""

    def __init__(
        self, mesh: Mesh, offload: Offload, deadline_s: float, candidates: Callable[[Wanted, Urgency], Candidates]
    ) -> None:
        self._mesh = mesh
        self._offload = offload
        self.deadline_s = deadline_s
        self._candidates = candidates
        self._known: dict[tuple[ContentId, PodId | None], tuple[float, Candidates]] = {}
        """Whom to ask for contents that are being read, and since when that is known."""
        self._flights: dict[ChunkId, _Flight] = {}
        self._waiting: list[_Flight] = []
        self._order = 0
        self._group: TaskGroup | None = None
        self._progress_at = float("-inf")
        self._flying_bytes = 0
        self._places_used = 0
        self._background_used = 0
        self.sources = Sources()
        self.paces = Paces()
        self.is_repair: Callable[[ContentId], bool] = lambda _: False
        """Tells whether a content is fetched because another pod that has it stays away."""
        self.on_coming: Callable[[ContentId], None] = lambda _: None
        """Called when a pod says that it is getting the content itself."""
        self.plain: set[PodId] = set()
        """Pods that don't understand that nobody waits for a piece."""
        self.bytes_in = 0

    @property
    def running(self) -> int:
        """Pieces being fetched or waiting for it."""
        return len(self._flights)

    def start(self, group: TaskGroup) -> None:
        """Fetch within this task group from now on."""
        self._group = group

    def stop(self) -> None:
        """Fetch no more: its task group ends."""
        self._group = None

    def _whom(self, wanted: Wanted, urgency: Urgency, now: float) -> Candidates:
        """Return whom to ask. The pieces of one content that somebody reads go by one answer, for a moment."""
        if urgency is Urgency.BACKGROUND:
            return self._candidates(wanted, urgency)
        asked = wanted.content, wanted.author
        known = self._known.get(asked)
        if known is None or now - known[0] > KNOWN_S:
            if len(self._known) >= PLACES:
                self._known.clear()
            known = self._known[asked] = now, self._candidates(wanted, urgency)
        return known[1]

    def stir(self) -> None:
        """Say that who is there or who holds what has changed."""
        self._known.clear()
        self._wake()

    def _wake(self) -> None:
        for flight in self._flights.values():
            flight.stir.set()

    async def fetch(self, wanted: Wanted, urgency: Urgency) -> bytes:
        """Return the whole verified piece.

        Raises `UnreachableError` when it can't be had now (at once when all who hold it are known to be away, else
        after the deadline without progress), `DamagedError` when only damaged copies are left.
        """
        flight = self._flights.get(wanted.piece)
        if flight is None or flight.scope.cancel_called:
            flight = self._launch(wanted, urgency)
        elif urgency < flight.urgency:
            flight.urgency = urgency
            self._pump()
        flight.waiters += 1
        try:
            await flight.done.wait()
        finally:
            flight.waiters -= 1
            if not flight.waiters:
                flight.scope.cancel()
        if flight.data is not None:
            return flight.data
        raise flight.error or UnreachableError("The transfer was stopped.", "Try again once the pod runs.")

    def _launch(self, wanted: Wanted, urgency: Urgency) -> _Flight:
        if self._group is None:
            raise UnreachableError("This pod isn't connected.", "Wait until it has started.")
        self._order += 1
        plan = ChunkPlan(wanted.max_bytes, self.deadline_s, anyio.current_time())
        flight = self._flights[wanted.piece] = _Flight(wanted, urgency, self._order, plan)
        self._waiting.append(flight)
        self._group.start_soon(self._fly, flight)
        self._pump()
        return flight

    def _pump(self) -> None:
        """Give free places to the most urgent that wait."""
        while self._waiting and self._places_used < PLACES:
            flight = min(self._waiting, key=lambda each: (each.urgency, each.order))
            background = flight.urgency is Urgency.BACKGROUND
            if background and self._background_used >= BACKGROUND_PLACES:
                return
            if self._flying_bytes and self._flying_bytes + flight.wanted.max_bytes > MAX_FLYING_BYTES:
                return
            self._waiting.remove(flight)
            self._places_used += 1
            self._background_used += background
            flight.background = background
            self._flying_bytes += flight.wanted.max_bytes
            flight.running = True
            flight.go.set()

    async def _fly(self, flight: _Flight) -> None:
        try:
            with flight.scope:
                if await self._place(flight):
                    await self._search(flight)
        finally:
            if self._flights.get(flight.wanted.piece) is flight:
                del self._flights[flight.wanted.piece]
            if flight.running:
                self._places_used -= 1
                self._background_used -= flight.background
                self._flying_bytes -= flight.wanted.max_bytes
            else:
                self._waiting.remove(flight)
            flight.done.set()
            self._pump()

    async def _place(self, flight: _Flight) -> bool:
        """Wait for a place; meanwhile whatever makes progress counts as this one's."""
        while not flight.go.is_set():
            latest = max(flight.plan.progress_at, self._progress_at)
            with anyio.move_on_at(latest + self.deadline_s):
                await flight.go.wait()
                break
            if max(flight.plan.progress_at, self._progress_at) == latest:
                flight.error = _unreachable(Reason.DEADLINE)
                return False
        flight.plan.progressed(anyio.current_time())
        return True

    async def _search(self, flight: _Flight) -> None:
        async with anyio.create_task_group() as group:
            while flight.data is None:
                flight.stir = anyio.Event()
                now = anyio.current_time()
                candidates = self._whom(flight.wanted, flight.urgency, now)
                step = flight.plan.next(now, candidates, self.sources)
                match step:
                    case Ask(pod):
                        self.sources.started(pod, flight.wanted.max_bytes)
                        group.start_soon(self._ask, flight, pod, pod == candidates.coming)
                    case Wait(until):
                        # by a plan (`fanning`) only one is asked, until patience ends
                        is_planned = len(candidates.holders) == 1 and not candidates.others
                        with anyio.move_on_at(min(until, now + LOOK_AGAIN_S) if is_planned else until):
                            await flight.stir.wait()
                    case GiveUp(reason):
                        flight.error = _unreachable(reason)
                        break
            group.cancel_scope.cancel()

    async def _ask(self, flight: _Flight, pod: PodId, is_coming: bool) -> None:
        wanted = flight.wanted
        try:
            data = await self._transfer(flight, pod, is_coming)
            if data is None:
                flight.plan.ended(pod, Outcome.MISSING)
            elif await self._matches(wanted.piece, data):
                flight.data = data
            else:
                self.sources.failed(pod, anyio.current_time(), damaged=True)
                flight.plan.ended(pod, Outcome.DAMAGED)
        except DamagedError:
            self.sources.failed(pod, anyio.current_time(), damaged=True)
            flight.plan.ended(pod, Outcome.DAMAGED)
        except WormholeError:
            self.sources.failed(pod, anyio.current_time())
            flight.plan.ended(pod, Outcome.FAILED)
        finally:
            self.sources.ended(pod, wanted.max_bytes)
            flight.stir.set()
            self._wake()

    async def _transfer(self, flight: _Flight, pod: PodId, is_coming: bool) -> bytes | None:
        """Fetch a piece part by part; None when the pod doesn't have it.

        ``is_coming``: it is asked to answer once the piece has come there.
        """
        wanted = flight.wanted
        parts: list[bytes] = []
        got, size = 0, wanted.max_bytes
        while got < size:
            asked = await self._turn(flight, pod, min(self.sources.part_bytes(pod), size - got))
            started_at = anyio.current_time()
            has_time = flight.urgency is Urgency.BACKGROUND and pod not in self.plain
            more = [is_coming] if is_coming or has_time else []
            answer = await self._call(pod, [wanted.content, wanted.piece, got, asked, *more])
            now = anyio.current_time()
            if not isinstance(answer, list):
                self.paces.down.give_back(asked)
            if answer is True and more:
                self.sources.seen(pod, now)
                if is_coming:
                    self.on_coming(wanted.content)
                flight.plan.progressed(now)
                self._progress_at = now
                continue
            if answer is None:
                if is_coming:
                    self.sources.seen(pod, now)
                else:
                    self.sources.answered(pod, 0, now - started_at, now)
                return None
            match answer:
                case [int(total), bytes(part)] if got < total <= wanted.max_bytes and 0 < len(part) <= asked:
                    pass
                case _:
                    raise DamagedError("A pod sent an answer that isn't a chunk.")
            if parts and total != size:
                raise DamagedError("A pod sent parts of different chunks.")
            size = total
            parts.append(part)
            got += len(part)
            self.paces.down.give_back(asked - len(part))
            self.bytes_in += len(part)
            if is_coming and len(parts) == 1:  # it may have waited for the piece
                self.sources.seen(pod, now, len(part))
            else:
                self.sources.answered(pod, len(part), now - started_at, now)
            flight.plan.progressed(now)
            self._progress_at = now
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _call(self, pod: PodId, body: list[object]) -> object:
        """Ask for a part; a pod of before the word for "nobody waits" is asked without it."""
        timeout_s = max(CALL_LEAST_S, self.deadline_s)
        try:
            return await self._mesh.call(pod, Tag.CHUNK_GET, body, timeout_s=timeout_s, lane=Lane.BULK)
        except DamagedError:
            if body[-1] is not False:
                raise
        self.plain.add(pod)
        return await self._mesh.call(pod, Tag.CHUNK_GET, body[:-1], timeout_s=timeout_s, lane=Lane.BULK)

    async def _turn(self, flight: _Flight, pod: PodId, most: int) -> int:
        """Wait until bytes may be fetched, within the limits of this pod; return how many, at most ``most``."""
        down, repair = self.paces.down, self.paces.repair
        if down.rate is None and repair.rate is None:
            return most

        def still() -> None:
            flight.plan.held_up(pod, anyio.current_time())

        size = down.piece_bytes(most)
        if flight.urgency is Urgency.BACKGROUND and repair.rate is not None and self.is_repair(flight.wanted.content):
            size = repair.piece_bytes(size)
            await repair.turn(size, still=still)
        await down.turn(size, flight.urgency, still)
        return size

    async def _matches(self, piece: ChunkId, data: bytes) -> bool:
        if len(data) <= INLINE_BYTES:
            return hash_bytes(data) == piece
        return await self._offload.run(hash_bytes, data) == piece


def _unreachable(reason: Reason) -> WormholeError:
    match reason:
        case Reason.ABSENT:
            return UnreachableError(
                "No pod that can be reached holds this content.",
                "Connect a pod that does; `wormhole where` names them.",
            )
        case Reason.DEADLINE:
            return UnreachableError(
                "The pods that hold this content don't answer.", "Check the network, then try again."
            )
        case Reason.DAMAGED:
            return DamagedError("Every copy that can be reached is damaged.", "Connect another pod that holds it.")
