"""A full pod's service for client pods: their operations, checked, carried out, durable, then answered.

A request is ``[stamp, again, marks, operation, data]``: the clock that the operation's records get, whether it was asked
before (here or elsewhere), which log entries the client has seen that this pod may lack, what to do, and of a small file
its bytes. The answer is a list of ``[writer, sequence]``: the operation is on the disk, in these logs up to there; or None:
the bytes of the file are still on their way, ask again.

The order *must* be: what the client has seen is here; the bytes are on the disk; the record is; then the answer.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Final

import anyio

from base.errors import DamagedError, FileSystemError, RefusedError, UnreachableError
from base.ids import PodId, WriterId, author_of
from crdt_meta.hlc import FRACTION_BITS, MAX_CLOCK, MAX_DRIFT_MS
from crdt_meta.metadata import Metadata
from crdt_meta.node import Kind
from crdt_meta.operation import (
    Create,
    Keep,
    Link,
    Operation,
    Publish,
    Purge,
    Remove,
    Rename,
    Restore,
    SetAttributes,
    SetXattr,
    check,
    is_done,
    parse,
    perform,
)
from mesh.node import MeshNode
from mesh.quiet import QuietLog
from mesh.roster import Roster
from mesh.wire import Tag
from transfer.service import Transfer
from vfs.gate import Gate
from vfs.hold import Hold
from vfs.xattrs import OWN

WAITING_LIMIT: Final = 256
"""Operations of one client at a time."""
NEWS_MS: Final = 10_000
"""A client may have heard by so much more of what a pod with a fast clock did (ms)."""
MARKS_LIMIT: Final = 4096
DATA_LIMIT_BYTES: Final = 128 << 10
"""Files up to this size come with the operation."""
BYTES_S: Final = 5.0
"""So long a request waits for the bytes of a file; then the client asks again."""
CATCH_UP_S: Final = 2.0
"""So long a request waits until this pod has seen what the client has."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for."""

    stamp: int
    again: bool
    marks: dict[WriterId, int]
    operation: Operation
    data: bytes | None


def read_request(body: object) -> Request:
    """Return the request that a message is. Raises `DamagedError`."""
    match body:
        case [int(stamp), bool(again), list(marks), operation, (None | bytes()) as data] if (
            0 < stamp < MAX_CLOCK and len(marks) <= MARKS_LIMIT and len(data or b"") <= DATA_LIMIT_BYTES
        ):
            found: dict[WriterId, int] = {}
            for mark in marks:
                match mark:
                    case [bytes(writer), int(sequence)] if len(writer) == 8 and sequence >= 0:
                        found[WriterId(writer)] = sequence
                    case _:
                        raise DamagedError("A client pod sent an operation that can't be read.")
            return Request(stamp, again, found, parse(operation), data)
    raise DamagedError("A client pod sent an operation that can't be read.")


