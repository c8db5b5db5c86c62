"""How long a call on the mount may wait: as long as something comes of it, and a deadline without that.

What waits for other pods ends once for the deadline nothing came in and nothing was stored. What waits for this
machine's disk ends after `DISK_S`: a disk that takes longer is as good as broken. Threads that are in the middle of
a system call can't be taken back from it; their call ends with it.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from base.errors import FileSystemError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

LOOKS: Final = 8
"""How often in a deadline progress is looked for."""

DISK_S: Final = 60.0
"""The longest wait for the local disk (s)."""


class Patience:
    """Bounds waits. ``progress()`` returns something that differs whenever bytes came in or were stored."""

    def __init__(self, deadline_s: float, progress: Callable[[], object]) -> None:
        self.deadline_s = deadline_s
        """May be set at any time; a wait under way goes by it, too."""
        self._progress = progress
        self._waits: dict[anyio.CancelScope, tuple[object, float]] = {}
        """What is being waited for, with the progress and the time (s) when something was last seen to move."""
        self._begun = anyio.Event()

    async def network(self, wait: Coroutine[Any, Any, T]) -> T:
        """Wait for something that may need other pods. Raises `UnreachableError`, and what the wait raises."""
        with anyio.CancelScope() as scope:
            self._waits[scope] = self._progress(), anyio.current_time()
            self._begun.set()
            try:
                return await wait
            finally:
                del self._waits[scope]
        raise UnreachableError(f"Bytes of a file didn't arrive within {self.deadline_s:g} s.")

    async def watch(self) -> None:
        """End waits in which nothing has moved for the deadline, until cancelled."""
        while True:
            while not self._waits:
                self._begun = anyio.Event()
                await self._begun.wait()
            await anyio.sleep(self.deadline_s / LOOKS)
            now, moved = anyio.current_time(), self._progress()
            for scope, (seen, since) in list(self._waits.items()):
                if moved != seen:
                    self._waits[scope] = moved, now
                elif now - since >= self.deadline_s:
                    scope.cancel()

    async def disk(self, wait: Coroutine[Any, Any, T]) -> T:
        """Wait for the local disk. Raises `FileSystemError` (EIO), and what the wait raises."""
        with anyio.move_on_after(DISK_S):
            return await wait
        raise FileSystemError(errno.EIO, f"The disk of this pod didn't answer within {DISK_S:g} s.")
