"""What a pod does when it turns out to be a restored or a forgotten one, and when another one was restored."""

from __future__ import annotations

from typing import Final

import anyio

from base.ids import PodId
from crdt_meta.chronicle import Chronicle
from crdt_meta.metadata import Metadata
from mesh.identity import Identity
from mesh.introduction import RestoredError
from mesh.node import MeshNode
from mesh.records import Writer, seal
from mesh.roster import Roster
from operations.tidying import forgotten_at
from transfer.service import Transfer

WRITERS_LIMIT: Final = 128
"""A pod with so many writer ids takes a new one only when it is proven that it must; half of what the roster allows."""


def may_renew(roster: Roster, pod: PodId) -> bool:
    """Tell whether a pod may take a new writer merely because its home looks like a copy."""
    return sum(one == pod for one in roster.writers().values()) < WRITERS_LIMIT


def writer_records(identity: Identity, roster: Roster, metadata: Metadata) -> list[bytes]:
    """Return the record that says whose the current writer is, if it is missing."""
    if roster.writer_pod(metadata.writer) is not None:
        return []
    return [seal(Writer(metadata.writer), roster.cluster_id, identity.pod_id, identity.sign)]


class Rebirth:
    """See the module."""

    def __init__(
        self, identity: Identity, chronicle: Chronicle, metadata: Metadata, mesh: MeshNode, transfer: Transfer
    ) -> None:
        self._identity = identity
        self._chronicle = chronicle
        self._metadata = metadata
        self._mesh = mesh
        self._transfer = transfer
        self._known = -1
        self._changed = anyio.Event()
        mesh.on_restored = self._begin_anew
        mesh.on_change(self._look)

    async def _begin_anew(self, restored: RestoredError) -> None:
        """Take a new writer, since others know of writes under the current one that aren't here."""
        void = self._chronicle.void(restored)
        if void is not None:
            record = seal(void, self._mesh.cluster_id, self._identity.pod_id, self._identity.sign)
            await self._mesh.learn([record])
        self._metadata.reborn(restored.after, restored.owed)
        self._chronicle.append()
        await self._transfer.begin_holdings_anew()
        await self._tell_writer()

    async def _tell_writer(self) -> None:
        """Say whose the current writer is, if nobody knows yet, once what it wrote is on the disk."""
        if records := writer_records(self._identity, self._mesh.roster, self._metadata):
            await self._metadata.committer.durable()
            await self._mesh.learn(records)

    def _look(self) -> None:
        """Take a new writer when others adopted this pod's records, before anything else is heard from them."""
        upto = forgotten_at(self._mesh.roster, self._metadata.writer)
        if upto is not None:
            self._metadata.reborn(upto, None)
            self._chronicle.append()
            self._changed.set()
        if self._count() != self._known:
            self._changed.set()

    def _count(self) -> int:
        return sum(map(len, self._mesh.roster.voids().values()))

    async def run(self) -> None:
        """Put logs right that hold what their pods declared void, and tell of a new writer, whenever that is due."""
        while True:
            self._changed = anyio.Event()
            await self._tell_writer()
            self._known, voids = self._count(), self._mesh.roster.voids()
            async with self._mesh.receiving():
                self._chronicle.put_right(voids)
            await self._changed.wait()
