"""What a replica knows of the others: who counts, who is away, whose records were adopted by whom."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from base.ids import WriterId
from crdt_meta.chronicle import forgotten
from crdt_meta.peers import Retired
from crdt_meta.transaction import digest_of_signed
from mesh.records import Void

if TYPE_CHECKING:
    from tests.properties.crdt_meta.replica import Replica

DAY_S = 86_400.0
LONG_S = 200 * DAY_S


class Surroundings:
    """Implements `crdt_meta.peers.Peers`; adoptions are told before any mail, as the roster is."""

    forget_after_s = 180 * DAY_S

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.adoptions: dict[WriterId, set[Retired]] = defaultdict(set)
        self.voids: dict[WriterId, set[Void]] = defaultdict(set)

    def _others(self) -> dict[WriterId, int]:
        """Return the writers, not retired, of others -> the replica."""
        world, me = self._replica.world, self._replica.index
        found = {writer: int(pod, 16) for writer, pod in world.pods.items() if writer not in self.adoptions}
        return {writer: index for writer, index in found.items() if index != me}

    def counted(self) -> Mapping[WriterId, float | None]:
        world = self._replica.world
        apart = lambda index: world.is_apart(self._replica.index, index)  # noqa: E731
        return {
            writer: world.now_s - LONG_S if apart(index) else None
            for writer, index in self._others().items()
            if index not in world.evicted
        }

    def orphans(self, forgotten: Collection[WriterId] = ()) -> Collection[WriterId]:
        world, me = self._replica.world, self._replica
        found = {one for one, pod in world.pods.items() if int(pod, 16) == me.index and one != me.meta.writer}
        if world.rng.random() < 0.5:
            evicted = {writer for writer, index in self._others().items() if index in world.evicted}
            found |= evicted | set(forgotten)
        return found - self.adoptions.keys()

    def retired(self) -> Mapping[WriterId, Collection[Retired]]:
        return self.adoptions

    async def retire(self, writer: WriterId, retired: Retired) -> None:
        self._replica.save()
        self.adoptions[writer].add(retired)

    def learn(self, other: Surroundings) -> None:
        """Hear of adoptions and of what is void; who was retired itself goes on under a new writer, at once."""
        for writer, adoptions in other.adoptions.items():
            self.adoptions[writer] |= adoptions
        for writer, voids in other.voids.items():
            self.voids[writer] |= voids
        self._replica.chronicle.put_right(self.voids)
        meta = self._replica.meta
        pods = self._replica.world.pods
        known = forgotten(meta, self.adoptions, lambda by: pods[by] == pods[meta.writer])
        if known is not None:
            self._replica.reborn(known.upto, None, set_back=known.set_back)

    def is_void(self, writer: WriterId, signed: bytes) -> bool:
        """Tell whether the writer's own pod took a transaction back."""
        return digest_of_signed(signed) in {one.digest for one in self.voids.get(writer, ())}

    def is_caught_up(self) -> bool:
        return True

    def is_short_of_room(self) -> bool:
        return False

    def clock_agrees(self) -> bool:
        return True
