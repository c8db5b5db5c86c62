"""Power cuts on a disk that loses, tears and reorders what wasn't synced, at any point of whatever a pod does."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import msgpack
import pytest

from base.errors import FileSystemError
from base.ids import WriterId
from mesh.api import Entry
from tests.unit.crdt_meta.disk import Disk, Files
from tests.unit.crdt_meta.pods import Mesh, Pod
from tests.unit.crdt_meta.town import Town, same, sound

STEPS = 60
SEEDS = 5


class Cut:
    """Ann's pod on such a disk, with bob and eve around her; what she told is remembered."""

    def __init__(self, world: Mesh, folder: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.rng = random.Random(seed)
        self.world = world
        self.folder = folder
        self.told: dict[tuple[WriterId, int], bytes] = {}
        self.latest: dict[WriterId, int] = {}
        self.writer = WriterId(b"")
        self.cuts = 0
        self.bob, self.eve = world.pod("bob"), world.pod("eve")
        self.ann = world.pod("ann")
        self.town = Town(world, self.bob, self.eve, self.ann)
        self.disk = Disk(self.ann, self.rng, patch, self.check, self._remember)
        self._remember()

    # -- what happens -------------------------------------------------------------------------------------------------

    def step(self) -> None:
        self.world.now_s += self.rng.choice((0.5, 30.0, 400.0))
        ways: list[tuple[int, Callable[[], object]]] = [
            (10, lambda: self.work(self.ann)),
            (3, lambda: self.work(self.bob)),
            (2, self.ann.log.seal),
            (3, self.ann.log.commit),
            (4, self.tell),
            (3, self.hear),
            (2, lambda: self.compact(self.ann)),
            (1, lambda: self.compact(self.bob)),
            (3, self.housekeeping),
            (1, self.forgotten),
            (1, self.restored),
            (1, self.adopt),
        ]
        with suppress(FileSystemError):
            self.rng.choices([way for _, way in ways], [weight for weight, _ in ways])[0]()

    def work(self, pod: Pod) -> None:
        for _ in range(self.rng.randrange(1, 12)):
            names = [f"/{self.rng.randrange(12)}", f"/d{self.rng.randrange(3)}"]
            path = self.rng.choice([names[0], names[1] + names[0]])
            with suppress(FileSystemError):
                way = self.rng.randrange(8)
                if way < 3:
                    pod.save(path, f"{self.rng.random()}")
                elif way == 3:
                    pod.mkdir(names[1])
                elif way == 4:
                    pod.unlink(path)
                elif way == 5:
                    pod.rename(path, f"/{self.rng.randrange(12)}")
                elif way == 6:
                    pod.tree.set_xattr(pod.at(path).inode, b"user.x", self.rng.randbytes(2000))
                else:
                    pod.tree.purge(list(pod.tree.trash())[:3])

    def compact(self, pod: Pod) -> None:
        last = pod.log.table.last_segment(pod.log.writer)
        if last is not None:
            pod.log.compact(self.rng.randrange(last + 1))

    def tell(self) -> None:
        self.ann.tell()
        for other in (self.bob, self.eve):
            if other.name not in self.town.evicted and self.rng.random() < 0.7:
                self.town.tell(other.name, "ann")

    def hear(self) -> None:
        self.town.tell("ann", self.rng.choice(("bob", "eve")))

    def housekeeping(self) -> None:
        for name in ("bob", "ann"):
            self.town.turn(self.town.pods[name])
            self.town.tell("ann", "bob")
            self.town.tell("bob", "ann")

    def forgotten(self) -> None:
        """Bob adopts her records; she hears of it and goes on under a new writer."""
        self.tell()
        self.town.tell("bob", "ann")
        neighbours = self.town.neighbours["bob"]
        anyio.run(self.bob.meta.tidying._adoption.adopt, [self.ann.log.writer], neighbours, backend="trio")
        self.work(self.ann)
        self.town.learn("ann", "bob")

    def restored(self) -> None:
        """She learns that she is a restored copy: what she wrote last is fetched anew."""
        self.tell()
        self.town.tell("bob", "ann")
        writer = self.ann.log.writer
        known = self.bob.log.vector().get(writer, 0)
        if known > 1 and known == self.ann.log.vector()[writer]:
            self.town.reborn(self.ann, known - 1, known)

    def adopt(self) -> None:
        """Eve is evicted, and ann adopts her records."""
        if "eve" not in self.town.evicted:
            self.town.tell("ann", "eve")
            self.town.evict("eve")
            neighbours = self.town.neighbours["ann"]
            anyio.run(self.ann.meta.tidying._adoption.adopt, [self.eve.log.writer], neighbours, backend="trio")

    # -- what must hold -----------------------------------------------------------------------------------------------

    def _remember(self) -> None:
        """Note what ann tells: everything that is durable by her own account."""
        log = self.ann.log
        self.writer = log.writer
        self.latest[log.writer] = log.vector().get(log.writer, 0)
        for entry in log.read(log.writer, 0, 1 << 30):
            self.told[entry.writer, entry.sequence] = _signed(entry)

    def check(self, files: Files) -> None:
        """Open what a power cut left."""
        self.cuts += 1
        folder = self.folder / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        files.write(folder / "ann")
        names, keys = dict(self.world.names), dict(self.world.keys)
        mesh = Mesh(folder)
        mesh.names, mesh.keys, mesh.now_s = names, keys, self.world.now_s
        pod = mesh.pod("ann")
        try:
            self._contradicts_nothing(pod)
            sound(pod)
            pod.save("/after", "after")
            pod.tell()
            assert pod.log.vector()[pod.log.writer] > self.latest.get(pod.log.writer, 0)
        finally:
            pod.close()

    def _contradicts_nothing(self, pod: Pod) -> None:
        (sound_file,) = pod.meta.store.query("PRAGMA integrity_check")
        assert sound_file[0] == "ok"
        if pod.log.writer == self.ann.log.writer or pod.log.writer == self.writer:
            assert pod.log.vector().get(pod.log.writer, 0) >= self.latest.get(pod.log.writer, 0), "told, and lost"
        else:
            raise AssertionError("a writer that was told is forgotten")
        stored = pod.log.table.transactions(pod.log.writer, 0)
        for one in stored:
            told = self.told.get((pod.log.writer, one.sequence))
            assert told in (None, one.header), "told, and something else now"
        own = pod.meta.acknowledgements.of(pod.log.writer)
        if own is not None:
            applied = pod.log.table.applied
            assert all(applied.get(writer, 0) >= sequence for writer, sequence in own.vector.items())


def _signed(entry: Entry) -> bytes:
    header: bytes = msgpack.unpackb(entry.blob)[0]
    return header


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_power_cut_at_any_time(world: Mesh, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdt_meta.store.CHECKPOINT_BYTES", 1 << 17)
    monkeypatch.setattr("crdt_meta.log.RECORDS_PER_SEGMENT", 10)
    story = Cut(world, tmp_path, seed, monkeypatch)
    for _ in range(STEPS):
        story.step()
        for files in story.disk.after_a_power_cut(story.rng.choice((0, 0, 1, 2))):
            story.check(files)
    assert story.cuts > 20
    assert story.disk.checkpoints
    *_, last = story.disk.after_a_power_cut(1)
    story.ann.close()
    shutil.rmtree(story.ann.folder)
    last.write(story.ann.folder)
    monkeypatch.undo()
    ann = story.town.enter(world.pod("ann"))
    assert ann.log.vector().get(ann.log.writer, 0) >= story.latest.get(ann.log.writer, 0)
    ann.save("/at last", "at last")
    story.town.exchange(compare=False)
    story.town.tidy(8)
    same(ann, story.bob)
    sound(ann)
    assert "/at last" in story.bob.files()
