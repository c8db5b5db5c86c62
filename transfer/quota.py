"""How much the cluster holds in all, and whether it may be more: `cluster.storage_limit`.

It counts the bytes of files, each once however many copies it has. What is being written counts from the write on, so
that whoever writes past the limit is told at once, and not when the file is closed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Final

from base.errors import FileSystemError
from base.ids import ContentId

NO_FILES: Final = 0


class Quota:
    """Counts what open files add. For the loop thread."""

    def __init__(self) -> None:
        self.limit_bytes: int | None = None
        self.tree_bytes: Callable[[], int] = lambda: NO_FILES
        """The bytes of all files of the tree."""
        self._growth: dict[object, int] = {}
        """Draft → by how many bytes it is larger than what the tree shows."""
        self._sealed: dict[ContentId, object] = {}
        self._contents: dict[object, ContentId] = {}
        self._sum = 0

    def used(self) -> int:
        """Return the bytes of all files, with what is being written here."""
        return self.tree_bytes() + self._sum

    def grow(self, draft: object, growth: int) -> None:
        """Note by how many bytes a draft adds to the tree. Raises ENOSPC when it adds more than before, past the limit."""
        before = self._growth.get(draft, 0)
        growth = max(0, growth)
        if growth == before or (self.limit_bytes is None and not self._growth):
            return
        if self.limit_bytes is not None and growth > before and self.used() - before + growth > self.limit_bytes:
            raise FileSystemError(errno.ENOSPC)
        self._sum += growth - before
        self._growth[draft] = growth

    def sealed(self, draft: object, content: ContentId) -> None:
        """Note which content a draft will be in the tree."""
        if draft in self._growth:
            self._unseal(draft)
            if (other := self._sealed.get(content)) is not None:
                self.done(other)  # the same bytes twice: counted once
            self._sealed[content] = draft
            self._contents[draft] = content

    def published(self, content: ContentId) -> None:
        """Note that the tree has a content: what its draft added counts there now."""
        if self._sealed:
            draft = self._sealed.get(content)
            if draft is not None:
                self.done(draft)

    def done(self, draft: object) -> None:
        """Forget a draft: it was published, or given up."""
        self._sum -= self._growth.pop(draft, 0)
        self._unseal(draft)

    def _unseal(self, draft: object) -> None:
        content = self._contents.pop(draft, None)
        if content is not None:
            del self._sealed[content]
