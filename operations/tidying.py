"""What the metadata's housekeeping is told about the cluster, and the task that calls it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final

import anyio

from base import beat
from base.ids import PodId, WriterId
from crdt_meta.metadata import Metadata
from crdt_meta.peers import Retired
from mesh.api import Role
from mesh.identity import Identity
from mesh.node import MeshNode
from mesh.records import Retire, seal
from mesh.roster import Roster
from operations.rebirth import adoptions

TURN_EVERY_S: Final = 6.0
PAUSE_S: Final = 0.01
"""Between two slices of it: nobody waits for this work, and somebody may wait for the mount."""
ANSWER_EVERY_S: Final = 0.1
"""Others' questions are answered so often at most."""

logger = logging.getLogger(__name__)


class Cluster:
    """Implements `crdt_meta.peers.Peers`."""

    def __init__(
        self, metadata: Metadata, mesh: MeshNode, roster: Roster, identity: Identity, forget_after_s: float
    ) -> None:
        self._metadata = metadata
        self._identity = identity
        self._mesh = mesh
        self._roster = roster
        self.forget_after_s = forget_after_s
        self.short_of_room: Callable[[], bool] = lambda: False
        self.heard = False
        """Whether this pod has caught up with another one since its start."""

    def _writers(self) -> dict[WriterId, PodId]:
        retired = self._roster.adoptions()
        return {writer: pod for writer, pod in self._roster.writers().items() if writer not in retired}

    def _is_full_member(self, pod: PodId) -> bool:
        entry = self._roster.entry(pod)
        return entry is not None and entry.role is Role.FULL and self._roster.is_member(pod)

    def counted(self) -> Mapping[WriterId, float | None]:
        """Return the writers of other members, not retired -> None if reachable, else when last heard of, or 0.0."""
        alive, me = self._mesh.alive(), self._mesh.pod_id
        last_seen = {one.pod: one.last_seen or 0.0 for one in self._mesh.members()}
        return {
            writer: None if pod in alive else last_seen.get(pod, 0.0)
            for writer, pod in self._writers().items()
            if pod != me and self._is_full_member(pod)
        }

    def orphans(self, forgotten: Collection[WriterId] = ()) -> Collection[WriterId]:
        """Return the writers whose records this pod shall adopt."""
        me = self._mesh.pod_id
        found: set[WriterId] = set()
        chosen = min((pod for pod in (*self._mesh.alive(), me) if self._is_full_member(pod)), default=None) == me
        for writer, pod in self._writers().items():
            if pod == me:
                found |= {writer} - {self._metadata.writer}
            elif chosen and (writer in forgotten or not self._roster.is_member(pod)):
                found.add(writer)
        return found

    def retired(self) -> Mapping[WriterId, Collection[Retired]]:
        """Return all writers whose records were adopted, with each adoption."""
        return adoptions(self._roster)

    async def retire(self, writer: WriterId, retired: Retired) -> None:
        """Tell everybody that a writer's records are adopted, once everything written before is on the disk."""
        await self._metadata.committer.durable()
        record = Retire(writer, *retired)
        await self._mesh.learn([seal(record, self._roster.cluster_id, self._mesh.pod_id, self._identity.sign)])

    def is_caught_up(self) -> bool:
        """Tell whether this pod has heard from others since its start, or is the only one."""
        others = (pod for pod in self._roster.pods() if pod != self._mesh.pod_id)
        return self.heard or not any(self._is_full_member(pod) for pod in others)

    def is_short_of_room(self) -> bool:
        """Tell whether this pod's disk is nearly full."""
        return self.short_of_room()

    def clock_agrees(self) -> bool:
        """Tell whether this pod's clock can be trusted."""
        return self._mesh.clock_agrees()


async def tidy(cluster: Cluster, metadata: Metadata, mesh: MeshNode) -> None:
    """Call the housekeeping every few seconds, and answer others at once, until cancelled."""
    news = [anyio.Event()]

    def tell() -> None:
        news[0].set()

    metadata.tidying.rest = partial(anyio.sleep, PAUSE_S)
    metadata.tidying.consent.on_wanted = metadata.log.incoming.on_acknowledged = tell
    async with anyio.create_task_group() as group:
        group.start_soon(_listen, cluster, mesh)
        while True:
            await metadata.tidying.turn(cluster, time.time())
            with anyio.move_on_at(beat.after(anyio.current_time(), TURN_EVERY_S)):
                while True:
                    await news[0].wait()
                    news[0] = anyio.Event()
                    metadata.tidying.answer(cluster, time.time())
                    await anyio.sleep(ANSWER_EVERY_S)


async def _listen(cluster: Cluster, mesh: MeshNode) -> None:
    await mesh.caught_up()
    cluster.heard = True
