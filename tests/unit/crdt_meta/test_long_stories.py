"""Stories that take half a year: who was away, what was forgotten, collected, adopted, restored, written anew."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from base.ids import InodeId
from crdt_meta.records import Strategy
from crdt_meta.transaction import _CONTEXT, Part, header_of, make
from mesh.api import Entry
from tests.unit.crdt_meta.pods import Mesh, Pod, content
from tests.unit.crdt_meta.town import Town, compact, mentions, records_of, same, sound, stored_bytes


@pytest.fixture
def town(world: Mesh, ann: Pod, bob: Pod, eve: Pod) -> Town:
    """Ann, bob and eve, who reach each other."""
    return Town(world, ann, bob, eve)


def everybody(town: Town) -> list[Pod]:
    return [pod for name, pod in town.pods.items() if name not in town.evicted]


def all_show(town: Town, files: dict[str, str]) -> None:
    """All who weren't evicted show these files, and views made anew do."""
    for pod in everybody(town):
        assert pod.files() == {path: content(text) for path, text in files.items()}, pod.name
        sound(pod)


def empty_trash(pod: Pod) -> int:
    return pod.tree.purge(list(pod.tree.trash()))


# -- conflicts --------------------------------------------------------------------------------------------------------


def test_the_loser_survives_the_winners_next_save(world: Mesh, town: Town, ann: Pod, bob: Pod) -> None:
    """Also when everything was written anew and collected since, and for a pod that comes then."""
    loser = "/note.conflict-ann-20270115-080000.txt"
    ann.save("/note.txt", "first")
    town.exchange()
    ann.save("/note.txt", "of ann")
    world.now_s += 5
    bob.save("/note.txt", "of bob")
    town.exchange()
    all_show(town, {"/note.txt": "of bob", loser: "of ann"})
    bob.save("/note.txt", "next")
    town.exchange()
    all_show(town, {"/note.txt": "next", loser: "of ann"})
    empty_trash(ann)
    town.tidy()
    town.compact()
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, {"/note.txt": "next", loser: "of ann"})
    bob.unlink("/note.txt")
    town.exchange()
    all_show(town, {loser: "of ann"})


@pytest.mark.parametrize("later", ["renamed", "removed", "removed with what is in it"])
def test_the_merged_directory_whose_one_member_was_changed_later(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, later: str
) -> None:
    """Ann and bob made ``/d``; eve, who knew only ann's, changes that one, and hears of bob's afterwards."""
    ann.mkdir("/d")
    if later != "removed":
        ann.save("/d/of-ann", "of ann")
    town.tell("eve", "ann")
    town.part("bob")
    bob.mkdir("/d")
    bob.save("/d/of-bob", "of bob")
    world.now_s += 5
    if later == "renamed":
        eve.rename("/d", "/e")
    else:
        if later != "removed":
            eve.unlink("/d/of-ann")
        eve.rmdir("/d")
    town.rejoin()
    town.exchange()
    files = {"/d/of-bob": "of bob"} | ({"/e/of-ann": "of ann"} if later == "renamed" else {})
    all_show(town, files)
    assert ann.ls() == (["d", "e"] if later == "renamed" else ["d"])
    empty_trash(bob)
    town.tidy()
    town.compact()
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, files)
    ann.save("/d/more", "more")
    town.exchange()
    all_show(town, files | {"/d/more": "more"})


def test_a_merged_directory_is_renamed_by_one_who_knows_of_one_member_and_removed_by_one_who_knows_both(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod
) -> None:
    ann.mkdir("/d")
    town.tell("eve", "ann")
    bob.mkdir("/d")
    town.tell("bob", "ann")
    town.part("eve")
    bob.rmdir("/d")
    world.now_s += 5
    eve.rename("/d", "/e")
    eve.save("/e/new", "new")
    town.rejoin()
    town.exchange()
    all_show(town, {"/e/new": "new"})
    town.tidy()
    assert ann.ls() == ["e"]


