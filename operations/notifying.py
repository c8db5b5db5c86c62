"""`disconnected.notify`: a command of the owner's that is run when the pod is cut off, rejoins, or the situation changes.

The command is what the owner wrote into pod.toml, run by `/bin/sh -c` as it stands there. What it is told never becomes part
of it: it comes on stdin (the reason) and in the environment, so nobody else's words (names of pods, say) are run.

    WORMHOLE_EVENT       ``cut-off``, ``rejoined`` or ``situation``
    WORMHOLE_SITUATION   ``favourable``, ``degraded`` or ``critical``
    WORMHOLE_REASON      why, in one sentence
    WORMHOLE_REACTION    what this pod does about it, separated by commas; empty: nothing
    WORMHOLE_CLUSTER, WORMHOLE_POD, WORMHOLE_MOUNT, WORMHOLE_HOME

One at a time, each for `LIMIT_S` at most, with all that it started; of more than `WAITING` events the oldest are dropped.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import anyio

LIMIT_S: Final = 30.0
WAITING: Final = 8
TOLD_BYTES: Final = 500
"""Of what the command says so much is logged."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """One event."""

    event: str
    situation: str
    reason: str
    reaction: str


def environment_of(notice: Notice, about: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a command gets for a notice, besides its own environment."""
    told = {"EVENT": notice.event, "SITUATION": notice.situation, "REASON": notice.reason, "REACTION": notice.reaction}
    return {f"WORMHOLE_{name}": value.replace("\0", "") for name, value in (told | dict(about)).items()}


class Notifying:
    """Runs the command; see the module."""

    def __init__(self, command: Callable[[], str], about: Callable[[], Mapping[str, str]]) -> None:
        """``about`` returns what else the command is told: names without ``WORMHOLE_``."""
        self._command = command
        self._about = about
        self._waiting: deque[Notice] = deque(maxlen=WAITING)
        self._come = anyio.Event()

    def tell(self, notice: Notice) -> None:
        """Have the command run soon. Never waits."""
        self._waiting.append(notice)
        self._come.set()

    async def run(self) -> None:
        """Run commands until cancelled."""
        while True:
            await self._come.wait()
            self._come = anyio.Event()
            while self._waiting:
                notice = self._waiting.popleft()
                if command := self._command():
                    await self._run(command, notice)

    async def _run(self, command: str, notice: Notice) -> None:
        try:
            process = await anyio.open_process(
                ["/bin/sh", "-c", command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**os.environ, **environment_of(notice, self._about())},
                start_new_session=True,
            )
        except OSError as error:
            logger.warning("disconnected.notify can't be run: %s", error)
            return
        said = bytearray()
        try:
            with anyio.move_on_after(LIMIT_S) as scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(_listen, process, said)
                    if process.stdin is not None:
                        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                            await process.stdin.send(notice.reason.encode("utf-8", "surrogateescape") + b"\n")
                        await process.stdin.aclose()
                    await process.wait()
                    group.cancel_scope.cancel()
        finally:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            with anyio.CancelScope(shield=True):
                await process.aclose()
        if scope.cancelled_caught:
            logger.warning("disconnected.notify was ended after %g s", LIMIT_S)
        elif process.returncode:
            text = said.decode(errors="replace").strip()
            logger.warning("disconnected.notify ended with %d: %s", process.returncode, text)


async def _listen(process: anyio.abc.Process, said: bytearray) -> None:
    if process.stderr is not None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
            while True:
                said += (await process.stderr.receive())[: TOLD_BYTES - len(said)]
