"""Holding for other pods, durably, what they wrote of files that aren't closed yet and have no room for (R26).

    writer: a draft finds no room --LODGE--> host: in the books (durable), fetched, verified, synced --yes--> writer lets go
    writer: sealed --LODGE, with the content--> host: all of it is here --yes--> writer publishes the record
    host: the tree names the content --> kept here, as what a pod wrote itself; until then nothing collects the pieces

A host asks now and then whether what it holds is still needed. Only the writer's "no" ends that, or its end as a member;
`handing` is the writer's side. Who restarts in between knows it all again: the host from its books, the writer from its
journal and the tree.

Must never: say yes before books and pieces are on the disk; let go of what the writer may still publish, or of what the
tree names and nobody keeps.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

import anyio

from base import beat
from base.errors import RefusedError, WormholeError
from base.ids import ChunkId, ContentId, PodId
from mesh.api import Mesh, State
from mesh.wire import Tag
from transfer.access import Access
from transfer.api import Memory
from transfer.fetcher import Urgency, Wanted
from transfer.gather import is_whole_kept
from transfer.holdings import Holding
from transfer.holdings_db import HoldingsDb
from transfer.lodging_terms import ASKED, MAX_CONTENTS, Request, parse_request
from transfer.pieces import Area

log = logging.getLogger(__name__)

ASK_EVERY_S: Final = 10.0
ASK_S: Final = 10.0
MAX_LODGED: Final = 1 << 18
"""Pieces held for others in all."""
AT_ONCE: Final = 4
"""Messages answered at the same time, and pieces fetched for each."""
GONE: Final = frozenset({State.LEFT, State.EVICTED})


class Lodging:
    """The host's side. For the loop thread."""

    def __init__(
        self,
        mesh: Mesh,
        access: Access,
        database: HoldingsDb,
        memory: Memory,
        free: Callable[[Collection[ChunkId]], Awaitable[None]],
        keep: Callable[[ContentId], None],
    ) -> None:
        """``free`` lets go of those pieces that nothing else needs; ``keep`` has a content kept on this pod."""
        self._mesh = mesh
        self._access = access
        self._database = database
        self._memory = memory
        self._free = free
        self._keep = keep
        self.says_no = False
        """Set while this pod is handing over what it keeps."""
        self._gate = anyio.Semaphore(AT_ONCE)
        self._sealed: set[ContentId] = {content for one in database.lodgers() for content in one.contents}
        mesh.handle(Tag.LODGE, self._answer)

    @property
    def guests(self) -> int:
        """Files that others are writing and that this pod holds a part of."""
        return len(self._database.lodgers())

    # -- taking in

    async def _answer(self, sender: PodId, body: object) -> object:
        request = parse_request(body)
        if not self._access.settings.keeps:
            raise RefusedError("A client pod keeps nothing for others.")
        if self.says_no:
            raise RefusedError("This pod is leaving.")
        async with self._gate:
            await self._take_in(sender, request)
        return True

    async def _take_in(self, sender: PodId, request: Request) -> None:
        """Return once the pieces are here for good. Raises `NoSpaceError`, `UnreachableError`, `RefusedError` ..."""
        pieces, sealed = request.pieces, request.sealed
        await self._database.lodge(
            sender,
            request.draft,
            [piece for piece, _ in pieces],
            None if sealed is None else sealed[0],
            most_pieces=MAX_LODGED,
            most_contents=MAX_CONTENTS,
        )
        store = self._access.store
        missing = [each for each in pieces if not store.claim(each[0], Area.KEPT)]
        failures: list[WormholeError] = []

        async def fetch() -> None:
            while missing and not failures:
                piece, size = missing.pop()
                try:
                    wanted = Wanted(ContentId(piece), piece, size, sender)
                    await self._access.chunk(wanted, Urgency.BACKGROUND, Area.KEPT)
                except WormholeError as error:
                    failures.append(error)

        async with anyio.create_task_group() as group:
            for _ in range(min(AT_ONCE, len(missing))):
                group.start_soon(fetch)
        if failures:
            raise failures[0]
        if sealed is not None:
            self._sealed.add(sealed[0])
            manifest = self._access.manifest_now(*sealed)
            if manifest is None or not is_whole_kept(store, sealed[0], manifest):
                raise RefusedError("A part of the file isn't on this pod.")
        await store.sync()
        if not all(store.has(piece) for piece, _ in pieces):
            raise RefusedError("A part of the file isn't on this pod.")
        if sealed is not None:
            self.noticed([sealed[0]])

    def noticed(self, contents: Collection[ContentId]) -> None:
        """Have kept what the tree refers to now and nobody else keeps."""
        for content in self._sealed.intersection(contents):
            if self._memory.refers(content) and not self._is_kept(content):
                self._keep(content)

    def _is_kept(self, content: ContentId) -> bool:
        kept = (*self._database.others(content).values(), self._database.own(content))
        return Holding.KEPT in kept

    # -- letting go

    async def run(self) -> None:
        """Ask whether what is here for others is still needed, until cancelled."""
        self.noticed(tuple(self._sealed))
        while True:
            await beat.rest(ASK_EVERY_S)
            try:
                await self.look()
            except WormholeError as error:
                log.warning("what is held for others can't be let go: %s", error)

    async def look(self) -> None:
        """Ask once, and let go of what isn't needed."""
        by_pod: dict[PodId, list[bytes]] = {}
        contents: dict[bytes, Sequence[ContentId]] = {}
        for one in self._database.lodgers():
            by_pod.setdefault(one.pod, []).append(one.draft)
            contents[one.draft] = one.contents
        gone = {member.pod for member in self._mesh.members() if member.state in GONE}
        for pod, drafts in by_pod.items():
            if pod in gone or pod == self._mesh.pod_id:
                done = [draft for draft in drafts if not any(map(self._must_stay, contents[draft]))]
            elif pod in self._mesh.alive():
                done = await self._ask(pod, drafts, contents)
            else:
                continue
            for draft in done:
                await self._let_go(draft, contents[draft])

    def _must_stay(self, content: ContentId) -> bool:
        return self._memory.refers(content) and not self._is_kept(content)

    async def _ask(
        self, pod: PodId, drafts: Sequence[bytes], contents: dict[bytes, Sequence[ContentId]]
    ) -> list[bytes]:
        """Return the drafts of which a pod needs nothing any more."""
        done: list[bytes] = []
        for start in range(0, len(drafts), ASKED):
            some = drafts[start : start + ASKED]
            body = [[draft, list(contents[draft])] for draft in some]
            try:
                answer = await self._mesh.call(pod, Tag.LODGE_ASK, body, timeout_s=ASK_S)
            except WormholeError as error:
                log.debug("%s doesn't say what it needs: %s", pod, error)
                return done
            if isinstance(answer, list) and len(answer) == len(some):
                done += [draft for draft, needed in zip(some, answer, strict=True) if needed is False]
        return done

    async def _let_go(self, draft: bytes, contents: Sequence[ContentId]) -> None:
        pieces = await self._database.unlodge(draft)
        self._sealed.difference_update(contents)
        await self._free(pieces)
