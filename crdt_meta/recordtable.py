"""All records of all writers, by node: decoded ones in a bounded cache, changed ones waiting to be written together.

A record lies in a segment of its *holder*, who is its author or adopted it. Of a record that several hold, the latest
is what counts: whoever adopted it wrote down what the author had last written, as far as known there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from base.ids import WriterId
from crdt_meta.codec import decode, encode
from crdt_meta.derive import Written
from crdt_meta.records import Body, Key
from crdt_meta.store import Store
from crdt_meta.table import WAITING_LIMIT

CACHED_NODES: Final = 16384
NODES_A_QUERY: Final = 256


_Stored = tuple[int, WriterId, Body | None]
"""(segment, author, record; None: of an unknown kind or version, or malformed)."""
_Place = tuple[str, int, int, int]
"""(kind, number of the author, clock, number of who adopted it or 0)."""
_Node = dict[_Place, _Stored]
_Row = tuple[bytes, str, int, int, int, int, bytes]
"""As it is in the table."""


class Found(NamedTuple):
    """A record as a holder's segment has it."""

    key: Key
    segment: int
    value: bytes | None
    """None: removed."""


class Held(NamedTuple):
    """A record and who holds it."""

    holder: WriterId
    key: Key
    """As it is in the holder's segment."""
    author: WriterId
    segment: int
    body: Body | None


