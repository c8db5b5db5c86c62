"""Operations on one pod: POSIX's errnos, what they return, what their deltas name."""

from __future__ import annotations

import errno
from collections.abc import Callable

import pytest

from base.errors import FileSystemError
from base.ids import EMPTY_CONTENT, ROOT_INODE, ContentId, InodeId
from crdt_meta.node import Delta, Kind, Totals
from crdt_meta.store import LARGE_BYTES
from tests.unit.crdt_meta.pods import Mesh, Pod, content, exchange
from transfer.chunking import CHUNK_BYTES

NOWHERE = InodeId(b"nowhere" + bytes(9))
MILLISECOND_NS = 1_000_000


@pytest.fixture
def tree(ann: Pod) -> Pod:
    """``/f``, ``/d/g``, ``/d/empty/``, ``/s`` → f."""
    ann.save("/f", "f")
    ann.mkdir("/d")
    ann.save("/d/g", "g")
    ann.mkdir("/d/empty")
    ann.make("/s", Kind.SYMLINK, 0o777, b"f")
    return ann


FAILING: list[tuple[int, Callable[[Pod], object]]] = [
    (errno.EEXIST, lambda pod: pod.make("/f")),
    (errno.EEXIST, lambda pod: pod.mkdir("/d")),
    (errno.EEXIST, lambda pod: pod.tree.create(ROOT_INODE, b".", Kind.FILE, mode=0, uid=0, gid=0, mtime_ns=0)),
    (errno.EINVAL, lambda pod: pod.tree.create(ROOT_INODE, b"a/b", Kind.FILE, mode=0, uid=0, gid=0, mtime_ns=0)),
    (errno.ENOENT, lambda pod: pod.tree.create(NOWHERE, b"x", Kind.FILE, mode=0, uid=0, gid=0, mtime_ns=0)),
    (errno.ENOTDIR, lambda pod: pod.make("/f/x")),
    (errno.ENAMETOOLONG, lambda pod: pod.make("/" + "x" * 256)),
    (errno.ENAMETOOLONG, lambda pod: pod.make("/l", Kind.SYMLINK, target=b"x" * 4096)),
    (errno.ENOENT, lambda pod: pod.unlink("/nothing")),
    (errno.EISDIR, lambda pod: pod.unlink("/d")),
    (errno.ENOTDIR, lambda pod: pod.rmdir("/f")),
    (errno.ENOTEMPTY, lambda pod: pod.rmdir("/d")),
    (errno.ENOENT, lambda pod: pod.rmdir("/nothing")),
    (errno.ENOENT, lambda pod: pod.rename("/nothing", "/x")),
    (errno.EISDIR, lambda pod: pod.rename("/f", "/d")),
    (errno.ENOTDIR, lambda pod: pod.rename("/d", "/f")),
    (errno.ENOTEMPTY, lambda pod: (pod.mkdir("/e"), pod.rename("/e", "/d"))),
    (errno.EINVAL, lambda pod: pod.rename("/d", "/d/empty/x")),
    (errno.EINVAL, lambda pod: pod.rename("/d", "/d/x")),
    (errno.EINVAL, lambda pod: pod.rename("/d/empty", "/d", exchange=True)),
    (errno.ENOENT, lambda pod: pod.rename("/f", "/nothing", exchange=True)),
    (errno.ENAMETOOLONG, lambda pod: pod.rename("/f", "/" + "x" * 256)),
    (errno.ENOTDIR, lambda pod: pod.rename("/f", "/s/x")),
    (errno.EBUSY, lambda pod: pod.tree.rename(ROOT_INODE, b"..", ROOT_INODE, b"x")),
    (errno.EEXIST, lambda pod: pod.tree.rename(ROOT_INODE, b"f", ROOT_INODE, b"s", no_replace=True)),
    (errno.EPERM, lambda pod: pod.link("/d", "/x")),
    (errno.EEXIST, lambda pod: pod.link("/f", "/s")),
    (errno.ENOENT, lambda pod: pod.tree.link(NOWHERE, ROOT_INODE, b"x")),
    (errno.ENOENT, lambda pod: pod.tree.set_attributes(NOWHERE, mode=0)),
    (errno.ENODATA, lambda pod: pod.tree.set_xattr(pod.at("/f").inode, b"user.no", None)),
    (errno.ERANGE, lambda pod: pod.tree.set_xattr(pod.at("/f").inode, b"x" * 256, b"")),
    (errno.E2BIG, lambda pod: pod.tree.set_xattr(pod.at("/f").inode, b"user.big", b"x" * 65537)),
    (errno.ENOENT, lambda pod: pod.tree.publish(NOWHERE, pod.at("/f").link, content("x"), 1, 1, ())),
    (errno.ENOENT, lambda pod: pod.at("/nothing")),
    (errno.ENOTDIR, lambda pod: pod.at("/f/x")),
]


