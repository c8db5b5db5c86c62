"""Who is told which updates when: piggybacked on probes, and in a round of gossip every 200 ms. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from random import Random

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.gossip_messages import Accusation, Kind
from mesh.gossip_queue import GossipQueue, transmit_limit
from mesh.send import Send
from mesh.wire import Tag

PIGGYBACK_BYTES = 1400
"""Updates that ride on a probe or its answer, bytes."""
MESSAGE_BYTES = 16 * 1024
"""Updates in one gossip message, bytes; a single update may be larger by at most 6 KiB."""
FEW_LINKS = 16
"""Of so many links each is told every update; with more the logarithmic limit decides."""


class Gossip:
    """The updates that are under way from this pod. Receivers take turns, so each link has its share."""

    def __init__(self, pods_per_round: int, retransmit_multiplier: int, rng: Random) -> None:
        self._pods_per_round = pods_per_round
        self._multiplier = retransmit_multiplier
        self._rng = rng
        self._queue = GossipQueue(limit=64)
        self._times = retransmit_multiplier
        self._pods = 1
        self._turn: list[PodId] = []

    def set_size(self, pods: int) -> None:
        """Adjust to a cluster of ``pods`` pods: how much is queued, and how often an update is sent."""
        self._queue.limit = 64 + 4 * pods
        self._pods = pods

    def tell(self, update: wire.Update, source: PodId | None, now: float) -> None:
        """Spread ``update``, which ``source`` told us; None: it is our own."""
        encoded = wire.encode_update(update)
        self._queue.put(_key(update), encoded, wire.size_bytes(encoded), source, now)

    def heard(self, update: wire.Update, source: PodId) -> None:
        """Note that ``source`` knows ``update``, too."""
        self._queue.heard(_key(update), source)

    def withdraw(self, pod: PodId) -> None:
        """Stop spreading accusations of ``pod``: it has refuted them."""
        for key in self._queue:
            if isinstance(key, tuple) and key[0] == pod:
                self._queue.drop(key)

    def review(self, links: Collection[PodId], now: float) -> None:
        """Drop what was told often enough; about every half second. Of few links each is told everything."""
        self._times = max(1, transmit_limit(self._multiplier, self._pods), min(len(links), FEW_LINKS))
        self._queue.review(links, now)

    def piggyback(self, pod: PodId) -> list[object]:
        """Return updates to be added to a probe or an answer to ``pod``."""
        return self._queue.take(pod, PIGGYBACK_BYTES, self._times)

    def round(self, links: Collection[PodId]) -> list[Send]:
        """Return this round's messages to the next few linked pods."""
        sends: list[Send] = []
        for _ in range(min(self._pods_per_round, len(links)) if len(self._queue) else 0):
            while self._turn and self._turn[-1] not in links:
                self._turn.pop()
            if not self._turn:
                self._turn = list(links)
                self._rng.shuffle(self._turn)
            pod = self._turn.pop()
            updates = self._queue.take(pod, MESSAGE_BYTES, self._times)
            if updates:
                sends.append(Send(pod, Tag.GOSSIP, [Kind.GOSSIP, updates]))
        return sends


def pages(pod: PodId, encoded: list[list[object]]) -> list[Send]:
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
