"""The last small writes of an open file: fsync writes them down as they are instead of sealing the whole content.

They stand on a *base*: a content that is on this pod's disk for good, either the one that the file showed when the
draft was begun or the one that was journalled last. Base and writes, in order, make the file. As soon as that can't be
said any more (something else happened, or too much was written) there is no base, until the next journalled content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from base.ids import ContentId

WAITING_LIMIT: Final = 64
WAITING_BYTES: Final = 64 * 1024
"""Most writes, and bytes of them, that are remembered between two calls of fsync, of one file."""
WRITTEN_BYTES: Final = 1 << 20
"""After so many bytes written down the whole content is sealed and journalled again."""


class RecentWrites:
    """What was written on top of a base, of one file."""

    __slots__ = ("_bytes", "_written_bytes", "base", "waiting")

    def __init__(self) -> None:
        self.base: tuple[ContentId, int] | None = None
        """Content and size; None: what is written can't be told as writes on top of something."""
        self.waiting: list[tuple[int, bytes]] = []
        """(offset, bytes), not yet written down."""
        self._bytes = 0
        self._written_bytes = 0

    def start(self, content: ContentId, size: int) -> None:
        """Begin anew on top of a content."""
        self.stop()
        self.base = content, size

    def stop(self) -> None:
        """Remember nothing until the next `start`."""
        self.base = None
        self.waiting = []
        self._bytes = self._written_bytes = 0

    def wrote(self, offset: int, data: bytes) -> None:
        """Note a write."""
        if self.base is None:
            return
        self._bytes += len(data)
        if len(self.waiting) >= WAITING_LIMIT or self._bytes > WAITING_BYTES:
            self.stop()
        else:
            self.waiting.append((offset, data))

    def take(self) -> list[tuple[int, bytes]] | None:
        """Return what is to be written down now; None when the whole content has to be."""
        if self.base is None or self._written_bytes + self._bytes > WRITTEN_BYTES:
            return None
        taken, self.waiting = self.waiting, []
        self._written_bytes += self._bytes
        self._bytes = 0
        return taken