def test_a_cycle_repaired_and_then_moved(world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod) -> None:
    """What the repair shows holds when somebody moves it on, also when what led to the cycle was collected."""
    for name in ("/a", "/b", "/c"):
        ann.mkdir(name)
    ann.save("/a/in-a", "a")
    ann.save("/b/in-b", "b")
    town.exchange()
    ann.rename("/a", "/b/a")
    world.now_s += 1
    bob.rename("/b", "/a/b")
    town.exchange()
    all_show(town, {"/b/a/in-a": "a", "/b/in-b": "b"})
    town.part("eve")
    world.now_s += 1
    eve.rename("/b/a", "/c/a")
    town.tidy(8)
    town.rejoin()
    town.exchange()
    all_show(town, {"/c/a/in-a": "a", "/b/in-b": "b"})
    world.now_s += 1
    bob.rename("/b", "/c/a/b")
    town.tidy()
    town.compact()
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, {"/c/a/in-a": "a", "/c/a/b/in-b": "b"})
    assert not any(pod.meta.view.demoted for pod in everybody(town))


def test_a_cycle_whose_other_half_is_removed(world: Mesh, town: Town, ann: Pod, bob: Pod) -> None:
    """Bob's move fell back, since it would have made a cycle with what ann moved; then that goes for good."""
    for name in ("/a", "/b"):
        ann.mkdir(name)
    ann.save("/b/in-b", "b")
    town.exchange()
    ann.rename("/a", "/b/a")
    world.now_s += 1
    bob.rename("/b", "/a/b")
    town.exchange()
    all_show(town, {"/b/in-b": "b"})
    ann.rmdir("/b/a")
    town.tidy()
    town.compact()
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, {"/b/in-b": "b"})


# -- deleted, and collected -------------------------------------------------------------------------------------------


def test_the_deletions_author_was_offline_during_collection(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod
) -> None:
    """Ann deletes, tells bob only, and is away for months, but not for as long as a pod may be."""
    ann.save("/gone", "gone")
    ann.save("/kept", "kept")
    town.exchange()
    gone = ann.at("/gone").inode
    ann.unlink("/gone")
    town.tell("bob", "ann")
    town.part("ann")
    bob.tree.purge(list(bob.tree.trash()))
    town.tidy()
    assert records_of(bob, gone), "ann may still do something with it"
    all_show_here(bob, {"/kept": "kept"})
    ann.save("/meanwhile", "meanwhile")
    town.rejoin()
    town.tidy()
    all_show(town, {"/kept": "kept", "/meanwhile": "meanwhile"})
    assert not any(records_of(pod, gone) for pod in everybody(town))


def all_show_here(pod: Pod, files: dict[str, str]) -> None:
    assert pod.files() == {path: content(text) for path, text in files.items()}


def test_the_deletions_author_was_forgotten(world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod) -> None:
    """Her deletion, and the births she wrote, are collected by those who adopted them; nothing of it comes back."""
    ann.save("/gone", "gone")
    ann.save("/kept", "kept")
    town.exchange()
    gone = ann.at("/gone").inode
    ann.unlink("/gone")
    town.exchange()
    town.sleep("ann")
    empty_trash(bob)
    town.tidy(4)
    town.wait_until_forgotten()
    town.tidy()
    assert town.neighbours["bob"].adoptions.keys() == {ann.writer}
    for pod in (bob, eve):
        all_show_here(pod, {"/kept": "kept"})
        assert not records_of(pod, gone)
    before = ann.writer
    ann.save("/new of ann", "new of ann")
    town.rejoin()
    town.tidy()
    assert ann.writer != before
    all_show(town, {"/kept": "kept", "/new of ann": "new of ann"})
    assert not any(records_of(pod, gone) for pod in everybody(town))


def test_an_edit_was_made_before_the_delete_was_seen(world: Mesh, town: Town, ann: Pod, eve: Pod) -> None:
    ann.mkdir("/d")
    ann.save("/d/doc", "first")
    town.exchange()
    town.part("eve")
    eve.save("/d/doc", "of eve")
    world.now_s += 5
    ann.unlink("/d/doc")
    ann.rmdir("/d")
    empty_trash(ann)
    town.tidy()
    town.rejoin()
    town.exchange()
    all_show(town, {"/d/doc": "of eve"})
    town.tidy()
    all_show(town, {"/d/doc": "of eve"})


