from __future__ import annotations

from random import Random

import msgpack
import pytest

from base.errors import UsageError
from base.ids import PodId, hash_bytes
from mesh import gossip_messages as wire
from mesh.api import State
from mesh.gossip_messages import Accusation, Flag, Kind, Known, Record
from mesh.membership import MAX_COMPLAINTS, Membership, MembershipSettings
from mesh.wire import Tag

A, B, C, D = (PodId(hash_bytes(bytes([number]))[:16].hex()) for number in range(4))
SETTINGS = MembershipSettings(absent_after_s=10.0)


def membership(*, incarnation=100):
    one = Membership(A, SETTINGS, Random(1), incarnation, "a:1")
    one.set_members([A, B, C, D], 0.0)
    one.changes()
    return one


def gossip(*updates):
    return [Kind.GOSSIP, [wire.encode_update(update) for update in updates]]


def record(pod, incarnation=1, version=1, flags=Flag.NONE, links=(), meta=b"\x80"):
    return Record(pod, incarnation, version, flags, f"{pod[:4]}:1", meta, links)


def told(sends, pod):
    return [update for send in sends if send.pod == pod for update in wire.decode(send.message).updates]


def test_who_was_never_heard_of_is_suspect_then_absent():
    one = membership()
    assert one.view(B).state is State.SUSPECT
    assert one.view(B).incarnation == -1
    one.tick(9.9)
    assert one.view(B).state is State.SUSPECT
    one.tick(10.0)
    assert one.view(B).state is State.ABSENT
    assert B in one.changes()
    assert one.changes() == set()


def test_how_long_one_waits_can_be_changed_in_between():
    one = membership()
    one.set_absent_after(3.0, 1.0)
    one.tick(2.9)
    assert one.view(B).state is State.SUSPECT
    one.tick(3.0)
    assert one.view(B).state is State.ABSENT
    one.changes()
    one.set_absent_after(20.0, 4.0)
    assert one.view(B).state is State.SUSPECT, "it is not absent yet, then"
    assert B in one.changes()
    one.tick(19.9)
    assert one.view(B).state is State.SUSPECT
    one.tick(20.0)
    assert one.view(B).state is State.ABSENT
    one.set_absent_after(15.0, 21.0)
    assert one.view(B).state is State.ABSENT


def test_a_record_makes_alive_and_shows_what_it_says():
    one = membership()
    one.receive(B, gossip(record(B, meta=msgpack.packb({"x": 1}))), 1.0)
    view = one.view(B)
    assert (view.state, view.meta, view.address, view.last_seen) == (State.ALIVE, {"x": 1}, f"{B[:4]}:1", 1.0)
    assert one.changes() == {B}


def test_older_records_are_ignored():
    one = membership()
    one.receive(C, gossip(record(B, 5, 5)), 1.0)
    one.receive(C, gossip(record(B, 5, 4, Flag.LEFT), record(B, 4, 9, Flag.LEFT)), 1.0)
    assert one.view(B).state is State.ALIVE


def test_an_accusation_needs_the_incarnation_and_ends_with_a_higher_one():
    one = membership()
    one.receive(C, gossip(record(B, 5)), 1.0)
    one.receive(C, gossip(Accusation(B, 4, C, 0.0)), 1.0)
    assert one.view(B).state is State.ALIVE
    one.receive(C, gossip(Accusation(B, 5, C, 0.0)), 1.0)
    assert one.view(B).state is State.SUSPECT
    one.receive(C, gossip(record(B, 5, 9)), 1.0)
    assert one.view(B).state is State.SUSPECT, "the same incarnation is no refutation"
    one.receive(C, gossip(record(B, 6)), 1.0)
    assert one.view(B).state is State.ALIVE


