"""What client pods have done: by one full pod, by two since nobody answered, and what they may not send."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable

import msgpack
import pytest

from base.errors import DamagedError, FileSystemError
from base.ids import (
    EMPTY_CONTENT,
    ROOT_INODE,
    ContentId,
    Dot,
    InodeId,
    LinkId,
    PodId,
    WriterId,
    author_of,
    new_inode_id,
)
from crdt_meta.hlc import MAX_CLOCK
from crdt_meta.node import Kind, Node
from crdt_meta.operation import (
    STRIDE,
    Create,
    Keep,
    Link,
    Operation,
    Publish,
    Purge,
    Remove,
    Rename,
    Restore,
    SetAttributes,
    SetXattr,
    Trashed,
    check,
    is_done,
    pack,
    parse,
    perform,
)
from tests.unit.crdt_meta.pods import START_S, Mesh, Pod, content, exchange

CLIENT = author_of(PodId("c1" * 16))
STAMP = int((START_S + 1) * 1000) << 16


class Client:
    """Has operations done, each under a stamp of its own."""

    def __init__(self) -> None:
        self.stamp = STAMP

    def does(self, operation: Operation, *pods: Pod) -> Operation:
        """Have one operation carried out by several pods that know nothing of each other."""
        self.stamp += STRIDE
        for pod in pods:
            received = parse(msgpack.unpackb(msgpack.packb(pack(operation)), strict_map_key=False))
            assert received == operation
            assert not is_done(pod.tree, CLIENT, self.stamp, received)
            check(pod.tree, received)
            perform(pod.tree, CLIENT, self.stamp, received)
            assert is_done(pod.tree, CLIENT, self.stamp, received)
        return operation


@pytest.fixture
def client() -> Client:
    return Client()


def create(name: str, parent: InodeId = ROOT_INODE, kind: Kind = Kind.FILE) -> Create:
    return Create(new_inode_id(), parent, name.encode(), kind, 0o644, 1, 2, 3, b"", 0)


def publish(node: Node, text: str) -> Publish:
    return Publish(node.inode, node.link, content(text), len(text), 7, node.shown, 8)


def test_the_author_is_the_client_and_the_log_is_the_full_pod_s(ann: Pod, bob: Pod, client: Client) -> None:
    made = client.does(create("note"), ann)
    assert isinstance(made, Create)
    client.does(publish(ann.at("/note"), "hello"), ann)
    exchange(ann, bob)
    node = bob.at("/note")
    assert (node.content, node.mode, node.uid, node.gid) == (content("hello"), 0o644, 1, 2)
    assert [dot.writer for dot in node.shown] == [CLIENT]
    assert CLIENT not in bob.log.vector()


def test_each_operation_does_what_the_tree_does(ann: Pod, bob: Pod, client: Client) -> None:
    folder = client.does(create("folder", kind=Kind.DIRECTORY), ann)
    assert isinstance(folder, Create)
    client.does(create("a", folder.inode), ann)
    node = ann.at("/folder/a")
    client.does(publish(node, "one"), ann)
    client.does(Link(LinkId(new_inode_id()), node.inode, ROOT_INODE, b"b"), ann)
    client.does(SetAttributes(node.inode, {"mode": 0o600, "mtime_ns": -5}), ann)
    client.does(SetXattr(node.inode, b"user.x", b"y"), ann)
    client.does(Rename(node.link, folder.inode, b"a", ROOT_INODE, b"c", False, False), ann)
    client.does(Remove(LinkId(folder.inode), ROOT_INODE, b"folder", directory=True), ann)
    exchange(ann, bob)
    assert bob.ls() == ["b", "c"]
    found = bob.at("/c")
    assert (found.nlink, found.mode, found.mtime_ns, found.content) == (2, 0o600, -5, content("one"))
    assert bob.tree.xattrs(found.inode) == {b"user.x": b"y"}
    client.does(Remove(bob.at("/b").link, ROOT_INODE, b"b", directory=False), bob)
    client.does(Remove(bob.at("/c").link, ROOT_INODE, b"c", directory=False), bob)
    exchange(ann, bob)
    assert ann.ls() == []
    (entry,) = ann.tree.trash()
    client.does(Restore(Trashed(entry.inode, entry.dot, entry.path)), ann)
    exchange(ann, bob)
    assert set(bob.files().values()) == {content("one")}


def test_what_two_pods_were_asked_to_do_is_done_once(ann: Pod, bob: Pod, eve: Pod, client: Client) -> None:
    """The one that was asked first died with it, and is heard of later: it must not conflict with itself."""
    made = client.does(create("note"), ann, bob)
    client.does(publish(bob.at("/note"), "one"), ann, bob)
    client.does(publish(bob.at("/note"), "two"), bob)  # the client goes on with bob
    client.does(SetAttributes(bob.at("/note").inode, {"mode": 0o600}), bob)
    client.does(Rename(bob.at("/note").link, ROOT_INODE, b"note", ROOT_INODE, b"other", False, False), bob)
    exchange(ann, bob, eve)
    for pod in (ann, bob, eve):
        assert pod.files() == {"/other": content("two")}
        assert not pod.tree.conflicts()
        assert pod.at("/other").mode == 0o600
    assert isinstance(made, Create)
    client.does(Remove(LinkId(made.inode), ROOT_INODE, b"other", directory=False), ann, bob)
    exchange(ann, bob, eve)
    assert [pod.files() for pod in (ann, bob, eve)] == [{}] * 3


def test_a_late_twin_of_an_operation_takes_nothing_back(ann: Pod, bob: Pod, client: Client) -> None:
    """Names and modes: what came after the twin counts, whatever the clock of who was asked first says."""
    ann.skew_s = 300.0
    client.does(create("a"), ann)
    exchange(ann, bob)
    link = bob.at("/a").link
    client.does(Rename(link, ROOT_INODE, b"a", ROOT_INODE, b"b", False, False), ann, bob)
    client.does(Rename(link, ROOT_INODE, b"b", ROOT_INODE, b"c", False, False), bob)
    exchange(ann, bob)
    assert ann.ls() == bob.ls() == ["c"]


def test_others_edits_are_not_lost(ann: Pod, bob: Pod, client: Client) -> None:
    client.does(create("note"), ann)
    client.does(publish(ann.at("/note"), "one"), ann)
    exchange(ann, bob)
    client.does(publish(bob.at("/note"), "of the client"), ann)
    bob.save("/note", "of bob")
    exchange(ann, bob)
    assert set(ann.files().values()) == {content("of the client"), content("of bob")}
    (conflict,) = ann.tree.conflicts()
    client.does(Keep(conflict.path, next(one.inode for one in conflict.versions)), ann)
    exchange(ann, bob)
    assert not bob.tree.conflicts()
    client.does(Purge(tuple(Trashed(one.inode, one.dot, one.path) for one in bob.tree.trash())), bob)
    exchange(ann, bob)
    assert not list(ann.tree.trash())


def test_the_records_of_a_client_survive_the_pod_that_holds_them(world: Mesh, ann: Pod, client: Client) -> None:
    client.does(create("note"), ann)
    client.does(publish(ann.at("/note"), "one"), ann)
    before, told = ann.shape(), ann.tell()
    ann.close()
    again = world.pod("ann")
    assert again.shape() == before
    assert again.tell() == told
    client.does(publish(again.at("/note"), "two"), again)
    assert again.files() == {"/note": content("two")}


def _taken(pod: Pod) -> Create:
    return Create(pod.at("/a").inode, ROOT_INODE, b"b", Kind.FILE, 0o644, 1, 2, 3, b"", 0)


REFUSED: list[tuple[Callable[[Pod], Operation], int]] = [
    (_taken, errno.EEXIST),
    (lambda pod: SetXattr(pod.at("/a").inode, b"user.wormhole.keep", b"1"), errno.EPERM),
    (lambda pod: SetXattr(pod.at("/a").inode, b"system.posix_acl_access", b"1"), errno.EOPNOTSUPP),
    (lambda pod: Publish(new_inode_id(), LinkId(new_inode_id()), EMPTY_CONTENT, 0, 0, (), 0), errno.ENOENT),
    (lambda pod: Publish(pod.at("/d").inode, pod.at("/d").link, content("x"), 1, 0, (), 0), errno.ENOENT),
    (lambda pod: create("a"), errno.EEXIST),
    (lambda pod: create("x", new_inode_id()), errno.ENOENT),
    (lambda pod: create("x/y"), errno.EINVAL),
    (lambda pod: Remove(pod.at("/d").link, ROOT_INODE, b"d", directory=False), errno.EISDIR),
    (lambda pod: Restore(Trashed(new_inode_id(), Dot(CLIENT, 1), b"/x")), errno.ENOENT),
]


@pytest.mark.parametrize(("made", "number"), REFUSED)
def test_what_no_client_may_do_is_refused(made: Callable[[Pod], Operation], number: int, ann: Pod) -> None:
    ann.save("/a", "one")
    ann.mkdir("/d")
    before = ann.shape()
    operation = made(ann)

    def attempt() -> None:
        check(ann.tree, operation)
        perform(ann.tree, CLIENT, STAMP, operation)

    with pytest.raises(FileSystemError) as refused:
        attempt()
    assert refused.value.errno == number
    assert ann.shape() == before
    ann.save("/own", "two")
    assert ann.at("/own").shown[0].writer == ann.writer, "what follows is the pod's own again"


def test_what_isn_t_an_operation_is_refused(ann: Pod) -> None:
    """A fuzzer on the decoder: changed, cut and random messages are refused or are operations, never anything else."""
    ann.save("/a", "one")
    node, dice = ann.at("/a"), random.Random(7)
    good: list[Operation] = [
        create("b"),
        Link(LinkId(new_inode_id()), node.inode, ROOT_INODE, b"c"),
        Remove(node.link, ROOT_INODE, b"a", directory=False),
        Rename(node.link, ROOT_INODE, b"a", ROOT_INODE, b"z", False, True),
        SetAttributes(node.inode, {"mode": 0o600}),
        SetXattr(node.inode, b"user.a", None),
        publish(node, "two"),
        Restore(Trashed(node.inode, Dot(CLIENT, 1), b"/a")),
        Purge((Trashed(node.inode, Dot(CLIENT, 1), b"/a"),)),
        Keep(b"/a", node.inode),
    ]
    strange: list[object] = [
        None,
        -1,
        MAX_CLOCK + 1,
        1 << 80,
        b"",
        b"\0" * 16,
        os.urandom(32),
        "text",
        [],
        {},
        True,
        1.5,
    ]
    parsed = 0
    for _ in range(5000):
        body = pack(dice.choice(good))
        match dice.randrange(4):
            case 0:
                body[dice.randrange(len(body))] = dice.choice(strange)
            case 1:
                del body[dice.randrange(len(body))]
            case 2:
                body.insert(dice.randrange(len(body) + 1), dice.choice(strange))
            case _:
                body = [dice.choice(strange) for _ in range(dice.randrange(12))]
        try:
            parse(body)
            parsed += 1
        except DamagedError:
            continue
    assert parsed < 2500
    for whole in ([], None, 5, [99], [1], {"a": 1}):
        with pytest.raises(DamagedError):
            parse(whole)


def test_limits() -> None:
    node, writer = new_inode_id(), WriterId(bytes(8))
    too_much: list[list[object]] = [
        [7, node, node, bytes(32), 1 << 50, 0, [], 0],
        [7, node, node, bytes(32), 1, 0, [[writer, 1]] * 5000, 0],
        [1, bytes(16), ROOT_INODE, b"a", 1, 0o644, 0, 0, 0, b"", 0],
        [1, node, ROOT_INODE, b"a" * 256, 1, 0o644, 0, 0, 0, b"", 0],
        [1, node, ROOT_INODE, b"a", 9, 0o644, 0, 0, 0, b"", 0],
        [1, node, ROOT_INODE, b"a", 1, 0o10000, 0, 0, 0, b"", 0],
        [5, node, {}],
        [5, node, {"content": 1}],
        [6, node, b"user.a", bytes(70_000)],
        [9, []],
    ]
    for body in too_much:
        with pytest.raises(DamagedError):
            parse(body)
    assert parse([7, node, node, bytes(32), 1, 0, [[writer, 1]], 0]) == Publish(
        node, LinkId(node), ContentId(bytes(32)), 1, 0, (Dot(writer, 1),), 0
    )
