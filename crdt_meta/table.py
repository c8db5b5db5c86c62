"""A table by primary key: a bounded cache in front of it, and changes that wait to be written together.

SQLite costs a few microseconds a statement, and one operation on the tree reads the same few rows many times. Changed
rows stay in memory until `flush`, which `Store.commit` and every query beside the key cause.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=bytes)
V = TypeVar("V")

WAITING_LIMIT: Final = 4096
"""So many changes are written at the latest."""


class Table(Generic[K, V]):
    """See the module. A row that isn't there is None."""

    def __init__(
        self, limit: int, load: Callable[[K], V | None], write: Callable[[Mapping[K, V | None]], None]
    ) -> None:
        """Keep ``limit`` rows in memory; ``load`` reads one, ``write`` writes changed ones (None: remove it)."""
        self._limit = limit
        self._load = load
        self._write = write
        self._clean: OrderedDict[K, V | None] = OrderedDict()
        self._waiting: dict[K, V | None] = {}

    def get(self, key: K) -> V | None:
        """Return a row."""
        if key in self._waiting:
            return self._waiting[key]
        try:
            value = self._clean[key]
        except KeyError:
            value = self._clean[key] = self._load(key)
            if len(self._clean) > self._limit:
                self._clean.popitem(last=False)
            return value
        self._clean.move_to_end(key)
        return value

    def put(self, key: K, value: V | None) -> None:
        """Change a row; None removes it."""
        self._waiting[key] = value
        if len(self._waiting) >= WAITING_LIMIT:
            self.flush()

    def absent(self, key: K) -> None:
        """Note that a row of this key can't be there, which saves looking for it."""
        self.known(key, None)

    def known(self, key: K, value: V | None) -> None:
        """Note a row that was read from the file otherwise; one that waits counts still."""
        self._clean[key] = value
        if len(self._clean) > self._limit:
            self._clean.popitem(last=False)

    def is_waiting(self, key: K) -> bool:
        """Tell whether a change of a row waits: what the file has is not what counts."""
        return key in self._waiting

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        changes, self._waiting = self._waiting, {}
        self._write({key: changes[key] for key in sorted(changes)})  # in order: pages are filled better
        self._clean.update(changes)
        while len(self._clean) > self._limit:
            self._clean.popitem(last=False)

    def clear(self) -> None:
        """Forget everything, also what waits: the file was rolled back."""
        self._clean.clear()
        self._waiting.clear()
