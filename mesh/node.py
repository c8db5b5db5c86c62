"""The mesh of one running pod: puts listener, dialer, links, roster and the pure cores together.

The cores decide; this shell carries their messages, tells them the time a few times a second, and turns what
they know into `mesh.api.Mesh`. Everything here runs on one event loop: code between two awaits is atomic.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from random import Random
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup, TaskStatus

from base import beat
from base.errors import MachineError, RefusedError
from base.ids import ClusterId, PodId, WriterId
from mesh import listener as door
from mesh.api import Entry, Handler, Lane, Member, ReplicatedLog, State
from mesh.cables import Cables
from mesh.calls import Caller
from mesh.dialer import Source
from mesh.diary import Diary
from mesh.directory import Directory
from mesh.identity import Identity
from mesh.introduction import Chronicle
from mesh.join_stream import JoinHandler
from mesh.link import Link
from mesh.membership import TICK_S, Membership, MembershipSettings
from mesh.neighbours import Neighbours
from mesh.peers import LinkTable
from mesh.quiet import QuietLog
from mesh.records import Left, seal
from mesh.registry import Registry
from mesh.roster import Roster
from mesh.roster_store import RosterStore
from mesh.send import Send
from mesh.spread import Spreader
from mesh.strays import Strays
from mesh.switchboard import Switchboard
from mesh.timekeeper import Timekeeper
from mesh.whereabouts import Whereabouts
from mesh.wire import Tag

_ADDRESS_S: Final = 8.0
"""The machine's own addresses are looked at so often, besides whenever a link came or the kernel told of a change."""
RESTING_TICK_S: Final = 5.0
"""Between two ticks at the most (s); what is `due` is known."""

INCARNATIONS_PER_START: Final = 1 << 20
"""Room for refutations: an incarnation of a later start is greater than all of an earlier one."""

logger = logging.getLogger(__name__)


