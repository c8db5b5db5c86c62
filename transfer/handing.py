"""The writer's side of `lodging`: whom to ask to hold what a draft wrote, and saying what of it is still needed."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from base.errors import DamagedError, UnreachableError, WormholeError
from base.ids import ContentId, PodId
from mesh.api import Lane, Mesh
from mesh.wire import Tag
from transfer.api import Memory
from transfer.claims import Claims
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.lodging_terms import ASKED, DRAFT_ID_BYTES, MAX_CONTENTS, Piece

log = logging.getLogger(__name__)

TRIED: Final = 3
"""Pods that are asked to be host of a draft."""
HAND_S: Final = 60.0
"""A host that hasn't got what it is to hold after so long isn't waited for."""
MAX_REMEMBERED: Final = 10_000


class Lodger(Protocol):
    """A draft that other pods may hold a part of."""

    host: PodId | None

    def lodged_id(self) -> bytes:
        """Return the name under which it is known to its host."""
        ...


class Handing:
    """See the module. For the loop thread."""

    def __init__(self) -> None:
        self._mesh: Mesh | None = None
        self.hosts: Callable[[], Sequence[PodId]] = tuple
        """Who may be asked, the one with the most room first."""
        self.bytes_handed = 0
        self._open: set[bytes] = set()
        """Drafts of which somebody may hold a part."""
        self._elsewhere: OrderedDict[ContentId, PodId] = OrderedDict()
        self._needs: Callable[[Collection[ContentId]], Collection[ContentId]] = lambda contents: contents

    def connect(self, mesh: Mesh, claims: Claims, memory: Memory, database: HoldingsDb) -> None:
        """Reach others by ``mesh``; the rest tells what is needed still."""

        def is_kept(content: ContentId) -> bool:
            return Holding.KEPT in (*database.others(content).values(), database.own(content))

        def needs(contents: Collection[ContentId]) -> Collection[ContentId]:
            unpublished = {*claims.contents(), *(content for content, _ in memory.journalled())}
            return [one for one in contents if one in unpublished or (memory.refers(one) and not is_kept(one))]

        self._mesh, self._needs = mesh, needs
        mesh.handle(Tag.LODGE_ASK, self._answer)

    def host_of(self, content: ContentId) -> PodId | None:
        """Return who holds what this pod wrote and couldn't keep; None: it is here."""
        return self._elsewhere.get(content)

    def done(self, draft: Lodger) -> None:
        """Note that a draft is gone. One that refused, or didn't answer in time, may hold a part of it, too."""
        if self._open:
            self._open.discard(draft.lodged_id())

    async def hand(self, draft: Lodger, pieces: Sequence[Piece], sealed: tuple[ContentId, int] | None = None) -> None:
        """Return once a draft's host has pieces on its disk, with ``sealed`` all of that content.

        Raises `UnreachableError` when nobody takes them, and what its host answers.
        """
        if self._mesh is None:
            raise UnreachableError("This pod isn't connected yet.")
        name = draft.lodged_id()
        self._open.add(name)
        body = [name, [list(piece) for piece in pieces], *(sealed or ())]
        hosts = [draft.host] if draft.host is not None else list(self.hosts())[:TRIED]
        failure: WormholeError = UnreachableError("No other pod has room for what is being written.")
        for host in hosts:
            try:
                await self._mesh.call(host, Tag.LODGE, body, timeout_s=HAND_S, lane=Lane.BULK)
            except WormholeError as error:
                log.info("%s doesn't take what is being written here: %s", host, error)
                failure = error
                continue
            draft.host = host
            self.bytes_handed += sum(size for _, size in pieces)
            if sealed is not None:
                self._elsewhere[sealed[0]] = host
                if len(self._elsewhere) > MAX_REMEMBERED:
                    self._elsewhere.popitem(last=False)
            return
        raise failure

    async def _answer(self, _sender: PodId, body: object) -> object:
        if not isinstance(body, list) or len(body) > ASKED:
            raise DamagedError("A pod asked what is needed in a way that can't be read.")
        asked: list[tuple[bytes, set[ContentId]]] = []
        for row in body:
            match row:
                case [bytes(draft), list(contents)] if len(draft) == DRAFT_ID_BYTES and len(contents) <= MAX_CONTENTS:
                    if not all(isinstance(one, bytes) and len(one) == 32 for one in contents):
                        raise DamagedError("A pod asked what is needed in a way that can't be read.")
                    asked.append((draft, {ContentId(one) for one in contents}))
                case _:
                    raise DamagedError("A pod asked what is needed in a way that can't be read.")
        needed = self._needs(frozenset().union(*(contents for _, contents in asked)))
        return [draft in self._open or not contents.isdisjoint(needed) for draft, contents in asked]