def test_an_accusation_heard_again_changes_nothing():
    one = membership()
    for pod in (B, C):
        one.link_up(pod, 0.0)
        one.receive(pod, gossip(record(pod), record(D, 5)), 0.0)
    one.receive(B, gossip(Accusation(D, 5, B, 0.0)), 1.0)
    one.changes()
    for sender in (B, C):
        assert one.receive(sender, gossip(Accusation(D, 5, B, 0.0)), 1.01) == []
    assert one.changes() == set()
    assert one.receive(C, gossip(Accusation(D, 5, B, 0.9)), 1.02) == []
    assert (one.changes(), one.view(D).unreachable_since) == ({D}, pytest.approx(0.12)), "it began earlier"
    one.receive(C, gossip(Accusation(D, 5, C, 0.0)), 1.03)
    assert one.changes() == {D}, "another accuser"


def test_an_old_accusation_is_absence_at_once():
    one = membership()
    one.receive(C, gossip(record(B, 5), Accusation(B, 5, C, 3600.0)), 4000.0)
    assert one.view(B).state is State.ABSENT


def test_an_accusation_of_this_pod_is_refuted_to_the_accuser():
    one = membership(incarnation=100)
    one.link_up(B, 0.0)
    answer = one.receive(B, [Kind.PING, 7, [wire.encode_update(Accusation(A, 100, B, 0.0))]], 1.0)
    assert next(update.incarnation for update in told(answer, B) if update.pod == A) == 101
    again = one.receive(B, [Kind.PING, 8, [wire.encode_update(Accusation(A, 100, B, 0.0))]], 2.0)
    assert next(update.incarnation for update in told(again, B) if update.pod == A) == 101, "known, but told again"


def test_a_pod_told_of_a_later_life_goes_above_it():
    one = membership(incarnation=100)
    one.link_up(B, 0.0)
    one.receive(B, gossip(record(A, 5000, 3, Flag.DOWN)), 1.0)
    assert one.view(A).incarnation == 5001
    assert one.view(A).state is State.ALIVE
    one.receive(B, [Kind.DIGEST, [wire.encode_known(Known(A, 9000, 1, None))]], 1.0)
    assert one.view(A).incarnation == 9001


def test_hearsay_about_a_pod_that_just_answered_goes_to_that_pod():
    one = membership()
    one.link_up(B, 0.0)
    one.receive(B, gossip(record(B, 5)), 0.0)
    nonce = next(send.message[1] for send in one.tick(0.1) if send.pod == B and send.message[0] == Kind.PING)
    one.receive(B, [Kind.ACK, nonce, []], 0.12)
    assert one.view(B).latency_ms == pytest.approx(20.0)
    accusation = Accusation(B, 5, C, 1.0)
    assert told(one.receive(C, gossip(accusation), 0.2), B) == [accusation]
    assert one.view(B).state is State.ALIVE
    assert one.receive(C, gossip(accusation), 0.3) == [], "not over and over"
    one.receive(C, gossip(accusation), 5.0)
    assert one.view(B).state is State.SUSPECT, "that was long ago"


@pytest.mark.parametrize(
    ("flags", "state", "announced"),
    [
        (Flag.DOWN, State.ABSENT, True),
        (Flag.MAINTENANCE, State.MAINTENANCE, False),
        (Flag.MAINTENANCE | Flag.DOWN, State.MAINTENANCE, True),
        (Flag.LEFT | Flag.MAINTENANCE, State.LEFT, True),
    ],
)
def test_what_pods_announce_is_shown(flags, state, announced):
    one = membership()
    one.receive(B, gossip(record(B, 5, 2, flags)), 1.0)
    assert (one.view(B).state, one.view(B).announced) == (state, announced)
    one.receive(C, gossip(Accusation(B, 5, C, 0.0)), 1.0)
    assert (one.view(B).state, one.view(B).announced) == (state, announced)
    one.receive(B, gossip(record(B, 6, 1)), 2.0)
    assert (one.view(B).state, one.view(B).announced) == (State.ALIVE, False)


def test_announcements_go_to_every_link_at_once():
    one = membership()
    one.link_up(B, 0.0)
    one.link_up(C, 0.0)
    for sends, flag in (
        (one.announce_maintenance(True, 1.0), Flag.MAINTENANCE),
        (one.announce_down(1.0), Flag.MAINTENANCE | Flag.DOWN),
    ):
        assert {send.pod: told(sends, send.pod)[0].flags for send in sends} == {B: flag, C: flag}
    assert one.view(A).state is State.MAINTENANCE
    one.receive(B, gossip(Accusation(A, 100, B, 0.0)), 2.0)
    assert one.view(A).incarnation == 100, "who says that it is down refutes nothing"


