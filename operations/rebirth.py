"""What a pod does when it turns out to be a restored one, and when another one has been."""

from __future__ import annotations

from typing import Final

import anyio

from base.ids import PodId, WriterId
from crdt_meta.chronicle import Chronicle, forgotten
from crdt_meta.metadata import Metadata
from crdt_meta.peers import Retired
from crdt_meta.transaction import digest_of_signed
from mesh.identity import Identity
from mesh.introduction import RestoredError
from mesh.node import MeshNode
from mesh.records import Retire, Void, Writer, seal
from mesh.roster import Roster
from transfer.service import Transfer

WRITERS_LIMIT: Final = 128
"""A pod with so many writer ids takes a new one only when it is proven that it must; half of what the roster allows."""


def may_renew(roster: Roster, pod: PodId) -> bool:
    """Tell whether a pod may take a new writer merely because its home looks like a copy."""
    return sum(one == pod for one in roster.writers().values()) < WRITERS_LIMIT


def other_full_pods(roster: Roster, own: PodId) -> set[PodId]:
    """Return the other full members."""
    return {pod for pod in roster.pods() if pod != own and roster.is_full_member(pod)}


def writer_records(identity: Identity, roster: Roster, metadata: Metadata) -> list[bytes]:
    """Return the missing records that say whose the current writer is, and those that have copies of former ones.

    One of these may have been left again before it was told: at a start the home turned out to be a copy, too.
    """
    own = {metadata.writer, *(copies.by for copies in metadata.given_up().values())}
    missing = [writer for writer in sorted(own) if roster.writer_pod(writer) is None]
    return [seal(Writer(writer), roster.cluster_id, identity.pod_id, identity.sign) for writer in missing]


def is_void(roster: Roster, writer: WriterId, signed: bytes) -> bool:
    """Tell whether a transaction, by what its writer signed, was declared void."""
    declared = roster.voids().get(writer)
    return bool(declared) and digest_of_signed(signed) in {void.digest for void in declared or ()}


def adoptions(roster: Roster) -> dict[WriterId, list[Retired]]:
    """Return all writers whose records were adopted, with each adoption."""
    return {
        writer: [
            Retired(one.upto, one.by, one.sequence, one.since, one.begun, one.digest, one.earlier) for one in found
        ]
        for writer, found in roster.adoptions().items()
    }


def go_on_if_forgotten(roster: Roster, metadata: Metadata) -> bool:
    """Take a new writer if others adopted the records of this pod's; tell whether it was so."""
    own = roster.writer_pod(metadata.writer)
    known = forgotten(metadata, adoptions(roster), lambda by: roster.writer_pod(by) == own)
    if known is None:
        return False
    metadata.reborn(known.upto, None, set_back=known.set_back)
    return True


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
        mesh.strays.on_restored = self.begin_anew
        mesh.on_change(self._look)

    async def begin_anew(self, restored: RestoredError) -> None:
        """Take a new writer, since others know of writes under the current one that aren't here."""
        void = self._chronicle.void(restored)
        if void is not None:
            await self._mesh.learn([self._sealed(void)])
        self._metadata.reborn(restored.after, restored.owed)
        self._chronicle.append()
        await self._transfer.begin_holdings_anew()
        await self._tell_writer()

    async def _tell_writer(self) -> None:
        """Say whose the new writer is, once what it wrote is on the disk."""
        await self._metadata.committer.durable()
        retired = self._metadata.given_up().items()
        await self._mesh.learn([self._sealed(Retire(writer, *copies)) for writer, copies in retired])
        await self._mesh.learn(writer_records(self._identity, self._mesh.roster, self._metadata))

    def _sealed(self, record: Void | Retire) -> bytes:
        return seal(record, self._mesh.cluster_id, self._identity.pod_id, self._identity.sign)

    def _look(self) -> None:
        if go_on_if_forgotten(
            self._mesh.roster, self._metadata
        ):  # before anything else is heard from who forgot this pod
            self._chronicle.append()
            self._changed.set()
        if self._count() != self._known:
            self._changed.set()

    def _count(self) -> int:
        return sum(map(len, self._mesh.roster.voids().values()))

    async def run(self) -> None:
        """Put logs right that hold what their pods declared void, and tell of a new writer, whenever there is one."""
        while True:
            self._changed = anyio.Event()
            voids = self._mesh.roster.voids()
            self._known = self._count()
            async with self._mesh.receiving():
                self._chronicle.put_right(voids)
            await self._tell_writer()
            await self._changed.wait()
