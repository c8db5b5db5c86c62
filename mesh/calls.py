"""Requests to other pods: over which link, and who can be asked at all.

In a small cluster everybody is linked to everybody. In a large one a pod is linked to few (`mesh.view`); whoever else it
asks something is dialled for that, and the link ends when it hasn't been used for a while.
"""

from __future__ import annotations

from collections.abc import Callable

import anyio

from base.errors import UnreachableError
from base.ids import PodId
from mesh.api import Lane, State
from mesh.link import Link
from mesh.membership import Membership
from mesh.peers import LinkTable
from mesh.roster import Roster
from mesh.switchboard import Switchboard
from mesh.view import View
from mesh.wire import Tag


class Caller:
    """See the module."""

    def __init__(
        self,
        roster: Callable[[], Roster],
        table: LinkTable,
        membership: Membership,
        switchboard: Switchboard,
        view: View,
    ) -> None:
        self._roster = roster
        self._table = table
        self._membership = membership
        self._switchboard = switchboard
        self._view = view

    def near(self) -> frozenset[PodId]:
        """Return the linked pods that a request can be sent to now."""
        return frozenset(pod for pod in self._table.linked() if self._is_alive(pod))

    def alive(self) -> frozenset[PodId]:
        """Return all pods that a request can be sent to now."""
        near = self.near()
        return near if self._view.full else near.union(pod for pod in self._view.others() if self._address(pod))

    async def call(self, pod: PodId, tag: Tag, body: object, timeout_s: float, lane: Lane) -> object:
        """Send a request and return the answer's body; see `mesh.api.Mesh.call`."""
        started = anyio.current_time()
        link = await self._link(pod, lane, timeout_s)
        if link is None:
            raise self.unreachable(pod)
        return await link.request(tag, body, max(0.0, timeout_s - (anyio.current_time() - started)))

    async def _link(self, pod: PodId, lane: Lane, timeout_s: float) -> Link | None:
        link = self._table.control(pod)
        if link is None:
            address = "" if self._view.full else self._address(pod)
            return await self._switchboard.bulk(pod, timeout_s, address) if address else None
        if not (self._is_alive(pod) or self._roster().is_client(pod)):
            return None
        if lane is Lane.BULK:
            return await self._switchboard.bulk(pod, timeout_s) or link
        return link

    def _is_alive(self, pod: PodId) -> bool:
        return self._membership.state(pod) is State.ALIVE

    def _address(self, pod: PodId) -> str:
        """Return where a pod that seems alive, though it isn't linked, can be dialled; empty if nowhere."""
        return self._membership.address(pod) if self._is_alive(pod) else ""

    def unreachable(self, pod: PodId) -> UnreachableError:
        """Return what to say of a pod that can't be asked."""
        entry = self._roster().entry(pod)
        return UnreachableError(
            f"The pod {entry.name if entry else pod} can't be reached.", "Check that it is up and on the network."
        )
