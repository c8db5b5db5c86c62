"""Keeps the chain of this pod's starts and what it was told of other pods' chains, in metadata.db.

The chain is on the disk before this pod tells anybody anything. What it knows of others goes into the transaction that
gathers, so it is never less durable than the log entries that are accepted after it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final

from base.errors import DamagedError, RefusedError
from base.ids import PodId, WriterId, new_writer_id
from crdt_meta import incarnation
from crdt_meta.incarnation import INCARNATION_BYTES, WRITER_BYTES, Chain, Restored, Start
from crdt_meta.metadata import Metadata
from crdt_meta.peers import Known, Retired, known_elsewhere
from crdt_meta.transaction import digest
from mesh.introduction import RestoredError
from mesh.records import Void
from mesh.wire import ProtocolError

OWN_KEY: Final = "incarnations"
TOLD_KEY: Final = "incarnation told to all"
TOLD_PREFIX: Final = "incarnation told to pod "
PLACE_KEY: Final = "place"
KNOWN_PREFIX: Final = "incarnations of "
DIGEST_BYTES: Final = 16

logger = logging.getLogger(__name__)


def forgotten(
    metadata: Metadata, adoptions: Mapping[WriterId, Iterable[Retired]], is_own: Callable[[WriterId], bool]
) -> Known | None:
    """Return what others know of this pod's writer, if its records were adopted; else None.

    What a later writer of this pod (``is_own``) adopted doesn't count: a home that was set back to before that writer
    doesn't have its copies, perhaps nobody has, and what was written since then isn't among them.
    """
    writer, table = metadata.writer, metadata.log.table
    if not (adopted := adoptions.get(writer)):
        return None
    fork = incarnation.untold_since(*_own(metadata), writer)
    digest = partial(table.digest, writer)
    return known_elsewhere((one for one in adopted if not is_own(one.by)), table.received[writer], digest, fork)


class Chronicle:
    """Implements `mesh.introduction.Chronicle`. For the loop thread."""

    def __init__(
        self, metadata: Metadata, place: bytes, full_pods: Callable[[], Collection[PodId]], *, may_renew: bool = True
    ) -> None:
        """Note a start of this pod, durably; to be made before it writes anything.

        ``place`` is the same as long as the home is this very one, and another one in a copy of it: a copy takes a new
        writer at once, whatever others know, unless the pod has had too many (``may_renew`` is False). ``full_pods``
        returns the other full members, of which each may adopt this pod's records.
        """
        self._store, self._log = metadata.store, metadata.log
        self._request = metadata.committer.request
        self._full_pods = full_pods
        self._known: dict[PodId, Chain] = {}
        self._told: dict[PodId, bytes] = {}
        self.chain, self._told_all = _own(metadata)
        self.is_copy = self._store.get_meta(PLACE_KEY) not in (None, place)
        """Whether this home was copied since the last start, or restored from a copy."""
        if self.is_copy and may_renew:
            logger.warning("this home is a copy, or was restored from one: it takes a new writer")
            self._renew()
        self._store.set_meta(PLACE_KEY, place)
        self.append()
        self._store.commit()
        self._store.sync()

    def _renew(self) -> None:
        writer = new_writer_id()
        self._store.set_meta("writer", writer)
        self._log.write_as(writer)

    async def begin_anew(self, restored: RestoredError) -> None:
        """Begin another line of starts: this is the restored home of a client pod, which wrote nothing."""
        logger.info("%s", restored.message)
        self._renew()
        self.append()

    def append(self) -> None:
        """Begin another incarnation with the current writer, in the transaction that gathers."""
        writer = self._log.writer
        start = Start(os.urandom(INCARNATION_BYTES), writer, self._log.table.received[writer])
        self.chain = self.chain.extended(start)
        self._store.set_meta(OWN_KEY, incarnation.pack(self.chain))

    def known(self, pod: PodId) -> Chain:
        """Return the chain that a pod told last."""
        if pod not in self._known:
            stored = self._store.get_meta(KNOWN_PREFIX + pod)
            self._known[pod] = Chain() if stored is None else _unpack(stored)
        return self._known[pod]

    # -- mesh.introduction.Chronicle ----------------------------------------------------------------------------------

    def opening(self, pod: PodId) -> object:
        """Return what a pod is told first: who this pod is now, and what it knows of the other."""
        return {"head": self.chain.head, "writer": self._log.writer, "known": self.known(pod).head}

    def account(self, pod: PodId, opening: object) -> object:
        """Return what a pod is told second, given its opening: starts that it lacks, and proofs about itself."""
        head, writer, known = _read_opening(opening)
        fresh = self.chain.after(known)
        since, starts = (b"", self.chain.starts) if fresh is None else (known, fresh)
        doubt = () if head == self.known(pod).head else self.known(pod).starts
        table = self._log.table  # what a witness told of is known, too: a pod that hasn't written so far was set back
        sequence = max(table.received.get(writer, 0), table.owed.get(writer, 0))
        have = [sequence, table.digest(writer, sequence)]
        plain = incarnation.plain
        return {"after": since, "starts": plain(starts), "known": plain(doubt), "have": have}

    def settle(self, pod: PodId, told: object, opening: object, account: object) -> None:
        """Take a pod's account, which answers what it was ``told`` by `opening`.

        Raises `RestoredError` when it proves that this pod was restored, `RefusedError` when the other one was and
        hasn't noticed, or this pod took another writer meanwhile, `ProtocolError` when it is malformed.
        """
        if _read_opening(told)[1] != self._log.writer:
            raise RefusedError("This pod has just taken a new writer.", "It links up again.")
        _, writer, _ = _read_opening(opening)
        after, starts, known, sequence, digest = _read_account(account)
        before = self.known(pod)
        chain = before.continued(after, starts) if after else Chain(starts)
        if chain is None:
            raise ProtocolError("A pod continued a chain of starts that it never told.")
        self._judge_own(known, sequence, digest)
        if isinstance(incarnation.compare(chain, before, writer), Restored):
            raise RefusedError(f"The pod {pod} was restored from a backup.", "It takes a new writer and comes back.")
        if chain.head != before.head:
            self._known[pod] = chain
            self._store.set_meta(KNOWN_PREFIX + pod, incarnation.pack(chain))
            self._request()
        self._note_told(pod)

    def _note_told(self, pod: PodId) -> None:
        """Note that a pod was told of the last start, and had nothing to say against it.

        That alone proves little: another pod may know what this one wrote before it was set back. Clients don't count,
        since they adopt nothing.
        """
        full, head = self._full_pods(), self.chain.head
        if pod not in full or self._told_to(pod) == head:
            return
        self._told[pod] = head
        self._store.set_meta(TOLD_PREFIX + pod, head)
        told = incarnation.known_to_all(self.chain, [self._told_to(one) for one in full])
        later = self.chain.after(self._told_all)
        if told in {one.incarnation for one in (self.chain.starts if later is None else later)}:
            self._told_all = told
            self._store.set_meta(TOLD_KEY, told)
        self._request()

    def _told_to(self, pod: PodId) -> bytes:
        """Return the last start that a pod was told of; empty: none."""
        if pod not in self._told:
            self._told[pod] = self._store.get_meta(TOLD_PREFIX + pod) or b""
        return self._told[pod]

    def _judge_own(self, known: tuple[Start, ...], sequence: int, digest: bytes) -> None:
        """Raise `RestoredError` when what another pod knows of this one isn't of this line."""
        writer = self._log.writer
        own = self._log.table.received.get(writer, 0)
        verdict = incarnation.compare(self.chain, Chain(known), writer)
        if isinstance(verdict, Restored):
            forked = verdict.after_sequence
            raise RestoredError(min(forked, own, sequence), sequence, forked)
        if incarnation.contradicts(sequence, digest, own, self._log.table.digest(writer, sequence)):
            untold = self.chain.after(known[-1].incarnation if known else b"")
            begun = next((one.sequence for one in untold or self.chain.starts[-1:] if one.writer == writer), 0)
            raise RestoredError(min(begun, own, sequence), sequence, begun if untold else None)

    def void(self, restored: RestoredError) -> Void | None:
        """Return what this pod, before its rebirth, declares of what it gave out since it was restored, if anything."""
        if restored.forked is None:
            return None
        writer = self._log.writer
        first = next(iter(self._log.table.transactions(writer, restored.forked)), None)
        return None if first is None else Void(writer, first.sequence, digest(first.header), restored.owed)

    def put_right(self, voids: Mapping[WriterId, Iterable[Void]]) -> None:
        """Have logs fetched anew that hold what their pods declared void; nothing may be received meanwhile."""
        for writer, declared in voids.items():
            for void in declared:
                if writer != self._log.writer and self._log.table.digest(writer, void.sequence) == void.digest:
                    logger.warning("the log of the writer %s is fetched anew: its pod was restored", writer.hex())
                    self._log.set_aside(writer, void.owed)
                    self._request()


