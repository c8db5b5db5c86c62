"""What is done when something finds no room: something gives way, or goes to other pods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import Final

from base.ids import ContentId, PodId
from transfer.access import Access
from transfer.caching import Caching
from transfer.draft import Draft
from transfer.fetcher import Fetcher
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.releasing import Releasing

HAND_LEAST_BYTES: Final = 1 << 20
"""Of an open file at least so much is handed on to another pod at a time."""
HAND_TRIES: Final = 4


class Want(Enum):
    """What finds no room."""

    COPY = auto()
    """Of what another pod has."""
    WRITE = auto()
    """A program's."""


class MakingRoom:
    """The part of `Transfer` that sees to that."""

    _access: Access
    _caching: Caching
    _database: HoldingsDb
    _fetcher: Fetcher
    releasing: Releasing | None
    on_refused: Callable[[int], None] = staticmethod(lambda _: None)
    """Called with the bytes of a copy that found no room here."""

    def on_full(
        self,
        give_way: Callable[[], Awaitable[bool]],
        wait: Callable[[Want], Awaitable[bool]],
        hosts: Callable[[], Sequence[PodId]],
    ) -> None:
        """Have these called when something finds no room; they tell whether to try again.

        ``give_way`` frees what may go, ``wait`` waits until others have taken over something. ``hosts`` names the pods
        that may hold what a draft wrote, the one with the most room first.
        """

        async def for_a_copy() -> bool:
            return await give_way() or await wait(Want.COPY)

        async def for_a_draft() -> bool:
            return await give_way() or await self._hand_on() or await wait(Want.WRITE)

        self._access.find_room, self._access.make_room, self._access.handing.hosts = for_a_copy, for_a_draft, hosts

    async def _hand_on(self) -> bool:
        """Have another pod hold what an open file takes here, of the largest ones; tell whether that gave room."""
        drafts = {one: one.stored_bytes() for one in self._access.users if isinstance(one, Draft)}
        large = sorted((one for one in drafts if drafts[one] >= HAND_LEAST_BYTES), key=lambda one: -drafts[one])
        for draft in large[:HAND_TRIES]:
            if await draft.hand_on():
                return True
        return False

    def progress(self) -> object:
        """Return something that differs whenever bytes came in, were stored, or were taken over by another pod."""
        return self._fetcher.bytes_in, self._access.store.bytes_used, self._access.handing.bytes_handed

    def host_of(self, content: ContentId) -> PodId | None:
        """Return which other pod has what this one wrote and couldn't keep; None: it is here, or another pod's."""
        return self._access.handing.host_of(content)

    async def free(self) -> int:
        """Free what nothing refers to any more, as far as it may be freed; return by how many bytes the store shrank."""
        await self._caching.give_way()
        return await self.releasing.free() if self.releasing is not None else 0

    async def _refused(self, content: ContentId, size: int) -> None:
        """Let go of what arrived of a content that found no room, if others keep it, and say that there is none."""
        if (
            self.releasing is not None
            and Holding.KEPT in self._database.others(content).values()
            and self._database.own(content) is Holding.NONE
        ):
            await self.releasing.drop([content])
        self.on_refused(size)
