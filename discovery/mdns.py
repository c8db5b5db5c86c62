"""Announcing this pod and finding others by multicast DNS (RFC 6762, RFC 6763), from trio.

zeroconf runs an asyncio loop in a thread of its own. Its blocking calls are made in worker threads; its callbacks put
names into a bounded inbox and wake the trio side, and never touch anything else. What they name is looked up and
checked (`discovery.service`) on the trio side.

The network may be absent, come and go: when the kernel says so (`mesh.cables`), and now and then, the addresses
of this machine are compared, and zeroconf is restarted when they, or the cables, changed. Announcements are repeated,
since browsers that missed one while cut off do not ask again. No failure of the network is ever raised.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

import anyio
import trio
from anyio import to_thread
from anyio.abc import TaskStatus
from zeroconf import Error as ZeroconfError
from zeroconf import IPVersion, ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from base import beat
from base.ids import PodId
from discovery.interfaces import Interface, announced_addresses, interfaces
from discovery.service import SERVICE_TYPE, Service, read_service, usable_addresses
from mesh.cables import Cables

logger = logging.getLogger(__name__)

MAX_SERVICES: Final = 1024
"""Pods remembered; announcements of more are ignored until some go."""
POLL_S: Final = 3.0
"""The addresses are looked at so often where the kernel doesn't tell of changes, or zeroconf couldn't be started,"""
REST_POLL_S: Final = 16.0
"""and so often else."""
ANNOUNCE_AGAIN_S: Final = 45.0
FORGET_AFTER_RESTART_S: Final = 30.0
"""A pod that was not heard of for so long after a restart of zeroconf has gone in between."""

_INBOX: Final = 256
_LOOKUP_MS: Final = 3000
_LOOKUPS: Final = 8
_CLOSE_S: Final = 3.0


def _briefly(record: logging.LogRecord) -> bool:
    """Leave out of zeroconf's log where in it a network that is away was noticed: that happens at every change."""
    record.exc_info = record.exc_text = None
    return True


logging.getLogger("zeroconf").addFilter(_briefly)

_Failures = (OSError, ZeroconfError, RuntimeError, TimeoutError, AssertionError)


class _Inbox:
    """Names that zeroconf's thread hands to trio; when full, the newest are dropped (they are announced again)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changes: dict[str, ServiceStateChange] = {}
        self._token = trio.lowlevel.current_trio_token()
        self._filled = anyio.Event()

    def put(self, name: str, change: ServiceStateChange) -> None:
        """Called in zeroconf's thread."""
        with self._lock:
            if name not in self._changes and len(self._changes) >= _INBOX:
                return
            self._changes[name] = change
        try:
            self._token.run_sync_soon(self._wake, idempotent=True)
        except trio.RunFinishedError:
            return

    async def take(self) -> dict[str, ServiceStateChange]:
        """Wait for changes and return all of them."""
        await self._filled.wait()
        with self._lock:
            changes, self._changes = self._changes, {}
            self._filled = anyio.Event()
        return changes

    def _wake(self) -> None:
        self._filled.set()


