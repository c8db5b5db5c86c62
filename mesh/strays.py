"""What happens when this pod turns out to be a copy: of a running one, or of an earlier state of itself."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from base.errors import DamagedError, NamesakeError
from mesh.introduction import RestoredError
from mesh.switchboard import Switchboard

logger = logging.getLogger(__name__)


async def _stay_away(_: RestoredError) -> None:
    raise DamagedError("This pod was restored from a backup and can't take a new writer.", "Join anew.")


class Strays:
    """See the module."""

    def __init__(self, switchboard: Callable[[], Switchboard], receiving: Callable[[], anyio.Lock]) -> None:
        """``receiving`` returns what keeps log entries from being received while it is held."""
        self._switchboard = switchboard
        self._receiving = receiving
        self.on_namesake: Callable[[NamesakeError], None] = lambda _: None
        """Called when another process with this pod's key is preferred by somebody: this one must stop."""
        self.on_restored: Callable[[RestoredError], Awaitable[None]] = _stay_away
        """Called when this pod turns out to be a restored one. No link is up before it returns; what it raises ends
        the mesh."""
        self.on_return: Callable[[], None] = lambda: None
        """Called when a restored pod may make links again."""
        self.group: TaskGroup | None = None
        self._returning = False

    def __call__(self, error: NamesakeError | RestoredError) -> None:
        """Take what a handshake or a link ended with."""
        if isinstance(error, NamesakeError):
            self.on_namesake(error)
        elif self.group is not None and not self._returning:  # several may prove it at once
            self._returning = True
            logger.warning("%s", error.message)
            self.group.start_soon(self._return, error)

    async def _return(self, error: RestoredError) -> None:
        """Come back as a restored pod: with all links ended, told nothing and telling nothing, until it is ready."""
        await self._switchboard().pause(error)
        async with self._receiving():
            await self.on_restored(error)
        self._returning = False
        self._switchboard().resume()
        self.on_return()