@pytest.mark.parametrize("compacted", [False, True])
def test_an_edit_of_a_forgotten_pod_keeps_its_file_and_directories_though_all_was_collected(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, compacted: bool
) -> None:
    for path in ("/d", "/d/sub", "/other"):
        ann.mkdir(path)
    ann.save("/d/sub/doc", "first")
    ann.save("/d/sub/untouched", "untouched")
    bob.save("/kept", "kept")
    town.exchange()
    inodes = [ann.at(path).inode for path in ("/d", "/d/sub", "/d/sub/doc", "/d/sub/untouched")]
    town.sleep("eve")
    eve.save("/d/sub/doc", "of eve")
    eve.save("/d/sub/new", "new of eve")
    eve.rename("/other", "/else")
    world.now_s += 5
    for path in ("/d/sub/doc", "/d/sub/untouched"):
        ann.unlink(path)
    ann.rmdir("/d/sub")
    ann.rmdir("/d")
    town.exchange()
    empty_trash(bob)
    town.tidy(4)
    assert records_of(bob, *inodes)
    town.wait_until_forgotten()
    town.tidy(40)
    assert eve.writer in town.neighbours["ann"].adoptions
    for pod in (ann, bob):
        assert not records_of(pod, *inodes)
    if compacted:
        town.compact()
    town.rejoin()
    town.exchange()
    all_show(town, {"/kept": "kept", "/d/sub/doc": "of eve", "/d/sub/new": "new of eve"})
    assert bob.ls() == ["d", "else", "kept"]
    town.tidy()
    town.compact()
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, {"/kept": "kept", "/d/sub/doc": "of eve", "/d/sub/new": "new of eve"})
    assert bob.at("/d/sub/doc").inode == inodes[2]


@pytest.mark.parametrize(
    ("opened", "when"),
    [
        (False, "before it hears more"),
        (False, "when it has heard all"),
        (False, "after its housekeeping"),
        (True, "before it hears more"),
        (True, "when it has heard all"),
        (True, "after its housekeeping"),
    ],
)
def test_a_forgotten_pod_saves_what_was_collected_meanwhile(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, when: str, opened: bool
) -> None:
    """Eve comes back, still showing it or with the file open, and saves it then."""
    ann.mkdir("/d")
    ann.save("/d/doc", "first")
    town.exchange()
    handle = eve.at("/d/doc")
    if opened:
        eve.meta.acknowledgements.builds_on = lambda: [handle.inode]
    town.sleep("eve")
    ann.unlink("/d/doc")
    ann.rmdir("/d")
    empty_trash(ann)
    town.tidy(4)
    town.wait_until_forgotten()
    town.tidy(40)
    assert not records_of(bob, handle.inode)
    town.rejoin()
    town.learn("eve", "bob")
    if when != "before it hears more":
        town.exchange(compare=False)
    if when == "after its housekeeping":
        town.tidy(4)
    if not opened and "/d/doc" not in eve.files():
        return
    eve.save("", "of eve", over=handle)
    eve.meta.acknowledgements.builds_on = tuple
    town.tidy()
    assert list(bob.files().values()) == [content("of eve")]
    all_show(town, {"/d/doc": "of eve"})


def test_an_open_file_of_a_pod_in_reach_keeps_what_it_builds_on(world: Mesh, town: Town, ann: Pod, bob: Pod) -> None:
    ann.mkdir("/d")
    opened = ann.save("/d/doc", "first")
    ann.meta.acknowledgements.builds_on = lambda: [opened.inode]
    town.exchange()
    bob.unlink("/d/doc")
    bob.rmdir("/d")
    empty_trash(bob)
    town.tidy()
    assert records_of(bob, opened.inode)
    ann.save("", "more", over=opened)
    ann.meta.acknowledgements.builds_on = tuple
    town.exchange()
    assert list(bob.files().values()) == [content("more")]
    town.tidy()
    all_show(town, {next(iter(bob.files())): "more"})


@pytest.mark.parametrize("offline", ["ann", "bob", "eve"])
def test_collection_with_any_one_pod_offline_collects_nothing(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, offline: str
) -> None:
    """Ann made it, bob deleted it, eve emptied the trash; all know that."""
    ann.mkdir("/d")
    ann.save("/d/doc", "doc")
    town.exchange()
    nodes = ann.at("/d").inode, ann.at("/d/doc").inode
    bob.unlink("/d/doc")
    bob.rmdir("/d")
    town.exchange()
    empty_trash(eve)
    town.exchange()
    town.part(offline)
    before = {pod.name: records_of(pod, *nodes) for pod in everybody(town)}
    town.tidy(30)
    assert {pod.name: records_of(pod, *nodes) for pod in everybody(town)} == before
    town.rejoin()
    town.tidy()
    assert not any(records_of(pod, *nodes) for pod in everybody(town))


