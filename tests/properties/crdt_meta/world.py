"""Some replicas over real SQLite files, random work on them, and a postman who is late, repeats himself and skips.

Everything is drawn from one seed: ids, clocks, operations, delivery, crashes.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from base.errors import FileSystemError
from base.ids import EMPTY_CONTENT, ROOT_INODE, ContentId, InodeId, PodId, WriterId, hash_bytes
from crdt_meta.bearing import Removal, Unborn
from crdt_meta.node import Kind, Node
from crdt_meta.records import Content, Strategy
from crdt_meta.store import LARGE_BYTES
from crdt_meta.trash import TrashEntry
from mesh.api import Entry
from tests.properties.crdt_meta.checks import NAMES
from tests.properties.crdt_meta.replica import Handle, Moment, Removed, Replica, Saved

FILES = (b"a.txt", b"b.txt", b"c")
START_S = 1_800_000_000.0
SAME_CONTENT = ContentId(hash_bytes(b"the same everywhere"))
YEAR_S = 31_536_000.0
SENDER = PodId("5e" * 16)
EXPECTED = {
    *(errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EINVAL, errno.EPERM),
    *(errno.ENODATA, errno.EBUSY),
}


@contextmanager
def seeded_ids(rng: random.Random) -> Iterator[None]:
    """Draw inode and writer ids from the seed, so that a failing seed fails again; segments are often small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("crdt_meta.chronicle.os.urandom", rng.randbytes)
        patch.setattr("crdt_meta.log.RECORDS_PER_SEGMENT", rng.choice((3, 10, 1000)))
        for module in ("tree", "bearing"):
            patch.setattr(f"crdt_meta.{module}.new_inode_id", lambda: InodeId(rng.randbytes(16)))
        patch.setattr("crdt_meta.metadata.new_writer_id", lambda: WriterId(rng.randbytes(8)))
        yield


def _is_after(at: Moment, writer: WriterId, sequence: int) -> bool:
    return at.writer == writer and at.sequence > sequence


