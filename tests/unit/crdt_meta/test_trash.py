"""What is deleted, overwritten or loses a conflict, and how it comes back or goes for good: on whatever pod."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from pycrdt import Doc, Map

from base.errors import FileSystemError
from base.ids import EMPTY_CONTENT, ROOT_INODE, Dot, InodeId, LinkId
from crdt_meta.codec import encode
from crdt_meta.node import Kind
from crdt_meta.records import Birth, Body, Content, Key, LinkBirth, Overwritten, Strategy, Why
from crdt_meta.segments import ROOT
from crdt_meta.transaction import Part, make
from mesh.api import Entry
from tests.unit.crdt_meta.pods import SENDER, Mesh, Pod, content, exchange

HOUR_S = 3600.0


@pytest.fixture
def doc(ann: Pod, bob: Pod) -> str:
    """``/d/doc.txt``, known to both."""
    ann.mkdir("/d")
    ann.save("/d/doc.txt", "one")
    exchange(ann, bob)
    return "/d/doc.txt"


# -- deleted files ----------------------------------------------------------------------------------------------------


def test_a_deleted_file_is_restored_on_another_pod(doc: str, world: Mesh, ann: Pod, bob: Pod) -> None:
    before = ann.at(doc)
    ann.tree.set_xattr(before.inode, b"user.x", b"1")
    world.now_s += 5
    ann.unlink(doc)
    exchange(ann, bob)
    (entry,) = bob.tree.trash()
    assert (entry.path, entry.reason, entry.content, entry.size) == (doc.encode(), "deleted", content("one"), 3)
    assert entry.removed_ns // 1_000_000 == round(world.now_s * 1000)
    assert entry.pod == ann.writer.hex() * 2
    assert bob.tree.trash_bytes() == 3
    assert bob.restore(doc) == doc
    exchange(ann, bob)
    for pod in (ann, bob):
        after = pod.at(doc)
        assert (after.inode, after.content, after.mtime_ns) == (before.inode, content("one"), before.mtime_ns)
        assert pod.tree.xattrs(after.inode) == {b"user.x": b"1"}
        assert pod.trash() == []
        assert pod.tree.trash_bytes() == 0


def test_what_is_in_the_trash_is_still_referred_to(doc: str, ann: Pod) -> None:
    inode = ann.at(doc).inode
    ann.unlink(doc)
    assert ann.tree.references(content("one")) == [inode]
    assert ann.tree.showing(content("one")) == []
    assert [one for one, _, _ in ann.tree.contents(None, 9)] == [content("one")]
    assert ann.deltas[-1].contents == {content("one")}


def test_both_restore_it_at_the_same_time(doc: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(doc)
    exchange(ann, bob)
    ann.restore(doc)
    bob.restore(doc)
    exchange(ann, bob)
    assert ann.files() == {doc: content("one")}
    assert ann.tree.conflicts() == []
    assert ann.trash() == []


def test_a_restoration_wins_against_a_purge_elsewhere(doc: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(doc)
    exchange(ann, bob)
    ann.restore(doc)
    assert bob.tree.purge(bob.tree.trash()) == 1
    assert bob.trash() == []
    exchange(ann, bob)
    assert bob.files() == {doc: content("one")}


def test_what_is_purged_is_gone_everywhere(doc: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(doc)
    exchange(ann, bob)
    entry = ann.entry(doc)
    assert bob.tree.purge([entry]) == 1
    exchange(ann, bob)
    assert ann.trash() == []
    assert ann.tree.references(content("one")) == []
    with pytest.raises(FileSystemError) as error:
        ann.tree.restore(entry)
    assert error.value.errno == errno.ENOENT
    assert ann.tree.purge([entry]) == 0


def test_a_hard_link_made_meanwhile_keeps_what_is_purged(doc: str, ann: Pod, bob: Pod) -> None:
    bob.link(doc, "/other.txt")
    ann.unlink(doc)
    ann.tree.purge(ann.tree.trash())
    exchange(ann, bob)
    assert ann.files() == {"/other.txt": content("one")}


def test_a_file_with_another_name_is_not_in_the_trash(doc: str, ann: Pod) -> None:
    ann.link(doc, "/other.txt")
    ann.unlink(doc)
    assert ann.trash() == []
    ann.unlink("/other.txt")
    assert ann.trash() == [("/other.txt", "deleted", content("one"))]


def test_a_renamed_file_is_in_the_trash_under_its_last_name(doc: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(doc)
    bob.rename(doc, "/new.txt")
    exchange(ann, bob)
    assert ann.trash() == [("/new.txt", "deleted", content("one"))]
    assert ann.restore("/new.txt") == "/new.txt"


def test_folders_that_were_deleted_come_back(doc: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(doc)
    ann.rmdir("/d")
    exchange(ann, bob)
    assert bob.trash() == [(doc, "deleted", content("one"))]
    assert bob.restore(doc) == doc
    exchange(ann, bob)
    assert ann.files() == {doc: content("one")}


def test_a_folder_made_anew_takes_it(doc: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(doc)
    ann.rmdir("/d")
    new = ann.mkdir("/d")
    assert ann.restore(doc) == doc
    exchange(ann, bob)
    assert bob.at("/d").inode == new.inode
    assert len(bob.tree.display.group(new.inode)) == 1


def test_a_name_that_is_taken_is_left_alone(doc: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(doc)
    ann.save(doc, "two")
    exchange(ann, bob)
    entry = next(one for one in bob.tree.trash() if one.reason == "deleted")
    path = bob.tree.path(bob.tree.restore(entry).inode)
    assert path == b"/d/doc.restored-20270115-080000.txt"
    exchange(ann, bob)
    assert ann.files() == {doc: content("two"), path.decode(): content("one")}


def test_an_edit_that_the_deletion_did_not_see_leaves_nothing_in_the_trash(doc: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(doc)
    bob.save(doc, "two")
    exchange(ann, bob)
    assert ann.files() == {doc: content("two")}
    assert ann.trash() == [(doc, "overwritten", content("one"))]


def test_special_files_are_not_listed(ann: Pod) -> None:
    ann.mkdir("/d")
    ann.rmdir("/d")
    assert ann.trash() == []


# -- versions ---------------------------------------------------------------------------------------------------------


def test_one_overwritten_content_an_hour_is_kept(doc: str, world: Mesh, ann: Pod, bob: Pod) -> None:
    for text in ("two", "three", "four"):
        world.now_s += 60
        ann.save(doc, text)
    assert ann.trash() == [(doc, "overwritten", content("one"))]
    world.now_s += HOUR_S
    exchange(ann, bob)
    bob.save(doc, "five")
    exchange(ann, bob)
    assert [one.content for one in ann.tree.trash()] == [content("four"), content("one")]
    assert [one.pod for one in ann.tree.trash()] == [bob.writer.hex() * 2, ann.writer.hex() * 2]


def test_older_versions_go(doc: str, world: Mesh, ann: Pod, bob: Pod) -> None:
    world.versions = 3
    for number in range(8):
        world.now_s += HOUR_S
        (ann, bob)[number % 2].save(doc, f"save {number}")
        exchange(ann, bob)
    assert [one.content for one in ann.tree.trash()] == [content(f"save {number}") for number in (6, 5, 4)]
    kinds = ann.meta.store.query("SELECT count(*) FROM record WHERE kind = 'v'")
    assert kinds[0][0] <= 8, "purged versions of this pod itself go with its next purge"


def test_no_versions_are_kept_when_none_are_wanted(doc: str, world: Mesh, ann: Pod) -> None:
    world.versions = 0
    ann.save(doc, "two")
    assert ann.trash() == []
    assert ann.tree.references(content("one")) == []
    assert content("one") in ann.deltas[-1].contents


async def test_a_version_that_comes_before_what_replaced_it_is_listed(world: Mesh, ann: Pod, bob: Pod) -> None:
    """Segments that were written anew come one after the other, so the parts of one save may come apart."""
    inode = bytes(range(16))
    made, first = Dot(ann.writer, 1), Dot(ann.writer, 2)
    old, new = content("one"), content("two")
    doc: Doc[Any] = Doc()
    doc[ROOT] = found = Map[Any]()
    told: tuple[tuple[Body, ...], ...] = (
        (
            Birth(1, Kind.FILE, 0o644, 1, 1, 1, b"", 0, EMPTY_CONTENT, 0, Strategy.KEEP_BOTH),
            LinkBirth(1, InodeId(inode), ROOT_INODE, b"doc"),
            Content(2, old, 3, 1, LinkId(inode), (made,), Strategy.KEEP_BOTH, 0),
            Overwritten(3, first, old, 3, 1, Why.OVERWRITTEN),
        ),
        (Content(3, new, 3, 1, LinkId(inode), (made, first), Strategy.KEEP_BOTH, 0),),
    )
    for sequence, bodies in enumerate(told, 1):
        before = doc.get_state()
        with doc.transaction():
            for body in bodies:
                found[Key.of(body, inode).text()] = encode(body, inode)
            if sequence > 1:
                del found[Key.of(told[0][2], inode).text()]
        blob = make(ann.writer, sequence, 1, (Part(0, 0, doc.get_update(before)),), ann.key.sign).blob()
        assert await bob.log.receive([Entry(ann.writer, sequence, blob)], SENDER)
    assert bob.at("doc").content == new
    assert bob.trash() == [("/doc", "overwritten", old)]
    assert bob.tree.references(old) != []


def test_nothing_is_no_version_and_the_same_neither(doc: str, world: Mesh, ann: Pod) -> None:
    ann.save(doc, "one")
    assert ann.trash() == []
    node = ann.at(doc)
    ann.tree.publish(node.inode, node.link, EMPTY_CONTENT, 0, 1, node.shown)
    world.now_s += HOUR_S
    ann.save(doc, "two")
    assert ann.trash() == [(doc, "overwritten", content("one"))]


def test_a_version_is_restored_over_the_file(doc: str, world: Mesh, ann: Pod, bob: Pod) -> None:
    ann.save(doc, "two")
    exchange(ann, bob)
    assert bob.restore(doc, "one") == doc
    exchange(ann, bob)
    assert ann.files() == {doc: content("one")}
    assert ann.trash() == [(doc, "overwritten", one) for one in sorted((content("one"), content("two")))]


def test_versions_follow_a_renamed_file(doc: str, ann: Pod, bob: Pod) -> None:
    ann.save(doc, "two")
    bob.rename(doc, "/new.txt")
    exchange(ann, bob)
    assert ann.trash() == [("/new.txt", "overwritten", content("one"))]


def test_versions_of_a_deleted_file_are_listed_and_revive_it(doc: str, ann: Pod, bob: Pod) -> None:
    ann.save(doc, "two")
    ann.unlink(doc)
    exchange(ann, bob)
    assert {one[1:] for one in bob.trash()} == {("deleted", content("two")), ("overwritten", content("one"))}
    assert bob.restore(doc, "one") == doc
    exchange(ann, bob)
    assert ann.files() == {doc: content("one")}
    assert (doc, "overwritten", content("two")) in ann.trash()


def test_purging_a_version_leaves_the_times_of_its_file(doc: str, world: Mesh, ann: Pod) -> None:
    ann.save(doc, "two")
    before = ann.at(doc)
    world.now_s += 5
    ann.tree.purge(ann.tree.trash())
    assert ann.at(doc) == before


def test_saving_by_renaming_keeps_versions_as_well(world: Mesh, ann: Pod, bob: Pod) -> None:
    world.versions = 2
    ann.save("/doc", "save 0")
    for number in range(1, 6):
        world.now_s += HOUR_S / 2
        ann.save("/doc.new", f"save {number}")
        ann.rename("/doc.new", "/doc")
    exchange(ann, bob)
    assert bob.files() == {"/doc": content("save 5")}
    assert [(one.path, one.reason, one.content) for one in bob.tree.trash()] == [
        (b"/doc", "overwritten", content("save 4")),
        (b"/doc", "overwritten", content("save 2")),
    ]


# -- conflicts --------------------------------------------------------------------------------------------------------


@pytest.fixture
def lost(doc: str, world: Mesh, ann: Pod, bob: Pod) -> str:
    """``/d/doc.txt``, saved by both under ``last-writer-wins``; bob's is the later one."""
    world.strategy = Strategy.LAST_WRITER_WINS
    world.now_s += HOUR_S
    ann.save(doc, "of ann")
    world.now_s += 5
    bob.save(doc, "of bob")
    exchange(ann, bob)
    return doc


