from __future__ import annotations

import contextlib
from random import Random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.ids import PodId, WriterId, hash_bytes
from mesh import log_messages as wire
from mesh.api import Entry
from mesh.broadcast import ALONE_TRIES, MAX_TRIES, MAX_WANTED, Broadcast, Gap
from mesh.log_messages import MalformedError, PushKind
from mesh.pushes import MAX_PUSHES, pushed_entries
from mesh.wire import Tag

A, B, C, D = (PodId(hash_bytes(bytes([number]))[:16].hex()) for number in range(4))
CROWD = [PodId(hash_bytes(bytes([number, 1]))[:16].hex()) for number in range(20)]
W, X = WriterId(b"writer-w"), WriterId(b"writer-x")


def entry(sequence, writer=W, size=10):
    return Entry(writer, sequence, bytes(size))


def broadcast(*links, pods=()):
    one = Broadcast(A, Random(1))
    one.set_members([A, *links, *pods])
    for pod in links:
        one.link_up(pod, 0.0)
    return one


def push(entries, covered=()):
    return msgpack.unpackb(msgpack.packb(wire.encode_push(entries, list(covered))))


def announcement(sequence):
    return msgpack.unpackb(msgpack.packb(wire.encode_announcement({W: sequence})))


def kinds(sends):
    return [(send.pod, send.message[0]) for send in sends]


def test_own_entries_go_to_all_and_say_to_whom():
    sends = broadcast(B, C).publish([entry(1)], 0.0)
    assert {send.pod for send in sends} == {B, C}
    assert all(send.tag is Tag.LOG_PUSH for send in sends)
    assert wire.decode_push(sends[0].message).covered == {A, B, C}
    assert pushed_entries(sends[0].message) == [entry(1)]


def test_a_leaf_passes_nothing_on_but_says_what_it_has():
    one = Broadcast(A, Random(1), leaf=True)
    one.set_members([B, C])
    for pod in (B, C):
        one.link_up(pod, 0.0)
    assert one.received(B, push([entry(1)], [B]), [entry(1)], {W: 1}, 0.0) == []
    told = one.tick({W: 1}, 1.0)
    assert kinds(told) == [(C, PushKind.ANNOUNCE)], "so that who lacks it can ask for it"


def test_entries_are_passed_on_to_those_not_covered():
    one = broadcast(B, C, D)
    sends = one.received(B, push([entry(1)], [B, C]), [entry(1)], {W: 1}, 0.0)
    assert kinds(sends) == [(D, PushKind.ENTRIES)]


def test_all_who_have_not_said_so_are_told_a_little_later():
    one = broadcast(B, C, D)
    one.received(B, push([entry(1)], [B, C]), [entry(1)], {W: 1}, 0.0)
    one.received(C, announcement(1), [], {W: 1}, 0.0)
    assert kinds(one.tick({W: 1}, 0.25)) == [(D, PushKind.ANNOUNCE)]
    assert one.tick({W: 1}, 1.0) == []


def test_what_is_announced_but_does_not_come_is_asked_for_and_grafts():
    one = broadcast(B, C)
    one.received(C, [PushKind.PRUNE], [], {}, 0.0)
    assert one.eager_links() == {B}
    one.received(C, announcement(3), [], {W: 1}, 1.0)
    assert one.tick({W: 1}, 1.1) == []
    assert one.due() == pytest.approx(1.15)
    graft, want = one.tick({W: 1}, 1.16)
    assert kinds([graft, want]) == [(C, PushKind.GRAFT), (C, PushKind.WANT)]
    assert wire.decode_push(want.message).marks == {W: 1}
    assert one.eager_links() == {B, C}


def test_an_eager_link_is_asked_first_and_without_a_change_of_the_tree():
    one = broadcast(B, C, pods=CROWD)
    one.received(C, [PushKind.PRUNE], [], {}, 0.0)
    one.received(C, announcement(1), [], {}, 1.0)
    one.received(B, announcement(1), [], {}, 1.02)
    assert kinds(one.tick({}, 1.06)) == [(B, PushKind.WANT)]
    assert one.eager_links() == {B}
    sends = one.received(B, push([entry(1)]), [entry(1)], {W: 1}, 1.1)
    assert sends == []
    one.received(B, push([entry(1)]), [], {W: 1}, 1.2)
    assert one.eager_links() == {B}, "it came twice because it was asked for"


def test_one_announcer_after_another_is_asked_then_two_at_a_time_and_then_anti_entropy():
    one = broadcast(B, C)
    for pod in (B, C):
        one.received(pod, announcement(3), [], {}, 0.0)
    asked = [send.pod for tenth in range(30) for send in one.tick({}, tenth / 10) if send.message[0] == PushKind.WANT]
    assert asked == [B, C] + [B, C] * (MAX_TRIES - ALONE_TRIES)
    assert one.gaps() == [Gap(B, W, 3), Gap(C, W, 3)]
    assert one.due() is None


