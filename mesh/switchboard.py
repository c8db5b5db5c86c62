"""Makes and ends links: dials, greets, keeps one control link for each pair of pods and a few bulk links on demand.

What a link carries is the business of the dispatcher, and what its coming and going means that of the owner.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import anyio
from anyio.abc import TaskGroup

from base.errors import NamesakeError, RefusedError, UnreachableError, WormholeError
from base.ids import PodId
from mesh.address import format_address, is_own, parse_address
from mesh.api import Lane
from mesh.channel import Channel
from mesh.handshake import HANDSHAKE_S, Dial, Hello, Local, greet, new_process_id
from mesh.introduction import Chronicle, RestoredError
from mesh.link import Dispatcher, Link
from mesh.namesakes import steady_ms, turned_away
from mesh.peers import LinkTable
from mesh.quiet import QuietLog
from mesh.registry import Registry
from mesh.view import SPARED
from mesh.whereabouts import Whereabouts

CONNECT_S: Final = 3.0
FLUSH_S: Final = 1.0
BULK_RETRY_S: Final = 30.0
"""A pod that can't be dialled gets its bulk requests over the control link for so long."""
REDIAL_S: Final = 1.0
"""One that has no control link is dialled again after this."""

logger = logging.getLogger(__name__)


class Switchboard:
    """The links of one pod. `run_in` gives it the task group that links live in."""

    def __init__(
        self,
        me: PodId,
        whereabouts: Whereabouts,
        registry: Registry,
        table: LinkTable,
        dispatcher: Dispatcher,
        came: Callable[[Link], None],
        went: Callable[[PodId, bool], None],
        stray: Callable[[NamesakeError | RestoredError], None],
    ) -> None:
        """``came`` is called when a pod gets its first control link, ``went`` when it has none any more;
        that with whether one of both merely had links enough.

        ``stray``: another process goes by this pod's name, or this pod's home is a restored one.
        """
        self._me = me
        self._whereabouts = whereabouts
        self._registry = registry
        self._table = table
        self._dispatcher = dispatcher
        self._came = came
        self._went = went
        self._stray = stray
        self._started_ms = steady_ms()
        self.chronicle: Chronicle | None = None
        """What is told of the pod's starts when links are made; None: nothing."""
        self.paused = False
        """Whether no links are made."""
        self._process = new_process_id()
        self._dials = 0
        self._opening: set[PodId] = set()
        self._opened: dict[PodId, anyio.Event] = {}
        self._bulk_retry_at: dict[PodId, float] = {}
        self._running: set[Link] = set()
        """The links of either lane, whoever opened them, from addresses that were this machine's when they came."""
        self._group: TaskGroup | None = None
        self._quiet = QuietLog(logger, anyio.current_time)
        self.reached: dict[PodId, str] = {}
        """``HOST:PORT`` under which each pod was last reached, or by which it reached us."""

    def run_in(self, group: TaskGroup | None) -> None:
        """Let links live in a task group; None: make no more links."""
        self._group = group

    async def accept(self, channel: Channel) -> None:
        """Greet whoever connected with a certificate."""
        await self._adopt(channel, None)

    async def dial_control(self, host: str, port: int) -> PodId:
        """Open a control link and return the pod that answered. Raises as `mesh.handshake.greet`."""
        return await self._dial(host, port, Lane.CONTROL, None)

    async def bulk(self, pod: PodId, timeout_s: float, address: str = "") -> Link | None:
        """Return a bulk link to a pod, opened if need be; None when it can't be dialled.

        ``address``: ``HOST:PORT`` where to dial it; empty: where it was last reached.
        """
        best, more = self._table.bulk(pod)
        if more and self._group is not None and anyio.current_time() >= self._bulk_retry_at.get(pod, 0.0):
            if pod not in self._opening:
                self._opening.add(pod)
                self._opened[pod] = anyio.Event()
                self._group.start_soon(self._open_bulk, pod, address)
            if best is None:
                with anyio.move_on_after(timeout_s):
                    await self._opened[pod].wait()
                best, _ = self._table.bulk(pod)
        return best

    async def cut_off(self, link: Link) -> None:
        """Close the link to an evicted pod, at once but for what tells it why."""
        with anyio.move_on_after(FLUSH_S):
            await link.flushed()
        link.close(RefusedError("This pod was evicted from the cluster.", "Join it anew from another home."))

    async def pause(self, reason: WormholeError) -> None:
        """End all links at once, and make none until `resume`; returns when they are gone."""
        self.paused, links = True, self._table.all()
        for link in links:
            link.close(reason)
        for link in links:
            await link.closed.wait()

    def resume(self) -> None:
        """Make links again."""
        self.paused = False

    def leave_lost_addresses(self) -> None:
        """End the links from addresses that this machine has no more: no answer arrives there, and none says so."""
        for link in self._running:
            if not is_own(link.peer.local_host):
                link.close(UnreachableError("This machine has another address now."))

    async def flush(self) -> None:
        """Return when what was said to everybody is on its way, after a second at the latest."""
        with anyio.move_on_after(FLUSH_S):
            for pod in self._table.linked():
                link = self._table.control(pod)
                if link is not None:
                    await link.flushed()

    async def _dial(self, host: str, port: int, lane: Lane, expected: PodId | None) -> PodId:
        where = format_address(host, port)
        try:
            with anyio.fail_after(CONNECT_S):
                stream = await anyio.connect_tcp(host, port)
            with anyio.fail_after(HANDSHAKE_S):
                channel = await Channel.open(stream, self._registry.client_context, server_side=False)
        except (OSError, TimeoutError) as error:
            raise UnreachableError(f"No pod answers at {where}.", "Check that it is up.") from error
        self._dials += 1
        pod = await self._adopt(channel, Dial(lane, self._dials, expected))
        self.reached[pod] = where
        return pod

    async def _adopt(self, channel: Channel, dial: Dial | None) -> PodId:
        """Do the handshake over a new connection and start the link; on any failure the connection is closed."""

        async def learn(records: list[bytes], sender: PodId) -> None:
            await self._registry.learn(records, sender)

        try:
            if self.paused:
                raise UnreachableError("This pod makes no links at the moment.")
            age_ms = steady_ms() - self._started_ms
            peer = await greet(
                channel,
                Local(
                    *(self._me, self._process, self._whereabouts.port, self._registry.roster),
                    *(learn, age_ms, self.chronicle, self._turned_away),
                ),
                dial,
            )
            if self._group is None or self.paused:
                raise UnreachableError("This pod is stopping.")
        except BaseException as error:
            if isinstance(error, NamesakeError | RestoredError):
                self._stray(error)
            await channel.close()
            raise
        link = Link(channel, peer, self._dispatcher, dialled=dial is not None)
        self._insert(link)
        self._group.start_soon(self._carry, link)
        return peer.pod

    async def _turned_away(self, newcomer: Hello) -> NamesakeError | None:
        mine = self._registry.roster.entry(self._me)
        witness = self._me if mine is None else mine.name
        return await turned_away(self._table.control(newcomer.pod), newcomer.process, newcomer.age_ms, witness)

    def _insert(self, link: Link) -> None:
        """Put a link into the table, where a pod may have two control links for a moment."""
        pod = link.peer.pod
        old = self._table.control(pod)
        loser = self._table.add(link)
        if loser is not None:
            loser.retire()
        if link.peer.lane is Lane.BULK or loser is link:
            return
        self._whereabouts.linked_at(link.peer.local_host)
        self._bulk_retry_at.pop(pod, None)
        if not link.dialled:
            self.reached[pod] = format_address(link.peer.host, link.peer.port)
        if old is not None and old.peer.process != link.peer.process:
            self._went(pod, False)
            old = None
        if old is None:
            self._came(link)

    async def _carry(self, link: Link) -> None:
        if is_own(link.peer.local_host):
            self._running.add(link)
        try:
            await link.run()
        finally:
            self._running.discard(link)
            if self._table.remove(link):
                self._went(link.peer.pod, link.error is not None and link.error.message == SPARED)
            if link.told_to_stop and isinstance(link.error, NamesakeError):
                self._stray(link.error)
            if link.error is not None:
                # A client's coming and going is no event for others.
                level = logging.DEBUG if self._registry.roster.is_client(link.peer.pod) else logging.INFO
                logger.log(level, "the link to %s ended: %s", link.peer.pod, link.error.message)

    async def _open_bulk(self, pod: PodId, address: str) -> None:
        try:
            await self._dial(*parse_address(address or self.reached.get(pod, "")), Lane.BULK, pod)
        except WormholeError as error:
            linked = self._table.control(pod) is not None
            self._bulk_retry_at[pod] = anyio.current_time() + (BULK_RETRY_S if linked else REDIAL_S)
            if not self._registry.roster.is_client(pod):
                self._quiet.warning(f"bulk {pod}", f"no bulk link to {pod}: {error.message}")
        finally:
            self._opening.discard(pod)
            self._opened[pod].set()