def test_the_loser_is_in_the_trash(lost: str, ann: Pod, bob: Pod) -> None:
    for pod in (ann, bob):
        assert pod.files() == {lost: content("of bob")}
        assert {one for one in pod.trash() if one[1] == "conflict"} == {(lost, "conflict", content("of ann"))}
    assert ann.entry(lost, "of ann").pod == ann.writer.hex() * 2


def test_the_loser_can_be_restored(lost: str, ann: Pod, bob: Pod) -> None:
    assert bob.restore(lost, "of ann") == lost
    exchange(ann, bob)
    assert ann.files() == {lost: content("of ann")}
    assert (lost, "overwritten", content("of bob")) in ann.trash()
    assert not [one for one in ann.trash() if one[1] == "conflict"]


def test_removing_the_winner_removes(lost: str, ann: Pod, bob: Pod) -> None:
    ann.unlink(lost)
    exchange(ann, bob)
    assert bob.files() == {}
    assert {(lost, "deleted", content("of bob")), (lost, "conflict", content("of ann"))} <= set(bob.trash())


def test_saving_the_winner_keeps_the_loser_in_the_trash(lost: str, world: Mesh, ann: Pod, bob: Pod) -> None:
    world.versions = 0
    bob.save(lost, "next")
    exchange(ann, bob)
    assert ann.files() == {lost: content("next")}
    assert (lost, "conflict", content("of ann")) in ann.trash()