def test_after_collection_everywhere_no_trace_is_left_and_a_new_pod_joins_with_the_same_tree(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod
) -> None:
    world.versions = 3
    wanted: dict[str, str] = {}
    gone: list[bytes] = []
    for pod in (ann, bob, eve):
        pod.mkdir(f"/{pod.name}")
        for number in range(6):
            pod.mkdir(f"/{pod.name}/{number}")
            pod.save(f"/{pod.name}/{number}/file", f"{pod.name} {number}")
    town.exchange()
    world.now_s += 2 * 3600
    for number in range(6):
        bob.save(f"/ann/{number}/file", f"by bob {number}")
        ann.link(f"/ann/{number}/file", f"/ann/link-{number}")
        wanted |= {f"/ann/{number}/file": f"by bob {number}", f"/ann/link-{number}": f"by bob {number}"}
        eve.tree.set_xattr(eve.at(f"/bob/{number}/file").inode, b"user.x", b"1")
        eve.tree.set_attributes(eve.at(f"/bob/{number}").inode, mode=0o700)
        eve.rename(f"/bob/{number}/file", f"/eve/{number}/moved")
    town.exchange()
    for number in range(6):
        paths = (f"/bob/{number}", f"/eve/{number}/moved", f"/eve/{number}/file", f"/eve/{number}")
        gone += [ann.at(path).inode for path in paths] + [ann.at(path).link for path in paths]
        bob.unlink(paths[2])
        ann.unlink(paths[1])
    town.exchange()
    for number in range(6):
        eve.rmdir(f"/bob/{number}")
        ann.rmdir(f"/eve/{number}")
    town.exchange()
    assert empty_trash(bob) >= 12
    town.tidy(30)
    for pod in everybody(town):
        assert not records_of(pod, *gone), pod.name
    town.compact()
    town.exchange()
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, wanted)
    for pod in everybody(town):
        assert pod.ls() == ["ann", "bob", "eve"]
        assert mentions(pod, *gone) == []


