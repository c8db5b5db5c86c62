"""What people do on two pods at the same time, and what they find afterwards."""

from __future__ import annotations

import errno

import pytest

from base.errors import FileSystemError
from base.ids import ROOT_INODE
from crdt_meta.node import Kind
from crdt_meta.records import Strategy
from tests.unit.crdt_meta.pods import Mesh, Pod, content, exchange

OF_ANN = "note.conflict-ann-20270115-080000.txt"


@pytest.fixture
def note(world: Mesh, ann: Pod, bob: Pod) -> str:
    """``/note.txt``, saved by both at the same time; bob's is the later one."""
    ann.save("/note.txt", "first")
    exchange(ann, bob)
    ann.save("/note.txt", "of ann")
    world.now_s += 5
    bob.save("/note.txt", "of bob")
    exchange(ann, bob)
    return "/note.txt"


def test_a_concurrent_edit_shows_two_names(note: str, ann: Pod, bob: Pod) -> None:
    for pod in (ann, bob):
        assert pod.files() == {"/note.txt": content("of bob"), "/" + OF_ANN: content("of ann")}
        (conflict,) = pod.tree.conflicts()
        assert conflict.path == b"/note.txt"
        assert [version.path.decode() for version in conflict.versions] == ["/note.txt", "/" + OF_ANN]
        assert [version.content for version in conflict.versions] == [content("of bob"), content("of ann")]


@pytest.mark.parametrize("saver", ["ann", "bob"])
def test_the_loser_survives_the_next_save(note: str, ann: Pod, bob: Pod, saver: str) -> None:
    {"ann": ann, "bob": bob}[saver].save(note, "next")
    exchange(ann, bob)
    assert ann.files() == {"/note.txt": content("next"), "/" + OF_ANN: content("of ann")}
    assert not ann.tree.conflicts()


def test_the_loser_survives_a_rename_of_the_winner(note: str, ann: Pod, bob: Pod) -> None:
    ann.rename(note, "/other.txt")
    exchange(ann, bob)
    assert bob.files() == {"/other.txt": content("of bob"), "/" + OF_ANN: content("of ann")}


def test_the_loser_survives_the_removal_of_the_winner(note: str, ann: Pod, bob: Pod) -> None:
    bob.unlink(note)
    exchange(ann, bob)
    assert ann.files() == {"/" + OF_ANN: content("of ann")}


def test_the_winner_survives_the_removal_of_the_loser(note: str, ann: Pod, bob: Pod) -> None:
    bob.unlink("/" + OF_ANN)
    exchange(ann, bob)
    assert ann.files() == {"/note.txt": content("of bob")}


def test_the_loser_can_be_renamed_over_the_winner(note: str, ann: Pod, bob: Pod) -> None:
    ann.rename("/" + OF_ANN, note)
    exchange(ann, bob)
    assert bob.files() == {"/note.txt": content("of ann")}


def test_the_loser_can_be_edited_and_changed_by_its_name(note: str, ann: Pod, bob: Pod) -> None:
    loser = ann.at("/" + OF_ANN)
    ann.tree.set_attributes(loser.inode, mode=0o600)
    ann.save("/" + OF_ANN, "more")
    exchange(ann, bob)
    assert bob.files() == {"/note.txt": content("of bob"), "/" + OF_ANN: content("more")}
    assert (bob.at("/" + OF_ANN).mode, bob.at(note).mode) == (0o600, 0o644)
    assert bob.at("/" + OF_ANN).inode == loser.inode


def test_both_pods_settle_the_same_conflict(note: str, ann: Pod, bob: Pod) -> None:
    ann.tree.set_attributes(ann.at(note).inode, mode=0o600)
    bob.save(note, "next")
    exchange(ann, bob)
    assert ann.files() == {"/note.txt": content("next"), "/" + OF_ANN: content("of ann")}


