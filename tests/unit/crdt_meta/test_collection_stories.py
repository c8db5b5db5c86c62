"""Stories that take half a year: what was deleted, collected, forgotten, written anew."""

from __future__ import annotations

import pytest

from tests.unit.crdt_meta.pods import Mesh, Pod, content
from tests.unit.crdt_meta.town import (
    Town,
    all_show,
    empty_trash,
    everybody,
    mentions,
    records_of,
    stored_bytes,
)


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