def test_rewriting_leaves_about_as_much_as_fresh_files_have(world: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdt_meta.log.RECORDS_PER_SEGMENT", 100)
    world.versions = 0
    ann, bob = world.pod("ann"), world.pod("bob")
    town = Town(world, ann, bob)
    for number in range(200):
        ann.save(f"/{number}", f"{number}")
    town.exchange()
    town.compact()
    town.exchange()
    fresh = stored_bytes(ann), stored_bytes(bob)
    for turn in range(50):
        world.now_s += 60
        for number in range(200):
            ann.save(f"/{number}", f"{number} {turn}")
        ann.tell()
    town.exchange()
    before = stored_bytes(ann)
    town.tidy(8)
    for pod, at_first in zip((ann, bob), fresh, strict=True):
        assert stored_bytes(pod) <= 2.2 * at_first, (stored_bytes(pod), at_first, before)
    assert before > 5 * fresh[0], "otherwise there was nothing to compact"
    all_show(town, {f"/{number}": f"{number} 49" for number in range(200)})
    assert not ann.trash()


# -- owners who die, adopters, restored pods --------------------------------------------------------------------------


@pytest.fixture
def two_segments(world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, monkeypatch: pytest.MonkeyPatch) -> Town:
    """Ann has renamed ``/b`` over ``/a``: the name is in one segment, the deletion in another.

    Bob and eve know both files; what ann did since is still to be told.
    """
    monkeypatch.setattr("crdt_meta.log.RECORDS_PER_SEGMENT", 1)
    ann.save("/a", "content a")
    ann.save("/b", "content b")
    town.exchange()
    world.now_s += 5
    ann.rename("/b", "/a")
    ann.tell()
    (last,) = ann.log.read(ann.writer, ann.log.vector()[ann.writer] - 1, 1)
    assert len(header_of(msgpack.unpackb(last.blob)[0]).parts) >= 2, "it spans two segments"
    return town


def compact_part(ann: Pod, which: int) -> list[Entry]:
    """Have ann write one segment of the rename anew; return the rename without it, and what has it."""
    sequence = ann.log.vector()[ann.writer]
    (rename,) = ann.log.read(ann.writer, sequence - 1, 1)
    parts = header_of(msgpack.unpackb(rename.blob)[0]).parts
    ann.log.compact(parts[which].segment)
    ann.tell()
    entries = ann.log.read(ann.writer, sequence - 1, 1 << 20)
    assert [entry.sequence for entry in entries] == [sequence, sequence + 1]
    assert msgpack.unpackb(entries[0].blob)[2][which] is None
    return entries


@pytest.mark.parametrize("which", [0, 1])
def test_a_rename_over_a_file_spans_two_segments_and_the_owner_dies_for_a_while(
    two_segments: Town, ann: Pod, bob: Pod, eve: Pod, which: int
) -> None:
    """Bob has the rename without one half; he shows nothing of it until he has all of it, from whomever."""
    rename, whole = compact_part(ann, which)
    before = bob.files()
    assert bob.hear([rename]) == [rename]
    assert bob.files() == before
    assert eve.hear(bob.log.read(ann.writer, eve.log.vector()[ann.writer], 1 << 20)) == []
    two_segments.part("ann")
    two_segments.tidy(3)
    assert bob.files() == before == eve.files()
    bob.close()
    bob = two_segments.enter(bob.mesh.pod("bob"))
    assert bob.files() == before
    assert eve.hear([rename, whole]) == [rename, whole]
    assert eve.files() == {"/a": content("content b")}
    two_segments.exchange()
    assert bob.files() == {"/a": content("content b")}
    two_segments.rejoin()
    two_segments.tidy()
    all_show(two_segments, {"/a": "content b"})


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_rename_over_a_file_spans_two_segments_and_the_owner_dies_for_good(
    world: Mesh, two_segments: Town, ann: Pod, bob: Pod, eve: Pod, which: int, strategy: Strategy
) -> None:
    """Nobody ever has the other half: what can be read of it is shown, the same by all, and no content is lost."""
    rename, _ = compact_part(ann, which)
    bob.hear([rename])
    two_segments.evict("ann")
    two_segments.tidy()
    same(bob, eve)
    sound(bob)
    for pod in (bob, eve):
        there = {*pod.files().values(), *(one.content for one in pod.tree.trash())}
        assert {content("content a"), content("content b")} <= there
        assert content("content b") in pod.files().values()
    two_segments.enter(world.pod("new"))
    two_segments.exchange()
    assert two_segments.pods["new"].files() == bob.files()
    bob.save("/a", "next")
    two_segments.tidy()
    assert eve.at("/a").content == content("next")


@pytest.mark.parametrize("back", [False, True])
def test_an_adopter_on_each_side_of_a_partition(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, back: bool
) -> None:
    """Bob and eve, who can't reach each other, adopt ann's records; eve knew more of them."""
    dead = ann.writer
    ann.mkdir("/d")
    for number in range(4):
        ann.save(f"/d/{number}", f"{number}")
    town.exchange()
    for path in ("/d/0", "/d/1"):
        ann.save(path, "only eve knows")
    ann.unlink("/d/2")
    town.tell("eve", "ann")
    town.part("eve", "bob")
    town.part("eve")
    if back:
        ann.save("/d/3", "nobody knows")
        ann.save("/d/new", "nobody knows that either")
        town.wait_until_forgotten()
    else:
        town.evict("ann")
    bob.save("/d/of-bob", "of bob")
    eve.save("/d/of-eve", "of eve")
    eve.rename("/d", "/e")
    town.tidy(16)
    assert {name for name in ("bob", "eve") if dead in town.neighbours[name].adoptions} == {"bob", "eve"}
    town.rejoin()
    town.exchange()
    files = {"/e/0": "only eve knows", "/e/1": "only eve knows", "/e/3": "3"}
    files |= {"/e/of-bob": "of bob", "/e/of-eve": "of eve"}
    if back:
        files |= {"/e/3": "nobody knows", "/e/new": "nobody knows that either"}
    all_show(town, files)
    empty_trash(bob)
    town.tidy()
    town.compact()
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, files)
    assert not bob.log.table.changed_since(dead, 0)


