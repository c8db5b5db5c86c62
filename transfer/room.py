"""Whether there is room for one more piece: within the configured limit, and never into the last of the disk.

Asking the file system costs a system call, so it is asked again only when what was written since exceeds a quarter of
the room that was left, or after a second: the nearer the limit, the oftener.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Final

import anyio

from base.errors import NoSpaceError

CHECK_SHARE: Final = 4
CHECK_S: Final = 1.0
RESERVE_BYTES: Final = 16 << 20
RESERVE_SHARE: Final = 4
"""The databases keep this room on the disk, or a quarter of a small disk, whatever the limit says: their write-ahead
logs grow to 15 MiB together (measured), and a pod whose metadata can't be written has to end."""


FOLDERS_BYTES: Final = 2 << 20
"""Folders take up to so much, and an entry each piece (`ENTRY_SHARE` of it); of a small limit not more than a part."""
ENTRY_SHARE: Final = 512
FOLDERS_SHARE: Final = 16

NEWS_BYTES: Final = 256 << 10
NEWS_SHARE: Final = 8
"""Others are told at once when what is stored has changed by an eighth of the room that is left."""


class RoomCheck:
    """Decides for one store; called from any thread."""

    def __init__(self, root: str, limit_bytes: int | None, full_share: float | None) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        self._full_share = full_share
        self._lock = threading.Lock()
        self._left_bytes = 0
        self._written_bytes = 0
        self._checked_at = float("-inf")

    def set_limits(self, limit_bytes: int | None, full_share: float | None) -> None:
        """Take over other limits."""
        with self._lock:
            self._limit_bytes, self._full_share = limit_bytes, full_share
            self._checked_at = float("-inf")

    def check(self, used_bytes: int, more_bytes: int, waiting_bytes: int = 0) -> None:
        """Return when ``more_bytes`` may be written to a store of ``used_bytes``. Raises `NoSpaceError`.

        ``waiting_bytes`` of those used are in memory still: the disk doesn't know of them.
        """
        limit = self._limit_bytes
        if limit is not None and used_bytes + more_bytes + folders_bytes(used_bytes, limit) > limit:
            raise NoSpaceError("This pod's store is full.", "Raise storage.limit in pod.toml, or free some space.")
        with self._lock:
            now = time.monotonic()
            written = self._written_bytes + more_bytes
            if written * CHECK_SHARE <= self._left_bytes and now - self._checked_at < CHECK_S:
                self._written_bytes = written
                return
            self._left_bytes = self._room_left() - waiting_bytes
            self._written_bytes, self._checked_at = more_bytes, now
            if more_bytes <= self._left_bytes:
                return
            self._left_bytes = 0
        if self._full_share is None:
            raise NoSpaceError("The disk of this pod's store is full.", "Free some space on it.")
        raise NoSpaceError(
            f"The disk of this pod's store is {self._full_share:.0%} full.",
            "Free some space on it, or raise storage.limit in pod.toml.",
        )

    def left_bytes(self, used_bytes: int) -> int:
        """Return about how much room was left when it was looked at last; costs nothing."""
        left = max(0, self._left_bytes - self._written_bytes)
        limit = self._limit_bytes
        return left if limit is None else min(left, max(0, limit - used_bytes - folders_bytes(used_bytes, limit)))

    def _room_left(self) -> int:
        found = os.statvfs(self._root)
        size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
        reserve = min(RESERVE_BYTES, size // RESERVE_SHARE)
        if self._full_share is not None:
            reserve = max(reserve, int(size * (1 - self._full_share)))
        return free - reserve


class RoomNews:
    """Says when a store has got so much fuller, or emptier, that others are to know. For the loop thread."""

    def __init__(self) -> None:
        self._told_bytes = 0
        self._changed = anyio.Event()

    def look(self, used_bytes: int, left_bytes: int) -> None:
        """Note how much is stored now, and how much more could be."""
        if abs(used_bytes - self._told_bytes) > max(NEWS_BYTES, left_bytes // NEWS_SHARE):
            self._told_bytes = used_bytes
            self._changed.set()
            self._changed = anyio.Event()

    async def changed(self) -> None:
        """Return when that happens the next time."""
        await self._changed.wait()


def folders_bytes(used_bytes: int, limit: int) -> int:
    """Return how much of a limit is kept free for folders beside pieces of so many bytes."""
    return min(FOLDERS_BYTES, limit // FOLDERS_SHARE) + used_bytes // ENTRY_SHARE
