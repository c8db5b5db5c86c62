"""What this pod announces on the network by mDNS, and whom it finds there."""

from __future__ import annotations

import anyio
from anyio.abc import TaskStatus

from base.ids import PodId
from discovery.interfaces import multicast_scope
from discovery.mdns import Announcer
from discovery.service import Service
from mesh.address import parse_address
from mesh.api import Role
from operations.parts import Parts


class Announcing:
    """The task; announces anew whenever what is announced changes."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._scope = multicast_scope(parse_address(parts.pod.pod.listen)[0])  # of where it listens until it stops

    async def run(self, task_status: TaskStatus[None]) -> None:
        """Announce this pod and look for others, if pod.toml wants that, until cancelled."""
        while True:
            async with anyio.create_task_group() as group:
                if self._parts.pod.pod.discovery:
                    await group.start(self._announcer().run)
                task_status.started()
                await self._parts.live.announced_otherwise()
                group.cancel_scope.cancel()

    def _announcer(self) -> Announcer:
        return Announcer(self._service(), only=self._scope, on_found=self._found, on_lost=self._lost)

    def _service(self) -> Service | None:
        """Return what is announced: nothing by a client."""
        parts = self._parts
        roster, mesh = parts.roster.roster, parts.mesh
        entry = roster.entry(mesh.pod_id)
        if entry is None or entry.role is not Role.FULL:
            return None
        own = tuple(parse_address(address)[0] for address in parts.pod.pod.advertise)
        admission = parts.cluster.cluster.admission
        return Service(roster.cluster_id, roster.cluster_name, mesh.pod_id, entry.name, admission, mesh.port, own)

    def _candidates(self, service: Service) -> list[tuple[str, int, PodId | None]]:
        mesh = self._parts.mesh
        if service.cluster_id != mesh.cluster_id:
            return []
        pod = None if service.pod_id == mesh.pod_id else service.pod_id  # a copy of this home, perhaps
        return [(*parse_address(endpoint), pod) for endpoint in service.endpoints]

    def _found(self, service: Service) -> None:
        for host, port, pod in self._candidates(service):
            self._parts.mesh.add_candidate(host, port, pod)

    def _lost(self, service: Service) -> None:
        for host, port, _ in self._candidates(service):
            self._parts.mesh.remove_candidate(host, port)