def test_three_versions_settle_at_once(world: Mesh, note: str, ann: Pod, bob: Pod, eve: Pod) -> None:
    exchange(ann, bob, eve)
    for pod in (ann, bob, eve):
        world.now_s += 5
        pod.save("/three", pod.name, over=None)
    exchange(ann, bob, eve)
    assert len(ann.files()) == 2 + 3
    ann.save("/three", "next")
    exchange(ann, bob, eve)
    assert len(bob.files()) == 2 + 3
    assert bob.at("/three").content == content("next")


def test_an_open_file_that_is_saved_replaces_what_it_showed_only(note: str, ann: Pod, bob: Pod) -> None:
    opened = ann.at("/" + OF_ANN)
    file = ann.at(note)
    ann.tree.publish(file.inode, file.link, content("of ann, more"), 9, 1, opened.shown)
    exchange(ann, bob)
    assert sorted(bob.files().values()) == sorted([content("of ann, more"), content("of bob")])
    assert bob.at(note).content == content("of ann, more")


def test_who_is_behind_sees_no_conflict_in_what_was_replaced_long_ago(ann: Pod, bob: Pod, eve: Pod) -> None:
    """Of a content that was replaced its writer removes the record; others have the news of it in any order."""
    bob.save("/log", "0")
    bob.save("/log", "1")
    eve.hear(bob.tell())
    exchange(ann, bob)
    ann.save("/log", "2")
    exchange(ann, bob)
    bob.save("/log", "3")
    exchange(ann, bob)
    ann.save("/log", "4")
    eve.hear(ann.tell())
    assert eve.at("/log").content == content("4")
    assert eve.ls() == ["log"]
    exchange(ann, bob, eve)
    assert eve.files() == {"/log": content("4")}


def test_identical_contents_are_no_conflict(ann: Pod, bob: Pod) -> None:
    ann.save("/note.txt", "first")
    exchange(ann, bob)
    for pod in (ann, bob):
        pod.save("/note.txt", "same")
        pod.save("/new.txt", "new")
    exchange(ann, bob)
    assert ann.files() == {"/note.txt": content("same"), "/new.txt": content("new")}
    assert not ann.tree.conflicts()
    bob.unlink("/new.txt")
    bob.unlink("/note.txt")
    exchange(ann, bob)
    assert not ann.files()


def test_an_edit_survives_a_deletion_that_did_not_see_it(ann: Pod, bob: Pod) -> None:
    ann.save("/note.txt", "first")
    exchange(ann, bob)
    ann.unlink("/note.txt")
    bob.save("/note.txt", "second")
    exchange(ann, bob)
    assert ann.files() == {"/note.txt": content("second")}
    ann.unlink("/note.txt")
    exchange(ann, bob)
    assert not bob.files()


def test_a_deletion_holds_against_a_rename(ann: Pod, bob: Pod) -> None:
    ann.save("/note.txt", "first")
    exchange(ann, bob)
    ann.unlink("/note.txt")
    bob.rename("/note.txt", "/other.txt")
    exchange(ann, bob)
    assert not ann.files()


def test_a_deleted_directory_stays_for_a_file_made_below_it(ann: Pod, bob: Pod) -> None:
    ann.mkdir("/d")
    exchange(ann, bob)
    ann.rmdir("/d")
    bob.save("/d/new.txt", "new")
    exchange(ann, bob)
    assert ann.files() == {"/d/new.txt": content("new")}
    ann.unlink("/d/new.txt")
    exchange(ann, bob)
    assert bob.ls() == []