def test_renaming_over_the_winner_keeps_the_loser_in_the_trash(lost: str, ann: Pod, bob: Pod) -> None:
    ann.save("/other", "other")
    ann.rename("/other", lost)
    exchange(ann, bob)
    assert bob.files() == {lost: content("other")}
    assert (lost, "conflict", content("of ann")) in bob.trash()


def test_a_purged_loser_never_comes_back(lost: str, world: Mesh, ann: Pod, bob: Pod) -> None:
    ann.tree.purge(ann.tree.trash())
    world.strategy = Strategy.KEEP_BOTH
    bob.save(lost, "next")
    exchange(ann, bob)
    assert ann.files() == {lost: content("next")}
    assert not [one for one in ann.trash() if one[1] == "conflict"]


@pytest.fixture
def behind(world: Mesh, ann: Pod, bob: Pod) -> str:
    """``/new.txt``, made by both under ``last-writer-wins``; bob's is the later one."""
    world.strategy = Strategy.LAST_WRITER_WINS
    ann.save("/new.txt", "of ann")
    world.now_s += 5
    bob.save("/new.txt", "of bob")
    exchange(ann, bob)
    return "/new.txt"


def test_a_file_behind_another_one_is_in_the_trash(behind: str, ann: Pod, bob: Pod) -> None:
    assert ann.trash() == [(behind, "conflict", content("of ann"))]
    assert ann.tree.trash_bytes() == 6
    assert [one.content for one in ann.tree.oldest()] == [content("of ann")]
    assert [one.content for one in ann.tree.expired(round((ann.mesh.now_s + 9) * 1e9))] == [content("of ann")]
    assert bob.restore(behind) == behind
    exchange(ann, bob)
    assert ann.files() == {behind: content("of ann")}
    assert ann.trash() == [(behind, "overwritten", content("of bob"))]


