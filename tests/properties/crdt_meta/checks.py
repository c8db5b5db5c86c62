"""What is compared: a replica with the oracle, its memory with its tables, a cache above it with the tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from base.ids import EMPTY_CONTENT, ROOT_INODE, ContentId, InodeId, hash_bytes
from crdt_meta.node import Delta, Kind, Node
from crdt_meta.store import LARGE_BYTES
from crdt_meta.trashed import Trashed, TrashRow
from crdt_meta.tree import Tree
from crdt_meta.view import View
from tests.properties.crdt_meta import trash_oracle
from tests.properties.crdt_meta.oracle import Oracle, Shown, load

if TYPE_CHECKING:
    from tests.properties.crdt_meta.replica import Replica

NAMES = (b"a.txt", b"b.txt", b"c", b"x", b"y")


class Shadow:
    """What a cache above the tree would hold: dropped only as the deltas say."""

    def __init__(self) -> None:
        self.names: dict[tuple[InodeId, bytes], InodeId | None] = {}
        self.nodes: dict[InodeId, Node | None] = {}
        self.contents: dict[ContentId, frozenset[InodeId]] = {}

    def forget(self, delta: Delta) -> None:
        for inode in delta.inodes:
            self.nodes.pop(inode, None)
        for entry in delta.entries:
            self.names.pop(entry, None)
        for content in delta.contents:
            self.contents.pop(content, None)

    def check(self, tree: Tree, known_contents: Iterable[ContentId]) -> None:
        """Compare what is cached with the tree, then cache everything that can be seen now."""
        for (parent, name), inode in self.names.items():
            found = tree.lookup(parent, name)
            assert inode == (None if found is None else found.inode), f"no delta for the name {name!r}"
        for inode, node in self.nodes.items():
            assert node == tree.get(inode), "no delta for an inode"
        for content, inodes in self.contents.items():
            assert bool(inodes) == bool(tree.references(content)), "no delta for a content"
        for content in known_contents:
            self.contents[content] = frozenset(tree.references(content))
        directories = {ROOT_INODE, *(i for i, n in self.nodes.items() if n is not None and n.is_directory)}
        names = set(NAMES) | {name for _, name in self.names}
        for inode in [*self.nodes, *(node.inode for _, node in tree.walk(tree.resolve(b"/")))]:
            self.nodes[inode] = node = tree.get(inode)
            directories |= {inode} if node is not None and node.is_directory else set()
        for parent in directories:
            for name, child in tree.children(parent):
                self.names[parent, name] = child.inode
            for name in names:
                if (parent, name) not in self.names:
                    found = tree.lookup(parent, name)
                    self.names[parent, name] = None if found is None else found.inode


def shown_tree(replica: Replica) -> dict[bytes, Shown]:
    """Return what a replica shows, as the oracle puts it; every path resolves to itself."""
    tree = replica.tree
    root = tree.get(ROOT_INODE)
    assert root is not None
    found: dict[bytes, Shown] = {}
    for path, node in tree.walk(root):
        assert tree.get(node.inode) is not None
        if path == b"/":
            continue
        assert path not in found, "a name twice"
        assert tree.resolve(path).inode == node.inode
        above = tree.path(node.inode)
        assert above is not None
        assert tree.resolve(above).inode == node.inode, "path() leads elsewhere"
        assert node.nlink > 1 or above == path, f"{path!r} says that it is {above!r}"
        found[path] = Shown(
            node.inode,
            node.kind,
            *(node.mode, node.uid, node.gid, node.size, node.content, node.target, node.nlink),
            0 if node.is_directory else node.mtime_ns,
            tuple(tree.xattrs(node.inode).items()),
        )
        assert node.nlink >= 1
    directories = [one.inode for one in found.values() if one.kind is Kind.DIRECTORY]
    assert len(directories) == len(set(directories)), "a directory twice"
    return found


def check(replica: Replica) -> dict[bytes, Shown]:
    """Compare a replica with the oracle, its counts and its memory with its tables; return its tree."""
    two_lives = replica.world.counts[
        "restored"
    ]  # until all have heard of it, parts of one don't fit the other, and are refused
    assert two_lives or not replica.log.incoming._complaints, replica.log.incoming._complaints
    found = shown_tree(replica)
    oracle = Oracle(load(replica.meta.store), replica.world.pod_name)
    assert found == oracle.tree(), "not what the records must show"
    tree, view = replica.tree, replica.meta.view
    replica.shadow.check(tree, {one.content for one in replica.world.saved} - {EMPTY_CONTENT})
    _check_totals(replica, oracle)
    _check_trash(replica, oracle)
    memory = _memory(view)
    view.reload()
    for name, value in _memory(view).items():
        assert memory[name] == value, f"{name} in memory differs from the tables: {memory[name]} {value}"
    return found


def _memory(view: View) -> dict[str, object]:
    """Return what a view keeps in memory."""
    naming = view.naming
    sets = {name: set(getattr(view, name)) for name in ("twins", "contested", "kept", "demoted")}
    counts = {name: getattr(view, name) for name in ("files", "directories", "bytes")}
    owners, groups = dict(view.sibling_owner), dict(naming._groups)
    return {**sets, **counts, "owners": owners, "groups": groups, "claims": naming.claims, "shown": naming.shown}


def _check_totals(replica: Replica, oracle: Oracle) -> None:
    """Totals and contents count what lives, also what is hidden behind another file of its name."""
    files: dict[InodeId, tuple[ContentId, int]] = {}
    for inode in oracle.living:
        if oracle.versions[inode] and oracle.birth[inode][1].kind is Kind.FILE:
            for index, (version, *_) in enumerate(oracle.shown_versions(inode)):
                dot = version.order[1] + version.order[0].to_bytes(8, "big")
                shown = hash_bytes(inode + dot)[:16] if index else inode
                files[InodeId(shown)] = ContentId(version.content), version.size
    totals = replica.tree.totals()
    assert totals.files == len(files)
    assert totals.bytes == sum(size for _, size in files.values())
    assert totals.directories == len(oracle.alive)
    references: dict[ContentId, set[InodeId]] = {}
    for inode, (content, _) in files.items():
        if content != EMPTY_CONTENT:
            references.setdefault(content, set()).add(inode)
    for content, inodes in references.items():
        assert set(replica.tree.showing(content)) == inodes
    for raw, removed in trash_oracle.contents(trash_oracle.trash(oracle)).items():
        references.setdefault(ContentId(raw), set()).update(InodeId(inode) for inode in removed)
    contents: list[ContentId] = []
    while page := replica.tree.contents(contents[-1] if contents else None, 3):
        contents += [content for content, _, _ in page]
    assert contents == sorted(references), (contents, sorted(references))
    for content, inodes in references.items():
        assert set(replica.tree.references(content)) == inodes
    sizes = {*files.values(), *((ContentId(one.content), one.size) for one in trash_oracle.trash(oracle))}
    large: list[ContentId] = []
    while some := replica.tree.large_contents(large[-1] if large else None, 3):
        large += [content for content, _ in some]
        assert sizes.issuperset(some)
    assert large == sorted({content for content, size in sizes if size > LARGE_BYTES})


def _check_trash(replica: Replica, oracle: Oracle) -> None:
    """The rows of the view, read in pages; then what the API makes of them."""
    tree, trashed = replica.tree, replica.meta.view.trash
    found: set[trash_oracle.Trashed] = set()
    rows = list(rows_of(trashed))
    for row in rows:
        place = None if row.name is None or row.parent is None else tree._place(row)
        facts = (row.why.name.lower(), row.content, row.size, row.mtime_ns, row.removed, place)
        found.add(trash_oracle.Trashed(row.inode, (row.dot.writer, row.dot.clock), *facts))
        assert row in trashed.of(row.inode)
    assert len(found) == len(rows), "an entry twice"
    assert found == trash_oracle.trash(oracle), "not what the records must have in the trash"
    assert trashed.bytes == sum(row.size for row in rows)
    assert rows == sorted(rows, key=lambda row: row.key, reverse=True)
    assert rows == list(rows_of(trashed, oldest_first=True))[::-1]
    entries = list(tree.trash())
    assert [one.dot for one in entries[: len(rows)]] == [row.dot for row in rows]
    for entry in entries:
        assert entry in tree.trash_of(entry.path) or entry.path.startswith(b"/" + entry.inode.hex().encode())
    assert tree.trash_bytes() == sum(one.size for one in entries)


@contextmanager
def by_the_rules(view: View) -> Iterator[None]:
    """Have a view derive plain files by the rules for everything, too, not in the short way, which must say the same."""
    with patch.object(view, "_is_plain", lambda batch, inode: False):
        yield


def rows_of(trashed: Trashed, *, oldest_first: bool = False) -> Iterator[TrashRow]:
    """Read all rows, three at a time."""
    after = None
    while page := trashed.page(after, 3, oldest_first=oldest_first):
        yield from page
        after = page[-1].key