def _own(metadata: Metadata) -> tuple[Chain, bytes]:
    """Return this pod's stored chain, and the last start in it that all other full pods were told of."""
    stored = metadata.store.get_meta(OWN_KEY)
    return Chain() if stored is None else _unpack(stored), metadata.store.get_meta(TOLD_KEY) or b""


def _unpack(data: bytes) -> Chain:
    try:
        return incarnation.unpack(data)
    except ValueError as error:
        raise DamagedError(
            "What metadata.db says of this pod's starts can't be read.", "Install a newer one."
        ) from error


def _read_opening(body: Any) -> tuple[bytes, WriterId, bytes]:
    match body:
        case {"head": bytes(head), "writer": bytes(writer), "known": bytes(known)} if (
            len(head) == INCARNATION_BYTES and len(writer) == WRITER_BYTES and len(known) in {0, INCARNATION_BYTES}
        ):
            return head, WriterId(writer), known
    raise ProtocolError("A pod introduced itself in a way that can't be read.")


def _read_account(body: Any) -> tuple[bytes, tuple[Start, ...], tuple[Start, ...], int, bytes]:
    match body:
        case {
            "after": bytes(after),
            "starts": list(starts),
            "known": list(known),
            "have": [int(sequence), bytes(digest)],
        } if (
            len(after) in {0, INCARNATION_BYTES}
            and len(digest) in {0, DIGEST_BYTES}
            and type(sequence) is int
            and 0 <= sequence < incarnation.MAX_SEQUENCE
        ):
            try:
                return after, incarnation.parse(starts), incarnation.parse(known), sequence, digest
            except ValueError as error:
                raise ProtocolError(f"A pod told something wrong of its starts: {error}.") from error
    raise ProtocolError("A pod told of its starts in a way that can't be read.")