def test_a_file_behind_another_one_goes_with_it(behind: str, ann: Pod, bob: Pod) -> None:
    bob.unlink(behind)
    exchange(ann, bob)
    assert ann.files() == {}
    assert ann.trash() == [(behind, "conflict", content("of ann")), (behind, "deleted", content("of bob"))]
    assert ann.restore(behind, "of ann") == behind


def test_a_file_behind_another_one_is_purged(behind: str, ann: Pod, bob: Pod) -> None:
    assert ann.tree.purge(ann.tree.trash()) == 1
    exchange(ann, bob)
    assert bob.trash() == []
    assert bob.tree.references(content("of ann")) == []
    bob.unlink(behind)
    assert bob.files() == {}


@pytest.mark.parametrize("kept", ["of ann", "of bob"])
@pytest.mark.parametrize("made_anew", [False, True])
def test_a_conflict_is_decided(kept: str, made_anew: bool, world: Mesh, ann: Pod, bob: Pod, eve: Pod) -> None:
    if not made_anew:
        ann.save("/doc.txt", "first")
        exchange(ann, bob, eve)
    ann.save("/doc.txt", "of ann")
    world.now_s += 5
    bob.save("/doc.txt", "of bob")
    exchange(ann, bob, eve)
    (conflict,) = eve.tree.conflicts()
    chosen = next(one for one in conflict.versions if one.content == content(kept))
    eve.tree.keep(conflict.path, chosen.inode)
    exchange(ann, bob, eve)
    other = {"of ann": "of bob", "of bob": "of ann"}[kept]
    for pod in (ann, bob, eve):
        assert pod.files() == {"/doc.txt": content(kept)}
        assert pod.tree.conflicts() == []
        assert ("/doc.txt", "conflict", content(other)) in pod.trash()
    assert ann.restore("/doc.txt", other) == ("/doc.restored-20270115-080005.txt" if made_anew else "/doc.txt")