@pytest.mark.parametrize(("expected", "work"), FAILING)
def test_what_posix_refuses(tree: Pod, expected: int, work: Callable[[Pod], object]) -> None:
    before = tree.files()
    with pytest.raises(FileSystemError) as failed:
        work(tree)
    assert errno.errorcode[failed.value.errno] == errno.errorcode[expected]
    assert tree.files() == before


def test_renames_return_what_they_replaced(tree: Pod) -> None:
    old = tree.at("/d/g")
    assert tree.rename("/f", "/x") is None
    replaced = tree.rename("/x", "/d/g")
    assert replaced is not None
    assert (replaced.inode, replaced.nlink) == (old.inode, 0)
    assert tree.rename("/d/empty", "/e") is None
    tree.mkdir("/h")
    assert tree.rename("/e", "/h") is None
    assert tree.ls() == ["d", "h", "s"]


def test_a_rename_to_another_name_of_the_file_does_nothing(tree: Pod) -> None:
    tree.link("/f", "/two")
    assert tree.rename("/f", "/two") is None
    assert tree.ls() == ["d", "f", "s", "two"]


def test_exchange(tree: Pod) -> None:
    f, empty = tree.at("/f").inode, tree.at("/d/empty").inode
    tree.rename("/f", "/d/empty", exchange=True)
    assert (tree.at("/d/empty").inode, tree.at("/f").inode) == (f, empty)


def test_counts(tree: Pod) -> None:
    assert tree.tree.totals() == Totals(files=2, directories=2, bytes=2)
    assert tree.at("/d").nlink == 3
    assert tree.at("").nlink == 3
    tree.link("/f", "/two")
    assert tree.tree.totals().files == 2
    assert [one for one, _, _ in tree.tree.contents(None, 9)] == sorted([content("f"), content("g")])
    assert tree.tree.references(content("f")) == [tree.at("/f").inode]
    tree.unlink("/d/g")
    assert tree.tree.totals() == Totals(files=1, directories=2, bytes=1)
    assert tree.tree.showing(content("g")) == []
    assert len(tree.tree.references(content("g"))) == 1
    assert tree.tree.purge(tree.tree.trash()) == 1
    assert tree.tree.references(content("g")) == []


def test_large_contents_are_found_wherever_they_are_without_looking_at_the_others(
    tree: Pod, world: Mesh, ann: Pod, bob: Pod
) -> None:
    def save(pod: Pod, path: str, word: str, size: int) -> None:
        node = pod.at(path)
        pod.tree.publish(node.inode, node.link, content(word), size, 1, node.shown)

    assert tree.tree.large_contents(None, 9) == []
    exchange(ann, bob)
    save(ann, "/f", "ann's", LARGE_BYTES + 1)  # of two at the same time one is a sibling
    save(bob, "/f", "bob's", LARGE_BYTES + 2)
    save(ann, "/d/g", "just not", LARGE_BYTES)
    exchange(ann, bob)
    tree.save("/gone", "x")
    save(tree, "/gone", "gone", LARGE_BYTES + 3)
    tree.unlink("/gone")
    expected = sorted(
        ((content("ann's"), LARGE_BYTES + 1), (content("bob's"), LARGE_BYTES + 2), (content("gone"), LARGE_BYTES + 3))
    )
    for limit in (1, 2, 3, 9):
        found: list[tuple[ContentId, int]] = []
        while page := tree.tree.large_contents(found[-1][0] if found else None, limit):
            found += page
        assert found == expected
    queries: list[str] = []
    database = tree.meta.store.db
    database.set_trace_callback(queries.append)
    tree.tree.large_contents(None, 9)
    database.set_trace_callback(None)
    plans = [str(database.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()) for query in queries]
    assert len(plans) == 3
    assert all("COVERING INDEX" in plan and "_large" in plan and "TEMP" not in plan for plan in plans), plans


