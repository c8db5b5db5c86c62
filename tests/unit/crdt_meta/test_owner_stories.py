"""Stories of owners who die, of adopters, and of restored pods."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgpack
import pytest

from base.ids import WriterId
from crdt_meta.peers import Retired
from crdt_meta.records import Strategy
from crdt_meta.transaction import header_of
from mesh.api import Entry
from tests.unit.crdt_meta.pods import Mesh, Pod, content
from tests.unit.crdt_meta.test_chronicle import again, began, introduced
from tests.unit.crdt_meta.town import (
    Town,
    all_show,
    compact,
    empty_trash,
    everybody,
    same,
    sound,
)


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


@pytest.mark.parametrize("which", [0, 1])
def test_the_owner_of_a_rename_that_is_known_by_half_comes_back_after_it_was_forgotten(
    two_segments: Town, ann: Pod, bob: Pod, which: int
) -> None:
    """Bob adopted what he had, and says so of no more than that: the other half is with ann alone."""
    rename, _ = compact_part(ann, which)
    bob.hear([rename])
    two_segments.sleep("ann")
    two_segments.tidy(4)
    two_segments.wait_until_forgotten()
    two_segments.tidy()
    assert {one.upto for one in two_segments.neighbours["bob"].adoptions[ann.writer]} == {rename.sequence - 1}
    two_segments.rejoin()
    two_segments.exchange()
    two_segments.tidy()
    all_show(two_segments, {"/a": "content b"})


def test_an_adopter_whose_copies_nobody_heard_of_is_evicted(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod
) -> None:
    """Bob has adopted ann's records, and everybody knows; his copies are gone with him, so eve, who has hers, adopts them.

    Else they would be with eve for ever, and nobody could have them from her: nothing is taken from a writer that is retired.
    """
    dead = ann.writer
    ann.mkdir("/d")
    ann.save("/d/doc", "of ann")
    ann.save("/d/old", "removed")
    ann.unlink("/d/old")
    town.exchange()
    town.evict("ann")
    town.turn(bob)
    assert dead in town.neighbours["bob"].adoptions
    town.learn("eve", "bob")
    town.evict("bob")
    town.tidy(4)
    assert not eve.log.table.changed_since(dead, 0), "eve holds copies of her own"
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, {"/d/doc": "of ann"})
    assert eve.trash() == [("/d/old", "deleted", content("removed"))]


@pytest.mark.parametrize("lost", [False, True])
def test_an_adopter_whose_copies_only_one_heard_of_is_evicted(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, lost: bool
) -> None:
    """Zoe has bob's copies of ann's records, which eve can't know: both have copies then. ``lost``: zoe goes, too."""
    dead, zoe = ann.writer, town.enter(world.pod("zoe"))
    ann.save("/doc", "of ann")
    bob.save("/note", "of bob")
    town.exchange()
    town.evict("ann")
    town.part("eve")
    town.turn(bob)
    town.tell("zoe", "bob")
    town.learn("eve", "bob")
    town.evict("bob")
    for pod in (eve, zoe):
        town.turn(pod)
        assert bob.writer in town.neighbours[pod.name].adoptions
    if lost:
        town.evict("zoe")
    else:
        town.rejoin()
    town.tidy(4)
    assert not eve.log.table.changed_since(dead, 0)
    town.enter(world.pod("new"))
    town.exchange()
    all_show(town, {"/doc": "of ann", "/note": "of bob"})


def test_a_log_that_was_dropped_counts_as_far_as_copies_of_it_are_here(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod
) -> None:
    """Dan and zoe have adopted bob's records, zoe more of them, among which are bob's copies of ann's.

    Eve has heard of both, but what zoe holds isn't here: she drops bob's log, yet not ann's.
    """
    dan, zoe = town.enter(world.pod("dan")), town.enter(world.pod("zoe"))
    ann.save("/doc", "of ann")
    bob.save("/note", "of bob")
    town.exchange()
    town.evict("ann")
    town.part("zoe", "bob")
    town.turn(bob)
    town.tell("zoe", "bob")
    for name in ("dan", "eve"):
        town.learn(name, "bob")
    town.evict("bob")
    for pod in (dan, zoe):
        town.turn(pod)
        town.neighbours["eve"].adoptions[bob.writer] |= town.neighbours[pod.name].adoptions[bob.writer]
    complete = {one.by: one.sequence for one in town.neighbours["eve"].adoptions[bob.writer]}
    assert complete.keys() == {dan.writer, zoe.writer}
    eve.hear([entry for entry in dan.tell() if entry.sequence <= complete[dan.writer]])
    for _ in range(2):
        town.turn(eve)
    assert not eve.log.table.changed_since(bob.writer, 0)
    assert eve.files() == {"/doc": content("of ann"), "/note": content("of bob")}
    sound(eve)


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


