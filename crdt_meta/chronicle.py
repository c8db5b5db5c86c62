"""Keeps the chain of this pod's starts and what it was told of other pods' chains, in metadata.db.

The chain is on the disk before this pod tells anybody anything. What it knows of others goes into the transaction that
gathers, so it is never less durable than the log entries that are accepted after it.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from base.errors import DamagedError, RefusedError
from base.ids import PodId, WriterId, hash_bytes, new_writer_id
from crdt_meta import incarnation
from crdt_meta.incarnation import INCARNATION_BYTES, WRITER_BYTES, Chain, Restored, Start
from crdt_meta.metadata import Metadata
from mesh.introduction import RestoredError
from mesh.wire import ProtocolError

OWN_KEY: Final = "incarnations"
PLACE_KEY: Final = "place"
KNOWN_PREFIX: Final = "incarnations of "
DIGEST_BYTES: Final = 16

logger = logging.getLogger(__name__)


class Chronicle:
    """Implements `mesh.introduction.Chronicle`. For the loop thread."""

    def __init__(self, metadata: Metadata, place: bytes) -> None:
        """Note a start of this pod, durably; to be made before it writes anything.

        ``place`` is the same as long as the home is this very one, and another one in a copy of it: a copy takes a new
        writer at once, whatever others know.
        """
        self._store, self._log = metadata.store, metadata.log
        self._request = metadata.committer.request
        self._known: dict[PodId, Chain] = {}
        stored = self._store.get_meta(OWN_KEY)
        self.chain = Chain() if stored is None else _unpack(stored)
        self.is_copy = self._store.get_meta(PLACE_KEY) not in (None, place)
        """Whether this home was copied since the last start, or restored from a copy."""
        if self.is_copy:
            logger.warning("this home is a copy, or was restored from one: it takes a new writer")
            writer = new_writer_id()
            self._store.set_meta("writer", writer)
            self._log.write_as(writer)
        self._store.set_meta(PLACE_KEY, place)
        self.append()
        self._store.commit()
        self._store.sync()

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
        sequence = self._log.table.received.get(writer, 0)
        have = [sequence, self._digest(writer, sequence)]
        plain = incarnation.plain
        return {"after": since, "starts": plain(starts), "known": plain(doubt), "have": have}

    def settle(self, pod: PodId, opening: object, account: object) -> None:
        """Take a pod's account.

        Raises `RestoredError` when it proves that this pod was restored, `RefusedError` when the other one was and
        hasn't noticed, `ProtocolError` when it is malformed.
        """
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

    def _judge_own(self, known: tuple[Start, ...], sequence: int, digest: bytes) -> None:
        """Raise `RestoredError` when what another pod knows of this one isn't of this line."""
        writer = self._log.writer
        own = self._log.table.received.get(writer, 0)
        verdict = incarnation.compare(self.chain, Chain(known), writer)
        if isinstance(verdict, Restored):
            raise RestoredError(min(verdict.after_sequence, own))
        if incarnation.contradicts(sequence, digest, own, self._digest(writer, sequence)):
            untold = self.chain.after(known[-1].incarnation if known else b"") or self.chain.starts[-1:]
            begun = next((one.sequence for one in untold if one.writer == writer), 0)
            raise RestoredError(min(begun, own))

    def _digest(self, writer: WriterId, sequence: int) -> bytes:
        """Return what tells a transaction from another one of its number; empty when it isn't kept here."""
        found = next(iter(self._log.table.transactions(writer, sequence - 1)), None) if sequence else None
        return b"" if found is None or found.sequence != sequence else hash_bytes(found.header)[:DIGEST_BYTES]


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
