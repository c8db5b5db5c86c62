"""Segments: the Y.Docs that carry records. Each has one writer, so Yjs never has to choose between two values.

A segment is a map ``key text → record bytes`` of about a thousand records. Those in use are in memory, the others are
rebuilt from their parts in the log. Client ids are fresh for every document that is loaded: a pair of client id and
clock must never stand for two things.

Must never: read or write a document inside one of its observers; keep a document that refused an update.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from pycrdt import Doc, Map

from base.errors import DamagedError
from base.ids import WriterId

RECORDS_PER_SEGMENT: Final = 1000
LOADED_LIMIT: Final = 24
ROOT: Final = "records"

SegmentKey = tuple[WriterId, int]


class Segment:
    """One loaded document."""

    def __init__(self, parts: list[bytes]) -> None:
        """Load from parts, in order. Raises `DamagedError` when they can't be applied."""
        self._doc: Doc[Any] = Doc(client_id=random.SystemRandom().getrandbits(50))
        self._doc[ROOT] = self._map = Map[Any]()
        for part in parts:
            _guarded(self._doc.apply_update, part)
        self._changed: dict[str, bytes | None] = {}
        self._subscription = self._map.observe(_noting(self._changed))

    def __len__(self) -> int:
        return len(self._map)

    def write(self, values: Mapping[str, bytes | None]) -> bytes:
        """Write records (None: remove) in one transaction; return the update that carries them."""
        before = self._doc.get_state()
        with self._doc.transaction():
            for key, value in values.items():
                if value is not None:
                    self._map[key] = value
                elif key in self._map:
                    del self._map[key]
        self._changed.clear()
        return self._doc.get_update(before)

    def apply(self, update: bytes) -> dict[str, bytes | None]:
        """Apply an update; return the records that it wrote (None: removed). Raises `DamagedError`."""
        self._changed.clear()
        _guarded(self._doc.apply_update, update)
        changed = dict(self._changed)
        self._changed.clear()
        return changed


def _noting(changed: dict[str, bytes | None]) -> Callable[[Any], None]:
    """Return an observer. It must not hold the segment: a cycle through the document is never collected."""

    def note(event: Any) -> None:
        for key, change in event.keys.items():
            value = change.get("newValue") if change["action"] != "delete" else None
            changed[key] = bytes(value) if isinstance(value, bytes | bytearray) else None

    return note


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

    def __init__(self, parts: Callable[[WriterId, int], list[bytes]]) -> None:
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

    def forget(self, writer: WriterId, segment: int) -> None:
        """Drop a document whose state may differ from the log's."""
        self._loaded.pop((writer, segment), None)