class MeshNode:
    """Implements `mesh.api.Mesh`."""

    def __init__(
        self,
        identity: Identity,
        roster_store: RosterStore,
        *,
        listen: str,
        advertise: Sequence[str] = (),
        peers: Sequence[str] = (),
        log: ReplicatedLog | None = None,
        settings: MembershipSettings | None = None,
        rng: Random | None = None,
    ) -> None:
        """Addresses are ``HOST:PORT``. Raises `UsageError` for a malformed one.

        Blocks for an fsync: a start is counted before anybody hears of it.
        """
        self._identity = identity
        self._me = identity.pod_id
        self._rng = rng or Random(os.urandom(16))
        self._whereabouts = Whereabouts(listen)
        self._table = LinkTable(self._me)
        self._ticked = 0.0
        self._waiting = anyio.CancelScope()
        self._registry = Registry(identity, roster_store, self._tell, self._table.linked, self._roster_changed)
        roster_store.on_added = self._plan_tick
        incarnation = roster_store.count_start() * INCARNATIONS_PER_START
        self._membership = Membership(self._me, settings or MembershipSettings(), self._rng, incarnation)
        self._leaf = roster_store.roster.is_client(self._me)
        self._spreader = Spreader(self._me, self._rng, self._run, self._ask, self._plan_tick, leaf=self._leaf)
        self.strays = Strays(lambda: self._switchboard, self._spreader.still)
        self._switchboard = Switchboard(
            *(self._me, self._whereabouts, self._registry, self._table, self),
            *(self._link_came, self._link_went, self.strays),
        )
        self._neighbours = Neighbours(
            *(self._me, lambda: self.roster, self._table, self._membership),
            *(self._switchboard.dial_control, self._rng),
        )
        self._view, self._dialer = self._neighbours.view, self._neighbours.dialer
        self.strays.on_return = self._dialer.hurry
        self._caller = Caller(lambda: self.roster, self._table, self._membership, self._switchboard, self._view)
        self.clocks = Timekeeper(self._ask, self._caller.near)
        self._directory = Directory(
            *(self._me, roster_store, self._membership),
            *(self._switchboard.reached, lambda pod: self._table.control(pod) is not None),
        )
        self._diary = Diary(self._me, roster_store.roster)
        self._door = door.Listener(
            lambda: self._registry.server_context, lambda: self._registry.certificate, self._switchboard.accept
        )
        self._handlers: dict[int, Handler] = {
            Tag.LOG_SINCE: self._spreader.serve_since,
            Tag.CLOCK: self.clocks.serve,
        }
        self._listeners: list[Callable[[], None]] = []
        self._group: TaskGroup | None = None
        self._quiet = QuietLog(logger, anyio.current_time)
        self.set_addresses(advertise, peers)
        if log is not None:
            self.set_log(log)

    # -- what mesh.api.Mesh promises

    @property
    def pod_id(self) -> PodId:
        """This pod."""
        return self._me

    @property
    def cluster_id(self) -> ClusterId:
        """The cluster that it belongs to."""
        return self.roster.cluster_id

    def members(self) -> list[Member]:
        """Return all pods ever admitted, sorted by name; this pod is among them."""
        return self._directory.members(self.address)

    def alive(self) -> frozenset[PodId]:
        """Return the pods that a request can be sent to now, without this one."""
        return self._caller.alive()

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` (quick, must not raise) after any change of `members` or `alive`."""
        self._listeners.append(listener)

    def is_behind(self) -> bool:
        """Tell whether a linked pod is known to have log entries that are missing here."""
        return self._spreader.is_behind()

    def publish_meta(self, values: Mapping[str, object]) -> None:
        """Gossip small values about this pod (replaces earlier ones). Raises `UsageError` above 1 KiB packed."""
        self._membership.set_meta(values)
        self._settle()

    def handle(self, tag: Tag, handler: Handler) -> None:
        """Register the one handler of a request tag; before `run`."""
        if tag in self._handlers:
            raise ValueError(f"{tag.name} has a handler already")
        self._handlers[tag] = handler

    async def call(
        self, pod: PodId, tag: Tag, body: object, *, timeout_s: float = 10.0, lane: Lane = Lane.CONTROL
    ) -> object:
        """Send a request and return the answer's body; see `mesh.api.Mesh.call`."""
        if pod == self._me:
            return await self.serve(pod, tag, body)
        return await self._caller.call(pod, tag, body, timeout_s, lane)

    def publish_log(self, entries: Sequence[Entry]) -> None:
        """Broadcast new durable entries of this pod's own log to everybody."""
        self._spreader.publish(entries)

    # -- what the composition root needs besides

    @property
    def roster(self) -> Roster:
        """Who belongs to the cluster."""
        return self._registry.roster

    @property
    def port(self) -> int:
        """The port listened on, resolved once `run` has reported its start."""
        return self._whereabouts.port

    @property
    def address(self) -> str:
        """``HOST:PORT`` under which others are told to find this pod."""
        return self._whereabouts.address

    def set_log(self, log: ReplicatedLog) -> None:
        """Set the log that is replicated."""
        self._spreader.set_log(log)

    def set_absent_after(self, absent_after_s: float) -> None:
        """Count a pod as absent when it hasn't answered for so long."""
        self._membership.set_absent_after(absent_after_s, anyio.current_time())
        self._settle()

    def set_addresses(self, advertise: Sequence[str], peers: Sequence[str]) -> None:
        """Tell others to find this pod at the first of ``advertise`` (none: where it is), and look for pods at ``peers``.

        Links that are up stay. Raises `UsageError` for a malformed address.
        """
        self._whereabouts.advertise(advertise)
        self._neighbours.set_peers(peers)
        if self._group is not None:
            self._membership.set_address(self.address)
            self._settle()

    def set_chronicle(self, chronicle: Chronicle) -> None:
        """Set what is told of this pod's starts whenever a link is made; before `run`."""
        self._switchboard.chronicle = chronicle

    def clock_agrees(self) -> bool:
        """Tell whether this pod's clock may be trusted where something expires.

        It must be near the median of those of the linked pods. Linked with nobody it isn't trusted, except by a pod
        that is alone in its cluster.
        """
        others = self.roster.pods().keys() - {self._me}
        full = (pod for pod in others if not self.roster.is_client(pod))
        return self.clocks.agrees() or not any(self.roster.is_member(pod) for pod in full)

    def set_join_handler(self, handler: JoinHandler | None) -> None:
        """Set who talks to joiners; None: nobody is admitted here."""
        self._door.join_handler = handler

    def add_candidate(self, host: str, port: int, pod: PodId | None) -> None:
        """Say that a pod of this cluster may answer at an address (found by mDNS)."""
        self._dialer.add(host, port, pod, Source.MDNS)

    def remove_candidate(self, host: str, port: int) -> None:
        """Take back `add_candidate`."""
        self._dialer.remove(host, port, Source.MDNS)

    async def learn(self, records: Iterable[bytes]) -> list[bytes]:
        """Add signed records: durable, told to everybody linked and in effect when it returns; return the new ones.

        Records added to the store directly are noticed and told within a fraction of a second, too.
        """
        try:
            return await self._registry.learn(records, None)
        finally:
            self._plan_tick()

    def receiving(self) -> anyio.Lock:
        """Return what keeps log entries from being received while it is held."""
        return self._spreader.still()

    async def fetch_log(self, pod: PodId, writer: WriterId, upto: int) -> bool:
        """Fetch a writer's log entries from a linked pod; tell whether they are here up to ``upto`` then.

        Raises `UnreachableError`.
        """
        return await self._spreader.fetch(pod, writer, upto)

    async def caught_up(self) -> None:
        """Return once a pod has told what it has of the log and nothing of that is missing here."""
        await self._spreader.caught_up()

    async def announce_down(self) -> None:
        """Tell all that this pod stops on purpose; returns when that was sent."""
        self._run(self._membership.announce_down(anyio.current_time()))
        await self._switchboard.flush()

    async def announce_leave(self) -> None:
        """Record and tell all that this pod leaves the cluster for good."""
        record = seal(Left(time.time_ns()), self.cluster_id, self._me, self._identity.sign)
        await self._registry.learn([record], None)
        self._run(self._membership.announce_left(anyio.current_time()))
        await self._switchboard.flush()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; reports its start when it listens. Raises `MachineError` when it can't."""
        listeners = await door.bind(self._whereabouts.listen)
        self._whereabouts.port = door.port_of(listeners)
        try:
            async with anyio.create_task_group() as group:
                self._group = self.strays.group = group
                self._switchboard.run_in(group)
                self._membership.set_address(self.address)
                self._roster_changed()
                for host, port, pod in self._directory.remembered():
                    self._dialer.add(host, port, pod, Source.REMEMBERED)
                group.start_soon(self._door.run, listeners)
                group.start_soon(self._dialer.run)
                group.start_soon(self._spreader.run)
                group.start_soon(self.clocks.run)
                group.start_soon(self._tick)
                group.start_soon(self._watch_address)
                task_status.started()
        finally:
            self._group = self.strays.group = None
            self._switchboard.run_in(None)
            with anyio.CancelScope(shield=True):
                await self._directory.remember(self.address)

    # -- what links call

    async def serve(self, sender: PodId, tag: int, body: object) -> object:
        """Answer a request of a verified pod."""
        handler = self._handlers.get(tag)
        if handler is None:
            raise RefusedError(f"This pod doesn't know requests of kind {tag}.", "Install the newer Wormhole on it.")
        return await handler(sender, body)

    def message(self, link: Link, tag: int, body: object) -> None:
        """Take a one-way message of a verified pod."""
        sender = link.peer.pod
        try:
            if tag == Tag.GOSSIP:
                take = self._membership.answer_client if self.roster.is_client(sender) else self._membership.receive
                self._run(take(sender, body, anyio.current_time()))
                self._settle()
            elif tag == Tag.LOG_PUSH:
                self._spreader.pushed(sender, body)
            elif tag == Tag.LOG_VECTOR:
                self._spreader.vector(sender, body)
            elif tag == Tag.ROSTER:
                records = self._registry.records_in(sender, body)
                if records and self._group is not None:
                    self._group.start_soon(self._registry.learn, records, sender)
            else:
                self._quiet.warning(sender, f"a message of unknown kind {tag} from {sender} was ignored")
        except Exception:
            logger.exception("a message (tag %d) from %s was ignored", tag, sender)

    # -- links

    def _link_came(self, link: Link) -> None:
        pod = link.peer.pod
        if not link.dialled:
            self._dialer.add(link.peer.host, link.peer.port, pod, Source.REMEMBERED)
        self._membership.set_address(self.address)
        self._view.link_up(pod, anyio.current_time())
        if self._leaf and self._membership.state(pod) is not State.ALIVE:
            self._members_are({pod})
            self._members_are()
        if not self.roster.is_client(pod):
            self._run(self._membership.link_up(pod, anyio.current_time()))
        self._spreader.link_up(pod)
        self._settle(force=True)

    def _link_went(self, pod: PodId, spared: bool) -> None:
        self._view.link_down(pod)
        self._run(self._membership.link_down(pod, anyio.current_time(), spared=spared))
        self._spreader.link_down(pod)
        self._dialer.lost(pod)
        self._settle(force=True)

    # -- the cores

    def _tell(self, pod: PodId, tag: Tag, body: object) -> bool:
        link = self._table.control(pod)
        return link is not None and link.send(tag, body)

    def _run(self, sends: Iterable[Send]) -> None:
        for pod, tag, message in sends:
            self._tell(pod, tag, message)

    async def _ask(self, pod: PodId, tag: Tag, body: object, timeout_s: float) -> Any:
        return await self.call(pod, tag, body, timeout_s=timeout_s)

    async def _tick(self) -> None:
        while True:
            planned = await self._wait_for_tick()
            try:
                now = anyio.current_time()
                self._run(self._membership.tick(now, planned))
                if self._registry.due() <= now:
                    self._registry.tick(now)
                if self._spreader.due() <= now:
                    self._spreader.tick()
                if self._view.due() <= now:
                    self._neighbours.tick(now)
                self._settle()
            except MachineError:
                raise
            except Exception:
                logger.exception("a tick of the mesh failed")

    async def _watch_address(self) -> None:
        """End the links from an address that this machine has no more, as no word of it arrives; tell the new one."""
        cables = Cables()
        try:
            while True:
                await cables.changed(beat.after(anyio.current_time(), _ADDRESS_S))
                self._switchboard.leave_lost_addresses()
                self._membership.set_address(self.address)
                self._settle()
        finally:
            cables.close()

    async def _wait_for_tick(self) -> float:
        """Wait until something is due, `TICK_S` at least; return for when the tick was planned."""
        self._ticked = anyio.current_time()
        with anyio.CancelScope() as self._waiting:
            self._plan_tick()
            await anyio.sleep_forever()
        return self._waiting.deadline

    def _plan_tick(self) -> None:
        """Have the next tick when a core has something to do."""
        due = min(self._membership.due(), self._spreader.due(), self._view.due(), self._registry.due())
        self._waiting.deadline = max(self._ticked + TICK_S, min(self._ticked + RESTING_TICK_S, due))

    def _settle(self, *, force: bool = False) -> None:
        """Take note of what the cores changed, and tell the listeners."""
        changed = self._membership.changes()
        for reason in self._membership.complaints():
            self._quiet.warning(reason, f"gossip was ignored: {reason}")
        if not (changed or force):
            self._plan_tick()
            return
        for pod in changed - {self._me}:
            self._neighbours.gossiped(pod)
            view, link = self._membership.view(pod), self._table.control(pod) if self._leaf else None
            if link is not None and view.state is State.SUSPECT and view.incarnation >= 0:
                link.close(self._caller.unreachable(pod))  # nobody refutes what a client suspects: it comes back anew
        self._diary.looked(changed, self._membership.state)
        self.clocks.look()
        for listener in self._listeners:
            listener()
        self._plan_tick()

    def _roster_changed(self) -> None:
        roster = self.roster
        self._diary.roster_changed()
        members = [pod for pod in self._members_are() if roster.is_member(pod)]
        self._spreader.set_members(members)
        self._neighbours.set_members(members)
        for link in self._table.all():
            if roster.is_revoked(link.peer.pod) and self._group is not None:
                self._group.start_soon(self._switchboard.cut_off, link)
        self._spreader.refresh()
        self._settle(force=True)

    def _members_are(self, without: Collection[PodId] = ()) -> list[PodId]:
        """Tell the membership who it is about: full pods. Clients are in nobody's."""
        roster = self.roster
        pods = [pod for pod in roster.pods() if not (roster.is_revoked(pod) or roster.is_client(pod))]
        self._membership.set_members([pod for pod in pods if pod not in without], anyio.current_time())
        return pods