class TestOneDirectoryOfTwo:
    """Both make ``/d``."""

    @pytest.fixture(autouse=True)
    def both(self, ann: Pod, bob: Pod) -> None:
        for pod in (ann, bob):
            pod.mkdir("/d")
            pod.mkdir("/d/sub")
            pod.save(f"/d/sub/{pod.name}.txt", pod.name)
        exchange(ann, bob)

    def test_is_shown_as_one(self, ann: Pod, bob: Pod) -> None:
        assert ann.ls() == bob.ls() == ["d"]
        assert bob.ls("/d") == ["sub"]
        assert bob.ls("/d/sub") == ["ann.txt", "bob.txt"]
        assert bob.at("/d").nlink == 2 + 2
        for group in (bob.tree.display.group(bob.at("/d").inode), bob.tree.display.group(bob.at("/d/sub").inode)):
            assert len(group) == 2
            for member in group:
                assert [name for name, _ in bob.tree.children(member)] == (
                    [b"sub"] if len(bob.tree.path(member) or b"") == 2 else [b"ann.txt", b"bob.txt"]
                )

    def test_takes_new_files(self, ann: Pod, bob: Pod) -> None:
        bob.save("/d/sub/more.txt", "more")
        exchange(ann, bob)
        assert ann.ls("/d/sub") == ["ann.txt", "bob.txt", "more.txt"]
        with pytest.raises(FileSystemError) as failed:
            ann.make("/d/sub/bob.txt")
        assert failed.value.errno == errno.EEXIST

    def test_moves_as_one(self, ann: Pod, bob: Pod) -> None:
        bob.rename("/d", "/e")
        exchange(ann, bob)
        assert ann.files() == {"/e/sub/ann.txt": content("ann"), "/e/sub/bob.txt": content("bob")}

    def test_goes_as_one(self, ann: Pod, bob: Pod) -> None:
        with pytest.raises(FileSystemError) as failed:
            bob.rmdir("/d/sub")
        assert failed.value.errno == errno.ENOTEMPTY
        for path in ("/d/sub/ann.txt", "/d/sub/bob.txt"):
            bob.unlink(path)
        bob.rmdir("/d/sub")
        bob.rmdir("/d")
        exchange(ann, bob)
        assert ann.ls() == []

    def test_changes_as_one(self, world: Mesh, ann: Pod, bob: Pod) -> None:
        mine = ann.at("/d").inode
        ann.tree.set_attributes(mine, mode=0o700)
        ann.tree.set_xattr(mine, b"user.a", b"1")
        exchange(ann, bob)
        assert {node.mode for node in map(bob.tree.get, bob.tree.display.group(mine)) if node} == {0o700}
        assert all(bob.tree.xattrs(one) == {b"user.a": b"1"} for one in bob.tree.display.group(mine))

    def test_splits_when_somebody_moved_one_before_he_knew(self, world: Mesh, ann: Pod, bob: Pod) -> None:
        eve = world.pod("eve")
        eve.hear(ann.tell())
        eve.rename("/d", "/of-ann")
        exchange(ann, bob, eve)
        assert bob.files() == {"/of-ann/sub/ann.txt": content("ann"), "/d/sub/bob.txt": content("bob")}

    def test_cannot_go_below_itself(self, bob: Pod) -> None:
        for into in bob.tree.display.group(bob.at("/d/sub").inode):
            with pytest.raises(FileSystemError) as failed:
                bob.tree.rename(ROOT_INODE, b"d", into, b"x")
            assert failed.value.errno == errno.EINVAL

    def test_members_report_each_others_entries(self, ann: Pod, bob: Pod) -> None:
        bob.deltas.clear()
        bob.save("/d/sub/more.txt", "more")
        changed = {entry for delta in bob.deltas for entry in delta.entries}
        assert {(one, b"more.txt") for one in bob.tree.display.group(bob.at("/d/sub").inode)} <= changed


def test_a_file_gives_way_to_a_directory_of_its_name(ann: Pod, bob: Pod) -> None:
    ann.save("/x.txt", "file")
    bob.mkdir("/x.txt")
    exchange(ann, bob)
    assert ann.at("/x.txt").is_directory
    assert sorted(ann.files().values()) == [content("file")]
    ann.rename("/x.txt", "/d")
    exchange(ann, bob)
    assert bob.ls() == ["d", "x.conflict-ann-20270115-080000.txt"]


