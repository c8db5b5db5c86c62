"""Where blocking work runs: in a few threads, or inline where time is virtual (simulation).

The loop thread answers the mount, so nothing runs there that may wait long for a disk. A simulation on virtual time can't
have threads, because its clock jumps while they work.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from base.brief import Brief

P = ParamSpec("P")
T = TypeVar("T")

INLINE_BYTES: Final = 128 * 1024
"""Hashing, reading or writing up to this much is cheaper than a thread hop of about 50 µs (docs: measured)."""


class Offload:
    """A bounded set of threads for disk and hashing."""

    def __init__(self, *, threads: bool = True, workers: int = 6) -> None:
        self._threads = threads
        self._workers = workers
        self._limiter: anyio.CapacityLimiter | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._brief = Brief(self.run)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``function`` off the loop thread and return its result; it is never abandoned half-way."""
        if not self._threads:
            await anyio.lowlevel.checkpoint()
            return function(*args, **kwargs)
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._workers)
        return await anyio.to_thread.run_sync(lambda: function(*args, **kwargs), limiter=self._limiter)

    async def briefly(self, work: Callable[[], None], *, prompt: bool) -> None:
        """Do what as a rule is brief, such as an fsync of little: see `Brief`."""
        if self._threads:
            await self._brief.run(work, prompt=prompt)
        else:
            await self.run(work)

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start ``function`` in a thread of a small pool and return at once."""
        if not self._threads:
            future: Future[T] = Future()
            try:
                future.set_result(function(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)
            return future
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="wormhole-put")
        return self._pool.submit(function, *args, **kwargs)

    async def result(self, future: Future[T]) -> T:
        """Wait for what `submit` started; raises what it raised."""
        if future.done():
            await anyio.lowlevel.checkpoint()
            return future.result()
        return await anyio.to_thread.run_sync(future.result)

    def close(self) -> None:
        """Wait for what is under way and end the pool."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
