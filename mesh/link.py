"""One verified connection to another pod: requests multiplexed by number, one-way messages, orderly close.

A small frame is given to the network at once where nothing waits before it. A writer task sends what is queued, small
frames before large ones; the queue is bounded in bytes. A reader task hands
over answers, starts one task for each request, and closes the link on the first violation of the protocol. A link over
which nothing arrives is probed and given up, so a connection whose other end vanished never lingers.

Must never block the reader on a handler: both ends would wait for each other.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

import anyio
from anyio.abc import TaskGroup

from base import beat
from base.errors import DamagedError, NamesakeError, RefusedError, UnreachableError, WormholeError, from_wire, to_wire
from base.ids import PodId
from mesh.api import Lane
from mesh.channel import Channel, ConnectionLostError
from mesh.handshake import Peer, refuse
from mesh.join_stream import JoinStream as JoinStream
from mesh.join_stream import open_join as open_join
from mesh.namesakes import steady_ms
from mesh.wire import Kind, ProtocolError, Tag, encode

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT: Final = {Lane.CONTROL: 256, Lane.BULK: 32}
"""Requests that each side may have unanswered on one link."""
QUEUE_BYTES: Final = {Lane.CONTROL: 16 << 20, Lane.BULK: 64 << 20}
SMALL_FRAME_BYTES: Final = 64 << 10
PING_S: Final = 4.0
SILENT_S: Final = 12.0
"""A link over which nothing came for this long, though it was pinged, is closed."""
IDLE_S: Final = 60.0
"""An unused bulk link is closed by the side that opened it after this, by the other after twice as long."""


LINGER_S: Final = 2.0
"""A replaced link stays this long: the other side may still be about to learn of the one that replaces it."""


class Dispatcher(Protocol):
    """What a link does with messages from the peer."""

    async def serve(self, sender: PodId, tag: int, body: object) -> object:
        """Answer a request; a `WormholeError` is told to the peer."""
        ...

    def message(self, link: Link, tag: int, body: object) -> None:
        """Take a one-way message; must be quick and must not raise."""
        ...


@dataclass(slots=True)
class _Waiter:
    event: anyio.Event
    answer: Any = None
    error: WormholeError | None = None


class Link:
    """See the module. `run` does the work; everything else may be called meanwhile from the same loop."""

    def __init__(self, channel: Channel, peer: Peer, dispatcher: Dispatcher, *, dialled: bool) -> None:
        self.peer = peer
        self.dialled = dialled
        """Whether this pod opened the connection."""
        self.error: WormholeError | None = None
        """Why the link ended; None while it runs and after an orderly end."""
        self.told_to_stop = False
        """Whether the peer ended it since another process goes by this pod's name."""
        self.since_ms = steady_ms()
        self._channel = channel
        self._dispatcher = dispatcher
        self._kind = Kind.BULK if peer.lane is Lane.BULK else Kind.CONTROL
        self._small: deque[bytes] = deque()
        self._large: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = anyio.Event()
        self._room = anyio.Event()
        self._slots = anyio.Semaphore(MAX_IN_FLIGHT[peer.lane])
        self._waiting: dict[int, _Waiter] = {}
        self._number = 0
        self._serving = 0
        self._retired = False
        self._lingered = False
        self._goodbye: WormholeError | None = None
        self._open = True
        self._used_at = self._seen_at = anyio.current_time()
        self._seen_bytes = channel.received_bytes
        self._group: TaskGroup | None = None
        self.closed = anyio.Event()

    @property
    def usable(self) -> bool:
        """Whether new requests may be sent."""
        return self._open and not self._retired

    @property
    def in_flight(self) -> int:
        """Requests of this side without an answer yet."""
        return len(self._waiting)

    def silent_s(self) -> float:
        """Return for how long nothing came, at least; the last beats before are not counted."""
        return 0.0 if self._channel.received_bytes != self._seen_bytes else anyio.current_time() - self._seen_at

    async def run(self) -> None:
        """Carry messages until the link ends. Raises nothing of the connection; see `error`."""
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                group.start_soon(self._guard, self._read)
                group.start_soon(self._guard, self._write)
                group.start_soon(self._guard, self._keep)
                if self._retired:
                    group.start_soon(self._linger)
        finally:
            await self._finish()

    async def request(self, tag: Tag, body: object, timeout_s: float) -> Any:
        """Send a request and return the answer's body.

        Raises `UnreachableError` when the link ends or the answer doesn't come within ``timeout_s``, `ProtocolError`
        when the body can't be sent, or the error that the peer answered.
        """
        waiter = _Waiter(anyio.Event())
        with anyio.move_on_after(timeout_s):
            async with self._slots:
                if not self.usable:
                    raise ConnectionLostError("The connection to the pod ended.")
                self._number += 1
                number = self._number
                frame = encode(Tag.REQUEST, [number, int(tag), body], self._kind)
                self._waiting[number] = waiter
                try:
                    await self._enqueue(frame)
                    await waiter.event.wait()
                finally:
                    del self._waiting[number]
                    self._used_at = anyio.current_time()
        if waiter.error is not None:
            raise waiter.error
        if not waiter.event.is_set():
            raise UnreachableError(f"The pod {self.peer.pod} didn't answer within {timeout_s:g} s.")
        return waiter.answer

    def send(self, tag: Tag, body: object) -> bool:
        """Queue a one-way message; tell whether there was room. What is dropped so must be repaired otherwise."""
        if not self._open:
            return False
        try:
            frame = encode(tag, body, self._kind)
        except ProtocolError:
            logger.exception("a message of our own can't be sent")
            return False
        if self._queued_bytes + len(frame) > QUEUE_BYTES[self.peer.lane]:
            return False
        self._push(frame)
        return True

    async def flushed(self) -> None:
        """Return once everything queued was handed to the network, or the link ended."""
        while self._open and (self._queued_bytes or self._channel.unsent):
            await self._room.wait()

    def retire(self) -> None:
        """Take no new requests and close once those under way are answered (another link replaces this one)."""
        if not self._retired:
            self._retired = True
            if self._group is not None and self._open:
                self._group.start_soon(self._linger)

    async def _linger(self) -> None:
        await anyio.sleep(LINGER_S)
        self._lingered = True
        self._wake.set()

    def close(self, error: WormholeError | None = None) -> None:
        """Close now; ``error`` is told to the peer as far as it listens, and raised at waiting requests."""
        if not self._open:
            return
        self._goodbye = error
        self._end(error)

    async def _guard(self, part: Any) -> None:
        try:
            await part()
        except (UnreachableError, DamagedError, RefusedError) as error:
            if isinstance(error, ProtocolError):
                self._goodbye = error
            self._end(error)

    def _end(self, error: WormholeError | None) -> None:
        if not self._open:
            return
        self._open = False
        self.error = error
        if self._group is not None:
            self._group.cancel_scope.cancel()

    async def _finish(self) -> None:
        self._open = False
        for waiter in self._waiting.values():
            waiter.error = waiter.error or ConnectionLostError(
                f"The connection to the pod {self.peer.pod} ended before it answered."
            )
            waiter.event.set()
        self._room.set()
        with anyio.CancelScope(shield=True):
            if not isinstance(self.error, ConnectionLostError):
                await refuse(self._channel, self._goodbye or RefusedError("The link is closed."))
            await self._channel.close()
        self.closed.set()

    # -- writing

    def _push(self, frame: bytes) -> None:
        at_once = self._group is not None and not self._queued_bytes and len(frame) <= SMALL_FRAME_BYTES
        if at_once and self._channel.send_now(frame):
            if self._channel.unsent:
                self._wake.set()
            return
        (self._small if len(frame) <= SMALL_FRAME_BYTES else self._large).append(frame)
        self._queued_bytes += len(frame)
        self._wake.set()

    async def _enqueue(self, frame: bytes) -> None:
        while self._open and self._queued_bytes and self._queued_bytes + len(frame) > QUEUE_BYTES[self.peer.lane]:
            await self._room.wait()
        if not self._open:
            raise ConnectionLostError("The connection to the pod ended.")
        self._push(frame)

    async def _write(self) -> None:
        while True:
            await self._channel.flush()
            self._made_room()
            while self._small or self._large:
                frame = (self._small or self._large).popleft()
                await self._channel.send(frame)
                self._queued_bytes -= len(frame)
                self._made_room()
            if self._lingered and not self._waiting and not self._serving:
                self._end(None)
            self._wake = anyio.Event()
            await self._wake.wait()

    def _made_room(self) -> None:
        room, self._room = self._room, anyio.Event()
        room.set()

    # -- reading

    async def _read(self) -> None:
        while True:
            frame = await self._channel.receive()
            match frame.tag, frame.body:
                case Tag.ANSWER, [int(number), answer]:
                    self._answered(number, answer, None)
                case Tag.FAILURE, [int(number), error]:
                    self._answered(number, None, from_wire(error))
                case Tag.REQUEST, [int(number), int(tag), body]:
                    self._begin(number, tag, body)
                case Tag.PING, _:
                    self.send(Tag.PONG, None)
                case Tag.PONG, _:
                    pass
                case Tag.GOODBYE, _:
                    told = from_wire(frame.body)
                    self.told_to_stop = isinstance(told, NamesakeError)
                    raise told if self.told_to_stop else ConnectionLostError(told.message)
                case ((Tag.ANSWER | Tag.FAILURE | Tag.REQUEST | Tag.HELLO | Tag.READY), _):
                    raise ProtocolError("The other side sent a malformed message.")
                case tag, body:
                    self._dispatcher.message(self, tag, body)

    def _answered(self, number: int, answer: Any, error: WormholeError | None) -> None:
        waiter = self._waiting.get(number)
        if waiter is not None and not waiter.event.is_set():
            waiter.answer, waiter.error = answer, error
            waiter.event.set()
        if self._retired:
            self._wake.set()

    def _begin(self, number: int, tag: int, body: object) -> None:
        if self._serving >= MAX_IN_FLIGHT[self.peer.lane]:
            self.send(Tag.FAILURE, [number, to_wire(UnreachableError("The pod has too many requests under way."))])
            return
        assert self._group is not None
        self._serving += 1
        self._group.start_soon(self._serve, number, tag, body)

    async def _serve(self, number: int, tag: int, body: object) -> None:
        try:
            try:
                answer = await self._dispatcher.serve(self.peer.pod, tag, body)
                frame = encode(Tag.ANSWER, [number, answer], self._kind)
            except WormholeError as error:
                frame = encode(Tag.FAILURE, [number, to_wire(error)], self._kind)
            except Exception:
                logger.exception("a request (tag %d) failed", tag)
                failure = WormholeError("The other pod failed to answer.", "Look into its log.")
                frame = encode(Tag.FAILURE, [number, to_wire(failure)], self._kind)
            await self._enqueue(frame)
        except ConnectionLostError:
            return
        finally:
            self._serving -= 1
            self._used_at = anyio.current_time()
            if self._retired:
                self._wake.set()

    # -- idleness

    async def _keep(self) -> None:
        """Ping a silent link, give up a dead one, close an unused bulk link."""
        while True:
            await beat.rest(PING_S)
            now = anyio.current_time()
            if self.silent_s() >= SILENT_S:
                raise ConnectionLostError("The other side fell silent.")
            if self._channel.received_bytes != self._seen_bytes:
                self._seen_bytes, self._seen_at = self._channel.received_bytes, now
            else:
                self.send(Tag.PING, None)
            patience_s = IDLE_S if self.dialled else 2 * IDLE_S
            idle = not self._waiting and not self._serving and now - self._used_at >= patience_s
            if self.peer.lane is Lane.BULK and idle:
                self._end(None)
