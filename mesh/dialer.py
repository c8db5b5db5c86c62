"""Dials the addresses at which pods of the cluster may be, again and again with growing pauses.

Candidates come from the configuration, mDNS, gossip and what is remembered of earlier runs. A candidate is left
alone while the pod behind it is linked.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from random import Random
from typing import Final

import anyio

from base import beat
from base.errors import RefusedError, WormholeError
from base.ids import PodId
from mesh.address import format_address
from mesh.handshake import SelfDialledError
from mesh.quiet import QuietLog

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 5.0
REFUSED_PAUSE_S: Final = 20.0
MAX_CANDIDATES: Final = 16_384
MAX_AT_ONCE: Final = 32


class Source(Enum):
    """Where an address was learnt."""

    CONFIGURED = "configured"
    MDNS = "mdns"
    GOSSIP = "gossip"
    REMEMBERED = "remembered"


@dataclass(slots=True)
class Candidate:
    """An address worth dialling."""

    host: str
    port: int
    pod: PodId | None
    sources: set[Source] = field(default_factory=set)
    failures: int = 0
    due_at: float = 0.0
    busy: bool = False


class Dialer:
    """Keeps dialling what isn't linked. ``connect`` returns the pod that it linked to."""

    def __init__(
        self,
        me: PodId,
        connect: Callable[[str, int], Awaitable[PodId]],
        linked: Callable[[PodId], bool],
        welcome: Callable[[PodId], bool],
        rng: Random,
    ) -> None:
        """``linked`` tells whether a pod needs no dialling, ``welcome`` whether it is a member at all."""
        self._me = me
        self._connect = connect
        self._linked = linked
        self._welcome = welcome
        self._rng = rng
        self._candidates: dict[tuple[str, int], Candidate] = {}
        self._wake = anyio.Event()
        self._quiet = QuietLog(logging.getLogger(__name__), anyio.current_time)

    def add(self, host: str, port: int, pod: PodId | None, source: Source) -> None:
        """Add an address, or say again that it is worth trying now."""
        candidate = self._candidates.get((host, port))
        if candidate is None:
            if len(self._candidates) >= MAX_CANDIDATES or port == 0:
                return
            candidate = self._candidates[host, port] = Candidate(host, port, pod)
        elif source in (Source.MDNS, Source.GOSSIP):
            candidate.failures = 0
            candidate.due_at = min(candidate.due_at, anyio.current_time() + FIRST_PAUSE_S)
        if pod is not None:
            candidate.pod = pod
        candidate.sources.add(source)
        if candidate.pod is None or not self._linked(candidate.pod):
            self._wake.set()

    def remove(self, host: str, port: int, source: Source) -> None:
        """Take back that a source knows an address; with no source left it is forgotten."""
        candidate = self._candidates.get((host, port))
        if candidate is not None:
            candidate.sources.discard(source)
            if not candidate.sources:
                del self._candidates[host, port]

    def lost(self, pod: PodId) -> None:
        """Say that a pod isn't linked and should be: its addresses are tried soon."""
        now = anyio.current_time()
        for candidate in self._candidates.values():
            if candidate.pod == pod:
                candidate.failures = 0
                candidate.due_at = now + self._rng.uniform(0, FIRST_PAUSE_S)
        self._wake.set()

    def hurry(self) -> None:
        """Try all addresses now."""
        for candidate in self._candidates.values():
            candidate.failures, candidate.due_at = 0, anyio.current_time()
        self._wake.set()

    async def run(self) -> None:
        """Dial until cancelled."""
        async with anyio.create_task_group() as group:
            while True:
                now = anyio.current_time()
                for candidate in self._due(now):
                    candidate.busy = True
                    group.start_soon(self._attempt, candidate)
                next_at = min(
                    (each.due_at for each in self._candidates.values() if not each.busy and each.due_at > now),
                    default=beat.after(now, LONGEST_PAUSE_S),
                )
                self._wake = anyio.Event()
                with anyio.move_on_at(max(now + 0.05, next_at)):
                    await self._wake.wait()

    def _due(self, now: float) -> list[Candidate]:
        under_way = [candidate for candidate in self._candidates.values() if candidate.busy]
        busy_pods = {candidate.pod for candidate in under_way if candidate.pod is not None}
        due: list[Candidate] = []
        for candidate in self._candidates.values():
            if candidate.busy or candidate.due_at > now or len(due) + len(under_way) >= MAX_AT_ONCE:
                continue
            pod = candidate.pod
            if pod is not None:
                if pod == self._me or pod in busy_pods or self._linked(pod) or not self._welcome(pod):
                    continue
                busy_pods.add(pod)
            due.append(candidate)
        return due

    async def _attempt(self, candidate: Candidate) -> None:
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**candidate.failures)
        where = format_address(candidate.host, candidate.port)
        try:
            candidate.pod = await self._connect(candidate.host, candidate.port)
            candidate.failures = 0
        except SelfDialledError:
            candidate.pod = self._me
        except WormholeError as error:
            candidate.failures = min(candidate.failures + 1, 16)
            if isinstance(error, RefusedError):
                pause_s = REFUSED_PAUSE_S
            if candidate.failures > 1 or isinstance(error, RefusedError):
                self._quiet.warning(where, f"no link to {where}: {error.message}")
        finally:
            candidate.busy = False
            candidate.due_at = anyio.current_time() + pause_s * self._rng.uniform(0.75, 1.25)
            self._wake.set()
