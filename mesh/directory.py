"""The members of the cluster as this pod sees them, and where they were found, kept for the next start."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping

import anyio

from base.errors import MachineError, WormholeError
from base.ids import PodId
from mesh.address import parse_address
from mesh.api import Member, Role, State
from mesh.membership import Membership
from mesh.roster_store import RosterStore, Seen

logger = logging.getLogger(__name__)


class Directory:
    """See the module."""

    def __init__(
        self,
        me: PodId,
        store: RosterStore,
        membership: Membership,
        reached: Mapping[PodId, str],
        is_linked: Callable[[PodId], bool],
    ) -> None:
        """``reached``: where each pod was last reached, kept up to date by whoever makes links."""
        self._is_linked = is_linked
        self._last_linked: dict[PodId, float] = {}
        """Client pods → when they were last seen to be linked (seconds since the epoch)."""
        self._me = me
        self._store = store
        self._membership = membership
        self._reached = reached
        self._seen = store.remembered()

    def members(self, own_address: str) -> list[Member]:
        """Return all pods ever admitted, sorted by name; this pod is among them."""
        found = [self._member(pod, own_address) for pod in self._store.roster.pods()]
        return sorted(found, key=lambda member: (member.name, member.pod))

    def _member(self, pod: PodId, own_address: str) -> Member:
        entry = self._store.roster.pods()[pod]
        view = self._membership.view(pod)
        seen = self._seen.get(pod)
        last_seen = seen.last_seen if seen else None
        if view.last_seen is not None:
            last_seen = time.time() - (anyio.current_time() - view.last_seen)
        address = view.address or self._reached.get(pod, "") or (seen.address if seen else "")
        state = view.state
        announced = view.announced
        if pod == self._me:
            address, last_seen = own_address, time.time()
        elif entry.role is Role.CLIENT:  # nobody's membership has it: it is there for those who are linked to it
            linked = self._is_linked(pod)
            state, announced = (State.ALIVE, False) if linked else (State.ABSENT, True)
            if linked:
                self._last_linked[pod] = time.time()
            last_seen = self._last_linked.get(pod, last_seen)
        if self._store.roster.is_maintained(pod):
            state, announced = State.MAINTENANCE, announced or state is not State.ALIVE
        if entry.left:
            state = State.LEFT
        if entry.revoked:
            state = State.EVICTED
        return Member(
            pod,
            entry.name,
            entry.role,
            state,
            address,
            view.latency_ms,
            last_seen,
            view.meta,
            announced or entry.left or entry.revoked,
        )

    def remembered(self) -> Iterator[tuple[str, int, PodId]]:
        """Yield where pods were found in earlier runs: host, port and pod."""
        for pod, seen in self._seen.items():
            try:
                yield *parse_address(seen.address), pod
            except WormholeError:
                continue

    async def remember(self, own_address: str) -> None:
        """Keep where pods were reached, for the next start; without that they are found again otherwise."""
        found: list[tuple[PodId, Seen]] = []
        for member in self.members(own_address):
            address = self._reached.get(member.pod) or member.address
            if member.pod != self._me and address and member.last_seen is not None:
                found.append((member.pod, Seen(address, member.last_seen)))
        try:
            await anyio.to_thread.run_sync(self._store.remember, found)
        except MachineError as error:
            logger.warning("addresses of other pods weren't kept: %s", error.message)