class World:
    """See the module."""

    def __init__(self, folder: Path, rng: random.Random, replicas: int, strategy: Strategy | None) -> None:
        self.folder = folder
        self.rng = rng
        self.now_s = START_S
        self.strategy = strategy
        """None: each replica decides anew each time."""
        self.power_cuts = rng.random() < 0.3
        favourites = rng.choice(FAVOURITES)
        self.weights = {name: weight * (5 if name in favourites else 1) for name, (weight, _) in OPERATIONS.items()}
        self.mail_rate = rng.choice((0.05, 0.2, 0.5))
        self.pods: dict[WriterId, PodId] = {}
        self.saved: list[Saved] = []
        self.removed: list[Removed] = []
        self.passed_over: set[ContentId] = set()
        """Contents in place of which somebody saw another one that was struck out since."""
        self.restored: set[ContentId] = set()
        """Contents that came back on purpose,"""
        self.may_return: set[ContentId] = set()
        """and what a replica that was forgotten had removed and collected, unseen by those who adopted its records."""
        self.versions = rng.choice((0, 1, 3, 10))
        self.made = 0
        self.counts: Counter[str] = Counter()
        self.linked: set[InodeId] = set()
        """Inodes that ever had several links."""
        self.away: set[int] = set()
        """Replicas that have been out of reach for very long."""
        self.evicted: set[int] = set()
        self.replicas = [Replica(self, index) for index in range(replicas)]
        for one in self.replicas:
            one.skew_s = rng.choice((0.0, 0.0, 0.0, 0.0, 0.5, -3.0, YEAR_S, -START_S))

    async def begin(self) -> None:
        """Often start from something that all know: then what they do concerns the same files."""
        if self.rng.random() < 0.3:
            return
        first = self.replicas[0]
        for _ in range(self.rng.randrange(4, 16)):
            with suppress(FileSystemError):
                self.rng.choice((World.create, World.mkdir, World.mkdir))(self, first)
        first.save()
        for one in self.replicas[1:]:
            await one.log.receive(first.log.read(first.meta.writer, 0, 1 << 20), SENDER)

    def close(self) -> None:
        for one in self.replicas:
            one.meta.close()

    def pod_name(self, writer: WriterId) -> str:
        return f"pod{int(self.pods[writer], 16)}" if writer in self.pods else writer.hex()

    def strategy_for(self, index: int, path: str) -> Strategy:
        return self.rng.choice(list(Strategy)) if self.strategy is None else self.strategy

    def content(self) -> ContentId:
        """Return the id of a content never seen before; sometimes one seen often."""
        if self.rng.random() < 0.1:
            return SAME_CONTENT
        self.made += 1
        return ContentId(hash_bytes(b"content %d" % self.made))

    def forget(self, writer: WriterId, upto: int, lives: Container[int]) -> None:
        """Strike out what a writer did in some of its lives after the transaction that survived."""
        self.saved = [one for one in self.saved if not (_is_after(one.at, writer, upto) and one.at.life in lives)]
        self.removed = [one for one in self.removed if not (_is_after(one.at, writer, upto) and one.at.life in lives)]

    def renamed(self, old: WriterId, after: int, new: WriterId) -> None:
        """Note that what a writer did after a transaction is now another's."""
        first = Moment(new, 1)
        self.saved = [
            one._replace(at=first._replace(life=one.at.life)) if _is_after(one.at, old, after) else one
            for one in self.saved
        ]
        self.removed = [
            one._replace(at=first._replace(life=one.at.life)) if _is_after(one.at, old, after) else one
            for one in self.removed
        ]

    def collected(self, replica: Replica, after: int) -> None:
        """Note what a forgotten replica removed since a transaction and has no record of any more."""
        store, held = replica.meta.store, set[ContentId]()
        for (node,) in store.query("SELECT DISTINCT node FROM record"):
            bodies = (body for _, body in replica.meta.view.records.of(node, "c"))
            held |= {body.content for body in bodies if isinstance(body, Content)}
        done = (one for one in self.removed if _is_after(one.at, replica.meta.writer, after))
        self.may_return |= {one.content for one in done} - held

    def is_apart(self, one: int, other: int) -> bool:
        """Tell whether two replicas can't hear of each other."""
        return one != other and bool({one, other} & (self.away | self.evicted))

    def come_and_go(self) -> None:
        """Sometimes a replica is out of reach for longer than the others wait, and comes back; some are evicted."""
        index = self.rng.randrange(len(self.replicas))
        if index in self.away:
            self.away.discard(index)
            self.counts["return"] += 1
        elif self.rng.random() < 0.5:
            self.away.add(index)
            self.now_s += 4000.0
            self.counts["go away"] += 1
        elif len(self.replicas) - len(self.evicted) > 2 and self.rng.random() < 0.2:
            self.evicted.add(index)
            self.strike_evicted()
            self.counts["evict"] += 1

    def strike_evicted(self) -> None:
        """Forget what replicas that were evicted did and nobody can show."""
        for gone in (self.replicas[index] for index in self.evicted):
            self.strike_unheard(gone, self.remaining(), {gone.meta.writer: gone.heard_by(self.remaining())})

    def strike_unheard(self, who: Replica, by: list[Replica], heard: dict[WriterId, int]) -> None:
        """Forget what a replica did and none of these can show: a log that waits for a later part may lack this one.

        ``heard``: up to which transaction of its present life somebody shows a writer.
        """
        seen = {one.base for one in self.saved if int(self.pods[one.at.writer], 16) != who.index}
        self.passed_over |= {one.base for one in self.saved if one.content in seen}
        for writer, pod in self.pods.items():
            if int(pod, 16) == who.index:
                shown = max(one.shows_all_of(writer) for one in by)
                self.forget(writer, shown, range(who.life))
                self.forget(writer, heard.get(writer, shown), {who.life})

    def pod_id(self, replica: Replica) -> PodId:
        """Return the pod that a replica is."""
        return PodId(f"{replica.index:032x}")

    def remaining(self) -> list[Replica]:
        """Return the replicas that weren't evicted."""
        return [one for one in self.replicas if one.index not in self.evicted]

    # -- operations ---------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Do one random thing on one random replica."""
        self.now_s += self.rng.choice((0.0, 0.0, 0.001, 0.7, 30.0, 30.0, 1000.0))
        replica = self.rng.choice(self.remaining())
        (name,) = self.rng.choices(list(self.weights), list(self.weights.values()))
        try:
            replica.catch_up()
            OPERATIONS[name][1](self, replica)
            self.counts[name] += 1
        except FileSystemError as error:
            if error.errno not in EXPECTED:
                raise
            self.counts[errno.errorcode[error.errno]] += 1

    def nodes(self, replica: Replica) -> list[tuple[bytes, Node]]:
        """Return (path, node) of everything but the root."""
        tree = replica.tree
        root = tree.get(ROOT_INODE)
        assert root is not None
        return list(tree.walk(root))[1:]

    def place(self, replica: Replica) -> InodeId:
        """Return a directory; more often a deep one, and members of merged ones by their other ids, too."""
        found = [node.inode for _, node in self.nodes(replica) if node.is_directory]
        if found and self.rng.random() < 0.75:
            return self.rng.choice(replica.tree.display.group(self.rng.choice(found)))
        return ROOT_INODE

    def some(self, replica: Replica, *kinds: Kind) -> tuple[InodeId, bytes, Node] | None:
        """Return (directory, name, node) of one of these kinds."""
        found = [(path, node) for path, node in self.nodes(replica) if not kinds or node.kind in kinds]
        if not found:
            return None
        path, node = self.rng.choice(found)
        above, _, name = path.rpartition(b"/")
        parent = replica.tree.resolve(above)
        assert replica.tree.lookup(parent.inode, name) == node
        return parent.inode, name, node

    def create(self, replica: Replica) -> None:
        parent, name = self.place(replica), self.rng.choice(FILES)
        before = replica.tree.lookup(parent, name)
        kind = self.rng.choices((Kind.FILE, Kind.SYMLINK, Kind.FIFO), (12, 2, 1))[0]
        target = self.rng.choice((b"to", b"there")) if kind is Kind.SYMLINK else b""
        mode = self.rng.choice((0o644, 0o600))
        node = replica.tree.create(parent, name, kind, mode=mode, uid=1, gid=2, mtime_ns=self._time(), target=target)
        assert before is None
        assert replica.tree.lookup(parent, name) == node
        if kind is Kind.FILE and self.rng.random() < 0.7:
            self._save(replica, Handle(node.inode, node.link, node.shown, node.content))

    def conceive(self, replica: Replica) -> None:
        """Make a file on the mount, and write it: it enters the tree a moment later."""
        parent, name = self.place(replica), self.rng.choice(FILES)
        if replica.tree.lookup(parent, name) is not None or len(replica.tree.display.group(parent)) > 1:
            return
        (inode, made), (changed, _) = replica.tree.conceive(parent, name), replica.tree.stamp()
        content, mtime_ns = self.content(), self._time()

        def bear() -> None:
            at = replica.now_at
            replica.tree.bear([Unborn(inode, parent, name, 0o644, 1, 2, mtime_ns, content, 77, made, changed)])
            node = replica.tree.get(inode)
            assert node is None or node.content == content
            self.saved.append(Saved(at, content, EMPTY_CONTENT))

        replica.later.append(bear)

    def bury(self, replica: Replica) -> None:
        """Remove a file on the mount: it leaves the tree a moment later, and comes back if it was changed elsewhere."""
        found = self.some(replica, Kind.FILE)
        if found is None or replica.tree.has_claims or found[2].nlink > 1:
            return
        parent, _, node = found
        if any(handle.inode == node.inode for handle in replica.handles):
            return
        stamp, _ = replica.tree.stamp()

        def bury() -> None:
            at = replica.now_at
            replica.tree.bury([Removal(node.inode, node.link, parent, node.shown, stamp)])
            self.removed.append(Removed(at, node.content, last=True))

        replica.later.append(bury)

    def mkdir(self, replica: Replica) -> None:
        parent, name = self.place(replica), self.rng.choice(NAMES)
        node = replica.tree.create(parent, name, Kind.DIRECTORY, mode=0o755, uid=1, gid=2, mtime_ns=self._time())
        assert replica.tree.lookup(parent, name) == node

    def _time(self) -> int:
        return self.rng.randrange(1, 1 << 40)

    def _save(self, replica: Replica, handle: Handle) -> None:
        content, at = self.content(), replica.now_at
        size = self.rng.randrange(1, 9999)
        size *= 1 if size % 3 else LARGE_BYTES
        node = replica.tree.publish(handle.inode, handle.link, content, size, self._time(), handle.shown)
        assert node.nlink, "saving leaves a file without a name"
        self.saved.append(Saved(at, content, handle.content))

    def publish(self, replica: Replica) -> None:
        if (found := self.some(replica, Kind.FILE)) is not None:
            node = found[2]
            self._save(replica, Handle(node.inode, node.link, node.shown, node.content))

    def open(self, replica: Replica) -> None:
        if (found := self.some(replica, Kind.FILE)) is not None:
            node = found[2]
            replica.handles.append(Handle(node.inode, node.link, node.shown, node.content))

    def save_handle(self, replica: Replica) -> None:
        """Save through a handle opened earlier: what it replaces may be no longer what the path shows."""
        if replica.handles:
            self._save(replica, replica.handles.pop(self.rng.randrange(len(replica.handles))))

    def link(self, replica: Replica) -> None:
        if (found := self.some(replica)) is not None:
            parent, name = self.place(replica), self.rng.choice(FILES)
            node = replica.tree.link(found[2].inode, parent, name)
            self.linked.add(node.inode)
            assert replica.tree.lookup(parent, name) == node
            assert node.inode == found[2].inode
            assert node.nlink >= 2

    def unlink(self, replica: Replica) -> None:
        if (found := self.some(replica)) is not None:
            self._unlink(replica, *found)

    def _unlink(self, replica: Replica, parent: InodeId, name: bytes, node: Node) -> None:
        at, plain = replica.now_at, self._is_plain(replica, parent, name, node)
        gone = replica.tree.unlink(parent, name)
        self._removed(at, node, gone, plain)
        assert replica.tree.lookup(parent, name) is None
        if gone.nlink == 0:
            replica.handles = [one for one in replica.handles if one.inode != gone.inode]

    @staticmethod
    def _is_plain(replica: Replica, parent: InodeId, name: bytes, node: Node) -> bool:
        """Tell whether a removal takes one link: none behind it, none that only a sibling had revived."""
        view = replica.meta.view
        return node.inode not in view.contested and name not in view.naming.claims.get(view.naming.group(parent)[0], ())

    def _removed(self, at: Moment, node: Node, gone: Node, plain: bool) -> None:
        """Note it, and look whether just one link went."""
        self.removed.append(Removed(at, node.content, gone.nlink == 0))
        if self.strategy is Strategy.KEEP_BOTH and plain:
            assert gone.inode == node.inode
            assert gone.nlink == node.nlink - 1, "another link went, too, or none"

    def rmdir(self, replica: Replica) -> None:
        if (found := self.some(replica, Kind.DIRECTORY)) is not None:
            parent, name, node = found
            busy = bool(replica.tree.children(node.inode))
            replica.tree.rmdir(parent, name)
            assert not busy
            assert replica.tree.lookup(parent, name) is None

    def remove_all(self, replica: Replica) -> None:
        """``rm -rf``; a deleted directory that stood for the sake of an entry goes with its last one."""
        if (found := self.some(replica, Kind.DIRECTORY)) is None:
            return
        parent, name, node = found
        below = list(replica.tree.walk(node))
        if len(below) > 12:
            return
        for path, _ in reversed(below):
            above, _, last = path.rpartition(b"/")
            try:
                at = replica.tree.resolve(above)
            except FileSystemError:
                continue
            now = replica.tree.lookup(at.inode, last)
            if now is not None and now.is_directory:
                replica.tree.rmdir(at.inode, last)
            elif now is not None:
                self._unlink(replica, at.inode, last, now)
        assert replica.tree.lookup(parent, name) is None

    def rename(self, replica: Replica, *kinds: Kind) -> None:
        if (found := self.some(replica, *kinds)) is None:
            return
        parent, name, node = found
        into, new = self.place(replica), self.rng.choice(NAMES)
        if (there := self.some(replica)) is not None and self.rng.random() < 0.3:
            into, new = there[:2]
        group = replica.tree.display.group
        shown_as = group(into)[0]
        # another member may go with its last entry, if it was deleted and stood for the sake of that
        before = replica.tree.lookup(into, new)
        no_replace = self.rng.random() < 0.1
        at = replica.now_at
        plain = before is None or self._is_plain(replica, into, new, before)
        replaced = replica.tree.rename(parent, name, into, new, no_replace=no_replace)
        assert before is None or not no_replace
        after = replica.tree.lookup(shown_as, new)
        assert after is not None
        assert after.inode == node.inode
        if before is not None and before.inode == node.inode:
            assert replaced is None  # two names of one file: POSIX says that nothing happens
            return
        assert name == new and group(into) == group(parent) or replica.tree.lookup(parent, name) is None  # noqa: RUF021
        if before is not None and not before.is_directory and (replaced is not None or plain):
            assert replaced is not None  # what only a sibling kept alive is gone when that gets its own name
            self._removed(at, before, replaced, plain)
            if replaced.nlink == 0:
                replica.handles = [one for one in replica.handles if one.inode != replaced.inode]
        self.counts["rename over"] += before is not None

    def rename_directory(self, replica: Replica) -> None:
        """Move a directory; every other one stays where it is (also where a cycle was repaired), or is gone."""
        before = {node.inode: path for path, node in self.nodes(replica) if node.is_directory}
        self.rename(replica, Kind.DIRECTORY)
        after = {node.inode: path for path, node in self.nodes(replica) if node.is_directory}
        moved = [before[one] for one in before if one in after and before[one] != after[one]]
        assert all(path.startswith(min(moved, key=len)) for path in moved), "another directory moved, too"

    def exchange(self, replica: Replica) -> None:
        one, two = self.some(replica), self.some(replica)
        if one is None or two is None:
            return
        replica.tree.rename(one[0], one[1], two[0], two[1], exchange=True)
        for (parent, name, _), (_, _, node) in ((one, two), (two, one)):
            after = replica.tree.lookup(parent, name)
            assert after is not None
            assert after.inode == node.inode

    def attributes(self, replica: Replica) -> None:
        found = self.some(replica)
        inode = ROOT_INODE if found is None or self.rng.random() < 0.1 else found[2].inode
        kinds = {"mode": self.rng.randrange(0o10000), "uid": self.rng.randrange(9), "mtime_ns": self._time()}
        given = {key: kinds[key] for key in self.rng.sample(sorted(kinds), self.rng.randrange(1, 3))}
        node = replica.tree.set_attributes(inode, **given)
        assert {key: getattr(node, key) for key in given} == given

    def xattr(self, replica: Replica) -> None:
        if (found := self.some(replica)) is not None:
            inode, name = found[2].inode, self.rng.choice((b"user.one", b"user.two"))
            value = self.rng.choice((b"1", b"2", None))
            replica.tree.set_xattr(inode, name, value)
            assert replica.tree.xattrs(inode).get(name) == value

    # -- the trash and conflicts --------------------------------------------------------------------------------------

    def _trashed(self, replica: Replica) -> TrashEntry | None:
        entries = list(replica.tree.trash())
        return self.rng.choice(entries) if entries else None

    def restore(self, replica: Replica) -> None:
        if (entry := self._trashed(replica)) is None:
            return
        at, before = replica.now_at, {path: node.content for path, node in self.nodes(replica)}
        node = replica.tree.restore(entry)
        assert node.content == entry.content
        assert node.nlink >= 1
        path = replica.tree.path(node.inode)
        assert path is not None
        assert replica.tree.resolve(path).inode == node.inode
        self.saved.append(Saved(at, entry.content, entry.content))
        self.restored.add(entry.content)
        after = {path: node.content for path, node in self.nodes(replica)}
        changed = {path for path in before if path not in after or before[path] != after[path]}
        kept = {one.content for one in replica.tree.trash()} | set(after.values()) | {EMPTY_CONTENT}
        assert all(before[path] in kept for path in changed), "a restoration took something away"
        gone = {before[path] for path in changed} - set(after.values())
        self.removed += [Removed(at, content, True) for content in gone]

    def purge(self, replica: Replica) -> None:
        if (entry := self._trashed(replica)) is None:
            return

        def files() -> dict[bytes, Node]:
            return {path: node._replace(shown=()) for path, node in self.nodes(replica) if not node.is_directory}

        before = files()
        assert replica.tree.purge([entry]) == 1
        assert entry not in list(replica.tree.trash())
        assert before == files(), "a purge changes what is shown"
        with pytest.raises(FileSystemError):
            replica.tree.restore(entry)

    def keep(self, replica: Replica) -> None:
        """Decide a conflict; everything that was shown of it is shown or in the trash."""
        conflicts = replica.tree.conflicts()
        if not conflicts:
            return
        conflict = self.rng.choice(conflicts)
        kept, at = self.rng.choice(conflict.versions), replica.now_at
        before = [replica.tree.get(one.inode) for one in conflict.versions]
        node = replica.tree.keep(conflict.path, kept.inode)
        assert replica.tree.resolve(conflict.path).inode == node.inode
        assert node.content == kept.content
        assert all(one.path != conflict.path for one in replica.tree.conflicts())
        shown = {one.content for _, one in self.nodes(replica)}
        there = {one.content for one in replica.tree.trash()} | shown
        for one in before:
            assert one is not None
            assert one.kind is not Kind.FILE or one.content in there | {EMPTY_CONTENT}
            if one.content not in shown:
                self.removed.append(Removed(at, one.content, True))
        self.saved.append(Saved(at, kept.content, kept.content))
        self.restored.add(kept.content)

    # -- mail, crashes ------------------------------------------------------------------------------------------------

    def save(self, replica: Replica) -> None:
        replica.save()

    def compact(self, replica: Replica) -> None:
        """Write some of the own segments anew."""
        last = replica.log.table.last_segment(replica.meta.writer)
        if last is not None:
            replica.log.compact(self.rng.randrange(last + 1))

    def back_up(self, replica: Replica) -> None:
        replica.back_up()

    def go_back(self, replica: Replica) -> None:
        replica.go_back()

    def crash(self, replica: Replica) -> None:
        replica.crash(self.power_cuts and self.rng.random() < 0.5)

    def mail(self, replica: Replica) -> list[Entry]:
        """Return a heap of entries that another replica sends: with repetitions, gaps, writers mixed."""
        other = self.rng.choice(self.replicas)
        if self.is_apart(replica.index, other.index) or replica.index in self.evicted:
            return []
        if replica is not other and not replica.meet(other):
            return []
        mine, heap = replica.log.vector(), []
        for writer in other.log.vector():
            after = max(0, mine.get(writer, 0) + self.rng.choice((0, 0, 0, 0, -1, -3, 1)))
            heap.append(other.log.read(writer, after, self.rng.choice((1, 500, 1 << 20))))
        mixed: list[Entry] = []
        while heap := [entries for entries in heap if entries]:
            mixed.append(self.rng.choice(heap).pop(0))
        if self.rng.random() < 0.1:
            self.rng.shuffle(mixed)
        return mixed


