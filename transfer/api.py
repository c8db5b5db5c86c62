"""What the byte store needs to be told, and what it tells. Types only."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from base.ids import ContentId, PodId


@dataclass(frozen=True, slots=True)
class ContentInfo:
    """A content that the tree refers to, with what the configuration wants for it."""

    content: ContentId
    size: int
    """Bytes of the file."""
    author: PodId
    """The pod that published it: it holds the bytes even before its holdings are known."""
    copies: int
    """Kept copies wanted (the greatest over all paths that show it), before the number of full pods limits it."""
    cache: bool
    """Whether pods may cache it."""
    keep: bool
    """Whether this pod must always hold it."""
    born_s: float = math.inf
    """When it was written, in seconds since the epoch; infinite: not known."""
    is_shown: bool = True
    """Whether a file shows it; copies that only the trash has stay where they are."""
    configured: int = 0
    """Kept copies that the configuration wants, where a reaction has fewer made; 0: those of ``copies``."""


class Catalogue(Protocol):
    """The live contents of the tree; implemented in the composition root over ``crdt_meta`` and ``policies``."""

    def info(self, content: ContentId) -> ContentInfo | None:
        """Return what is wanted for a content, or None when nothing refers to it any more."""
        ...

    def page(self, after: ContentId | None, limit: int) -> Sequence[ContentInfo]:
        """Return live contents in the order of their ids, from the one behind ``after`` on."""
        ...

    def place(self, info: ContentInfo) -> Sequence[PodId]:
        """Return the pods that should keep the content, the most wanted first, at most ``info.copies``."""
        ...

    def is_behind(self) -> bool:
        """Tell whether this pod is catching up with what others know of the tree."""
        ...


@runtime_checkable
class Memory(Protocol):
    """What the metadata remember beyond what files show; a `Catalogue` that has it, too, lets the store be tidied.

    Without it nothing that was ever sealed is removed.
    """

    def contents(self, after: ContentId | None, limit: int) -> Sequence[tuple[ContentId, int]]:
        """Return (content, bytes) of all contents that the tree refers to, hidden ones included, ordered by id."""
        ...

    def large_contents(self, after: ContentId | None, limit: int) -> Sequence[tuple[ContentId, int]]:
        """Return those of `contents` that have more than one chunk, ordered by id; quick where they are few."""
        ...

    def refers(self, content: ContentId) -> bool:
        """Tell whether the tree refers to a content, shown or hidden."""
        ...

    def journalled(self) -> Sequence[tuple[ContentId, int]]:
        """Return (content, bytes) of the contents that fsync wrote down and that aren't published."""
        ...

    async def settled_journal(self) -> Collection[ContentId] | None:
        """Return what is journalled once everything before the call is on the disk; None when that can't be told."""
        ...


@dataclass(frozen=True, slots=True)
class Holders:
    """Who has every chunk of a content, as far as this pod knows (itself included)."""

    kept: frozenset[PodId]
    cached: frozenset[PodId]
    absent: frozenset[PodId]
    """Pods that had it (kept or cached) when last heard of and can't be reached now; in neither of the others."""