@pytest.mark.parametrize("more", [False, True])
def test_a_restored_pod_writes_before_it_links_up(
    world: Mesh, town: Town, ann: Pod, bob: Pod, tmp_path: Path, more: bool
) -> None:
    """Its old writer's log as the others had it, and what it wrote since it was restored, are both there."""
    ann.mkdir("/d")
    ann.save("/d/doc", "first")
    town.exchange()
    fork = ann.log.vector()[ann.writer]
    old = ann.writer
    shutil.copytree(ann.folder, tmp_path / "backup")
    world.now_s += 5
    ann.save("/d/doc", "first life")
    ann.save("/d/lost", "known to the others")
    ann.rename("/d", "/e")
    town.exchange()
    last = ann.log.vector()[ann.writer]
    ann.close()
    shutil.rmtree(ann.folder)
    shutil.copytree(tmp_path / "backup", ann.folder)
    ann = town.enter(world.pod("ann"))
    world.now_s += 5
    ann.save("/d/doc", "second life")
    ann.save("/d/new", "new")
    ann.tell()
    if more:
        ann.tree.set_attributes(ann.at("/d/new").inode, mode=0o600)
        ann.tell()
    town.reborn(ann, fork, last)
    town.exchange()
    assert sorted(bob.files().values()) == sorted(
        content(text) for text in ("first life", "second life", "known to the others", "new")
    )
    assert bob.at("/e/doc").content == content("second life")
    assert not more or bob.at("/e/new").mode == 0o600
    before = bob.files()
    town.tidy()
    assert old in town.neighbours["bob"].adoptions, "its old writer's records were adopted"
    town.compact()
    town.enter(world.pod("new"))
    town.exchange()
    for pod in everybody(town):
        assert pod.files() == before
        sound(pod)
        assert old not in pod.log.vector() or not pod.log.table.changed_since(old, 0)


# -- catching up ------------------------------------------------------------------------------------------------------


class Rewritten:
    """A log of ann's with holes: files were saved, changed and deleted, segments were written anew."""

    def __init__(self, ann: Pod, seed: int, tell: Callable[[], None]) -> None:
        rng = random.Random(seed)
        self.deleted: set[str] = set()
        known = [f"/d/{number}" for number in range(8)]
        ann.mkdir("/d")
        for path in known:
            ann.save(path, "first")
        tell()
        self.stays = set(known[6:])
        for turn in range(30):
            path = rng.choice(known[:6])
            if path in ann.files():
                if rng.random() < 0.3:
                    ann.unlink(path)
                    known.remove(path)
                    known.insert(0, f"/d/again-{turn}")
                    self.deleted.add(path)
                else:
                    ann.save(path, f"turn {turn}")
            else:
                ann.save(path, f"made in turn {turn}")
            ann.save(known[-1], f"turn {turn}")
            ann.tell()
            if turn % 10 == 9:
                compact(ann)
            elif rng.random() < 0.3:
                ann.log.compact(rng.randrange((ann.log.table.last_segment(ann.writer) or 0) + 1))
                ann.tell()


@pytest.fixture
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crdt_meta.log.RECORDS_PER_SEGMENT", 4)


