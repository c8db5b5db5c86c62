"""Which links this pod keeps: runs the core that decides (`mesh.view`), has pods dialled and links ended."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from random import Random

import anyio

from base.errors import RefusedError, UsageError
from base.ids import PodId
from mesh.address import parse_address
from mesh.dialer import Dialer, Source
from mesh.membership import Membership
from mesh.peers import LinkTable
from mesh.quiet import QuietLog
from mesh.roster import Roster
from mesh.view import SPARED, View

logger = logging.getLogger(__name__)


class Neighbours:
    """See the module. ``dialer`` is to be run by the owner."""

    def __init__(
        self,
        me: PodId,
        roster: Callable[[], Roster],
        table: LinkTable,
        membership: Membership,
        connect: Callable[[str, int], Awaitable[PodId]],
        rng: Random,
    ) -> None:
        """``connect`` opens a control link to an address and returns the pod that answered."""
        self._me = me
        self._roster = roster
        self._table = table
        self._membership = membership
        self.view = View(me, rng)
        self._quiet = QuietLog(logger, anyio.current_time)
        self._peers: set[tuple[str, int]] = set()
        self.dialer = Dialer(me, connect, self._is_settled, self._is_welcome, rng)

    def set_peers(self, peers: Iterable[str]) -> None:
        """Look for pods at these addresses, ``HOST:PORT``, instead of those given before. Raises `UsageError`."""
        wanted = {parse_address(address) for address in peers}
        for gone in self._peers - wanted:
            self.dialer.remove(*gone, Source.CONFIGURED)
        for new in wanted - self._peers:
            self.dialer.add(*new, None, Source.CONFIGURED)
        self._peers = wanted

    def set_members(self, pods: Iterable[PodId]) -> None:
        """Take over which full pods belong to the cluster."""
        self.view.set_members(pods)

    def gossiped(self, pod: PodId) -> None:
        """Look for a pod where it says that it is."""
        address = self._membership.address(pod)
        if address:
            try:
                self.dialer.add(*parse_address(address), pod, Source.GOSSIP)
            except UsageError:
                self._quiet.warning(pod, f"{pod} gossips an address that is none")

    def tick(self, now: float) -> None:
        """In a large cluster dial whom the view wants, and end a link that both ends can spare."""
        census = self._membership.census
        fresh, spare = self.view.tick(now, census.is_up, census.missing, census.degree)
        for pod in fresh:
            self.dialer.lost(pod)
        for pod in spare:
            link = self._table.control(pod)
            if link is not None:
                link.close(RefusedError(SPARED))

    def _is_settled(self, pod: PodId) -> bool:
        """Tell whether a pod needs no dialling: it is linked, or the view can do without it."""
        return self._table.control(pod) is not None or not self.view.wants(pod)

    def _is_welcome(self, pod: PodId) -> bool:
        """Tell whether dialling a pod makes sense; an unknown one may be a member that isn't known yet. Clients dial."""
        roster = self._roster()
        entry, mine = roster.entry(pod), roster.entry(self._me)
        if entry is None or mine is None:
            return mine is not None
        return not (entry.revoked or entry.left or mine.revoked or mine.left or roster.is_client(pod))