def test_a_tree_of_an_earlier_version_has_its_large_contents_found(tree: Pod, world: Mesh) -> None:
    node = tree.at("/f")
    tree.tree.publish(node.inode, node.link, content("large"), LARGE_BYTES + 1, 1, node.shown)
    tree.log.commit()
    for table in ("inode", "sibling", "trash"):
        tree.meta.store.db.execute(f"DROP INDEX {table}_large")
    tree.close()
    again = world.pod("ann")
    indexes = again.meta.store.db.execute("SELECT count(*) FROM sqlite_master WHERE name LIKE '%\\_large' ESCAPE '\\'")
    assert indexes.fetchone() == (3,)
    assert again.tree.large_contents(None, 9) == [(content("large"), LARGE_BYTES + 1)]


def test_what_has_more_than_one_chunk_is_large() -> None:
    assert LARGE_BYTES == CHUNK_BYTES


def test_every_change_moves_the_ctime_and_a_publication_does_not(world: Mesh, tree: Pod) -> None:
    inode = tree.at("/f").inode
    seen = [tree.at("/f").ctime_ns]

    def moved() -> bool:
        node = tree.tree.get(inode)
        assert node is not None
        seen.append(node.ctime_ns)
        return seen[-1] > seen[-2]

    tree.link("/f", "/two")
    assert moved()
    tree.rename("/f", "/one")
    assert moved()
    tree.tree.set_xattr(inode, b"user.a", b"1")
    assert moved()
    tree.tree.set_attributes(inode, mode=0o600)
    assert moved()
    tree.unlink("/two")
    assert moved()
    written_ns = seen[-1] + 5000
    world.now_s += 10
    node = tree.at("/one")
    tree.tree.publish(inode, node.link, content("written"), 7, 77, node.shown, written_ns)
    assert moved()
    assert seen[-1] == written_ns
    tree.tree.view.rebuild()
    tree.tree.changed(Delta(False, {inode}))
    assert not moved()


def test_times(world: Mesh, tree: Pod) -> None:
    parent = tree.at("/d")
    world.now_s += 10
    tree.make("/d/new")
    assert abs(tree.at("/d").mtime_ns - int(world.now_s * 1e9)) < MILLISECOND_NS
    tree.tree.set_attributes(parent.inode, mtime_ns=77)
    assert tree.at("/d").mtime_ns == 77
    world.now_s += 10
    tree.unlink("/d/new")
    assert abs(tree.at("/d").mtime_ns - int(world.now_s * 1e9)) < MILLISECOND_NS
    node = tree.at("/f")
    tree.tree.publish(node.inode, node.link, content("later"), 5, 123, node.shown)
    assert tree.at("/f").mtime_ns == 123
    tree.tree.set_attributes(ROOT_INODE, mode=0o700, mtime_ns=5)
    assert (tree.at("").mode, tree.at("").mtime_ns) == (0o700, 5)


def test_a_full_disk_refuses_what_adds_and_allows_what_removes(tree: Pod) -> None:
    tree.tree._has_room = lambda: False
    for work in (
        lambda: tree.make("/x"),
        lambda: tree.link("/f", "/x"),
        lambda: tree.tree.set_attributes(tree.at("/f").inode, mode=0),
        lambda: tree.tree.set_xattr(tree.at("/f").inode, b"user.x", b"1"),
    ):
        with pytest.raises(FileSystemError) as failed:
            work()
        assert failed.value.errno == errno.ENOSPC
    tree.unlink("/f")
    tree.rmdir("/d/empty")


def test_a_file_rewritten_often_keeps_few_records(ann: Pod, bob: Pod) -> None:
    for index in range(200):
        ann.save("/log", f"{index}")
        if index % 20 == 0:
            exchange(ann, bob)
            bob.save("/log", f"bob {index}")
            exchange(ann, bob)
    exchange(ann, bob)
    for pod in (ann, bob):
        assert pod.files() == {"/log": content("199")}
        query = "SELECT count(*), max(length(value)) FROM record WHERE node = ? AND kind = 'c'"
        ((number, longest),) = pod.meta.store.query(query, (pod.at("/log").inode,))
        assert number <= 2
        assert longest < 1000


def test_deltas_name_what_changed(tree: Pod) -> None:
    def delta_of(work: Callable[[], object]) -> tuple[set[InodeId], set[tuple[InodeId, bytes]]]:
        tree.deltas.clear()
        work()
        (delta,) = tree.deltas
        assert not delta.remote
        return delta.inodes, delta.entries

    d, f = tree.at("/d").inode, tree.at("/f").inode
    assert delta_of(lambda: tree.tree.set_attributes(f, mode=0)) == ({f}, set())
    inodes, entries = delta_of(lambda: tree.rename("/f", "/d/h"))
    assert inodes == {f, d, ROOT_INODE}
    assert entries == {(ROOT_INODE, b"f"), (d, b"h")}
    tree.deltas.clear()
    tree.save("/d/h", "new")
    assert tree.deltas[0].contents == {content("f"), content("new")}


