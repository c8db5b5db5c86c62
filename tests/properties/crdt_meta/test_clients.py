"""A client pod and three full pods that die after doing what they were asked, by seed: each operation is done once.

Whatever answers get lost, in the end all pods show what one pod shows that did everything once and in order.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from base.errors import FileSystemError
from base.ids import ROOT_INODE, InodeId, LinkId, PodId, author_of, new_inode_id
from crdt_meta.node import Kind, Node
from crdt_meta.operation import (
    STRIDE,
    Create,
    Link,
    Operation,
    Publish,
    Remove,
    Rename,
    SetAttributes,
    SetXattr,
    check,
    is_done,
    perform,
)
from tests.unit.crdt_meta.pods import START_S, Mesh, Pod, content, exchange, mesh

SEEDS = 20
STEPS = 60
CLIENT = author_of(PodId("c1" * 16))


class Story:
    """One run: a client that goes on with another full pod whenever an answer is lost."""

    def __init__(self, world: Mesh, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = world
        self.pods = [world.pod(name) for name in ("ann", "bob", "eve")]
        for pod in self.pods:
            pod.skew_s = self.dice.choice((0.0, -400.0, 400.0))
        self.oracle = world.pod("oracle")
        self.serving = self.pods[0]
        self.stamp = int(START_S * 1000) << 16
        self.done = 0

    def step(self) -> None:
        """Do one thing, as the client sees the tree, which is as the pod sees it that serves it."""
        self.world.now_s += self.dice.choice((0.001, 0.5, 3.0))
        self.stamp += STRIDE
        operation = self.choose()
        others = [pod for pod in self.pods if pod is not self.serving]
        if self.dice.random() < 0.3:  # the answer is lost, and with it the pod, for a while
            seen, doubtful = self.serving.tell(), self.serving
            self.perform(doubtful, operation, again=False)
            self.serving = self.dice.choice(others)
            self.serving.hear(seen)
            exchanged = [pod for pod in others if pod is not self.serving]
            for pod in exchanged:  # what the client has seen of others comes with it
                self.serving.hear(pod.tell())
            self.perform(self.serving, operation, again=True)
        else:
            self.perform(self.serving, operation, again=False)
        self.perform(self.oracle, operation, again=False)
        self.done += 1
        if self.dice.random() < 0.4:
            for other in self.pods:
                self.serving.hear(other.tell())
                other.hear(self.serving.tell())

    def perform(self, pod: Pod, operation: Operation, *, again: bool) -> None:
        """Do what a full pod does with an operation; those that POSIX refuses are refused by all alike."""
        if is_done(pod.tree, CLIENT, self.stamp, operation):
            return
        try:
            check(pod.tree, operation)
            perform(pod.tree, CLIENT, self.stamp, operation)
        except FileSystemError:
            assert not again or not is_done(pod.tree, CLIENT, self.stamp, operation)

    def choose(self) -> Operation:
        """Return something to do that makes sense, or nearly."""
        files, folders = self.nodes(lambda node: node.kind is Kind.FILE), self.nodes(lambda node: node.is_directory)
        name = b"n%d" % self.dice.randrange(12)
        parent = self.dice.choice([ROOT_INODE, *(node.inode for _, _, node in folders)])
        if not files or self.dice.random() < 0.25:
            kind = self.dice.choice((Kind.FILE, Kind.FILE, Kind.DIRECTORY))
            return Create(new_inode_id(), parent, name, kind, 0o644, 1, 1, 1, b"", 0)
        where, called, node = self.dice.choice(files if self.dice.random() < 0.8 or not folders else folders)
        match self.dice.randrange(7):
            case 0 if not node.is_directory:
                return Link(LinkId(new_inode_id()), node.inode, parent, name)
            case 1:
                return Remove(node.link, where, called, node.is_directory)
            case 2 | 3:
                exchange = self.dice.random() < 0.2
                return Rename(node.link, where, called, parent, name, exchange, False)
            case 4:
                return SetAttributes(node.inode, {"mode": self.dice.randrange(0o1000)})
            case 5:
                return SetXattr(node.inode, b"user.x", b"%d" % self.stamp)
        text = str(self.stamp)
        if node.is_directory:
            return SetAttributes(node.inode, {"mtime_ns": self.stamp})
        return Publish(node.inode, node.link, content(text), len(text), 1, node.shown, 1)

    def nodes(self, wanted: Callable[[Node], bool]) -> list[tuple[InodeId, bytes, Node]]:
        """Return (directory, name, node) of what is there, a link each."""
        found, waiting = [], [ROOT_INODE]
        while waiting:
            directory = waiting.pop()
            for name, node in sorted(self.serving.tree.children(directory)):
                if node.is_directory:
                    waiting.append(node.inode)
                link = self.serving.tree.display.lookup(directory, name)
                assert link is not None
                if wanted(node):
                    found.append((directory, name, self.serving.tree.node_of(link)))
        return found


def shape(pod: Pod) -> dict[bytes, tuple[object, ...]]:
    """Return what everybody must see."""
    return {
        path: (node.inode, node.kind, node.mode, node.content, node.size, node.nlink, pod.tree.xattrs(node.inode))
        for path, node in pod.walk()
        if node.inode != ROOT_INODE
    }


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_a_client_does_is_done_once(seed: int, tmp_path: Path) -> None:
    with mesh(tmp_path) as world:
        story = Story(world, seed)
        for _ in range(STEPS):
            story.step()
        exchange(*story.pods)
        for pod in story.pods:
            assert shape(pod) == shape(story.oracle), seed
            assert not pod.tree.conflicts()
        assert story.done == STEPS