def test_what_is_much_is_left_to_anti_entropy():
    one = broadcast(B)
    one.received(B, announcement(MAX_WANTED + 1), [], {}, 0.0)
    assert one.tick({}, 0.2) == []
    assert one.gaps() == [Gap(B, W, MAX_WANTED + 1)]


def test_what_is_asked_for_is_pushed_to_who_asked_only():
    one = broadcast(B, C)
    one.received(B, msgpack.unpackb(msgpack.packb(wire.encode_want({W: 1, X: 0}))), [], {W: 2}, 0.0)
    (wanted,) = one.wanted()
    assert wanted == (B, W, 1)
    assert one.wanted() == []
    (send,) = one.resend(wanted, [entry(2)])
    assert (send.pod, pushed_entries(send.message)) == (B, [entry(2)])


def test_what_comes_in_time_is_no_gap_even_in_a_steady_stream():
    one = broadcast(B, C)
    have = 0
    for step in range(100):
        one.received(C, announcement(step + 2), [], {W: have}, step / 10)
        have = step + 1
        one.tick({W: have}, step / 10)
    assert one.gaps() == []


def test_what_an_entry_follows_is_asked_for_soon():
    one = broadcast(B)
    one.received(B, push([entry(5)]), [], {W: 3}, 0.0)
    assert kinds(one.tick({W: 3}, 0.05)) == [(B, PushKind.WANT)]


def test_duplicates_prune_among_many_but_not_among_few():
    for pods, expected in (((), []), (CROWD, [(C, PushKind.PRUNE)])):
        one = broadcast(B, C, pods=pods)
        one.received(B, push([entry(1)], [A, B, C]), [entry(1)], {W: 1}, 0.0)
        assert kinds(one.received(C, push([entry(1)]), [], {W: 1}, 0.0)) == expected
        assert (C in one.eager_links()) is not bool(expected)


def test_a_graft_and_a_first_delivery_make_a_link_eager():
    one = broadcast(B, C, pods=CROWD)
    for pod in (B, C):
        one.received(pod, [PushKind.PRUNE], [], {}, 0.0)
    one.received(B, [PushKind.GRAFT], [], {}, 0.0)
    one.received(C, push([entry(1)], [A, B, C]), [entry(1)], {W: 1}, 0.0)
    assert one.eager_links() == {B, C}


def test_what_anti_entropy_brought_is_announced_not_pushed():
    one = broadcast(B, C)
    assert kinds(one.caught_up(B, [entry(1), entry(2)], 0.0)) == [(C, PushKind.ANNOUNCE)]


def test_pushes_are_bounded_and_never_leave_a_hole():
    one = broadcast(B)
    sends = one.publish([entry(number, size=200_000) for number in range(1, 40)], 0.0)
    assert len(sends) == MAX_PUSHES
    sends = one.publish([entry(1, X), entry(2, X, 2_000_000), entry(3, X)], 0.0)
    assert [pushed.sequence for send in sends for pushed in pushed_entries(send.message)] == [1]
    marks = [wire.decode_push(send.message).marks for send in one.tick({}, 1.0)]
    assert marks == [{W: 39, X: 3}]


def test_nothing_is_sent_to_who_said_he_has_it():
    one = broadcast(B, C)
    one.received(B, announcement(1), [], {W: 0}, 0.0)
    assert kinds(one.received(C, push([entry(1)], [C]), [entry(1)], {W: 1}, 0.0)) == []


def test_a_lost_link_takes_its_announcements_with_it():
    one = broadcast(B)
    one.received(B, announcement(1), [], {}, 0.0)
    one.link_down(B, 0.1)
    assert one.tick({}, 1.0) == []
    assert one.gaps() == []
    assert one.received(B, push([entry(1)]), [entry(1)], {W: 1}, 1.0) == []


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        [0],
        [5, [[W, -1]]],
        [1, [[W, 0, b""]], b""],
        [1, [[b"short", 1, b""]], b""],
        [1, [], b"x"],
        [2, [[W, 2**53]]],
        [1, [], 5],
    ],
)
def test_malformed_messages_are_ignored_with_a_complaint(message):
    one = broadcast(B)
    assert pushed_entries(message) == []
    assert one.received(B, message, [], {}, 0.0) == []
    assert len(one.complaints()) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=16) | st.just(b"8 bytes!"),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=15,
)


@given(st.lists(VALUES, max_size=5))
def test_decoding_anything_raises_nothing_else(message):
    for decode in (wire.decode_push, wire.decode_vector, wire.decode_since, lambda it: wire.decode_page(it, W, 0)):
        with contextlib.suppress(MalformedError):
            decode(message)


def test_kinds_and_fields_of_newer_versions_are_skipped():
    one = broadcast(B)
    assert one.received(B, [99, {"new": 1}], [], {}, 0.0) == []
    assert pushed_entries([*push([entry(1)]), "more"]) == [entry(1)]
    assert one.complaints() == []
