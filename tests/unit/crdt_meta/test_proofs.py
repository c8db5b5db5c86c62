"""What a log that leaves out something must prove, and hostile ones can't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from base.ids import InodeId
from crdt_meta.transaction import _CONTEXT, Part, header_of, make
from mesh.api import Entry
from tests.unit.crdt_meta.pods import Pod
from tests.unit.crdt_meta.town import (
    mentions,
)


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