def check_page(pod: Pod, log: Rewritten, gone: set[str]) -> None:
    """Nothing that was deleted is shown that wasn't shown before; what nobody deleted is there."""
    shown = pod.files().keys()
    assert not shown & log.deleted & gone, "deleted meanwhile"
    assert log.stays <= shown


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("seed", range(12))
def test_who_was_away_gets_a_log_with_holes_in_pages_of_one_entry(town: Town, ann: Pod, bob: Pod, seed: int) -> None:
    log = Rewritten(ann, seed, town.exchange)
    entries = ann.log.read(ann.writer, bob.log.vector()[ann.writer], 1 << 30)
    numbers = [entry.sequence for entry in entries]
    assert numbers != [*range(bob.log.vector()[ann.writer] + 1, numbers[-1] + 1)], "there are holes"
    rng, gone = random.Random(seed), set[str]()
    before = bob.files()
    while bob.log.vector()[ann.writer] < numbers[-1]:
        entry = rng.choice(entries) if seed % 3 else entries.pop(0)
        bob.hear([entry])
        check_page(bob, log, gone)
        gone |= before.keys() - bob.files().keys()
        before = bob.files()
    assert bob.files() == ann.files()
    sound(bob)
    town.exchange()


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("seed", range(6))
def test_a_new_pod_shows_nothing_deleted_whatever_page_it_has(town: Town, ann: Pod, world: Mesh, seed: int) -> None:
    """Everything was written anew after the deletions: of no deleted file anything is shown, ever."""
    log = Rewritten(ann, seed, town.exchange)
    town.compact()
    town.exchange()
    new = world.pod("new")
    for entry in ann.log.read(ann.writer, 0, 1 << 30):
        new.hear([entry])
        assert not new.files().keys() & log.deleted
        assert not new.trash() or new.log.vector()[ann.writer] == ann.log.vector()[ann.writer]
    assert new.files() == ann.files()
    assert new.trash() == ann.trash()
    sound(new)


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("seed", range(6))
def test_a_relay_that_has_only_part_of_it(town: Town, ann: Pod, bob: Pod, eve: Pod, seed: int) -> None:
    """Eve hears ann's log only from bob, who himself gets it in small pages, and is opened anew now and then."""
    log = Rewritten(ann, seed, town.exchange)
    rng = random.Random(seed)
    last = ann.log.vector()[ann.writer]
    while eve.log.vector()[ann.writer] < last:
        here = bob.log.vector()[ann.writer]
        bob.hear(ann.log.read(ann.writer, here, rng.choice((1, 400, 2000))))
        eve.hear(bob.log.read(ann.writer, eve.log.vector()[ann.writer], rng.choice((1, 1 << 20))))
        for pod in (bob, eve):
            assert log.stays <= pod.files().keys()
        if rng.random() < 0.2:
            bob.close()
            bob = town.enter(bob.mesh.pod("bob"))
        if rng.random() < 0.2:
            ann.log.compact(rng.randrange(3))
            ann.tell()
    town.exchange()
    assert eve.files() == bob.files() == ann.files()
    for pod in (bob, eve):
        sound(pod)


# -- proofs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def rewritten(ann: Pod) -> list[Entry]:
    """Two transactions with two parts each, and one that writes a segment of them anew: the first two lack a part."""
    ann.save("/a", "a")
    ann.tell()
    ann.log._open_segment, ann.log._open_count = 1, 0
    for text in ("b", "c"):
        ann.save("/a", text)
        ann.save(f"/{text}", text)
        ann.tell()
    ann.log.compact(1)
    entries = ann.tell()
    lacking = [entry for entry in entries if None in msgpack.unpackb(entry.blob)[2]]
    assert lacking
    return entries


def changed(entry: Entry, change: Callable[[list[Any]], list[Any]]) -> Entry:
    blob: bytes = msgpack.packb(change(msgpack.unpackb(entry.blob)))
    return Entry(entry.writer, entry.sequence, blob)


def refused_then_taken(pod: Pod, entries: list[Entry], hostile: list[Entry]) -> None:
    """Every hostile one is refused when its turn comes, changes nothing, and the true log is taken afterwards."""
    for entry in entries:
        for one in hostile:
            if one.sequence == entry.sequence:
                before = pod.log.vector(), pod.files()
                assert pod.hear([one]) == []
                assert (pod.log.vector(), pod.files()) == before
        pod.hear([entry])
    assert pod.log.vector()[entries[0].writer] == entries[-1].sequence


def test_a_withheld_part_without_a_witness_is_refused(ann: Pod, bob: Pod, rewritten: list[Entry]) -> None:
    def without(index: int) -> Callable[[list[Any]], list[Any]]:
        return lambda fields: [fields[0], fields[1], [None if i == index else u for i, u in enumerate(fields[2])]]

    hostile = [changed(entry, lambda fields: fields[:3]) for entry in rewritten if len(msgpack.unpackb(entry.blob)) > 3]
    assert hostile, "the witness left out"
    for entry in rewritten:
        fields = msgpack.unpackb(entry.blob)
        hostile += [changed(entry, without(i)) for i, update in enumerate(fields[2]) if update is not None]
        witnesses = fields[3:]
        hostile += [
            changed(entry, lambda f, i=i, w=witnesses: without(i)(f) + w)  # type: ignore[misc]
            for i, update in enumerate(fields[2])
            if update is not None
        ]
    refused_then_taken(bob, rewritten, hostile)
    assert bob.files() == ann.files()