@pytest.mark.parametrize("told", [False, True])
def test_a_pod_that_was_forgotten_is_set_back_to_before_it_heard_of_that(
    world: Mesh, town: Town, ann: Pod, bob: Pod, tmp_path: Path, told: bool
) -> None:
    """What it had written while it was away, and what it writes after it was set back, reach the others.

    It had heard that it was forgotten, had taken a new writer and said so; ``told``: what that one wrote was heard, too.
    """
    ann.save("/known", "known")
    town.exchange()
    town.sleep("ann")
    ann.save("/away", "written away")
    ann.save("/quiet", "written away")
    ann.tell()
    shutil.copytree(ann.folder, tmp_path / "backup")
    ann.save("/gone", "written after the backup")
    ann.tell()
    first = ann.log.writer
    town.tidy(4)
    town.wait_until_forgotten()
    town.tidy()
    assert first in town.neighbours["bob"].adoptions
    town.learn("ann", "bob")
    assert ann.log.writer != first
    town.learn("bob", "ann")
    if told:
        town.tell("bob", "ann")
    ann.close()
    shutil.rmtree(ann.folder)
    shutil.copytree(tmp_path / "backup", ann.folder)
    town.neighbours["ann"].adoptions.clear()
    ann = town.enter(world.pod("ann"))
    world.now_s += 5
    ann.save("/away", "written after it was set back")
    ann.save("/new", "new")
    ann.tell()
    town.rejoin()
    town.exchange()
    town.tidy()
    shown = bob.files()
    expected = {"/known": "known", "/new": "new", "/quiet": "written away", "/away": "written after it was set back"}
    assert shown | {path: content(text) for path, text in expected.items()} == shown
    assert ("/gone" in shown) is told
    for pod in everybody(town):
        assert pod.files() == shown
        sound(pod)


@pytest.mark.parametrize("saves", [1, 2, 4])
def test_both_lives_of_a_pod_save_a_file_with_a_clock_that_is_ahead(
    town: Town, ann: Pod, bob: Pod, tmp_path: Path, saves: int
) -> None:
    """Ann's clock follows bob's, which is an hour ahead: both lives go on from the same stamp."""
    bob.skew_s = 3600.0
    bob.save("/note", "of bob")
    town.exchange()
    ann.save("/other", "first")
    town.exchange()
    fork = ann.log.vector()[ann.writer]
    shutil.copytree(ann.folder, tmp_path / "backup")
    for number in range(2):
        ann.save("/note", f"{number}")
    ann.save("/note", "first life")
    town.exchange()
    last = ann.log.vector()[ann.writer]
    ann = set_back(town, ann, tmp_path / "backup")
    for number in range(1, saves):
        ann.save("/note", f"again {number}")
    ann.save("/note", "second life")
    ann.tell()
    town.reborn(ann, fork, last)
    town.exchange()
    for pod in everybody(town):
        assert sorted(pod.files().values()) == sorted(content(text) for text in ("first", "first life", "second life"))
        sound(pod)


def set_back(town: Town, pod: Pod, backup: Path) -> Pod:
    """Put a pod's home back as it was when it was copied."""
    pod.close()
    shutil.rmtree(pod.folder)
    shutil.copytree(backup, pod.folder)
    town.neighbours[pod.name].adoptions.clear()
    pod = town.enter(town.mesh.pod(pod.name))
    town.mesh.now_s += 5
    return pod


@pytest.mark.parametrize("saves", [0, 1, 2, 4])
def test_a_pod_that_was_set_back_hears_that_its_writer_was_adopted(
    world: Mesh, town: Town, ann: Pod, tmp_path: Path, saves: int
) -> None:
    """It has used numbers of transactions again, fewer or more than the others know: what is in them reaches these."""
    old = ann.writer
    ann.save("/known", "known")
    town.exchange()
    shutil.copytree(ann.folder, tmp_path / "backup")
    ann.save("/first", "first life")
    ann.tell()
    ann.save("/known", "first life")
    town.exchange()
    town.sleep("ann")
    town.tidy(4)
    town.wait_until_forgotten()
    town.tidy()
    assert old in town.neighbours["bob"].adoptions
    ann = set_back(town, ann, tmp_path / "backup")
    for number in range(saves):
        ann.save(f"/{number}", "second life")
        ann.tell()
    town.rejoin()
    town.exchange()
    town.tidy()
    files = {"/first": "first life", "/known": "first life"}
    all_show(town, files | {f"/{number}": "second life" for number in range(saves)})
    assert not ann.log.table.changed_since(old, 0)