def test_deltas_name_conflicting_names_that_come_and_go(world: Mesh, ann: Pod, bob: Pod) -> None:
    ann.save("/x.txt", "first")
    exchange(ann, bob)
    ann.save("/x.txt", "of ann")
    world.now_s += 5
    bob.save("/x.txt", "of bob")
    ann.deltas.clear()
    exchange(ann, bob)
    name = b"x.conflict-ann-20270115-080000.txt"
    (delta,) = [one for one in ann.deltas if one.remote]
    assert (ROOT_INODE, name) in delta.entries
    loser = ann.at("/" + name.decode()).inode
    assert {loser, ann.at("/x.txt").inode} <= delta.inodes
    assert bob.at("/" + name.decode()).inode == loser
    file = bob.at("/x.txt")
    dots = (*file.shown, *bob.at("/" + name.decode()).shown)
    bob.tree.publish(file.inode, file.link, content("both"), 4, 1, dots)
    ann.deltas.clear()
    exchange(ann, bob)
    assert ann.files() == {"/x.txt": content("both")}
    assert (ROOT_INODE, name) in {entry for one in ann.deltas for entry in one.entries}
    assert loser in {inode for one in ann.deltas for inode in one.inodes}


def test_deltas_name_a_winner_that_changes(world: Mesh, ann: Pod, bob: Pod) -> None:
    ann.save("/x.txt", "of ann")
    world.now_s += 5
    bob.save("/x.txt", "of bob")
    ann.deltas.clear()
    exchange(ann, bob)
    changed = {entry for one in ann.deltas for entry in one.entries}
    assert {(ROOT_INODE, b"x.txt"), (ROOT_INODE, b"x.conflict-ann-20270115-080000.txt")} <= changed


def test_walk_yields_directories_before_their_entries(tree: Pod) -> None:
    assert [path for path, _ in tree.walk()] == [b"/", b"/d", b"/d/empty", b"/d/g", b"/f", b"/s"]
    assert tree.at("/s").target == b"f"
    assert tree.at("/s").size == 1
    assert tree.at("/d/empty").content == EMPTY_CONTENT


def test_reading_beyond_the_caches(ann: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that were dropped from memory are read from the file again, those that wait to be written are not lost."""
    view = ann.meta.view
    for table in (view.links._rows, view.links._hard, view.rows._inodes, view.rows._directories):
        monkeypatch.setattr(table, "_limit", 3)
    monkeypatch.setattr("crdt_meta.recordtable.CACHED_NODES", 3)
    monkeypatch.setattr("crdt_meta.links.CACHED_LINKS", 3)
    for index in range(40):
        ann.mkdir(f"/{index}")
        ann.save(f"/{index}/f", f"{index}")
        if index % 7 == 0:
            ann.tell()
    for index in range(0, 40, 3):
        ann.rename(f"/{index}/f", f"/{index}/g")
        ann.tree.set_attributes(ann.at(f"/{(index + 20) % 40}").inode, mode=0o700)
    files = {f"/{index}/{'f' if index % 3 else 'g'}": content(f"{index}") for index in range(40)}
    assert ann.files() == files
    ann.tell()
    assert ann.files() == files
    ann.meta.view.reload()
    assert ann.files() == files


def test_names_of_a_busy_directory(ann: Pod, bob: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """That all names of a directory are known hides nothing that comes, here or from elsewhere, or is taken back."""
    monkeypatch.setattr("crdt_meta.links.NAMES_KNOWN", 40)
    links, there = ann.meta.view.links, set[str]()
    ann.mkdir("/d")
    exchange(ann, bob)
    directory = ann.at("/d").inode
    for index in range(60):
        name = f"f-{index}"
        (bob if index % 3 == 0 else ann).save(f"/d/{name}", name)
        there.add(name)
        if index % 5 == 4:
            exchange(ann, bob)
            ann.rename(f"/d/{name}", f"/d/g-{index}")
            ann.unlink(f"/d/f-{index - 1}")
            there ^= {name, f"g-{index}", f"f-{index - 1}"}
            links._named.clear()
            for known in ("f", "g"):
                shown = {
                    f"{known}-{n}" for n in range(index + 1) if ann.tree.lookup(directory, f"{known}-{n}".encode())
                }
                assert shown == {one for one in there if one.startswith(known)}
        if index == 19:
            assert directory in links._names._known, "small enough"
    assert directory not in links._names._known, "too large"
