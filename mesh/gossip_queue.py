"""What each linked pod is yet to be told. Pure.

Every update is told once to each linked pod that hasn't told it itself; links are few (`mesh.view`), so no limit by
the size of the cluster is needed. What gets lost on the way is found by the sums on the pings (`mesh.summary`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import NamedTuple

from base.ids import PodId

KEEP_S = 30.0
"""What could not be told for so long isn't told any more; the sums tell that it is missing."""


class _Item(NamedTuple):
    update: object
    size: int
    born: float


class GossipQueue:
    """Encoded updates by linked pod and key; a newer one of the same key replaces the older. ``limit`` keys for each."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._links: dict[PodId, dict[Hashable, _Item]] = {}
        self._filled = False
        """Whether something was put in since nothing was found."""

    def __len__(self) -> int:
        return sum(map(len, self._links.values()))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell anybody."""
        if self._filled:
            self._filled = any(self._links.values())
        return not self._filled

    def waiting(self, pod: PodId) -> bool:
        """Tell whether there is something to tell ``pod``."""
        return bool(self._links.get(pod))

    def link_up(self, pod: PodId) -> None:
        """Queue for ``pod`` from now on."""
        self._links.setdefault(pod, {})

    def link_down(self, pod: PodId) -> None:
        """Forget what ``pod`` was to be told."""
        self._links.pop(pod, None)

    def put(self, key: Hashable, update: object, size_bytes: int, besides: Collection[PodId], now: float) -> None:
        """Queue ``update`` for all linked pods but those in ``besides``, who know it."""
        item = _Item(update, size_bytes, now)
        self._filled = True
        for pod, items in self._links.items():
            items.pop(key, None)
            if pod in besides:
                continue
            if len(items) >= self.limit:
                del items[next(iter(items))]
            items[key] = item

    def heard(self, key: Hashable, source: PodId) -> None:
        """Note that ``source`` told the update of ``key``: it knows it."""
        items = self._links.get(source)
        if items:
            items.pop(key, None)

    def drop(self, key: Hashable) -> None:
        """Tell nobody the update of ``key`` any more."""
        for items in self._links.values():
            items.pop(key, None)

    def told(self) -> set[Hashable]:
        """Return the keys of what is still to be told to somebody."""
        return {key for items in self._links.values() for key in items}

    def take(self, pod: PodId, budget_bytes: int, now: float) -> list[object]:
        """Return what to tell ``pod`` now, the oldest first.

        It fits into ``budget_bytes``, but the first is taken however large it is.
        """
        items = self._links.get(pod)
        if not items:
            return []
        taken: list[object] = []
        done: list[Hashable] = []
        used = 0
        for key, item in items.items():
            if now - item.born <= KEEP_S:
                if taken and used + item.size > budget_bytes:
                    break
                taken.append(item.update)
                used += item.size
            done.append(key)
        for key in done:
            del items[key]
        return taken
