"""What is still to be gossiped: each update a limited number of times, the least told first. Pure.

Source: memberlist `queue.go` (TransmitLimitedQueue); SWIM 2002, §4.1: lambda * log(n) transmissions reach everybody.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from base.ids import PodId

KEEP_S = 30.0
"""An update older than this is dropped; the full exchange carries it further."""


def transmit_limit(multiplier: int, pods: int) -> int:
    """Return how often an update is sent: ``multiplier * ceil(log10(pods + 1))``."""
    return multiplier * math.ceil(math.log10(pods + 1)) if pods else 0


@dataclass(slots=True)
class _Item:
    update: object
    size: int
    born: float
    order: int
    sent: int = 0
    again: bool = False
    seen_by: set[PodId] = field(default_factory=set)


class GossipQueue:
    """Encoded updates by key; a newer one of the same key replaces the older. At most ``limit`` keys."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._items: dict[Hashable, _Item] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(list(self._items))

    def put(self, key: Hashable, update: object, size_bytes: int, source: PodId | None, now: float) -> None:
        """Queue ``update``; ``source`` is who told it and needs not be told."""
        self._items.pop(key, None)
        while len(self._items) >= self.limit:
            self._items.pop(next(iter(self._items)))
        self._order += 1
        seen_by = set() if source is None else {source}
        self._items[key] = _Item(update, size_bytes, now, self._order, seen_by=seen_by)

    def heard(self, key: Hashable, source: PodId) -> None:
        """Note that ``source`` told the update of ``key`` again: it knows it."""
        item = self._items.get(key)
        if item is not None:
            item.seen_by.add(source)

    def drop(self, key: Hashable) -> None:
        """Forget the update of ``key``, if there is one."""
        self._items.pop(key, None)

    def take(self, pod: PodId, budget_bytes: int, times: int) -> list[object]:
        """Return updates that ``pod`` has not been sent yet, the least sent and then the newest first.

        They fit into ``budget_bytes``, but the first is taken however large it is. One that was sent ``times`` times
        leaves the queue.
        """
        wanted = [(item.sent, -item.order, key) for key, item in self._items.items() if pod not in item.seen_by]
        wanted.sort(key=lambda entry: entry[:2])
        taken: list[object] = []
        used = 0
        for _, _, key in wanted:
            item = self._items[key]
            if taken and used + item.size > budget_bytes:
                break
            taken.append(item.update)
            used += item.size
            item.sent += 1
            item.seen_by.add(pod)
            if item.sent >= times:
                del self._items[key]
        return taken

    def review(self, links: Iterable[PodId], now: float) -> None:
        """Once all ``links`` were told an update, tell them a second time (links break, queues overflow), then drop it.

        What is older than `KEEP_S` goes, too. To be called about every half second.
        """
        linked = set(links)
        for key, item in list(self._items.items()):
            if linked <= item.seen_by and item.sent:
                if item.again:
                    del self._items[key]
                item.again = True
                item.seen_by.clear()
            elif now - item.born > KEEP_S:
                del self._items[key]