@pytest.mark.parametrize("start_after", [None, 1, 3])
@pytest.mark.parametrize("again_after_the_link", [False, True])
def test_a_pod_that_was_set_back_first_meets_somebody_who_never_met_its_other_life(
    world: Mesh,
    town: Town,
    ann: Pod,
    bob: Pod,
    eve: Pod,
    tmp_path: Path,
    start_after: int | None,
    again_after_the_link: bool,
) -> None:
    """That eve was told of its starts proves nothing: bob adopted the first life, with some of the same numbers."""
    old = ann.writer
    of_ann, of_bob, of_eve = began(ann), began(bob), began(eve)
    ann.save("/known", "known")
    ann.tell()
    assert introduced(of_ann, "ann", of_bob, "bob") == [None, None]
    town.exchange()
    shutil.copytree(ann.folder, tmp_path / "backup")
    for number in range(3):
        ann.save(f"/first{number}", "first life")
        ann.tell()
    town.exchange()
    town.sleep("ann")
    town.tidy(4)
    town.wait_until_forgotten()
    town.tidy()
    (adopted,) = town.neighbours["bob"].adoptions[old]
    assert adopted.upto == 4
    ann = set_back(town, ann, tmp_path / "backup")
    of_ann = began(ann)
    for number in range(5):
        if number == start_after:
            ann, of_ann = again(ann)
        ann.save(f"/second{number}", "second life")
        ann.tell()
    assert introduced(of_ann, "ann", of_eve, "eve") == [None, None]
    if again_after_the_link:
        ann, of_ann = again(ann)
    ann = town.enter(ann)
    town.rejoin()
    town.exchange()
    town.tidy(12)
    second = {f"/second{number}": "second life" for number in range(5)}
    all_show(town, {"/known": "known"} | {f"/first{number}": "first life" for number in range(3)} | second)


def test_a_pod_says_that_many_writers_of_its_own_adopted_each_other(town: Town, ann: Pod, bob: Pod, eve: Pod) -> None:
    """Whether ann's copies are among those ends at once, however many ways lead from one to another; nothing is lost."""
    ann.save("/file", "of ann")
    town.exchange()
    made_up = [WriterId(bytes([number]) * 8) for number in range(32)]
    adoptions = town.neighbours["eve"].adoptions
    for one in (ann.writer, *made_up):
        adoptions[one] |= {Retired(9, by, 9) for by in made_up if by != one}
    town.learn("bob", "eve")
    town.turn(bob)
    assert bob.files() == {"/file": content("of ann")}
    sound(bob)


@pytest.mark.parametrize("first", [1, 2, 6])
@pytest.mark.parametrize("second", [1, 2])
@pytest.mark.parametrize("compacted", [False, True])
def test_of_an_owner_who_was_set_back_one_has_the_first_life_and_another_one_the_second(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, tmp_path: Path, first: int, second: int, compacted: bool
) -> None:
    """Bob's copies have the numbers of what eve has, not its contents: she adopts that, also if she has less."""
    ann.save("/known", "known")
    town.exchange()
    shutil.copytree(ann.folder, tmp_path / "backup")
    for number in range(first):
        ann.save(f"/first{number}", "first life")
        ann.tell()
    town.tell("bob", "ann")
    ann = set_back(town, ann, tmp_path / "backup")
    for number in range(second):
        ann.save(f"/second{number}", "second life")
        ann.tell()
    if compacted:
        compact(ann)
    town.tell("eve", "ann")
    town.evict("ann")
    town.turn(bob)
    assert ann.writer in town.neighbours["bob"].adoptions
    town.tidy(4)
    lives = {f"/first{number}": "first life" for number in range(first)}
    lives |= {f"/second{number}": "second life" for number in range(second)}
    all_show(town, {"/known": "known"} | lives)


@pytest.mark.parametrize("which", [0, 1])
def test_what_a_restored_pod_waits_for_went_with_its_first_life(
    world: Mesh, two_segments: Town, ann: Pod, bob: Pod, tmp_path: Path, which: int
) -> None:
    """Bob has half of a rename, the other half nobody: all the same ann's old log doesn't wait for ever."""
    old = ann.writer
    ann.save("/quiet", "told nobody")
    ann.save("/over", "renamed over")
    ann.tell()
    shutil.copytree(ann.folder, tmp_path / "backup")
    ann.save("/late", "of the first life")
    ann.tell()
    ann.rename("/late", "/over")
    ann.tell()
    rename, whole = compact_part(ann, which)
    before = ann.log.read(old, bob.log.vector()[old], 1 << 20)
    bob.hear([entry for entry in before if entry.sequence <= rename.sequence])
    assert bob.log.table.owed[old] == whole.sequence
    ann = set_back(two_segments, ann, tmp_path / "backup")
    ann.save("/new", "second life")
    ann.tell()
    two_segments.reborn(ann, ann.log.vector()[old] - 1, whole.sequence)
    two_segments.exchange(compare=False)
    two_segments.tidy()
    assert old in two_segments.neighbours["ann"].adoptions
    shown = bob.files()
    expected = {"/a": "content b", "/quiet": "told nobody", "/new": "second life"}
    assert shown | {path: content(text) for path, text in expected.items()} == shown
    assert content("of the first life") in shown.values()
    for pod in everybody(two_segments):
        assert pod.files() == shown
        sound(pod)
        assert not pod.log.table.changed_since(old, 0)
