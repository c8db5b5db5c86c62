"""Who is told which updates when: piggybacked on probes, and in a round of gossip every 200 ms. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from random import Random

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.gossip_messages import Accusation, Kind
from mesh.gossip_queue import GossipQueue
from mesh.send import Send
from mesh.wire import Tag

PIGGYBACK_BYTES = 1400
"""Updates that ride on a probe or its answer, bytes."""
MESSAGE_BYTES = 16 * 1024
"""Updates in one gossip message, bytes; a single update may be larger by at most 6 KiB."""


class Gossip:
    """The updates that are under way from this pod. Receivers take turns, so each link has its share."""

    def __init__(self, pods_per_round: int, rng: Random) -> None:
        """``pods_per_round``: at least so many linked pods are told something in one round, half of them if more."""
        self._pods_per_round = pods_per_round
        self._rng = rng
        self._queue = GossipQueue(limit=64)
        self._turn: list[PodId] = []
        self._accusations: dict[PodId, set[PodId]] = {}
        """Whom accusations under way are about, and by whom they are."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to tell anybody."""
        return self._queue.empty

    def set_size(self, pods: int) -> None:
        """Adjust to a cluster of ``pods`` pods: how much is queued."""
        self._queue.limit = 64 + 4 * pods

    def link_up(self, pod: PodId) -> None:
        """Tell ``pod`` what comes from now on."""
        self._queue.link_up(pod)

    def link_down(self, pod: PodId) -> None:
        """Tell ``pod`` nothing more."""
        self._queue.link_down(pod)

    def tell(self, update: wire.Update, besides: Collection[PodId], now: float) -> None:
        """Spread ``update`` to all linked pods but ``besides``, who know it or are told it by somebody else."""
        encoded = wire.encode_update(update)
        if isinstance(update, Accusation):
            self._accusations.setdefault(update.pod, set()).add(update.accuser)
        self._queue.put(_key(update), encoded, wire.size_bytes(encoded), besides, now)

    def heard(self, update: wire.Update, source: PodId) -> None:
        """Note that ``source`` knows ``update``, too."""
        self._queue.heard(_key(update), source)

    def withdraw(self, pod: PodId) -> None:
        """Stop spreading accusations of ``pod``: it has refuted them."""
        for accuser in self._accusations.pop(pod, ()):
            self._queue.drop((pod, accuser))

    def piggyback(self, pod: PodId, now: float) -> list[object]:
        """Return updates to be added to a probe or an answer to ``pod``."""
        return self._queue.take(pod, PIGGYBACK_BYTES, now)

    def round(self, links: Collection[PodId], now: float) -> list[Send]:
        """Return this round's messages to the next few linked pods."""
        waiting = {pod for pod in links if self._queue.waiting(pod)}
        sends: list[Send] = []
        for _ in range(max(min(self._pods_per_round, len(waiting)), (len(waiting) + 1) // 2)):
            while self._turn and self._turn[-1] not in waiting:
                self._turn.pop()
            if not self._turn:
                self._turn = sorted(waiting)
                self._rng.shuffle(self._turn)
            if not self._turn:
                break
            pod = self._turn.pop()
            waiting.discard(pod)
            updates = self._queue.take(pod, MESSAGE_BYTES, now)
            if updates:
                sends.append(Send(pod, Tag.GOSSIP, [Kind.GOSSIP, updates]))
        return sends


def pages(pod: PodId, encoded: Sequence[object]) -> list[Send]:
    """Return encoded updates for ``pod`` in as many messages as it takes."""
    split: list[list[object]] = []
    room = 0
    for update in encoded:
        size = wire.size_bytes(update)
        if not split or size > room or len(split[-1]) >= wire.MAX_UPDATES:
            split.append([])
            room = MESSAGE_BYTES
        split[-1].append(update)
        room -= size
    return [Send(pod, Tag.GOSSIP, [Kind.GOSSIP, page]) for page in split]


def _key(update: wire.Update) -> Hashable:
    return (update.pod, update.accuser) if isinstance(update, Accusation) else update.pod
