"""Many small contents in one request: each alone would cost a round trip and several turns of the loop.

A request is ``[[piece, ...], most bytes]``, its answer a list with the bytes of each piece in the same order, None for
one that isn't here; it ends early before a piece that would exceed ``most bytes``, and may be empty.
A pod that doesn't know this form refuses it; then its pieces are asked for one by one.

What a batch doesn't bring, for whatever reason, is left to `fetcher`, which knows about other pods and deadlines.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import anyio

from base.errors import DamagedError, UnreachableError, WormholeError
from base.ids import ChunkId, PodId, hash_bytes
from mesh.api import Lane, Mesh
from mesh.wire import Tag
from transfer.fetch import Candidates
from transfer.fetcher import CALL_LEAST_S, Fetcher, Urgency, Wanted

log = logging.getLogger(__name__)

SMALL_BYTES: Final = 64 << 10
"""Largest piece that is asked for in a batch."""
MAX_PIECES: Final = 128
MAX_BYTES: Final = 1 << 20
"""Most bytes in one answer."""
BATCHES: Final = 2
"""Requests under way at a time: what one brings is stored while the next is on its way."""


class Batches:
    """Asks for small pieces, many at a time."""

    def __init__(
        self, mesh: Mesh, fetcher: Fetcher, deadline_s: float, candidates: Callable[[Wanted, Urgency], Candidates]
    ) -> None:
        self._mesh = mesh
        self._fetcher = fetcher
        self.deadline_s = deadline_s
        self._candidates = candidates
        self.gate = anyio.Semaphore(BATCHES)
        """Held by whoever gathers and fetches a batch."""
        self.plain: set[PodId] = set()
        """Pods that don't understand such requests."""

    async def fetch(self, wanted: Sequence[Wanted]) -> dict[ChunkId, bytes]:
        """Return what the best pods sent of these pieces, verified; pieces that aren't in it may be had otherwise."""
        found: dict[ChunkId, bytes] = {}
        for pod, pieces in self._by_pod(wanted).items():
            try:
                for some in self._portions(pieces):
                    await self._ask(pod, some, found)
            except DamagedError as error:
                log.info("%s isn't asked for batches: %s", pod, error)
                self.plain.add(pod)
            except UnreachableError:
                self._fetcher.sources.failed(pod, anyio.current_time())
            except WormholeError as error:
                log.debug("a batch wasn't had from %s: %s", pod, error)
        return found

    def _by_pod(self, wanted: Sequence[Wanted]) -> dict[PodId, list[Wanted]]:
        now, sources = anyio.current_time(), self._fetcher.sources
        chosen: dict[PodId, list[Wanted]] = {}
        for each in wanted:
            candidates = self._candidates(each, Urgency.BACKGROUND)
            pods = sources.order(candidates.holders - self.plain, each.max_bytes, now, candidates.avoid)
            if pods:
                chosen.setdefault(pods[0], []).append(each)
        return chosen

    def _portions(self, wanted: Sequence[Wanted]) -> Iterator[Sequence[Wanted]]:
        """Cut a batch into what may be asked for at a time, within this pod's limits."""
        paces = self._fetcher.paces
        most = paces.repair.piece_bytes(paces.down.piece_bytes(MAX_BYTES))
        portion, size = list[Wanted](), 0
        for each in wanted:
            if portion and size + each.max_bytes > most:
                yield portion
                portion, size = [], 0
            portion.append(each)
            size += each.max_bytes
        yield portion

    async def _turn(self, wanted: Sequence[Wanted]) -> None:
        """Wait until these may be fetched."""
        paces, is_repair = self._fetcher.paces, self._fetcher.is_repair
        repaired = sum(each.max_bytes for each in wanted if is_repair(each.content)) if paces.repair.rate else 0
        if repaired:
            await paces.repair.turn(repaired)
        await paces.down.turn(sum(each.max_bytes for each in wanted), Urgency.BACKGROUND)

    async def _ask(self, pod: PodId, wanted: Sequence[Wanted], found: dict[ChunkId, bytes]) -> None:
        sources, expected = self._fetcher.sources, sum(each.max_bytes for each in wanted)
        await self._turn(wanted)
        body = [[each.piece for each in wanted], MAX_BYTES]
        started_at = anyio.current_time()
        sources.started(pod, expected)
        try:
            timeout_s = max(CALL_LEAST_S, self.deadline_s)
            answer = await self._mesh.call(pod, Tag.CHUNK_GET, body, timeout_s=timeout_s, lane=Lane.BULK)
            if not isinstance(answer, list) or len(answer) > len(wanted):
                raise DamagedError("A pod sent an answer that isn't a batch of chunks.")
            if not answer:  # others go first there
                sources.seen(pod, anyio.current_time())
                return
            got = 0
            for each, data in zip(wanted, answer, strict=False):
                if isinstance(data, bytes) and len(data) <= each.max_bytes and hash_bytes(data) == each.piece:
                    found[each.piece] = data
                    got += len(data)
            self._fetcher.bytes_in += got
            now = anyio.current_time()
            sources.answered(pod, got, now - started_at, now)
        finally:
            sources.ended(pod, expected)