def test_a_broken_link_has_others_asked_at_once_and_the_pod_suspected():
    one = membership()
    for pod in (B, C, D):
        one.link_up(pod, 0.0)
        one.receive(pod, gossip(record(pod, 5, flags=Flag.LINKED_TO_ALL)), 0.0)
    asked = one.link_down(B, 1.0)
    assert sorted(send.pod for send in asked) == sorted([C, D])
    assert all(send.message[0] == Kind.REQUEST and send.tag is Tag.GOSSIP for send in asked)
    assert one.view(B).state is State.ALIVE
    one.tick(1.6)
    assert one.view(B).state is State.SUSPECT


def test_a_broken_link_with_a_path_left_is_for_others_to_judge():
    one = membership()
    for pod, links in ((B, (A,)), (C, (A, D)), (D, (A, C, B))):
        one.receive(pod, gossip(record(pod, 5, links=links)), 0.0)
    one.link_up(B, 0.0)
    one.link_up(C, 0.0)
    assert one.link_down(B, 1.0) == []
    for step in range(9):
        one.tick(1.0 + step / 10)
    assert one.view(B).state is State.ALIVE


def test_the_digest_brings_both_sides_what_they_lack():
    one, other = membership(), Membership(B, SETTINGS, Random(2), 7, "b:1")
    other.set_members([A, B, C, D], 0.0)
    one.receive(C, gossip(record(C, 5)), 0.0)
    other.receive(D, gossip(record(D, 6), Accusation(D, 6, B, 0.0)), 0.0)
    queue = [(A, send) for send in one.link_up(B, 1.0)] + [(B, send) for send in other.link_up(A, 1.0)]
    while queue:
        sender, send = queue.pop(0)
        target = one if send.pod == A else other
        message = msgpack.unpackb(msgpack.packb(send.message))
        queue += [(send.pod, answer) for answer in target.receive(sender, message, 1.0)]
    assert [one.view(pod).incarnation for pod in (B, C, D)] == [7, 5, 6]
    assert [other.view(pod).incarnation for pod in (A, C, D)] == [100, 5, 6]
    assert one.view(D).state is other.view(D).state is State.SUSPECT


def test_an_answer_to_a_digest_or_want_names_nobody_twice():
    one = membership()
    entry = wire.encode_known(Known(A, -1, 0, None))
    (answer,) = one.receive(B, [Kind.DIGEST, [entry] * 500], 1.0)
    assert len(wire.decode(answer.message).updates) == 1
    (answer,) = one.receive(B, [Kind.WANT, [wire.pod_bytes(A)] * 500], 1.0)
    assert len(wire.decode(answer.message).updates) == 1


def test_malformed_messages_are_complained_about_within_bounds():
    one = membership()
    for _ in range(100):
        assert one.receive(B, ["garbage"], 1.0) == []
    complaints = one.complaints()
    assert len(complaints) == MAX_COMPLAINTS
    assert B in complaints[0]
    assert one.complaints() == []


def test_pods_that_are_no_members_are_not_remembered():
    one = Membership(A, SETTINGS, Random(1), 1)
    one.set_members([A, B], 0.0)
    one.receive(B, gossip(record(C, 5), Accusation(D, 1, B, 0.0)), 1.0)
    assert one.view(C).incarnation == -1
    one.set_members([A], 2.0)
    assert one.changes() >= {B}
    assert one.view(B).incarnation == -1


def test_published_values_and_addresses_are_bounded():
    one = membership()
    with pytest.raises(UsageError):
        one.set_meta({"x": "y" * 1100})
    with pytest.raises(UsageError):
        one.set_meta({"x": object()})
    with pytest.raises(UsageError):
        one.set_address("x" * 400)
    one.set_meta({"bytes_used": 17})
    assert one.view(A).meta == {"bytes_used": 17}