FAVOURITES = (
    (),
    ("rename a directory", "exchange"),
    ("rename a directory",),
    ("mkdir", "rename a directory", "rmdir"),
    ("publish", "save handle"),
    ("publish", "attributes", "rename"),
    ("link", "unlink", "publish"),
    ("compact", "publish"),
    ("publish", "unlink", "restore", "purge"),
    ("publish", "save handle", "keep", "restore"),
    ("publish", "compact", "save", "back up", "go back"),
)
OPERATIONS: dict[str, tuple[int, Callable[[World, Replica], None]]] = {
    "create": (9, World.create),
    "conceive": (4, World.conceive),
    "bury": (3, World.bury),
    "mkdir": (8, World.mkdir),
    "publish": (8, World.publish),
    "open": (3, World.open),
    "save handle": (3, World.save_handle),
    "link": (3, World.link),
    "unlink": (5, World.unlink),
    "rmdir": (3, World.rmdir),
    "rm -rf": (1, World.remove_all),
    "rename": (6, World.rename),
    "rename a directory": (7, World.rename_directory),
    "exchange": (2, World.exchange),
    "attributes": (4, World.attributes),
    "xattr": (3, World.xattr),
    "restore": (3, World.restore),
    "purge": (2, World.purge),
    "keep": (2, World.keep),
    "save": (14, World.save),
    "compact": (2, World.compact),
    "crash": (2, World.crash),
    "back up": (1, World.back_up),
    "go back": (1, World.go_back),
}
