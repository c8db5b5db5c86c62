"""A lock that is made at its first use: most files are written and closed without anybody waiting for anybody."""

from __future__ import annotations

from types import TracebackType

import anyio


class LazyLock:
    """An `anyio.Lock` for ``async with``; making one costs more than writing a small file."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: anyio.Lock | None = None

    def locked(self) -> bool:
        """Tell whether somebody has it."""
        return self._lock is not None and self._lock.locked()

    async def __aenter__(self) -> None:
        if self._lock is None:
            self._lock = anyio.Lock(fast_acquire=True)
        await self._lock.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()
