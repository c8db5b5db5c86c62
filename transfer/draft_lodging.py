"""The part of a draft that another pod holds for it, because there is no room here (`lodging`)."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Final

from base.errors import WormholeError
from base.ids import ChunkId, ContentId, PodId
from transfer.chunking import chunk_length, is_single
from transfer.draft_bytes import DraftBytes
from transfer.ledger import Seal
from transfer.lodging_terms import DRAFT_ID_BYTES, MAX_PIECES, Piece
from transfer.manifest import MAX_MANIFEST_BYTES

HAND_BYTES: Final = 32 << 20
"""So much is handed on at a time: whoever writes waits for it."""
PORTION_BYTES: Final = 4 << 20
"""About so much in a message: each is answered before a call on the mount counts as stuck, on a slow network, too."""


class DraftLodging(DraftBytes):
    """Hands on what is stored here of a draft, and knows where it is then."""

    _seal: Seal | None
    host: PodId | None = None
    _name: bytes = b""

    def lodged_id(self) -> bytes:
        """Return the name under which it is known to its host."""
        if not self._name:
            self._name = os.urandom(DRAFT_ID_BYTES)
        return self._name

    def stored_bytes(self) -> int:
        """Return about how many bytes `hand_on` would free."""
        return sum(size for _, size in self._here())

    def _here(self) -> list[Piece]:
        """Return the stored pieces that only this draft needs."""
        own = self._owner.pieces if self._seal is None else self._owner.pieces | self._seal.pieces
        found = {stored.piece: stored.length for stored in self._chunks if stored is not None and stored.piece in own}
        return [(piece, size) for piece, size in found.items() if piece not in self._away]

    async def hand_on(self) -> bool:
        """Have another pod hold what is stored here, and let go of it; tell whether that gave room."""
        async with self._lock:
            pieces, size = self._here(), 0
            some: list[Piece] = []
            for piece in pieces:
                if size >= HAND_BYTES:
                    break
                some.append(piece)
                size += piece[1]
            before = len(self._away)
            try:
                await self._hand(some)
            except WormholeError:
                if len(self._away) == before:
                    return False
            await self._access.claims.collect()
            return len(self._away) > before

    async def _hand(self, pieces: Collection[Piece]) -> None:
        """Hand pieces on; raises as `Handing.hand`, some of them may have gone then."""
        some: list[Piece] = []
        for number, piece in enumerate(pieces, start=1):
            some.append(piece)
            if number < len(pieces) and len(some) < MAX_PIECES and sum(size for _, size in some) < PORTION_BYTES:
                continue
            await self._access.handing.hand(self, some)
            self._gone({piece for piece, _ in some})
            some = []

    def _gone(self, pieces: set[ChunkId]) -> None:
        """Note that the host has pieces on its disk: they needn't be here."""
        assert self.host is not None
        self._away |= dict.fromkeys(pieces, self.host)
        self._access.claims.let_go(self._owner, pieces & self._owner.pieces)
        if self._seal is not None:
            self._access.claims.let_go(self._seal, pieces & self._seal.pieces)

    async def _hand_all(self, content: ContentId, size: int, chunks: Sequence[ChunkId]) -> bool:
        """Hand on the rest of what was sealed, if the host has a part of it; tell whether it has all of it then.

        Raises as `Handing.hand`: nothing is lost, and the content isn't to be published.
        """
        if self._away.keys().isdisjoint(chunks):
            return False
        lengths = {piece: chunk_length(index, size, self._chunk_bytes) for index, piece in enumerate(chunks)}
        if not is_single(size):
            lengths[ChunkId(content)] = MAX_MANIFEST_BYTES
        rest = [(piece, length) for piece, length in lengths.items() if piece not in self._away]
        await self._hand(rest[:-1])
        await self._access.handing.hand(self, rest[-1:], (content, size))
        self._gone({piece for piece, _ in rest[-1:]})
        return True