def test_a_truncated_part_is_refused(ann: Pod, bob: Pod, rewritten: list[Entry]) -> None:
    hostile = [
        changed(entry, lambda f, cut=cut: [f[0], f[1], [u and u[: len(u) // cut] for u in f[2]], *f[3:]])  # type: ignore[misc]
        for entry in rewritten
        for cut in (2, 1000)
    ]
    hostile += [changed(entry, lambda f: [f[0], f[1], f[2][:-1], *f[3:]]) for entry in rewritten]
    refused_then_taken(bob, rewritten, hostile)
    assert bob.files() == ann.files()


def test_a_forged_witness_is_refused(ann: Pod, bob: Pod, eve: Pod, rewritten: list[Entry]) -> None:
    """Signed by another, not signed, of another writer, of an earlier transaction, of another segment or epoch."""
    entry = next(one for one in rewritten if None in msgpack.unpackb(one.blob)[2])
    header = header_of(msgpack.unpackb(entry.blob)[0])
    missing = next(i for i, update in enumerate(msgpack.unpackb(entry.blob)[2]) if update is None)
    segment, epoch = header.parts[missing].segment, header.parts[missing].epoch

    def witness(writer: Pod, signer: Pod, sequence: int, part: Part) -> list[bytes]:
        tx = make(writer.writer, sequence, 1, [part], signer.key.sign)
        assert tx.signature == signer.key.sign(_CONTEXT + tx.raw)
        return [tx.raw, tx.signature]

    right = Part(segment, epoch + 1, b"x", whole=True)
    later = entry.sequence + 7
    forged = [
        witness(ann, eve, later, right),
        [witness(ann, ann, later, right)[0], b""],
        witness(eve, eve, later, right),
        witness(ann, ann, entry.sequence, right),
        witness(ann, ann, max(1, entry.sequence - 1), right),
        witness(ann, ann, later, right._replace(segment=segment + 1)),
        witness(ann, ann, later, right._replace(epoch=epoch)),
        witness(ann, ann, later, right._replace(whole=False)),
    ]
    hostile = [changed(entry, lambda f, one=one: [*f[:3], [one]]) for one in forged]  # type: ignore[misc]
    hostile += [changed(entry, lambda f, one=one: [*f[:3], [*f[3], one]]) for one in forged[:5]]  # type: ignore[misc]
    refused_then_taken(bob, rewritten, hostile)
    assert bob.files() == ann.files()


def test_a_hole_that_nobody_vouches_for_is_not_jumped_over(ann: Pod, bob: Pod, eve: Pod) -> None:
    """Transactions that lost all their parts are left out only with the word of their writer."""
    ann.save("/a", "a")
    ann.tell()
    for number in range(3):
        ann.save("/a", f"{number}")
        ann.tell()
    ann.log.compact(0)
    ann.save("/b", "b")
    (whole, last) = ann.tell()[-2:]
    assert whole.sequence > 2
    assert bob.hear([last]) == []
    raw, signature, updates, *_ = msgpack.unpackb(whole.blob)
    stripped = make(ann.writer, whole.sequence, 1, [Part(0, 1, updates[0], whole=True)], eve.key.sign)
    assert bob.hear([Entry(ann.writer, whole.sequence, stripped.blob())]) == []
    honest_but_mute = make(ann.writer, whole.sequence, 1, [Part(0, 1, updates[0], whole=True)], ann.key.sign)
    assert bob.hear([Entry(ann.writer, whole.sequence, honest_but_mute.blob())]) == []
    assert bob.files() == {}
    assert bob.hear([whole, last]) == [whole, last]
    assert bob.files() == ann.files()
    assert raw
    assert signature


def test_inode_ids_are_what_the_tests_look_for(ann: Pod) -> None:
    """The search for traces finds what is there."""
    ann.save("/x", "x")
    ann.tell()
    inode = ann.at("/x").inode
    assert {"record", "link", "inode", "part"} <= set(mentions(ann, inode))
    assert mentions(ann, InodeId(b"never seen here!")) == []
