"""What a mount lets into the tree later is as if it had been written at once, whatever other pods did in between."""

from __future__ import annotations

import pytest

from base.errors import FileSystemError
from base.ids import ROOT_INODE, InodeId
from crdt_meta.bearing import Removal, Unborn
from crdt_meta.hlc import nanoseconds
from crdt_meta.node import Kind, Node
from tests.unit.crdt_meta.pods import Mesh, Pod, content, exchange


def conceive(pod: Pod, name: bytes, text: str, directory: InodeId = ROOT_INODE) -> Unborn:
    inode, made = pod.tree.conceive(directory, name)
    changed, _ = pod.tree.stamp()
    return Unborn(inode, directory, name, 0o640, 1, 2, 77, content(text), 5, made, changed)


def removal(pod: Pod, node: Node, directory: InodeId = ROOT_INODE) -> Removal:
    stamp, _ = pod.tree.stamp()
    return Removal(node.inode, node.link, directory, node.shown, stamp)


def write(pod: Pod, name: bytes, text: str) -> Node:
    node = pod.tree.lookup(ROOT_INODE, name)
    if node is None:
        node = pod.tree.create(ROOT_INODE, name, Kind.FILE, mode=0o644, uid=0, gid=0)
    return pod.tree.publish(node.inode, node.link, content(text), len(text), 1, node.shown)


def names(pod: Pod) -> list[bytes]:
    return [name for name, _ in pod.tree.children(ROOT_INODE)]


def test_a_file_enters_with_content_times_and_dot(world: Mesh, ann: Pod, bob: Pod) -> None:
    files = [conceive(ann, f"f{number}".encode(), str(number)) for number in range(20)]
    later = ann.tree.create(ROOT_INODE, b"later", Kind.FILE, mode=0o644, uid=0, gid=0)
    ann.tree.bear(files)
    exchange(ann, bob)
    for pod in (ann, bob):
        for one in files:
            node = pod.tree.lookup(ROOT_INODE, one.name)
            assert node is not None
            assert (node.inode, node.mode, node.uid, node.gid, node.mtime_ns) == (one.inode, 0o640, 1, 2, 77)
            assert (node.content, node.size, node.nlink) == (one.content, 5, 1)
            assert node.ctime_ns == nanoseconds(one.changed)
            assert node.shown == (ann.tree.dot_of(one.changed),)
        root = pod.tree.resolve(b"/")
        assert root.mtime_ns == later.ctime_ns > nanoseconds(files[-1].made)
    # it is written to and versions are made as of any other file
    node = write(bob, b"f3", "other")
    exchange(ann, bob)
    assert ann.tree.resolve(b"/f3").content == node.content
    assert ann.shape() == bob.shape()


def test_a_name_that_another_pod_took_meanwhile_is_a_conflict(world: Mesh, ann: Pod, bob: Pod) -> None:
    mine = conceive(ann, b"notes", "mine")
    theirs = write(bob, b"notes", "their")
    exchange(ann, bob)
    ann.tree.bear([mine])
    exchange(ann, bob)
    for pod in (ann, bob):
        assert len(names(pod)) == 2
        assert {node.content for _, node in pod.tree.children(ROOT_INODE)} == {mine.content, theirs.content}


def test_a_directory_that_another_pod_removed_meanwhile_stays_for_the_file(world: Mesh, ann: Pod, bob: Pod) -> None:
    place = ann.tree.create(ROOT_INODE, b"d", Kind.DIRECTORY, mode=0o755, uid=0, gid=0)
    exchange(ann, bob)
    mine = conceive(ann, b"f", "mine", place.inode)
    bob.tree.rmdir(ROOT_INODE, b"d")
    exchange(ann, bob)
    assert names(ann) == []
    ann.tree.bear([mine])
    exchange(ann, bob)
    for pod in (ann, bob):
        assert pod.tree.resolve(b"/d/f").content == mine.content


def test_nothing_is_conceived_where_nothing_could_be_made(world: Mesh, ann: Pod) -> None:
    node = write(ann, b"file", "x")
    for directory, name in (
        (node.inode, b"a"),
        (ROOT_INODE, b"."),
        (ROOT_INODE, b"n" * 256),
        (InodeId(b"?" * 16), b"a"),
    ):
        with pytest.raises(FileSystemError):
            ann.tree.conceive(directory, name)


def test_names_are_deleted_as_of_the_time_when_they_were_removed(world: Mesh, ann: Pod, bob: Pod) -> None:
    nodes = [write(ann, f"f{number}".encode(), str(number)) for number in range(12)]
    exchange(ann, bob)
    ann.tree.bury([removal(ann, node) for node in nodes])
    exchange(ann, bob)
    for pod in (ann, bob):
        assert names(pod) == []
        assert pod.tree.totals().files == 0
        assert len(pod.trash()) == 12


def test_a_change_that_the_removal_did_not_see_keeps_the_file(world: Mesh, ann: Pod, bob: Pod) -> None:
    node = write(ann, b"f", "old")
    exchange(ann, bob)
    late = removal(ann, node)
    changed = write(bob, b"f", "new")
    exchange(ann, bob)
    ann.tree.bury([late])
    exchange(ann, bob)
    for pod in (ann, bob):
        assert pod.tree.resolve(b"/f").content == changed.content


def test_a_directory_goes_after_what_was_in_it(world: Mesh, ann: Pod, bob: Pod) -> None:
    place = ann.tree.create(ROOT_INODE, b"d", Kind.DIRECTORY, mode=0o755, uid=0, gid=0)
    inside = ann.tree.create(place.inode, b"f", Kind.FILE, mode=0o644, uid=0, gid=0)
    exchange(ann, bob)
    ann.tree.bury([removal(ann, inside, place.inode), removal(ann, place)])
    exchange(ann, bob)
    assert names(ann) == names(bob) == []
    assert ann.tree.totals() == bob.tree.totals()
