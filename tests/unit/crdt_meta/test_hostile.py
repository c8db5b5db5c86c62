"""Transactions that no honest pod sends: refused or carried along; nothing raises, the others converge."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import pytest
from pycrdt import Doc, Map

from base.ids import ROOT_INODE, InodeId, LinkId, WriterId
from crdt_meta.codec import encode
from crdt_meta.hlc import MAX_CLOCK
from crdt_meta.node import Kind
from crdt_meta.records import Attributes, Birth, Key, LinkBirth, Place
from crdt_meta.segments import ROOT
from crdt_meta.transaction import BLOB_LIMIT_BYTES, Part, make
from mesh.api import Entry
from tests.unit.crdt_meta.pods import Pod, exchange

NODE = bytes(range(16))


def update(values: dict[str, Any]) -> bytes:
    """Return a Yjs update that writes these values."""
    doc: Doc[Any] = Doc()
    doc[ROOT] = found = Map[Any]()
    with doc.transaction():
        for key, value in values.items():
            found[key] = value
    return doc.get_update()


def entry(pod: Pod, values: dict[str, Any], *, clock: int = 1, sequence: int = 1, segment: int = 0) -> Entry:
    """Return a transaction signed by a pod with any values in it."""
    return raw_entry(pod, update(values), clock=clock, sequence=sequence, segment=segment)


def raw_entry(pod: Pod, data: bytes, *, clock: int = 1, sequence: int = 1, segment: int = 0) -> Entry:
    tx = make(pod.writer, sequence, clock, (Part(segment, 0, data),), pod.key.sign)
    return Entry(pod.writer, sequence, tx.blob())


def key(kind: str, node: bytes = NODE, clock: int = 0) -> str:
    return Key(kind, node, clock).text()


def packed(*fields: Any) -> bytes:
    value: bytes = msgpack.packb(list(fields))
    return value


def still_works(*pods: Pod) -> None:
    """Whatever came: pods take part, agree, agree with a view made anew, and open again."""
    pods[0].save("/after.txt", "after")
    exchange(*pods)
    for pod in pods:
        assert "/after.txt" in pod.files()
        before = pod.shape()
        pod.meta.view.rebuild()
        pod.tree._nodes.clear()
        rebuilt = pod.shape()
        assert [(path, node.inode) for path, node in rebuilt] == [(path, node.inode) for path, node in before]
        totals = pod.tree.totals()
        pod.close()
        assert pod.mesh.pod(pod.name).tree.totals() == totals


def test_truncated_and_mutated_transactions_are_refused(ann: Pod, bob: Pod) -> None:
    ann.save("/a", "a")
    (told,) = ann.tell()
    rng = random.Random(1)
    hostile = [told.blob[:length] for length in range(0, len(told.blob), 7)]
    for _ in range(300):
        blob = bytearray(told.blob)
        blob[rng.randrange(len(blob))] ^= 1 << rng.randrange(8)
        hostile.append(bytes(blob))
    for one in hostile:
        assert bob.hear([Entry(told.writer, 1, one)]) == []
    assert bob.ls() == []
    assert bob.hear([told]) == [told]
    still_works(ann, bob)


def test_a_transaction_of_somebody_else_is_refused(ann: Pod, bob: Pod, eve: Pod) -> None:
    ann.save("/a", "a")
    (told,) = ann.tell()
    forged = make(ann.writer, 1, 1, (Part(0, 0, update({})),), eve.key.sign)
    unknown = make(WriterId(b"unknown!"), 1, 1, (Part(0, 0, update({})),), eve.key.sign)
    for hostile in (
        Entry(ann.writer, 1, forged.blob()),
        Entry(unknown.header.writer, 1, unknown.blob()),
        Entry(eve.writer, 1, told.blob),
        Entry(ann.writer, 2, told.blob),
        Entry(bob.writer, bob.log.table.received[bob.writer] + 1, told.blob),
    ):
        assert bob.hear([hostile]) == []
    still_works(ann, bob)


def test_another_transaction_of_a_sequence_that_is_here_is_ignored(ann: Pod, bob: Pod, eve: Pod) -> None:
    eve.save("/e", "e")
    told = eve.tell()
    bob.hear(told)
    assert bob.hear([entry(eve, {key("l"): b"squatted"})]) == []
    ann.hear(told)
    still_works(bob, ann)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\xff" * 50, bytes(range(256)), b"\1\1\1\0\4\1\1a" * 3], ids=["0", "1", "2", "3", "4"]
)
def test_updates_that_yjs_refuses_leave_everything_as_it_was(ann: Pod, bob: Pod, eve: Pod, data: bytes) -> None:
    for pod in (ann, bob):
        pod.hear([raw_entry(eve, data)])
    still_works(ann, bob)


GOOD = 1_800_000_000_000 << 16
BIRTH = [1, GOOD, 1, 0o644, 0, 0, 0]
LINK = [1, GOOD, None, ROOT_INODE, b"eve.txt"]
BAD_VALUES: list[tuple[str, Any]] = [
    ("i", b""),
    ("i", b"\xc1"),
    ("i", b"\x9f" * 5000),
    ("i", packed()),
    ("i", packed(1)),
    ("i", packed(1, GOOD)),
    ("i", packed(1, "now", 1, 0, 0, 0, 0)),
    ("i", packed(1, -1, 1, 0, 0, 0, 0)),
    ("i", packed(1, GOOD, 99, 0, 0, 0, 0)),
    ("i", packed(1, GOOD, 1, 1 << 40, 0, 0, 0)),
    ("i", packed(1, GOOD, 1, 0o644, -1, 0, 0)),
    ("i", packed(1, GOOD, 1, 0o644, 0, 0, 1 << 63)),
    ("i", packed(1, GOOD, 1, 0o644, 0, 0, 0, b"x" * 5000)),
    ("i", packed(1, GOOD, 1, 0o644, 0, 0, 0, None, 0, b"short")),
    ("i", packed(2, GOOD, {"newer": True})),
    ("i", 5),
    ("i", "text"),
    ("i", None),
    ("a", packed(1, GOOD, [])),
    ("a", packed(1, GOOD, {"m": 5})),
    ("a", packed(1, GOOD, {"m": [GOOD, -1]})),
    ("a", packed(1, GOOD, {"u": [GOOD, 1 << 40]})),
    ("a", packed(1, GOOD, {"future": [GOOD, 1]})),
    ("x", packed(1, GOOD, {5: [GOOD, b""]})),
    ("x", packed(1, GOOD, {b"user.big": [GOOD, b"x" * 70000]})),
    ("x", packed(1, GOOD, 5)),
    ("s", packed(1, GOOD, [[b"writer", 1]])),
    ("s", packed(1, GOOD, [[b"writer!!", -1]])),
    ("d", packed(1, GOOD, 7)),
    ("l", packed(1, GOOD, None, ROOT_INODE, b"a/b")),
    ("l", packed(1, GOOD, None, ROOT_INODE, b"..")),
    ("l", packed(1, GOOD, None, ROOT_INODE, b"")),
    ("l", packed(1, GOOD, None, b"short", b"name")),
    ("p", packed(1, GOOD, b"short", None)),
    ("n", packed(1, GOOD, "text")),
    ("n", packed(1, GOOD, b"x" * 256)),
    ("z", packed(1, GOOD, b"a kind of the future")),
    ("l", b"\xc4" + b"x" * (1 << 20)),
]


@pytest.mark.parametrize(("kind", "value"), BAD_VALUES)
def test_bad_values_are_carried_and_ignored(ann: Pod, bob: Pod, eve: Pod, kind: str, value: Any) -> None:
    """Beside a good file whose record of this kind is the bad one."""
    values: dict[str, Any] = {key("i"): packed(*BIRTH), key("l"): packed(*LINK)}
    values[key(kind)] = value
    hostile = entry(eve, values)
    assert bob.hear([hostile]) == [hostile]
    assert bob.log.read(eve.writer, 0, 1 << 30) == [hostile]
    assert ("eve.txt" in bob.ls()) == (kind not in "il")
    ann.hear([hostile])
    still_works(ann, bob)


def test_content_records_with_nonsense_are_ignored(ann: Pod, bob: Pod, eve: Pod) -> None:
    good = packed(1, 7, b"c" * 32, 1, 1, None, [], 0)
    assert bob.hear([entry(eve, {key("i"): packed(*BIRTH), key("l"): packed(*LINK), key("c", clock=7): good})])
    values = {
        key("c", clock=8): packed(1, 7, b"c" * 32, 1, 1, None, [], 0),
        key("c", clock=9): packed(1, 9, b"c", 1, 1, None, [], 0),
        key("c", clock=10): packed(1, 10, b"c" * 32, -1, 1, None, [], 0),
        key("c", clock=11): packed(1, 11, b"c" * 32, 1, 1, None, [[b"x" * 8, 1]] * 40_000, 0),
        key("c", clock=12): packed(1, 12, b"c" * 32, 1, 1, None, [], 9),
        "not a key at all": b"x",
        "": b"x",
        "i!!!!": b"x",
        "l" * 2000: b"x",
    }
    assert len(bob.hear([entry(eve, values, sequence=2, segment=1)])) == 1
    assert len(bob.at("/eve.txt").shown) == 1
    ann.hear(bob.log.read(eve.writer, 0, 1 << 30))
    still_works(ann, bob)


def test_a_record_of_a_newer_version_disturbs_nothing_and_reaches_everybody(ann: Pod, bob: Pod, eve: Pod) -> None:
    told = [entry(eve, {key("i"): packed(9, "whatever"), key("q"): b"?", key("l"): packed(*LINK)})]
    told.append(entry(eve, {key("i"): packed(*BIRTH)}, sequence=2, segment=1))
    bob.hear(told)
    assert bob.ls() == ["eve.txt"]
    ann.hear(bob.log.read(eve.writer, 0, 1 << 30))
    assert ann.ls() == ["eve.txt"]
    still_works(ann, bob)


def test_a_transaction_of_a_newer_version_is_refused(ann: Pod, bob: Pod, eve: Pod) -> None:
    header = msgpack.packb([2, eve.writer, 1, 1, []])
    blob: bytes = msgpack.packb([header, eve.key.sign(b"wormhole transaction\0" + header), []])
    assert bob.hear([Entry(eve.writer, 1, blob)]) == []
    still_works(ann, bob)


@pytest.mark.parametrize("clock", [MAX_CLOCK, MAX_CLOCK - 1, 1 << 62])
def test_an_absurd_clock_harms_nobody_else(ann: Pod, bob: Pod, eve: Pod, clock: int) -> None:
    birth = Birth(clock, Kind.FILE, 0o644, 1, 1, 1, size=MAX_CLOCK)
    link = LinkBirth(clock, InodeId(NODE), ROOT_INODE, b"after.txt")
    values = {key("i"): encode(birth, NODE), key("l"): encode(link, NODE)}
    other = {key("i", b"o" * 16): encode(birth, b"o" * 16), key("l", b"o" * 16): encode(link, b"o" * 16)}
    hostile = entry(eve, values | other, clock=clock)
    for pod in (ann, bob):
        assert pod.hear([hostile]) == [hostile]
    assert len(ann.ls()) == 1
    ann.rename("/after.txt", "/moved")
    ann.unlink("/moved") if "moved" in ann.ls() else None
    still_works(ann, bob)
    assert ann.name == "ann"


def test_a_key_with_a_clock_that_no_file_can_hold_is_no_key(ann: Pod, bob: Pod, eve: Pod) -> None:
    bob.save("/mine", "waits to be written together with it")
    assert bob.hear([entry(eve, {key("c", clock=MAX_CLOCK + 1): b"whatever", key("c", clock=1 << 63): b"more"})])
    assert set(bob.files()) == {"/mine"}
    still_works(ann, bob, eve)


@pytest.mark.parametrize("how", ["in two segments", "as somebody who adopted from itself"])
def test_a_key_that_comes_twice_shows_the_same_however_it_comes(ann: Pod, bob: Pod, eve: Pod, how: str) -> None:
    clock = eve.meta.clock.tick()
    birth, link = Birth(clock, Kind.FILE, 0o644, 1, 1, 1), LinkBirth(clock, InodeId(NODE), ROOT_INODE, b"file")
    first, second = (Attributes(clock + one, {"mode": (clock + one, mode)}) for one, mode in ((1, 0o777), (0, 0o600)))
    values = {Key.of(body, NODE).text(): encode(body, NODE) for body in (birth, link, first)}
    again = Key.of(second, NODE)
    if how == "in two segments":
        parts = [update(values), update({again.text(): encode(second, NODE)})]
    else:
        parts = [update({**values, again._replace(author=eve.writer).text(): encode(second, NODE)})]
    tx = make(eve.writer, 1, clock, [Part(number, 0, data) for number, data in enumerate(parts)], eve.key.sign)
    for pod in (ann, bob):
        assert pod.hear([Entry(eve.writer, 1, tx.blob())])
        mode = pod.at("/file").mode
        pod.meta.view.rebuild()
        pod.tree._nodes.clear()
        assert pod.at("/file").mode == mode


def test_a_blob_beyond_the_limit_is_refused(ann: Pod, bob: Pod, eve: Pod) -> None:
    hostile = raw_entry(eve, update({"x" + "y" * 30: b"x" * BLOB_LIMIT_BYTES}))
    assert bob.hear([hostile]) == []
    still_works(ann, bob)


def test_places_that_make_no_tree_end_at_the_root(ann: Pod, bob: Pod, eve: Pod) -> None:
    """Also where broken clocks make births later than the moves that close the circle: nothing is out of reach."""
    ids = [bytes([index]) * 16 for index in range(1, 5)]
    values: dict[str, Any] = {}
    for index, node in enumerate(ids):
        parent = InodeId(ids[(index + 1) % len(ids)])
        values[key("i", node)] = encode(Birth(GOOD + index, Kind.DIRECTORY, 0o755, 0, 0, 0), node)
        values[key("l", node)] = encode(LinkBirth(GOOD + index, InodeId(node), parent, b"d"), node)
    values[key("p", ids[0])] = encode(Place(GOOD + 9, InodeId(ids[0]), InodeId(ids[0])), ids[0])
    values[key("l", ROOT_INODE)] = encode(LinkBirth(GOOD, ROOT_INODE, InodeId(ids[2]), b"root"), ROOT_INODE)
    values[key("i", ROOT_INODE)] = encode(Birth(GOOD, Kind.FILE, 0, 0, 0, 0), ROOT_INODE)
    second = b"h" * 16
    values[key("l", second)] = encode(LinkBirth(GOOD, InodeId(ids[3]), ROOT_INODE, b"second"), second)
    for pod in (ann, bob):
        assert len(pod.hear([entry(eve, values)])) == 1
    assert [path for path, _ in ann.walk()] == [b"/", b"/d", b"/d/d", b"/d/d/d", b"/d/d/d/d"]
    still_works(ann, bob)


def test_a_link_that_is_pointed_elsewhere_leaves_the_first_file(ann: Pod, bob: Pod, eve: Pod) -> None:
    one, two = b"1" * 16, b"2" * 16
    births = {key("i", node): encode(Birth(GOOD, Kind.FILE, 0o644, 0, 0, 0), node) for node in (one, two)}
    link = LinkId(b"L" * 16)
    first = {key("l", link): encode(LinkBirth(GOOD, InodeId(one), ROOT_INODE, b"name"), link)}
    doc: Doc[Any] = Doc()
    doc[ROOT] = found = Map[Any]()
    entries = []
    second = {key("l", link): encode(LinkBirth(GOOD, InodeId(two), ROOT_INODE, b"name"), link)}
    steps: list[dict[str, bytes | None]] = [{**births, **first}, {**second}, {key("l", link): None}]
    for sequence, values in enumerate(steps, start=1):
        before = doc.get_state()
        with doc.transaction():
            for text, value in values.items():
                if value is None:
                    del found[text]
                else:
                    found[text] = value
        entries.append(raw_entry(eve, doc.get_update(before), sequence=sequence))
    ann.hear(entries[:1])
    assert ann.at("/name").inode == one
    ann.hear(entries[1:2])
    assert ann.at("/name").inode == two
    assert ann.tree.get(InodeId(one)) is None
    ann.hear(entries[2:])
    assert ann.ls() == []
    assert ann.tree.totals().files == 0
    bob.hear(entries)
    still_works(ann, bob)