class Announcer:
    """Announces one pod (or nothing, with ``service`` None), and tells of others.

    Announced are the addresses of this machine as they change, behind those that ``service`` has of its own.

    ``only`` limits multicast to the interface with that IPv4 address, see `discovery.interfaces.multicast_scope`.
    ``poll_s``: look at the addresses so often instead of when the kernel says that they changed.
    ``on_found`` is called for each new or changed pod, also for this one's own name announced from elsewhere;
    ``on_lost`` when it said goodbye or was not heard of any more. Both run on the trio side, are quick and don't raise.
    """

    def __init__(
        self,
        service: Service | None,
        *,
        only: str | None = None,
        on_found: Callable[[Service], None] | None = None,
        on_lost: Callable[[Service], None] | None = None,
        poll_s: float | None = None,
    ) -> None:
        self._service = service
        self._only = only
        self._on_found = on_found
        self._on_lost = on_lost
        self._poll_s = poll_s
        self._known: dict[PodId, Service] = {}
        self._heard: set[PodId] = set()
        self._double: Service | None = None
        """What is announced under this pod's own name from elsewhere."""
        self._zeroconf: Zeroconf | None = None
        self._announcing = anyio.Lock()
        self._announced = False
        self._addresses: tuple[str, ...] = ()
        self._warned = False

    @property
    def services(self) -> list[Service]:
        """Return the other pods announced at the moment, at most `MAX_SERVICES`, unverified."""
        return list(self._known.values())

    async def update(self, service: Service) -> None:
        """Announce other values from now on (the admission changed)."""
        self._service = service
        await self._announce()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Announce and browse until cancelled; started once it listens, or there is no network."""
        inbox = _Inbox()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._look_up, inbox)
            present: tuple[Interface, ...] | None = None
            restarted_at = announced_at = -float("inf")
            cables = Cables()
            try:
                while True:
                    now_present = await to_thread.run_sync(interfaces, self._only)
                    now = anyio.current_time()
                    if now_present != present or (self._zeroconf is None and now_present):
                        present, restarted_at, announced_at = now_present, now, now
                        await self._restart(present, inbox)
                        task_status.started()
                        task_status = anyio.TASK_STATUS_IGNORED
                        await self._announce()
                    elif now - announced_at >= ANNOUNCE_AGAIN_S:
                        announced_at = now
                        await self._announce()
                    if now - restarted_at >= FORGET_AFTER_RESTART_S and present:
                        restarted_at = float("inf")
                        self._forget_unheard()
                    await cables.changed(self._look_at(anyio.current_time(), by_itself=cables.are_watched))
            finally:
                cables.close()
                with anyio.move_on_after(_CLOSE_S, shield=True):
                    await self._stop()

    def _look_at(self, now: float, *, by_itself: bool) -> float:
        """Return when to look at the addresses at the latest; ``by_itself``: changes are told."""
        if self._poll_s is not None:
            return now + self._poll_s
        return beat.after(now, REST_POLL_S) if by_itself and self._zeroconf is not None else now + POLL_S

    # -- zeroconf's life

    async def _restart(self, present: tuple[Interface, ...], inbox: _Inbox) -> None:
        await self._stop()
        self._heard.clear()
        self._lose_double()
        if not present:
            return
        addresses = list(dict.fromkeys(entry.address for entry in present))
        try:
            zeroconf = await to_thread.run_sync(lambda: Zeroconf(interfaces=addresses, ip_version=IPVersion.V4Only))
            self._zeroconf = zeroconf
            if self._on_found is not None or self._on_lost is not None:
                await to_thread.run_sync(lambda: _browse(zeroconf, inbox))
        except _Failures as error:
            if not self._warned:  # once, not every few seconds
                self._warned = True
                logger.warning("no discovery on the local network: %s", error)
            await self._stop()
            return
        self._warned = False
        self._addresses = announced_addresses(present)

    async def _announce(self) -> None:
        """Announce the service, for the first time with this zeroconf or again; takes half a second."""
        async with self._announcing:
            service, zeroconf, first = self._service, self._zeroconf, not self._announced
            if service is None or zeroconf is None:
                return
            info = ServiceInfo(
                SERVICE_TYPE,
                service.instance,
                port=service.port,
                properties=service.properties(),
                server=f"{service.pod_id}.local.",
                addresses=[ip_address(one).packed for one in usable_addresses((*service.addresses, *self._addresses))],
            )

            def tell() -> None:
                if first:
                    zeroconf.register_service(info, cooperating_responders=True)  # named after the pod: no probing
                else:
                    zeroconf.update_service(info)

            self._announced = True
            try:
                await to_thread.run_sync(tell, abandon_on_cancel=True)
            except _Failures as error:
                logger.debug("announcing failed: %s", error)

    async def _stop(self) -> None:
        zeroconf, self._zeroconf, self._announced = self._zeroconf, None, False
        if zeroconf is None:
            return
        try:
            await to_thread.run_sync(zeroconf.close, abandon_on_cancel=True)
        except _Failures as error:
            logger.debug("closing zeroconf failed: %s", error)

    # -- the others

    async def _look_up(self, inbox: _Inbox) -> None:
        limiter = anyio.CapacityLimiter(_LOOKUPS)
        async with anyio.create_task_group() as tasks:
            while True:
                for name, change in (await inbox.take()).items():
                    pod = PodId(name.removesuffix("." + SERVICE_TYPE).lower())
                    if change is ServiceStateChange.Removed:
                        self._lose(pod)
                    elif limiter.statistics().tasks_waiting < _INBOX:
                        tasks.start_soon(self._resolve, name, limiter)

    async def _resolve(self, name: str, limiter: anyio.CapacityLimiter) -> None:
        zeroconf = self._zeroconf
        if zeroconf is None:
            return
        try:
            info = await to_thread.run_sync(
                lambda: zeroconf.get_service_info(SERVICE_TYPE, name, _LOOKUP_MS),
                limiter=limiter,
                abandon_on_cancel=True,
            )
        except (*_Failures, ValueError) as error:
            logger.debug("looking up an announcement failed: %s", error)
            return
        if info is None:
            return
        service = read_service(info.name, info.properties, info.parsed_addresses(), info.port)
        if service is None:
            return
        if self._service is not None and service.pod_id == self._service.pod_id:
            self._resolved_own(service)
            return
        if service.pod_id not in self._known and len(self._known) >= MAX_SERVICES:
            return
        self._heard.add(service.pod_id)
        if self._known.get(service.pod_id) != service:
            self._known[service.pod_id] = service
            if self._on_found is not None:
                self._on_found(service)

    def _resolved_own(self, service: Service) -> None:
        """Tell of this pod's own announcement if it comes from elsewhere, too: from a copy of its home."""
        assert self._service is not None
        own = (*self._service.addresses, *self._addresses)
        double = service if service.port != self._service.port or not set(service.addresses) <= set(own) else None
        if double != self._double:
            self._lose_double()
            self._double = double
            if double is not None and self._on_found is not None:
                self._on_found(double)

    def _lose_double(self) -> None:
        double, self._double = self._double, None
        if double is not None and self._on_lost is not None:
            self._on_lost(double)

    def _lose(self, pod: PodId) -> None:
        self._heard.discard(pod)
        service = self._known.pop(pod, None)
        if service is not None and self._on_lost is not None:
            self._on_lost(service)

    def _forget_unheard(self) -> None:
        for pod in [pod for pod in self._known if pod not in self._heard]:
            self._lose(pod)


async def browse(
    timeout_s: float, *, only: str | None = None, enough: Callable[[Service], bool] | None = None
) -> list[Service]:
    """Return the pods announced on the network, unverified, after ``timeout_s`` or as soon as one is ``enough``."""
    done = anyio.Event()

    def found(service: Service) -> None:
        if enough is not None and enough(service):
            done.set()

    announcer = Announcer(None, only=only, on_found=found)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(announcer.run)
        with anyio.move_on_after(timeout_s):
            await done.wait()
        tasks.cancel_scope.cancel()
    return announcer.services


def _browse(zeroconf: Zeroconf, inbox: _Inbox) -> None:
    def changed(*, name: str, state_change: ServiceStateChange, **_rest: object) -> None:
        inbox.put(name, state_change)

    ServiceBrowser(zeroconf, SERVICE_TYPE, handlers=[changed])