def test_crossing_moves_are_repaired_and_moved_again(world: Mesh, ann: Pod, bob: Pod) -> None:
    for name in ("/a", "/b", "/c"):
        ann.mkdir(name)
    ann.save("/a/in-a", "a")
    ann.save("/b/in-b", "b")
    exchange(ann, bob)
    ann.rename("/a", "/b/a")
    world.now_s += 1
    bob.rename("/b", "/a/b")
    exchange(ann, bob)
    assert ann.files() == {"/b/a/in-a": content("a"), "/b/in-b": content("b")}
    bob.rename("/b/a", "/c/a")
    exchange(ann, bob)
    assert ann.files() == {"/c/a/in-a": content("a"), "/b/in-b": content("b")}
    assert not ann.meta.view.demoted


def test_rename_over_a_file_against_an_edit_of_it(world: Mesh, ann: Pod, bob: Pod) -> None:
    ann.save("/doc", "first")
    exchange(ann, bob)
    ann.save("/doc.new", "second")
    ann.rename("/doc.new", "/doc")
    world.now_s += 5
    bob.save("/doc", "other")
    exchange(ann, bob)
    assert sorted(bob.files().values()) == sorted([content("second"), content("other")])
    assert len(bob.files()) == 2
    assert bob.at("/doc").content == content("other")


def test_last_writer_wins_hides_the_loser(world: Mesh, ann: Pod, bob: Pod) -> None:
    world.strategy = Strategy.LAST_WRITER_WINS
    ann.save("/note.txt", "first")
    exchange(ann, bob)
    ann.save("/note.txt", "of ann")
    ann.save("/new.txt", "new of ann")
    world.now_s += 5
    bob.save("/note.txt", "of bob")
    bob.save("/new.txt", "new of bob")
    exchange(ann, bob)
    assert ann.files() == {"/note.txt": content("of bob"), "/new.txt": content("new of bob")}
    ann.unlink("/new.txt")
    ann.unlink("/note.txt")
    exchange(ann, bob)
    assert bob.ls() == []


def test_a_later_change_of_the_strategy_alters_nothing_decided(world: Mesh, ann: Pod, bob: Pod, note: str) -> None:
    world.strategy = Strategy.LAST_WRITER_WINS
    ann.save("/other", "other")
    exchange(ann, bob)
    ann.meta.view.rebuild()
    assert OF_ANN in ann.ls()


def test_hard_links_are_one_file(ann: Pod, bob: Pod) -> None:
    ann.save("/one", "first")
    assert ann.link("/one", "/two").nlink == 2
    exchange(ann, bob)
    bob.save("/two", "second")
    assert bob.unlink("/one").nlink == 1
    exchange(ann, bob)
    assert ann.files() == {"/two": content("second")}
    assert ann.unlink("/two").nlink == 0
    exchange(ann, bob)
    assert bob.ls() == []


def test_an_edit_through_a_name_revives_that_name_only(ann: Pod, bob: Pod) -> None:
    ann.save("/one", "first")
    second = ann.link("/one", "/two")
    exchange(ann, bob)
    ann.unlink("/one")
    ann.unlink("/two")
    bob.save("", "second", over=second)
    exchange(ann, bob)
    assert ann.files() == {"/two": content("second")}


def test_a_save_does_not_bring_back_a_name_removed_here(ann: Pod) -> None:
    ann.save("/one", "first")
    opened = ann.at("/one")
    ann.link("/one", "/two")
    ann.unlink("/one")
    ann.save("", "second", over=opened)
    assert ann.files() == {"/two": content("second")}


def test_one_of_two_names_removed_and_the_other_edited(ann: Pod, bob: Pod) -> None:
    """Of two deletions one saw the edit, the other did not: the edit's own name comes back with it."""
    ann.save("/one", "first")
    ann.link("/one", "/two")
    exchange(ann, bob)
    first = bob.at("/one")
    bob.save("", "second", over=first)
    bob.unlink("/two")
    ann.unlink("/one")
    exchange(ann, bob)
    assert ann.files() == {"/one": content("second")}


