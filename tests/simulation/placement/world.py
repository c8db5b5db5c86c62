"""A cluster in which only bytes move: pods with disks, the real rules of placement, and drops verified as in life.

Each pod sees what the others published at the last tick or the one before, so two of them often disagree.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from base.ids import ContentId, PodId, hash_bytes
from mesh.api import Member, Role, State
from operations.placing import LEAVING, Placing
from policies.offering import META, Scale, Wishes
from transfer.api import ContentInfo, Holders

TICK_S = 10.0
MIB = 1 << 20


@dataclass
class Disk:
    """One pod."""

    pod: PodId
    capacity: int
    joined_s: float
    wishes: Wishes = field(default_factory=Wishes)
    """Only its affinities count; the rest is measured."""
    alive: bool = True
    given_up: bool = False
    is_leaving: bool = False
    refuses: bool = False
    """Takes nothing, though it says that it has room."""
    speed: float | None = None
    held: set[ContentId] = field(default_factory=set)
    foreign_bytes: int = 0
    """What others write to its disk."""
    scale: Scale = field(default_factory=Scale)
    meta: dict[str, object] = field(default_factory=dict)


class FakeMesh:
    """What `Placing` asks of a mesh."""

    def __init__(self, pod: PodId, members: list[Member]) -> None:
        self.pod_id = pod
        self._members = members

    def members(self) -> list[Member]:
        return self._members

    def alive(self) -> frozenset[PodId]:
        return frozenset(one.pod for one in self._members if one.state is State.ALIVE)


class World:
    """All pods and contents. ``now_s`` is the common clock."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.disks: dict[PodId, Disk] = {}
        self.infos: dict[ContentId, ContentInfo] = {}
        self.now_s = 1_000_000.0
        self.moved = self.dropped = self.refused = 0
        self.uses: dict[PodId, dict[ContentId, int]] = {}
        self.moved_copies = 0
        self._views: list[Placing] = []

    # -- what there is

    def add(self, capacity: int, wishes: Wishes | None = None) -> Disk:
        pod = PodId(hash_bytes(b"%d" % len(self.disks)).hex()[:32])
        disk = self.disks[pod] = Disk(pod, capacity, self.now_s, wishes or Wishes())
        self.now_s += 1
        self._views.clear()  # whoever hears what a pod holds knows of the pod
        return disk

    def write(self, author: Disk, size: int, copies: int) -> ContentId:
        content = ContentId(hash_bytes(b"content %d" % len(self.infos)))
        self.infos[content] = ContentInfo(content, size, author.pod, copies, True, False, self.now_s)
        author.held.add(content)
        return content

    def used(self, disk: Disk) -> int:
        return sum(self.infos[content].size for content in disk.held)

    def free(self, disk: Disk) -> int:
        return max(0, disk.capacity - self.used(disk) - disk.foreign_bytes)

    def holders(self, content: ContentId, *, alive: bool = True) -> list[Disk]:
        return [one for one in self.disks.values() if content in one.held and (one.alive or not alive)]

    # -- time

    def publish(self) -> None:
        """Have every living pod say what it has; the others see it at once or a tick later."""
        for disk in self.disks.values():
            if not disk.alive:
                continue
            free, scale, said = self.free(disk), disk.scale, disk.wishes
            told = Wishes(
                capacity=scale.capacity(disk.capacity),
                room_bytes=scale.room(free, self.now_s),
                is_full=scale.is_full(disk.capacity, free),
                speed=scale.speed(disk.speed),
                load=scale.load(disk.capacity, self.used(disk)),
                replicas=said.replicas,
                new_files=said.new_files,
                hot=said.hot,
                cold=said.cold,
                joined_s=int(disk.joined_s),
            )
            disk.meta = {META: told.pack(), LEAVING: disk.is_leaving}
        members = [
            Member(one.pod, "", Role.FULL, State.ALIVE if one.alive else State.ABSENT, "", None, None, dict(one.meta))
            for one in self.disks.values()
        ]
        placing = Placing(FakeMesh(members[0].pod, members), lambda: self.now_s)  # type: ignore[arg-type]
        placing.given_up = frozenset(one.pod for one in self.disks.values() if one.given_up and not one.alive)
        for pod, levels in self.uses.items():
            placing.uses.tell(pod, levels)
        self._views = [*self._views[-1:], placing]

    def placed(self, content: ContentId, view: Placing) -> tuple[PodId, ...]:
        kept = {one.pod for one in self.disks.values() if content in one.held and one.alive}
        away = {one.pod for one in self.disks.values() if content in one.held and not one.alive}
        return view.place(self.infos[content], Holders(frozenset(kept), frozenset(), frozenset(away)))

    def tick(self, most: int = 1 << 30) -> int:
        """Let every pod do what it should, at most so much each; return how many copies came or went."""
        self.publish()
        before = self.moved_copies
        contents = list(self.infos)
        self.rng.shuffle(contents)
        for content in contents:
            view = self.rng.choice(self._views)
            placed = self.placed(content, view)
            for pod in placed:
                self._fetch(self.disks[pod], content)
            for disk in self.holders(content):
                own = self.placed(content, self.rng.choice(self._views))
                if disk.pod not in own:
                    self._drop(disk, content, len(own))
        self.now_s += TICK_S
        return self.moved_copies - before

    def _fetch(self, disk: Disk, content: ContentId) -> None:
        info = self.infos[content]
        if not disk.alive or content in disk.held or not self.holders(content):
            return
        if disk.refuses or self.free(disk) < info.size:
            self.refused += 1
            disk.scale.refused(info.size, self.now_s)
            return
        disk.held.add(content)
        self.moved += info.size
        self.moved_copies += 1

    def _drop(self, disk: Disk, content: ContentId, wanted: int) -> None:
        others = [one for one in self.holders(content) if one is not disk and not one.is_leaving]
        if len(others) < max(1, wanted, min(self.infos[content].copies, len(self.disks))):
            return
        disk.held.discard(content)
        self.dropped += 1
        self.moved_copies += 1

    def settle(self, ticks: int = 60, each: Callable[[], None] = lambda: None) -> int:
        """Go on until nothing moves any more; return after how many ticks. Fails when that never happens."""
        quiet = 0
        for number in range(ticks):
            quiet = quiet + 1 if self.tick() == 0 else 0
            each()
            if quiet == 8:  # longer than any refusal is remembered
                return number
        raise AssertionError(f"copies still move after {ticks} ticks")

    # -- what must hold

    def check(self) -> None:
        """Every content has a holder, and as many living ones as there can be."""
        alive = [one for one in self.disks.values() if one.alive and not one.is_leaving]
        for content, info in self.infos.items():
            here = [one for one in self.holders(content) if not one.is_leaving]
            assert self.holders(content, alive=False), "lost"
            takers = [one for one in alive if one in here or (not one.refuses and self.free(one) >= 2 * info.size)]
            away = [one for one in self.holders(content, alive=False) if not one.alive and not one.given_up]
            if self.holders(content):
                assert len(here) + len(away) >= min(info.copies, len(takers)), (len(here), info)