def test_a_version_that_is_not_there_can_not_be_kept(doc: str, ann: Pod) -> None:
    with pytest.raises(FileSystemError) as error:
        ann.tree.keep(doc.encode(), ann.mkdir("/e").inode)
    assert error.value.errno == errno.ENOENT


# -- expiry and giving way --------------------------------------------------------------------------------------------


def test_the_oldest_go_first(world: Mesh, ann: Pod) -> None:
    for number in range(5):
        ann.save(f"/{number}", f"text {number}")
        ann.unlink(f"/{number}")
        world.now_s += 10
    start_ns, end_ns = (round((world.now_s - back_s) * 1e9) for back_s in (45, 25))
    assert [one.path for one in ann.tree.expired(end_ns)] == [b"/0", b"/1", b"/2"]
    assert [one.path for one in ann.tree.expired(end_ns, start_ns)] == [b"/1", b"/2"]
    assert [one.path for one in ann.tree.oldest()] == [b"/0", b"/1", b"/2", b"/3", b"/4"]
    assert [one.path for one in ann.tree.oldest(lambda one: one == content("text 3"))] == [b"/3"]
    assert sum(ann.tree.purge([entry]) for entry in ann.tree.expired(end_ns)) == 3
    assert [one[0] for one in ann.trash()] == ["/3", "/4"]
    assert ann.tree.trash_bytes() == 12


def test_a_view_made_anew_has_the_same_trash(lost: str, ann: Pod, bob: Pod) -> None:
    ann.save("/other", "x")
    ann.unlink("/other")
    before = list(ann.tree.trash())
    ann.meta.view.rebuild()
    assert list(ann.tree.trash()) == before
    assert len(before) >= 2
