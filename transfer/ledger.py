"""Which stored pieces only drafts need, and which drafts. Pure; the store keeps it under its lock.

A piece is listed from the moment a draft writes it for the first time. It leaves the list for good when anything else
needs it: a content was published, or something else than a draft stored or claimed the same bytes. What is on the
list and has no owner any more is *free*: it may be removed. What isn't on the list is never removed by this way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from base.ids import ChunkId, ContentId


class Owner:
    """Somebody who needs pieces that drafts wrote: a draft, or (`Seal`) a sealed content."""

    def __init__(self) -> None:
        self.pieces: set[ChunkId] = set()
        """What it needs, as far as the ledger listed it."""
        self.closed = False
        """Whether it is gone: what is still written for it is free at once."""


class Seal(Owner):
    """The pieces that drafts wrote for one sealed content that isn't published."""

    def __init__(self, content: ContentId, *, single: bool = False) -> None:
        super().__init__()
        self.content = content
        self.single = single
        """Whether it consists of one piece."""


class Ledger:
    """Listed pieces with their owners."""

    def __init__(self) -> None:
        self._owners: dict[ChunkId, set[Owner]] = {}
        self._free: set[ChunkId] = set()

    def __len__(self) -> int:
        return len(self._owners)

    def needed(self, piece: ChunkId, owner: Owner | None, *, new: bool) -> None:
        """Note who stored or claimed a piece (None: somebody who isn't a draft); ``new``: it wasn't here before."""
        if owner is None:
            self.settle([piece])
        elif new or piece in self._owners:
            self._owners.setdefault(piece, set()).add(owner)
            owner.pieces.add(piece)
            self._free.discard(piece)
            if owner.closed:
                self.let_go(owner, [piece])

    def share(self, pieces: Iterable[ChunkId], owner: Owner) -> None:
        """Add an owner to those of the pieces that are listed."""
        for piece in pieces:
            self.needed(piece, owner, new=False)

    def settle(self, pieces: Iterable[ChunkId]) -> None:
        """Strike pieces from the list: something else needs them."""
        for piece in pieces:
            if self._owners.pop(piece, None) is not None:
                self._free.discard(piece)

    def let_go(self, owner: Owner, pieces: Iterable[ChunkId]) -> None:
        """Note that an owner needs pieces no more."""
        for piece in list(pieces):
            owner.pieces.discard(piece)
            owners = self._owners.get(piece)
            if owners is not None:
                owners.discard(owner)
                if not owners:
                    self._free.add(piece)

    def free(self, in_use: Collection[ChunkId] = ()) -> list[ChunkId]:
        """Return the pieces that nobody needs, but for those in use."""
        return [piece for piece in self._free if piece not in in_use]

    @property
    def has_free(self) -> bool:
        """Whether there are pieces that nobody needs."""
        return bool(self._free)

    def is_free(self, piece: ChunkId) -> bool:
        """Tell whether a piece is listed and nobody needs it."""
        return piece in self._free
