"""Answering other pods' requests for chunks: read in threads, a few at a time for each, verified before they leave.

A request is ``[content, piece, offset, length]``, its answer ``[size of the piece, bytes]``, or None when the piece
isn't here. The content is only a hint, so that damage found here can be repaired. A further ``False`` or ``True`` says
that nobody waits for it, as for a copy: under a limit everybody else goes first, and the answer may be True, "ask again".
With ``True`` a piece that is just coming is waited for, too. For many small contents of one chunk there is
``[[piece, ...], most bytes]``, see `batching`; nobody waits for them either.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import anyio

from base.errors import DamagedError, RefusedError
from base.ids import ChunkId, ContentId, PodId
from transfer.batching import MAX_BYTES, MAX_PIECES
from transfer.fetch import MAX_PART_BYTES
from transfer.pace import Pacer
from transfer.store import ChunkStore

MAX_RUNNING: Final = 4
MAX_WAITING: Final = 64
AHEAD: Final = 0
BEHIND: Final = 1
"""The urgency of what nobody waits for."""
MAX_WAIT_S: Final = 1.0
"""So long a piece that is coming is waited for, or a turn under a limit by who has time; then the asker is to ask again."""
LOOK_EVERY_S: Final = 0.25


class _Line:
    """One pod's requests."""

    def __init__(self) -> None:
        self.gates = anyio.Semaphore(MAX_RUNNING), anyio.Semaphore(MAX_RUNNING)
        """By urgency: what waits behind others must not fill the places of what doesn't."""
        self.count = 0


class ChunkServer:
    """Serves what is in the store."""

    def __init__(self, store: ChunkStore, on_damage: Callable[[ContentId, ChunkId], None], pace: Pacer) -> None:
        """``pace`` limits what goes out; then answers are shorter than asked for, so that each comes in time."""
        self._store = store
        self._pace = pace
        self._on_damage = on_damage
        self._lines: dict[PodId, _Line] = {}
        self.bytes_out = 0
        self.running = 0
        self.coming: Callable[[ContentId], bool | None] = lambda _: None
        """Tells whether a content is being fetched here: True when it gets on, False when it hardly does, None if not."""
        self._arrived = anyio.Event()

    def arrived(self) -> None:
        """Say that a piece which somebody may wait for is here."""
        arrived, self._arrived = self._arrived, anyio.Event()
        arrived.set()

    async def _until_here(self, content: ContentId, piece: ChunkId) -> bool:
        """Return once a piece has come; False when it goes on coming."""
        with anyio.move_on_after(MAX_WAIT_S):
            while not self._store.has(piece) and self.coming(content) is not None:
                with anyio.move_on_after(LOOK_EVERY_S):
                    await self._arrived.wait()
            return True
        return self._store.has(piece) or not self.coming(content)

    async def handle(self, sender: PodId, body: object) -> object:
        """Answer one request; raises `DamagedError` for a body that isn't one, `RefusedError` for too many."""
        answer: Callable[[], Awaitable[object]]
        urgency = BEHIND
        awaited: tuple[ContentId, ChunkId] | None = None
        match body:
            case [bytes(content), bytes(piece), int(offset), int(length), *more] if (
                len(content) == len(piece) == 32
                and offset >= 0
                and 0 < length <= MAX_PART_BYTES
                and more in ([], [False], [True])
            ):
                if more == [True]:
                    awaited = ContentId(content), ChunkId(piece)
                urgency = BEHIND if more else AHEAD
                answer = partial(self._answer, ContentId(content), ChunkId(piece), offset, length, urgency)
            case [list(pieces), int(most_bytes)] if (
                0 < len(pieces) <= MAX_PIECES
                and 0 < most_bytes <= MAX_BYTES
                and all(isinstance(piece, bytes) and len(piece) == 32 for piece in pieces)
            ):
                answer = partial(self._answer_many, [ChunkId(piece) for piece in pieces], most_bytes)
            case _:
                raise DamagedError("A pod sent a request for a chunk that can't be read.")
        line = self._lines.setdefault(sender, _Line())
        if line.count >= MAX_RUNNING + MAX_WAITING:
            raise RefusedError("This pod has too many requests of yours waiting.", "Ask again later.")
        line.count += 1
        try:
            if awaited is not None and not await self._until_here(*awaited):
                return True
            async with line.gates[urgency]:
                self.running += 1
                try:
                    return await answer()
                finally:
                    self.running -= 1
        finally:
            line.count -= 1
            if not line.count:
                self._lines.pop(sender, None)

    async def _turn(self, size: int, urgency: int) -> bool:
        """Wait until so many bytes may go out; tell whether they may: who has time asks again sooner than it gives up."""
        if urgency == AHEAD:
            await self._pace.turn(size)
            return True
        with anyio.move_on_after(MAX_WAIT_S):
            await self._pace.turn(size, urgency)
            return True
        return False

    async def _answer(self, content: ContentId, piece: ChunkId, offset: int, length: int, urgency: int) -> object:
        length = self._pace.piece_bytes(length)
        try:
            data = await self._store.read(piece, offset, length)
        except DamagedError:
            self._on_damage(content, piece)
            return None
        if data is None:
            return None
        size = len(data) if not offset and len(data) < length else self._store.size(piece)
        if size is None:
            return None
        if not await self._turn(len(data), urgency):
            return True
        self.bytes_out += len(data)
        return [size, data]

    async def _answer_many(self, pieces: Sequence[ChunkId], most_bytes: int) -> list[bytes | None]:
        """Return the pieces in order, None for each that isn't here or is too long, up to so many bytes in all."""
        answer: list[bytes | None] = []
        left = most_bytes
        at_once = self._pace.piece_bytes(most_bytes)
        for piece in pieces:
            try:
                data = await self._store.read(piece, 0, most_bytes + 1)
            except DamagedError:
                self._on_damage(ContentId(piece), piece)
                data = None
            if data is not None and len(data) > most_bytes:
                data = None
            if data is not None:
                if len(data) > left or (most_bytes - left and most_bytes - left + len(data) > at_once):
                    break
                left -= len(data)
            answer.append(data)
        if not await self._turn(most_bytes - left, BEHIND):
            return []
        self.bytes_out += most_bytes - left
        return answer
