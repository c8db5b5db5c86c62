"""Who has seen what: acknowledgements that pods write into their own logs, so that they arrive everywhere in order.

Who wants to drop something asks, by an acknowledgement of its own. Everybody else answers with one. Since an answer is
a transaction of its writer, whoever has it also has everything that this writer had written before: nothing that it
did in ignorance of what is to be dropped can still be under way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from base.ids import ContentId, InodeId, LinkId, WriterId
from crdt_meta.collection import directories_above
from crdt_meta.hlc import HybridClock
from crdt_meta.log import MetadataLog
from crdt_meta.records import BUILDS_ON_LIMIT, Acknowledgement, node_of
from crdt_meta.view import View

Vector = Mapping[WriterId, int]


def content_mark(content: ContentId) -> InodeId:
    """Return what stands for a content among the inodes that something builds on."""
    return InodeId(content[:16])


class Acknowledgements:
    """Reads everybody's acknowledgements and writes this pod's."""

    def __init__(self, view: View, log: MetadataLog, clock: HybridClock) -> None:
        self.builds_on: Callable[[], Collection[InodeId]] = tuple
        """The inodes whose open or unpublished files may still be published here, and `content_mark` of what these show."""
        self._view = view
        self._log = log
        self._clock = clock

    def of(self, writer: WriterId) -> Acknowledgement | None:
        """Return the last acknowledgement of a writer."""
        for author, body in self._view.records.of(node_of(writer), "k"):
            if author == writer and isinstance(body, Acknowledgement):
                return body
        return None

    def wanted(self, counted: Collection[WriterId]) -> bool:
        """Tell whether somebody who counts asks for what this pod hasn't acknowledged yet."""
        own = self.of(self._log.writer)
        vector = {} if own is None else own.vector
        asking = ((writer, ack) for writer in counted if (ack := self.of(writer)) is not None and ack.asks)
        return any(vector.get(writer, 0) < ack.vector.get(writer, 0) for writer, ack in asking)

    def write(self, seen: Mapping[WriterId, float], *, asks: bool) -> Vector:
        """Acknowledge what is in the view now; return the vector.

        ``seen``: writers that can't be reached → when they were last heard of (seconds since the epoch).
        """
        self._log.seal()
        writer = self._log.writer
        vector = {one: sequence for one, sequence in self._log.table.applied.items() if sequence}
        vector[writer] = self._log.table.received[writer] + 1
        found = tuple(sorted(self.in_use()))
        record = Acknowledgement(
            self._clock.tick(),
            vector,
            found if len(found) <= BUILDS_ON_LIMIT else None,
            {one: max(0, int(time_s * 1000)) for one, time_s in seen.items()},
            asks,
        )
        self._log.write([(node_of(writer), record)])
        self._log.seal()
        return vector

    def have(self, vector: Vector, counted: Collection[WriterId], retired: Collection[WriterId]) -> bool:
        """Tell whether all who count acknowledged everything up to a vector; of retired writers nobody is asked."""
        for writer in counted:
            ack = self.of(writer)
            if ack is None or any(
                ack.vector.get(one, 0) < sequence for one, sequence in vector.items() if one not in retired
            ):
                return False
        return True

    def may_come_back(self, counted: Collection[WriterId]) -> Callable[[InodeId], bool]:
        """Return what tells whether somebody may still publish a content of an inode, or of one in this directory."""
        busy = self.in_use()
        for writer in counted:
            ack = self.of(writer)
            if ack is None or ack.builds_on is None:
                return lambda _: True
            busy.update(ack.builds_on)
        above: set[bytes] = set()
        for inode in busy:
            for link in (LinkId(inode), *self._view.links.to(inode)):
                above |= directories_above(self._view, link, above)
        return (busy | above).__contains__

    def in_use(self) -> set[InodeId]:
        """Return the inodes that something here builds on; of siblings also what they are siblings of."""
        owners = self._view.sibling_owner
        return {one for inode in self.builds_on() for one in (inode, owners.get(inode, inode))}

    def seen(self, writer: WriterId, counted: Collection[WriterId]) -> float:
        """Return when a writer was last heard of, by everybody's word (seconds since the epoch; 0: by nobody's)."""
        words = (self.of(one) for one in (*counted, self._log.writer))
        return max((ack.seen.get(writer, 0) / 1000 for ack in words if ack is not None), default=0.0)
