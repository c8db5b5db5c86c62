"""Stories of conflicts: who saved, renamed or removed what, knowing how much of the others."""

from __future__ import annotations

import pytest

from tests.unit.crdt_meta.pods import Mesh, Pod
from tests.unit.crdt_meta.town import (
    Town,
    all_show,
    empty_trash,
    everybody,
)


def both_save_a_note(town: Town, ann: Pod, bob: Pod) -> None:
    """Neither knows of the other's; bob's is the later."""
    ann.save("/note.txt", "first")
    town.exchange()
    ann.save("/note.txt", "of ann")
    town.mesh.now_s += 5
    bob.save("/note.txt", "of bob")
    town.exchange()


def test_the_loser_survives_the_winners_next_save(world: Mesh, town: Town, ann: Pod, bob: Pod) -> None:
    """Also when everything was written anew and collected since, and for a pod that comes then."""
    loser = "/note.conflict-ann-20270115-080000.txt"
    both_save_a_note(town, ann, bob)
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


def test_a_loser_is_called_after_its_pod_when_that_has_another_name_and_its_first_name_is_free(
    world: Mesh, town: Town, ann: Pod, bob: Pod
) -> None:
    before, after = (f"/note.conflict-{name}-20270115-080000.txt" for name in ("ann", "anna"))
    both_save_a_note(town, ann, bob)
    all_show(town, {"/note.txt": "of bob", before: "of ann"})
    for path in (after, "/other.conflict-x.txt"):
        bob.save(path, "a file with a name like theirs")
    world.names[ann.writer] = "anna"
    for path in ("/other.conflict-x.txt", after):
        bob.unlink(path)
    town.exchange()
    for pod in everybody(town):
        pod.tree.pods_changed()
    all_show(town, {"/note.txt": "of bob", after: "of ann"})


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


@pytest.mark.parametrize("how", ["removed", "renamed"])
def test_a_name_that_was_removed_is_free_though_a_loser_would_have_it(
    world: Mesh, town: Town, ann: Pod, bob: Pod, eve: Pod, how: str
) -> None:
    """Eve has a file of her own under the very name that the loser of a conflict gets."""
    name = "/note.conflict-ann-20270115-080000.txt"
    ann.save("/note.txt", "of ann")
    world.now_s += 5
    bob.save("/note.txt", "of bob")
    eve.save(name, "of eve")
    town.exchange()
    other = name.replace(".txt", "-2.txt")
    all_show(town, {"/note.txt": "of bob", name: "of eve", other: "of ann"})
    if how == "removed":
        bob.unlink(name)
    else:
        bob.rename(name, "/mine.txt")
    town.exchange()
    mine = {} if how == "removed" else {"/mine.txt": "of eve"}
    all_show(town, {"/note.txt": "of bob", other: "of ann", **mine})