class Records:
    """See the module."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nodes: OrderedDict[bytes, _Node] = OrderedDict()
        self._waiting: dict[bytes, dict[_Place, _Row | None]] = {}
        """Node → place → the row to be written; None: removed."""
        self._waiting_rows = 0
        self._dropped: set[bytes] = set()
        """Nodes of which records were removed since the last `_flush`."""
        store.on_flush.append(self._flush)
        store.on_clear.append(self._clear)

    def _node(self, node: bytes) -> _Node:
        try:
            return self._nodes[node]
        except KeyError:
            return self._read(node)

    def _read(self, node: bytes) -> _Node:
        found: _Node = {}
        for kind, number, clock, holder, segment, value in self._store.db.execute(
            "SELECT kind, writer, clock, holder, segment, value FROM record WHERE node = ?", (node,)
        ):
            found[kind, number, clock, holder] = self._stored(node, kind, number, clock, segment, value)
        for place, row in self._waiting.get(node, {}).items():
            if row is None:
                found.pop(place, None)
            else:
                found[place] = self._stored(*row[:4], *row[5:])
        self._nodes[node] = found
        if not self._waiting:
            self._trim()
        return found

    def _stored(self, node: bytes, kind: str, number: int, clock: int, segment: int, value: bytes) -> _Stored:
        return segment, self._store.writer_of(number), decode(kind, node, clock, value)

    def expect(self, nodes: Iterable[bytes]) -> list[bytes]:
        """Read the records of many nodes with few queries; return those of which there is none."""
        wanted = sorted(node for node in nodes if node not in self._nodes and node not in self._waiting)
        unknown: list[bytes] = []
        if wanted and not self._any_between(wanted[0], wanted[-1]):
            return wanted
        for at in range(0, len(wanted), NODES_A_QUERY):
            found: dict[bytes, _Node] = {}
            some = wanted[at : at + NODES_A_QUERY]
            query = (
                "SELECT node, kind, writer, clock, holder, segment, value FROM record "  # noqa: S608 (marks only)
                f"WHERE node IN ({','.join('?' * len(some))})"
            )
            for node, kind, number, clock, holder, segment, value in self._store.db.execute(query, some):
                records = found.setdefault(node, {})
                records[kind, number, clock, holder] = self._stored(node, kind, number, clock, segment, value)
            self._nodes.update(found)
            unknown += [node for node in some if node not in found]
        return unknown

    def _any_between(self, first: bytes, last: bytes) -> bool:
        """Tell whether the table has any of these nodes or one between them; what is made together has ids side by side."""
        query = "SELECT 1 FROM record WHERE node BETWEEN ? AND ? LIMIT 1"
        return self._store.db.execute(query, (first, last)).fetchone() is not None

    def _trim(self) -> None:
        while len(self._nodes) > CACHED_NODES:
            self._nodes.popitem(last=False)

    def of(self, node: bytes, kinds: str) -> list[Written]:
        """Return the readable records of a node of these kinds with their authors, each once."""
        found = self._node(node)
        written: list[Written] = []
        for (kind, _, _, holder), (_, author, body) in found.items():
            if holder:
                return self._once(node, kinds, found)
            if kind in kinds and body is not None:
                written.append((author, body))
        return written

    @staticmethod
    def _once(node: bytes, kinds: str, found: _Node) -> list[Written]:
        latest: dict[tuple[str, int, int], Written] = {}
        for place, (_, author, body) in found.items():
            if place[0] not in kinds or body is None:
                continue
            other = latest.get(place[:3])
            if other is None or _later(body, other[1], node):
                latest[place[:3]] = author, body
        return list(latest.values())

    def held(self, node: bytes) -> list[Held]:
        """Return all records of a node, as often as they are held, unreadable ones included."""
        found = []
        for (kind, _, clock, number), (segment, author, body) in self._node(node).items():
            holder = self._store.writer_of(number) if number else author
            key = Key(kind, node, clock, author if number else None)
            found.append(Held(holder, key, author, segment, body))
        return found

    def has(self, node: bytes) -> bool:
        """Tell whether there is any record of a node, or was a moment ago."""
        return bool(self._node(node)) or node in self._dropped

    def absent(self, node: bytes) -> None:
        """Note that there can't be a record of a node: its id is new."""
        self._nodes[node] = {}

    def _place(self, key: Key, holder: WriterId) -> _Place:
        if key.author is None:
            return key.kind, self._store.number_of(holder), key.clock, 0
        return key.kind, self._store.number_of(key.author), key.clock, self._store.number_of(holder)

    def segment_of(self, key: Key, holder: WriterId) -> int | None:
        """Return the segment in which a holder's record lies."""
        found = self._node(key.node).get(self._place(key, holder))
        return None if found is None else found[0]

    def body_of(self, key: Key, holder: WriterId) -> Body | None:
        """Return a holder's record."""
        found = self._node(key.node).get(self._place(key, holder))
        return None if found is None else found[2]

    def put(
        self, key: Key, holder: WriterId, segment: int, value: bytes, body: Body | None, *, stays: bool = False
    ) -> _Stored | None:
        """Write a record; return the earlier one of this key and holder. ``stays``: in that one's segment, if any."""
        node, place = key.node, self._place(key, holder)
        records = self._node(node)
        before = records.get(place)
        if stays and before is not None:
            segment = before[0]
        records[place] = segment, key.author or holder, body
        self._wait(node, place, (node, *place, segment, value))
        return before

    def arrive(self, holder: WriterId, node: bytes, found: Sequence[Found]) -> bool:
        """Write the records of a node of which there was none; they are read when somebody asks for them, if ever.

        Returns False, and does nothing, when one key comes twice: then the last one counts.
        """
        rows: dict[_Place, _Row | None] = {}
        for key, segment, value in found:
            place = self._place(key, holder)
            rows[place] = (node, *place, segment, value or b"")
        if len(rows) < len(found):
            return False
        self._waiting[node] = rows
        self._waiting_rows += len(rows)
        if self._waiting_rows >= WAITING_LIMIT:
            self._flush()
        return True

    def drop(self, key: Key, holder: WriterId) -> None:
        """Remove a record that its holder removed."""
        place = self._place(key, holder)
        self._node(key.node).pop(place, None)
        self._dropped.add(key.node)
        self._wait(key.node, place, None)

    def _wait(self, node: bytes, place: _Place, row: _Row | None) -> None:
        waiting = self._waiting.get(node)
        if waiting is None:
            waiting = self._waiting[node] = {}
        waiting[place] = row
        self._waiting_rows += 1
        if self._waiting_rows >= WAITING_LIMIT:
            self._flush()

    def nodes(self, after: bytes, limit: int) -> list[bytes]:
        """Return the nodes of which there are records, in order, from behind one on."""
        query = "SELECT DISTINCT node FROM record WHERE node > ? ORDER BY node LIMIT ?"
        return [bytes(row[0]) for row in self._store.query(query, (after, limit))]

    def values(self, node: bytes) -> Iterator[tuple[Held, bytes]]:
        """Yield all records of a node with their stored values."""
        self._store.flush()
        for held in self.held(node):
            row = self._store.db.execute(
                "SELECT value FROM record WHERE node = ? AND kind = ? AND writer = ? AND clock = ? AND holder = ?",
                (node, *self._place(held.key, held.holder)),
            ).fetchone()
            yield held, bytes(row[0])

    def _flush(self) -> None:
        if not self._waiting:
            return
        changes, self._waiting, self._waiting_rows = self._waiting, {}, 0
        if self._dropped:
            self._dropped.clear()
            self._store.db.executemany(
                "DELETE FROM record WHERE node = ? AND kind = ? AND writer = ? AND clock = ? AND holder = ?",
                [(node, *place) for node, rows in changes.items() for place, row in rows.items() if row is None],
            )
        written = [row for node in sorted(changes) for row in changes[node].values() if row is not None]
        self._store.write_rows("record", written)
        self._trim()

    def _clear(self) -> None:
        self._nodes.clear()
        self._waiting.clear()
        self._waiting_rows = 0
        self._dropped.clear()


def _later(one: Body, other: Body, node: bytes) -> bool:
    """Tell whether a record counts rather than another of the same key, the same on every pod."""
    if one.clock != other.clock:
        return one.clock > other.clock
    return one != other and encode(one, node) > encode(other, node)
