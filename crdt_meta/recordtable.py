"""All records of all writers, by node: decoded ones in a bounded cache, changed ones waiting to be written together.

A record lies in a segment of its *holder*, who is its author or adopted it. Of a record that several hold, the latest
is what counts: whoever adopted it wrote down what the author had last written, as far as known there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from base.ids import WriterId
from crdt_meta.derive import Written
from crdt_meta.records import Body, Key, decode, encode
from crdt_meta.store import Store
from crdt_meta.table import WAITING_LIMIT

CACHED_NODES: Final = 8192
NODES_A_QUERY: Final = 256


class _Stored(NamedTuple):
    """One record."""

    segment: int
    author: WriterId
    body: Body | None
    """None: of an unknown kind or version, or malformed."""


_Place = tuple[str, int, int, int]
"""(kind, number of the author, clock, number of who adopted it or 0)."""
_Node = dict[_Place, _Stored]


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
        self._waiting: dict[tuple[bytes, _Place], tuple[int, bytes] | None] = {}
        self._dropped: set[bytes] = set()
        """Nodes of which records were removed since the last `_flush`."""
        store.on_flush.append(self._flush)
        store.on_clear.append(self._clear)

    def _node(self, node: bytes) -> _Node:
        found = self._nodes.get(node)
        if found is not None:
            return found
        found = {}
        for kind, number, clock, holder, segment, value in self._store.db.execute(
            "SELECT kind, writer, clock, holder, segment, value FROM record WHERE node = ?", (node,)
        ):
            body = decode(Key(kind, node, clock), value)
            found[kind, number, clock, holder] = _Stored(segment, self._store.writer_of(number), body)
        self._nodes[node] = found
        if not self._waiting:
            self._trim()
        return found

    def expect(self, nodes: Iterable[bytes]) -> list[bytes]:
        """Read the records of many nodes with few queries; return those of which there is none."""
        wanted = sorted(node for node in nodes if node not in self._nodes)
        unknown: list[bytes] = []
        for at in range(0, len(wanted), NODES_A_QUERY):
            found: dict[bytes, _Node] = {node: {} for node in wanted[at : at + NODES_A_QUERY]}
            query = (
                "SELECT node, kind, writer, clock, holder, segment, value FROM record "  # noqa: S608 (marks only)
                f"WHERE node IN ({','.join('?' * len(found))})"
            )
            for node, kind, number, clock, holder, segment, value in self._store.db.execute(query, tuple(found)):
                body = decode(Key(kind, node, clock), value)
                found[node][kind, number, clock, holder] = _Stored(segment, self._store.writer_of(number), body)
            self._nodes.update(found)
            unknown += [node for node, records in found.items() if not records and node not in self._dropped]
        return unknown

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
        for place, one in found.items():
            if place[0] not in kinds or one.body is None:
                continue
            other = latest.get(place[:3])
            if other is None or _later(one.body, other[1], node):
                latest[place[:3]] = one.author, one.body
        return list(latest.values())

    def held(self, node: bytes) -> list[Held]:
        """Return all records of a node, as often as they are held, unreadable ones included."""
        found = []
        for (kind, _, clock, number), one in self._node(node).items():
            holder = self._store.writer_of(number) if number else one.author
            key = Key(kind, node, clock, one.author if number else None)
            found.append(Held(holder, key, one.author, one.segment, one.body))
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
        return None if found is None else found.segment

    def body_of(self, key: Key, holder: WriterId) -> Body | None:
        """Return a holder's record."""
        found = self._node(key.node).get(self._place(key, holder))
        return None if found is None else found.body

    def put(self, key: Key, holder: WriterId, segment: int, value: bytes, body: Body | None) -> None:
        """Write a record, over an earlier one of this key and holder."""
        place = self._place(key, holder)
        self._node(key.node)[place] = _Stored(segment, key.author or holder, body)
        self._waiting[key.node, place] = segment, value
        if len(self._waiting) >= WAITING_LIMIT:
            self._flush()

    def drop(self, key: Key, holder: WriterId) -> None:
        """Remove a record that its holder removed."""
        place = self._place(key, holder)
        self._node(key.node).pop(place, None)
        self._dropped.add(key.node)
        self._waiting[key.node, place] = None

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
        changes, self._waiting = self._waiting, {}
        self._dropped.clear()
        gone = [(node, *place) for (node, place), value in changes.items() if value is None]
        written = [(node, *place, *value) for (node, place), value in sorted(changes.items()) if value is not None]
        self._store.db.executemany(
            "DELETE FROM record WHERE node = ? AND kind = ? AND writer = ? AND clock = ? AND holder = ?", gone
        )
        self._store.db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?, ?)", written)
        self._trim()

    def _clear(self) -> None:
        self._nodes.clear()
        self._waiting.clear()
        self._dropped.clear()


def _later(one: Body, other: Body, node: bytes) -> bool:
    """Tell whether a record counts rather than another of the same key, the same on every pod."""
    if one.clock != other.clock:
        return one.clock > other.clock
    return one != other and encode(one, node) > encode(other, node)
