"""One replica of a random world: the engine over a real SQLite file, what is open on it, what it saved and removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

from base.errors import RefusedError
from base.ids import ContentId, Dot, InodeId, LinkId, PodId, WriterId, hash_bytes
from crdt_meta.chronicle import Chronicle
from crdt_meta.metadata import Metadata, Roots
from mesh.introduction import RestoredError
from tests.properties.crdt_meta.checks import Shadow
from tests.properties.crdt_meta.surroundings import Surroundings

if TYPE_CHECKING:
    from tests.properties.crdt_meta.world import World


class Handle(NamedTuple):
    """A file that somebody opened a while ago and may save later."""

    inode: InodeId
    link: LinkId
    shown: tuple[Dot, ...]
    content: ContentId


class Moment(NamedTuple):
    """A transaction; a home that was set back gives its numbers again."""

    writer: WriterId
    sequence: int
    life: int = 0
    """How often the home had been set back before."""


class Saved(NamedTuple):
    """Somebody saved ``content`` over ``base``, in some transaction."""

    at: Moment
    content: ContentId
    base: ContentId


class Removed(NamedTuple):
    """Somebody removed a name that showed ``content``, in some transaction."""

    at: Moment
    content: ContentId
    last: bool
    """Whether the file had no other name there."""


class Replica:
    """One pod's metadata and what is cached above it."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.skew_s = 0.0
        self.life = 0
        self.folder = world.folder / f"{index}"
        self.folder.mkdir()
        self.safe = world.folder / f"{index}.safe"
        self.backup = world.folder / f"{index}.backup"
        self.handles: list[Handle] = []
        self.later: list[Callable[[], None]] = []
        """What was done on the mount a moment ago and isn't in the tree yet."""
        self.surroundings = Surroundings(self)
        self.open()

    def open(self) -> None:
        world = self.world
        roots = Roots(
            sign=self._sign,
            verify=self._verify,
            pod_of_writer=world.pods.get,
            pod_name_of=world.pod_name,
            strategy_for=lambda path: world.strategy_for(self.index, path),
            versions=lambda: world.versions,
        )
        now = lambda: world.now_s + self.skew_s  # noqa: E731
        self.meta = Metadata(self.folder / "metadata.db", roots, now=now, has_room=lambda: True)
        self.tree, self.log = self.meta.tree, self.meta.log
        self.later.clear()
        others = lambda: {world.pod_id(one) for one in world.remaining() if one is not self}  # noqa: E731
        self.chronicle = Chronicle(self.meta, b"place", others)
        self.tree.root_owner = (1, 1)
        world.pods[self.meta.writer] = PodId(f"{self.index:032x}")
        self.shadow = Shadow()
        self.tree.on_delta(self.shadow.forget)
        self.log.incoming.is_retired = lambda writer: writer in self.surroundings.adoptions
        self.meta.acknowledgements.builds_on = lambda: [handle.inode for handle in self.handles]

    def reborn(self, after: int, owed: int | None, *, set_back: bool = False) -> None:
        """Go on under a new writer id."""
        old = self.meta.writer
        if owed is None:
            self.world.collected(self, after)
        new = self.meta.reborn(after, owed, set_back=set_back)
        self.world.pods[new] = self.world.pods[old]
        self.world.renamed(old, after, new)
        self.chronicle.append()
        self.save()
        for writer, copies in self.meta.given_up().items():
            self.surroundings.adoptions[writer].add(copies)

    def _sign(self, data: bytes) -> bytes:
        return hash_bytes(b"key" + self.log.writer + data)

    def _verify(self, writer: WriterId, signature: bytes, data: bytes) -> bool:
        right = signature == hash_bytes(b"key" + writer + data)
        return right and not self.surroundings.is_void(writer, data)

    def meet(self, other: Replica) -> bool:
        """Introduce two replicas to each other; tell whether they go on to talk."""
        self.surroundings.learn(other.surroundings)
        other.surroundings.learn(self.surroundings)
        pods = self.world.pod_id(self), self.world.pod_id(other)
        openings = self.chronicle.opening(pods[1]), other.chronicle.opening(pods[0])
        accounts = self.chronicle.account(pods[1], openings[1]), other.chronicle.account(pods[0], openings[0])
        mine = self._settle(pods[1], *openings, accounts[1])
        theirs = other._settle(pods[0], *openings[::-1], accounts[0])
        return mine and theirs

    def _settle(self, pod: PodId, told: object, opening: object, account: object) -> bool:
        try:
            self.chronicle.settle(pod, told, opening, account)
        except RestoredError as error:
            void = self.chronicle.void(error)
            if void is not None:
                self.surroundings.voids[void.writer].add(void)
            self.reborn(error.after, error.owed)
            self.world.counts["reborn"] += 1
            return False
        except RefusedError:
            return False
        return True

    def back_up(self) -> None:
        """Copy everything as it is on the disk."""
        self.save()
        shutil.rmtree(self.backup, ignore_errors=True)
        shutil.copytree(self.folder, self.backup)
        self._remembered = deepcopy(self.surroundings.adoptions), deepcopy(self.surroundings.voids)

    def go_back(self) -> None:
        """Go on from the copy; what nobody else heard of since is gone."""
        if not self.backup.exists():
            return
        left, heard = self.meta.writer, self.heard_by(one for one in self.world.remaining() if one is not self)
        self.meta.close()
        shutil.rmtree(self.folder)
        shutil.copytree(self.backup, self.folder)
        self.surroundings.adoptions, self.surroundings.voids = (
            deepcopy(self._remembered[0]),
            deepcopy(self._remembered[1]),
        )
        self.handles.clear()
        self.open()
        self._sync()
        self.world.strike_unheard(self, self.world.remaining(), {left: max(heard, self.shows_all_of(left))})
        self.life += 1
        self.world.strike_evicted()
        self.world.counts["restored"] += 1

    def catch_up(self) -> None:
        """Let the tree have what was done on the mount; mail may have come meanwhile."""
        later, self.later = self.later, []
        for one in later:
            one()

    @property
    def now_at(self) -> Moment:
        """The transaction that an operation now goes into."""
        return Moment(self.meta.writer, self.log.table.received[self.meta.writer] + 1, self.life)

    def heard_by(self, others: Iterable[Replica]) -> int:
        """Return up to which of this life's transactions, at least, any of these shows this one."""
        writer, heard = self.meta.writer, 0
        for other in others:
            for sequence in range(other.shows_all_of(writer), heard, -1):
                told = other.log.table.digest(writer, sequence)
                if told and told == self.log.table.digest(writer, sequence):
                    heard = sequence
                    break
        return heard

    def shows_all_of(self, writer: WriterId) -> int:
        """Return up to which transaction this shows a writer; of one that it adopted, what it says itself."""
        pods, adopted = self.world.pods, self.surroundings.adoptions.get(writer, ())
        own = [one.upto for one in adopted if pods[one.by] == self.world.pod_id(self)]
        return max(own) if own else self.log.table.applied.get(writer, 0)

    def save(self) -> None:
        """Commit, sync, tell; what is on the disk then is what a power cut leaves."""
        committed = self.log.commit()
        self._sync()
        self.log.durable(committed)

    def _sync(self) -> None:
        if self.world.power_cuts:
            shutil.rmtree(self.safe, ignore_errors=True)
            shutil.copytree(self.folder, self.safe)

    def crash(self, power_cut: bool) -> None:
        """Lose what was not committed or, with a power cut, what was not synced."""
        left = self.world.folder / "crashed"
        shutil.copytree(self.safe if power_cut and self.safe.exists() else self.folder, left)
        self.meta.close()
        shutil.rmtree(self.folder)
        left.rename(self.folder)
        told = self.log.vector().get(self.meta.writer, 0)
        self.open()
        self._sync()  # opening does
        assert self.log.vector().get(self.meta.writer, 0) >= told, "a told transaction was lost"
        self.world.forget(self.meta.writer, self.now_at.sequence - 1, {self.life})
        self.handles.clear()
