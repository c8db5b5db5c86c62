"""Real zeroconf over the loopback interface."""

from __future__ import annotations

import secrets

import anyio
import pytest

from base.ids import ClusterId, PodId
from discovery.interfaces import Interface
from discovery.mdns import Announcer, browse
from discovery.service import Service

pytestmark = pytest.mark.anyio
LOOPBACK = "127.0.0.1"


def a_service(name: str, cluster: str = "", port: int = 7420) -> Service:
    return Service(
        ClusterId(cluster or secrets.token_hex(16)),
        "home",
        PodId(secrets.token_hex(16)),
        name,
        "code",
        port,
        (LOOPBACK,),
    )


class Seen:
    """Collects what an announcer tells; `until` waits for a state of it."""

    def __init__(self) -> None:
        self.services: dict[str, Service] = {}
        self._changed = anyio.Event()

    def found(self, service: Service) -> None:
        self.services[service.pod_id] = service
        self._changed.set()

    def lost(self, service: Service) -> None:
        self.services.pop(service.pod_id, None)
        self._changed.set()

    async def until(self, right, deadline_s: float = 60.0) -> None:
        with anyio.fail_after(deadline_s):
            while not right(self.services):
                await self._changed.wait()
                self._changed = anyio.Event()


async def test_two_announcers_find_each_other_and_part():
    cluster = secrets.token_hex(16)
    one, two = a_service("laptop", cluster, 7001), a_service("nas", cluster, 7002)
    by_one, by_two = Seen(), Seen()
    async with anyio.create_task_group() as tasks:
        await tasks.start(Announcer(one, only=LOOPBACK, on_found=by_one.found, on_lost=by_one.lost).run)
        async with anyio.create_task_group() as inner:
            await inner.start(Announcer(two, only=LOOPBACK, on_found=by_two.found, on_lost=by_two.lost).run)
            await by_one.until(lambda seen: two.pod_id in seen)
            await by_two.until(lambda seen: one.pod_id in seen)
            assert by_one.services[two.pod_id] == two
            assert by_one.services[two.pod_id].endpoints == ("127.0.0.1:7002",)
            assert one.pod_id not in by_one.services, "a pod does not find itself"
            inner.cancel_scope.cancel()
        await by_one.until(lambda seen: two.pod_id not in seen)
        tasks.cancel_scope.cancel()


async def test_browse_ends_early_when_it_has_seen_enough():
    service = a_service("desktop")
    async with anyio.create_task_group() as tasks:
        await tasks.start(Announcer(service, only=LOOPBACK).run)
        with anyio.fail_after(60):
            found = await browse(60, only=LOOPBACK, enough=lambda other: other.tag == service.tag)
        assert service in found
        tasks.cancel_scope.cancel()


async def test_a_changed_admission_is_told():
    service = a_service("desktop")
    changed = Service(service.cluster_id, "home", service.pod_id, "desktop", "closed", service.port, service.addresses)
    seen = Seen()
    announcer = Announcer(service, only=LOOPBACK)
    async with anyio.create_task_group() as tasks:
        await tasks.start(announcer.run)
        await tasks.start(Announcer(None, only=LOOPBACK, on_found=seen.found).run)
        await seen.until(lambda services: service.pod_id in services)
        await announcer.update(changed)
        await seen.until(lambda services: services[service.pod_id].admission == "closed")
        tasks.cancel_scope.cancel()


async def test_no_network_is_no_error(monkeypatch):
    present: list[Interface] = []
    monkeypatch.setattr("discovery.mdns.interfaces", lambda only: tuple(present))
    assert await browse(0.1) == []


async def test_announces_once_an_interface_appears(monkeypatch):
    present: list[Interface] = []
    monkeypatch.setattr("discovery.mdns.interfaces", lambda only: tuple(present))
    service = a_service("desktop")
    async with anyio.create_task_group() as tasks:
        await tasks.start(Announcer(service, poll_s=0.05).run)
        present.append(Interface("lo", 1, LOOPBACK, True))
        with anyio.fail_after(60):
            found = await browse(60, enough=lambda other: other.pod_id == service.pod_id)
        assert service in found
        tasks.cancel_scope.cancel()