def test_attributes_merge_by_key(ann: Pod, bob: Pod) -> None:
    ann.save("/f", "first")
    exchange(ann, bob)
    ann.tree.set_attributes(ann.at("/f").inode, mode=0o600)
    bob.tree.set_attributes(bob.at("/f").inode, uid=7, mtime_ns=123_456_789)
    ann.tree.set_xattr(ann.at("/f").inode, b"user.a", b"a")
    bob.tree.set_xattr(bob.at("/f").inode, b"user.b", b"b")
    exchange(ann, bob)
    node = ann.at("/f")
    assert (node.mode, node.uid, node.mtime_ns) == (0o600, 7, 123_456_789)
    assert ann.tree.xattrs(node.inode) == {b"user.a": b"a", b"user.b": b"b"}
    bob.tree.set_xattr(node.inode, b"user.a", None)
    exchange(ann, bob)
    assert ann.tree.xattrs(node.inode) == {b"user.b": b"b"}


def test_removed_xattrs_leave_nothing_behind(ann: Pod) -> None:
    inode = ann.save("/f", "first").inode
    for index in range(3000):
        ann.tree.set_xattr(inode, b"user.%d" % index + b"x" * 200, b"value")
        ann.tree.set_xattr(inode, b"user.%d" % index + b"x" * 200, None)
    ann.tree.set_xattr(inode, b"user.last", b"value")
    assert ann.tree.xattrs(inode) == {b"user.last": b"value"}


@pytest.mark.parametrize("skew_s", [31_536_000.0, -1_800_000_000.0])
def test_a_broken_clock_freezes_nothing(ann: Pod, bob: Pod, skew_s: float) -> None:
    ann.skew_s = skew_s
    ann.save("/f", "first")
    ann.mkdir("/d")
    exchange(ann, bob)
    bob.rename("/f", "/d/g")
    bob.rename("/d", "/e")
    bob.tree.set_attributes(bob.at("/e/g").inode, mode=0o600, mtime_ns=5)
    bob.tree.set_xattr(bob.at("/e/g").inode, b"user.a", b"1")
    assert bob.files() == {"/e/g": content("first")}
    assert (bob.at("/e/g").mode, bob.at("/e/g").mtime_ns) == (0o600, 5)
    bob.save("/e/g", "second")
    exchange(ann, bob)
    assert ann.files() == {"/e/g": content("second")}
    bob.close()
    again = bob.mesh.pod("bob")
    again.save("/h", "third")
    assert abs(again.at("/h").ctime_ns / 1e9 - again.mesh.now_s) < 3600, "the clock was dragged along"


def test_names_are_any_bytes(ann: Pod, bob: Pod) -> None:
    name = bytes(set(range(1, 256)) - {ord("/")})
    ann.tree.create(ROOT_INODE, name, Kind.FILE, mode=0o600, uid=0, gid=0, mtime_ns=-5)
    ann.tree.create(ROOT_INODE, b"x" * 255, Kind.SYMLINK, mode=0o777, uid=0, gid=0, mtime_ns=0, target=b"to/\xff")
    exchange(ann, bob)
    assert [one for one, _ in bob.tree.children(ROOT_INODE)] == [name, b"x" * 255]
    assert bob.tree.lookup(ROOT_INODE, b"x" * 255).target == b"to/\xff"  # type: ignore[union-attr]
    with pytest.raises(FileSystemError) as failed:
        ann.tree.create(ROOT_INODE, b"x" * 256, Kind.FILE, mode=0, uid=0, gid=0, mtime_ns=0)
    assert failed.value.errno == errno.ENAMETOOLONG


def test_long_names_in_conflict_stay_within_the_limit(world: Mesh, ann: Pod, bob: Pod) -> None:
    name = "/" + "n" * 250 + ".text"[:5]
    ann.save(name, "of ann")
    bob.save(name, "of bob")
    exchange(ann, bob)
    assert len(ann.ls()) == 2
    assert all(len(one) <= 255 and one.endswith(".text") for one in ann.ls())
