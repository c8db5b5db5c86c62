"""Directories kept in memory say what the tree says, whatever happened to it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from base.errors import FileSystemError
from base.ids import ROOT_INODE, InodeId
from crdt_meta.node import Kind, Node
from tests.unit.crdt_meta.pods import Mesh, Pod, content, exchange
from vfs import names
from vfs.names import Names

WORDS = [b"a", b"b", b"c", b"d"]


def directories(pod: Pod) -> list[InodeId]:
    return [ROOT_INODE, *(node.inode for _, node in pod.tree.walk(pod.tree.resolve(b"/")) if node.is_directory)]


def act(pod: Pod, rng: random.Random) -> None:
    """Do one random operation; what it makes is published by way of the node that was made."""
    tree, places = pod.tree, directories(pod)
    parent, name = rng.choice(places), rng.choice(WORDS)
    other, new = rng.choice(places), rng.choice(WORDS)
    node = tree.lookup(parent, name)
    match rng.randrange(9):
        case 0 | 1 | 2:
            kind = rng.choice([Kind.FILE, Kind.FILE, Kind.DIRECTORY])
            tree.create(parent, name, kind, mode=0o644, uid=0, gid=0, mtime_ns=1)
        case 3:
            tree.unlink(parent, name)
        case 4:
            tree.rmdir(parent, name)
        case 5 if node is not None:
            tree.link(node.inode, other, new)
        case 6:
            tree.rename(parent, name, other, new, exchange=rng.random() < 0.2)
        case 7 if node is not None:
            tree.set_attributes(node.inode, mode=rng.randrange(0o777))
        case 8 if node is not None and node.kind is Kind.FILE:
            tree.publish(node.inode, node.link, content(str(rng.random())), 5, 1, node.shown)


def check(pod: Pod, found: Names, rng: random.Random) -> None:
    places = directories(pod)
    for place in rng.sample(places, min(3, len(places))):
        name = rng.choice(WORDS)
        assert found.lookup(place, name) == pod.tree.lookup(place, name)
        if rng.random() < 0.5:
            assert sorted(found.children(place), key=lambda each: each[0]) == pod.tree.children(place)


@pytest.mark.parametrize("seed", range(12))
def test_names_are_those_of_the_tree(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "NAMES_LIMIT", (5, 12, 1000)[seed % 3])
    rng, mesh = random.Random(seed), Mesh(tmp_path)
    ann, bob = mesh.pod("ann"), mesh.pod("bob")
    found = Names(ann.tree)
    ann.tree.on_delta(found.heard)
    made: list[tuple[InodeId, bytes, Node]] = []
    for _ in range(400):
        mesh.now_s += 1
        pod = ann if rng.random() < 0.9 else bob
        try:
            act(pod, rng)
        except FileSystemError:
            pass
        else:
            if pod is ann and rng.random() < 0.5:
                for place in directories(ann):
                    for name, node in ann.tree.children(place):
                        made.append((place, name, node))
                for _, _, node in rng.sample(made, min(4, len(made))):
                    now = ann.tree.get(node.inode)
                    if now is not None:
                        found.renewed(now)
                made.clear()
        if rng.random() < 0.05:
            exchange(ann, bob)
        check(ann, found, rng)
    assert found._total == sum(len(folder) + 1 for folder in found._folders.values()) <= names.NAMES_LIMIT
    assert len(found._places) <= found._total


def test_a_directory_made_here_is_known_to_be_empty(tmp_path: Path) -> None:
    ann = Mesh(tmp_path).pod("ann")
    found = Names(ann.tree)
    ann.tree.on_delta(found.heard)
    node = ann.mkdir("/d")
    found.made(ROOT_INODE, b"d", node)
    before = found._tree
    file = ann.make("/d/f")
    found.made(node.inode, b"f", file)
    found._tree = None  # type: ignore[assignment] # nothing is asked
    assert found.lookup(node.inode, b"f") == file
    assert found.lookup(node.inode, b"g") is None
    found._tree = before
    ann.tree.unlink(node.inode, b"f")
    assert found.lookup(node.inode, b"f") is None
    assert found.children(node.inode) == []
