"""All records of all writers, by node: decoded ones in a bounded cache, changed ones waiting to be written together."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from base.ids import WriterId
from crdt_meta.derive import Written
from crdt_meta.records import Body, Key, decode
from crdt_meta.store import Store
from crdt_meta.table import WAITING_LIMIT

CACHED_NODES: Final = 8192
NODES_A_QUERY: Final = 256


class _Stored(NamedTuple):
    """One record."""

    segment: int
    writer: WriterId
    body: Body | None
    """None: of an unknown kind or version, or malformed."""


_Node = dict[tuple[str, int, int], _Stored]
"""(kind, number of the writer, clock) → record."""


class Records:
    """See the module."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._nodes: OrderedDict[bytes, _Node] = OrderedDict()
        self._waiting: dict[tuple[bytes, str, int, int], tuple[int, bytes] | None] = {}
        self._dropped: set[bytes] = set()
        """Nodes of which records were removed since the last `_flush`."""
        store.on_flush.append(self._flush)
        store.on_clear.append(self._clear)

    def _node(self, node: bytes) -> _Node:
        found = self._nodes.get(node)
        if found is not None:
            return found
        found = {}
        for kind, number, clock, segment, value in self._store.db.execute(
            "SELECT kind, writer, clock, segment, value FROM record WHERE node = ?", (node,)
        ):
            body = decode(Key(kind, node, clock), value)
            found[kind, number, clock] = _Stored(segment, self._store.writer_of(number), body)
        self._nodes[node] = found
        if not self._waiting:
            self._trim()
        return found

    def expect(self, nodes: Iterable[bytes]) -> list[bytes]:
        """Read the records of many nodes with few queries; return those of which there is none."""
        wanted = sorted(node for node in nodes if node not in self._nodes)
        unknown = []
        for at in range(0, len(wanted), NODES_A_QUERY):
            found: dict[bytes, _Node] = {node: {} for node in wanted[at : at + NODES_A_QUERY]}
            marks = ",".join("?" * len(found))
            query = f"SELECT node, kind, writer, clock, segment, value FROM record WHERE node IN ({marks})"  # noqa: S608
            for node, kind, number, clock, segment, value in self._store.db.execute(query, tuple(found)):
                body = decode(Key(kind, node, clock), value)
                found[node][kind, number, clock] = _Stored(segment, self._store.writer_of(number), body)
            self._nodes.update(found)
            unknown += [node for node, records in found.items() if not records and node not in self._dropped]
        return unknown

    def _trim(self) -> None:
        while len(self._nodes) > CACHED_NODES:
            self._nodes.popitem(last=False)

    def of(self, node: bytes, kinds: str) -> list[Written]:
        """Return the readable records of a node of these kinds."""
        return [(one.writer, one.body) for key, one in self._node(node).items() if key[0] in kinds and one.body]

    def has(self, node: bytes) -> bool:
        """Tell whether there is any record of a node, or was a moment ago."""
        return bool(self._node(node)) or node in self._dropped

    def absent(self, node: bytes) -> None:
        """Note that there can't be a record of a node: its id is new."""
        self._nodes[node] = {}

    def segment_of(self, key: Key, writer: WriterId) -> int | None:
        """Return the segment in which a writer's record lies."""
        found = self._node(key.node).get((key.kind, self._store.number_of(writer), key.clock))
        return None if found is None else found.segment

    def put(self, key: Key, writer: WriterId, segment: int, value: bytes, body: Body | None) -> None:
        """Write a record, over an earlier one of this key and writer."""
        number = self._store.number_of(writer)
        self._node(key.node)[key.kind, number, key.clock] = _Stored(segment, writer, body)
        self._waiting[key.node, key.kind, number, key.clock] = segment, value
        if len(self._waiting) >= WAITING_LIMIT:
            self._flush()

    def drop(self, key: Key, writer: WriterId) -> None:
        """Remove a record that its writer removed."""
        number = self._store.number_of(writer)
        self._node(key.node).pop((key.kind, number, key.clock), None)
        self._dropped.add(key.node)
        self._waiting[key.node, key.kind, number, key.clock] = None

    def _flush(self) -> None:
        if not self._waiting:
            return
        changes, self._waiting = self._waiting, {}
        self._dropped.clear()
        gone = [key for key, value in changes.items() if value is None]
        written = sorted((*key, *value) for key, value in changes.items() if value is not None)  # fills pages better
        self._store.db.executemany("DELETE FROM record WHERE node = ? AND kind = ? AND writer = ? AND clock = ?", gone)
        self._store.db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?, ?, ?)", written)
        self._trim()

    def _clear(self) -> None:
        self._nodes.clear()
        self._waiting.clear()
        self._dropped.clear()
