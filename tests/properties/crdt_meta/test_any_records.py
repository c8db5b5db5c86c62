"""Records that no honest pod writes, in any order: every pod still makes the same of them, and nothing raises.

Few ids and names, so that births collide, links point elsewhere later, places make cycles, kinds change.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycrdt import Doc, Map

from base.ids import EMPTY_CONTENT, ROOT_INODE, ContentId, Dot, InodeId, LinkId, PodId, WriterId, hash_bytes
from crdt_meta.codec import encode
from crdt_meta.metadata import Metadata, Roots
from crdt_meta.node import Kind, Node
from crdt_meta.records import (
    Attributes,
    Birth,
    Body,
    Content,
    Deletion,
    Key,
    LinkBirth,
    Name,
    Overwritten,
    Place,
    Settled,
    Strategy,
    Why,
    Xattrs,
)
from crdt_meta.segments import ROOT
from crdt_meta.transaction import Part, make
from mesh.api import Entry
from tests.properties.crdt_meta.checks import by_the_rules
from tests.properties.crdt_meta.world import SENDER

NODES = [bytes([index]) * 16 for index in range(1, 9)]
PARENTS = [ROOT_INODE, ROOT_INODE, *NODES, bytes([98]) * 16, bytes([99]) * 16]
WRITERS = [WriterId(bytes([index]) * 8) for index in (1, 2, 3)]


def draw(rng: random.Random) -> tuple[bytes, Body]:
    """Return a node and a record of it."""
    node, clock = rng.choice(NODES), rng.randrange(1, 30)
    dots = tuple(Dot(rng.choice(WRITERS), rng.randrange(1, 30)) for _ in range(rng.randrange(4)))
    parent, name = InodeId(rng.choice(PARENTS)), rng.choice((b"a", b"b.txt", b"c.conflict-one-19700101-000000"))
    strategy = rng.choice((Strategy.KEEP_BOTH, Strategy.KEEP_BOTH, Strategy.LAST_WRITER_WINS))
    content = rng.choice((EMPTY_CONTENT, ContentId(hash_bytes(b"%d" % rng.randrange(5)))))
    kind = rng.choice((Kind.FILE, Kind.FILE, Kind.DIRECTORY, Kind.DIRECTORY, Kind.SYMLINK))
    origin = rng.choice((None, *dots))
    attributes = {key: (rng.randrange(30), rng.randrange(9)) for key in ("mode", "mtime_ns")}
    return node, rng.choices(
        (
            Birth(clock, kind, 0o644, 0, 0, clock, b"", 0, content, clock, strategy, origin),
            LinkBirth(clock, InodeId(node if rng.random() < 0.8 else rng.choice(NODES)), parent, name),
            Content(
                clock,
                content,
                clock,
                clock,
                LinkId(rng.choice(NODES)),
                dots,
                strategy,
                rng.choice((0, clock, clock // 2)),
            ),
            Settled(clock, dots, dots[:1]),
            Overwritten(clock, Dot(rng.choice(WRITERS), clock), content, clock, clock, rng.choice(list(Why))),
            Attributes(clock, attributes),
            Xattrs(clock, {b"user.x": (clock, rng.choice((None, b"1", b"2")))}),
            Place(clock, parent, InodeId(rng.choice(PARENTS))),
            Name(clock, name),
            Deletion(clock, dots, rng.choice(list(Why))),
        ),
        (6, 6, 4, 1, 2, 1, 1, 4, 2, 3),
    )[0]


def transactions(rng: random.Random, writer: WriterId) -> list[Entry]:
    """Return what one writer says in the course of time; sometimes it takes something back."""
    doc: Doc[Any] = Doc()
    doc[ROOT] = found = Map[Any]()
    entries = []
    for sequence in range(1, rng.randrange(2, 9)):
        before = doc.get_state()
        with doc.transaction():
            for _ in range(rng.randrange(1, 8)):
                node, body = draw(rng)
                found[Key.of(body, node).text()] = encode(body, node)
            if rng.random() < 0.3 and (keys := sorted(found.keys())):
                del found[rng.choice(keys)]
        tx = make(writer, sequence, 1, (Part(0, 0, doc.get_update(before)),), lambda data: b"")
        entries.append(Entry(writer, sequence, tx.blob()))
    return entries


def open_pod(folder: Path) -> Metadata:
    folder.mkdir()
    roots = Roots(
        sign=lambda data: b"",
        verify=lambda writer, signature, data: True,
        pod_of_writer=lambda writer: PodId(writer.hex() * 2),
        pod_name_of=lambda writer: "one",
        strategy_for=lambda path: Strategy.KEEP_BOTH,
    )
    return Metadata(folder / "metadata.db", roots, now=lambda: 1.0, has_room=lambda: True)


def everything(pod: Metadata) -> dict[str, Any]:
    """Return all that a pod shows, times of directories apart, and all that it counts."""
    tree = pod.tree
    root = tree.get(ROOT_INODE)
    assert root is not None
    paths: dict[bytes, Any] = {}
    for path, node in tree.walk(root):
        assert path not in paths
        assert tree.resolve(path).inode == node.inode
        own = tree.path(node.inode)
        assert own is not None
        assert tree.resolve(own) is not None
        paths[path] = (*_same(node), sorted(tree.xattrs(node.inode).items()))
    for inode in (*NODES, bytes([99]) * 16):
        tree.path(InodeId(inode))
        tree.children(InodeId(inode))
    naming = pod.view.naming
    memory = {name: set(getattr(pod.view, name)) for name in ("twins", "contested", "kept", "demoted")}
    claims = {representative: dict(one) for representative, one in naming.claims.items()}
    conflicts = tree.conflicts()
    trash = sorted(tree.trash())
    assert tree.trash_bytes() == sum(one.size for one in trash)
    return {"paths": paths, "totals": tree.totals(), "claims": claims, "conflicts": conflicts, "trash": trash, **memory}


def _same(node: Node) -> tuple[Any, ...]:
    times = () if node.is_directory else (node.mtime_ns, node.ctime_ns)
    return (node.inode, node.kind, node.mode, node.size, node.content, node.nlink, set(node.shown), *times)


async def fetch(rng: random.Random, pod: Metadata, heaps: list[list[Entry]]) -> None:
    todo = [list(heap) for heap in heaps]
    while todo := [heap for heap in todo if heap]:
        heap = rng.choice(todo)
        number = rng.choice((1, 1, len(heap)))
        entries = [heap.pop(0) for _ in range(min(number, len(heap)))]
        assert await pod.log.receive(entries, SENDER) == entries, pod.log.incoming._complaints


async def run(seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    heaps = [transactions(rng, writer) for writer in WRITERS[: rng.randrange(1, 4)]]
    pods = [open_pod(folder / "one"), open_pod(folder / "two")]
    await fetch(rng, pods[0], heaps)
    with by_the_rules(pods[1].view):
        await fetch(rng, pods[1], heaps)
    found = [everything(pod) for pod in pods]
    assert found[0] == found[1], "the order of arrival matters, or plain files have rules of their own"
    pods[0].view.reload()
    assert everything(pods[0]) == found[1], "memory differs from the tables"
    pods[0].view.rebuild()
    pods[0].tree._nodes.clear()
    assert everything(pods[0]) == found[1], "the rebuilt view differs"
    for pod in pods:
        pod.close()


@pytest.mark.parametrize("start", range(0, 60, 10))
def test_any_records_make_one_tree(start: int, tmp_path: Path) -> None:
    for seed in range(start, start + 10):
        print("seed", seed)  # noqa: T201 (shown by pytest when it fails)
        (tmp_path / f"{seed}").mkdir()
        anyio.run(run, seed, tmp_path / f"{seed}", backend="trio")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(min_value=10**6, max_value=1 << 60))
def test_any_records_make_one_tree_on_new_seeds(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(run, seed, Path(folder), backend="trio")
