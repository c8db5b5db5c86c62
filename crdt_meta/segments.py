"""Segments: the Y.Docs that carry records. Each has one writer, so Yjs never has to choose between two values.

A segment is a map ``key text → record bytes`` of about a thousand records. Those in use are in memory, the others are
rebuilt from their parts in the log: what it was when it was last written as a whole (compressed), and the changes since.
Client ids are fresh for every document that is loaded: a pair of client id and clock must never stand for two things.

Must never: read or write a document inside one of its observers; keep a document that refused an update.
"""

from __future__ import annotations

import random
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pycrdt import Doc, Map

from base.errors import DamagedError
from base.ids import WriterId
from crdt_meta.transaction import Part

ZLIB_LEVEL: Final = 6
RECORDS_PER_SEGMENT: Final = 1000
LOADED_LIMIT: Final = 24
WHOLE_LIMIT_BYTES: Final = 64 << 20
"""A whole segment is at most so large when it is unpacked."""
ROOT: Final = "records"

SegmentKey = tuple[WriterId, int]


class Segment:
    """One loaded document."""

    def __init__(self, parts: Sequence[Part] = ()) -> None:
        """Load from the parts of one epoch, in order. Raises `DamagedError` when they can't be applied."""
        self._doc: Doc[Any] = Doc(client_id=random.SystemRandom().getrandbits(50))
        self._doc[ROOT] = self._map = Map[Any]()
        self.epoch = parts[-1].epoch if parts else 0
        for part in parts:
            self.take(part)

    def __len__(self) -> int:
        return len(self._map)

    def write(self, values: Mapping[str, bytes | None]) -> bytes:
        """Write records (None: remove) in one transaction; return the update that carries them."""
        before = self._doc.get_state()
        with self._doc.transaction() as transaction:
            insert, inner = self._map.integrated.insert, transaction._txn  # `Map.__setitem__` takes five times as long
            for key, value in values.items():
                if value is not None:
                    insert(inner, key, value)
                elif key in self._map:
                    del self._map[key]
        return self._doc.get_update(before)

    def keys(self) -> list[str]:
        """Return the keys of everything that is in it."""
        return list(self._map.keys())

    def records(self) -> dict[str, bytes | None]:
        """Return everything that is in it (values that are no bytes as None)."""
        return {key: _record(value) for key, value in self._map.items()}

    def whole(self) -> bytes:
        """Return the part that writes the segment anew, without a trace of what is gone."""
        fresh = Segment()
        fresh.write({key: value for key, value in self.records().items() if value is not None})
        return zlib.compress(fresh._doc.get_update(), ZLIB_LEVEL)

    def take(self, part: Part) -> None:
        """Apply a part of the same epoch. Raises `DamagedError`."""
        _guarded(self._doc.apply_update, unpacked(part))

    def apply(self, part: Part) -> dict[str, bytes | None]:
        """Apply a part of the same epoch; return the records that it wrote (None: removed). Raises `DamagedError`."""
        changed: dict[str, bytes | None] = {}
        # Only here: own writes need none, and each key costs. `Map.observe` would look at each value once more.
        subscription = self._map.integrated.observe(_noting(changed))
        try:
            self.take(part)
        finally:
            subscription.drop()
        return changed


def _noting(changed: dict[str, bytes | None]) -> Callable[[Any], None]:
    """Return an observer. It must not hold the segment: a cycle through the document is never collected."""

    def note(event: Any) -> None:
        for key, change in event.keys.items():
            changed[key] = _record(change.get("newValue") if change["action"] != "delete" else None)

    return note


def _record(value: object) -> bytes | None:
    return bytes(value) if isinstance(value, (bytes, bytearray)) else None


def difference(old: Mapping[str, bytes | None], new: Mapping[str, bytes | None]) -> dict[str, bytes | None]:
    """Return what has to be written (None: removed) to make a segment's records into others."""
    changed: dict[str, bytes | None] = {key: value for key, value in new.items() if old.get(key, b"") != value}
    changed.update(dict.fromkeys(old.keys() - new.keys()))
    return changed


def unpacked(part: Part) -> bytes:
    """Return a part's update of the document. Raises `DamagedError` when it is too large or not compressed right."""
    if not part.whole:
        return part.update
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(part.update, WHOLE_LIMIT_BYTES)
    except zlib.error as error:
        raise DamagedError("A segment can't be unpacked.") from error
    if not stream.eof or stream.unused_data:
        raise DamagedError("A segment is too large, or can't be unpacked.")
    return data


def _guarded(apply: Callable[[bytes], None], update: bytes) -> None:
    """Apply an update; whatever pycrdt throws at a bad one (its panics are no `Exception`) becomes `DamagedError`."""
    try:
        apply(update)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise DamagedError(f"An update can't be applied: {error}.") from error


class Segments:
    """The segments of all writers; a bounded number of them is in memory."""

    def __init__(self, parts: Callable[[WriterId, int], list[Part]]) -> None:
        self._parts = parts
        self._loaded: OrderedDict[SegmentKey, Segment] = OrderedDict()

    def get(self, writer: WriterId, segment: int) -> Segment:
        """Return a segment, loaded from the log when it isn't in memory."""
        key = (writer, segment)
        found = self._loaded.get(key)
        if found is None:
            found = self._loaded[key] = Segment(self._parts(writer, segment))
            while len(self._loaded) > LOADED_LIMIT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return found

    def replace(self, writer: WriterId, segment: int, new: Segment) -> None:
        """Go on with another document."""
        self._loaded[writer, segment] = new

    def forget(self, writer: WriterId, segment: int) -> None:
        """Drop a document whose state may differ from the log's."""
        self._loaded.pop((writer, segment), None)