class Serving:
    """See the module. Registers itself with the mesh."""

    def __init__(
        self, roster: Roster, metadata: Metadata, transfer: Transfer, mesh: MeshNode, gate: Gate, hold: Hold
    ) -> None:
        """``gate`` says what may be changed, ``hold`` whether this pod takes changes now."""
        self._gate = gate
        self._hold = hold
        self._roster = roster
        self._metadata = metadata
        self._transfer = transfer
        self._mesh = mesh
        self._under_way: Counter[PodId] = Counter()
        self._quiet = QuietLog(logger, anyio.current_time)
        mesh.handle(Tag.OPERATION, self.handle)

    async def handle(self, sender: PodId, body: object) -> object:
        """Carry out one operation. Raises what the client is to be told."""
        try:
            self._check_sender(sender)
            request = read_request(body)
            self._check_stamp(request.stamp)
        except (RefusedError, DamagedError) as error:
            self._quiet.warning(f"{sender} {error.message}", f"an operation of {sender} was refused: {error.message}")
            raise
        if self._under_way[sender] >= WAITING_LIMIT:
            raise RefusedError("This pod has too many operations of yours waiting.", "Ask again later.")
        self._under_way[sender] += 1
        try:
            return await self._serve(sender, request)
        finally:
            self._under_way[sender] -= 1
            if not self._under_way[sender]:
                del self._under_way[sender]

    def _check_sender(self, sender: PodId) -> None:
        """Refuse whom operations aren't for: a full pod has a log of its own."""
        if not (self._roster.is_client(sender) and self._roster.is_member(sender)):
            raise RefusedError("Only client pods have others carry out their operations.")
        if self._roster.is_client(self._mesh.pod_id):
            raise RefusedError("A client pod carries out nothing for others.")

    def _check_stamp(self, stamp: int) -> None:
        """Refuse a stamp from the future: it would win over everybody else's later changes.

        Where some pod's clock is ahead, everybody's stamps follow it as far as that is allowed, and so do a client's.
        """
        clock = self._metadata.clock
        latest = max(clock.physical() + (MAX_DRIFT_MS << FRACTION_BITS), clock.last + (NEWS_MS << FRACTION_BITS))
        if stamp > latest:
            raise RefusedError("The clock of this client pod is far ahead.", "Set it right.")

    async def _serve(self, sender: PodId, request: Request) -> object:
        await self._catch_up(sender, request.marks)
        tree, operation = self._metadata.tree, request.operation
        whose = author_of(sender), request.stamp
        was_done = is_done(tree, *whose, operation)
        if isinstance(operation, Publish):
            if not was_done:
                check(tree, operation)
            if not await self._bytes_are_here(sender, operation, request.data):
                return None
            was_done = is_done(tree, *whose, operation)
        if not was_done:
            self._check_held(operation)
            was_done = self._perform(*whose, request)
        if isinstance(operation, Publish):
            self._transfer.published(operation.content)
        await self._metadata.committer.durable()
        vector, writer = self._metadata.log.vector(), self._metadata.writer
        marks = sorted(vector.items())[:MARKS_LIMIT] if was_done else [(writer, vector.get(writer, 0))]
        return [list(mark) for mark in marks]

    def _check_held(self, operation: Operation) -> None:
        """Refuse what writes while this pod is frozen. What was written before is published, and removing goes on."""
        is_cure = isinstance(operation, Publish | Remove | Purge)
        is_configuration = isinstance(operation, SetXattr) and operation.name.startswith(OWN)
        if self._hold.is_on and not is_cure and not is_configuration:
            self._hold.refuse()

    def _perform(self, author: WriterId, stamp: int, request: Request) -> bool:
        """Carry out an operation; tell whether it turns out to have been done before. Raises `FileSystemError`."""
        tree, operation = self._metadata.tree, request.operation
        try:
            check(tree, operation)
            self._ask(operation)
            perform(tree, author, stamp, operation)
        except FileSystemError:
            if request.again and is_done(tree, author, stamp, operation, MAX_CLOCK):
                return True
            raise
        return False

    def _ask(self, operation: Operation) -> None:
        """Refuse what a rule forbids. What was written before it came in force is published."""
        gate, display = self._gate, self._metadata.tree.display
        match operation:
            case Create(parent=parent, name=name, kind=kind):
                gate.name(parent, name, folder=kind is Kind.DIRECTORY)
            case Remove(parent=parent, name=name, directory=directory):
                gate.name(parent, name, folder=directory)
            case Link(inode=inode, parent=parent, name=name):
                gate.inode(inode)
                gate.name(parent, name)
            case Rename(parent=parent, name=name, new_parent=new_parent, new_name=new_name):
                for place in ((parent, name), (new_parent, new_name)):
                    gate.name(*place, folder=display.directory(*place) is not None)
            case SetAttributes(inode=inode) | SetXattr(inode=inode):
                gate.inode(inode)
            case Restore(entry=entry):
                gate.path(entry.path)
            case Keep(path=path):
                gate.path(path)

    async def _bytes_are_here(self, sender: PodId, operation: Publish, data: bytes | None) -> bool:
        with anyio.move_on_after(BYTES_S):
            await self._transfer.take(operation.content, operation.size, sender, data)
            return True
        return False

    async def _catch_up(self, sender: PodId, marks: dict[WriterId, int]) -> None:
        """Have everything here that the client has seen: what it lacks of that it gets from the client.

        Raises `UnreachableError` when that takes too long: another pod may have it already.
        """
        with anyio.move_on_after(CATCH_UP_S):
            for writer, sequence in marks.items():
                if self._counts(writer) and self._metadata.log.vector().get(writer, 0) < sequence:
                    await self._mesh.fetch_log(sender, writer, sequence)
        vector = self._metadata.log.vector()
        if any(vector.get(writer, 0) < sequence for writer, sequence in marks.items() if self._counts(writer)):
            raise UnreachableError("This pod hasn't heard yet of all that the client pod has seen.", "Ask another pod.")

    def _counts(self, writer: WriterId) -> bool:
        """Tell whether a writer's log is one that this pod should have: known, not its own, not adopted by others."""
        own = writer == self._metadata.writer
        return not own and self._roster.writer_pod(writer) is not None and writer not in self._roster.adoptions()
