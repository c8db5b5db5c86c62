from __future__ import annotations

import contextlib
import itertools
import math
from random import Random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.ids import PodId, hash_bytes
from mesh import gossip_messages as wire
from mesh.awareness import Awareness
from mesh.gossip import Gossip, pages
from mesh.gossip_messages import Accusation, Flag, Kind, Known, MalformedError, Record
from mesh.gossip_queue import GossipQueue
from mesh.probes import Acked, Order, Prober
from mesh.reachability import unreachable
from mesh.summary import Comparisons, Summary, bucket_of, by_bucket
from mesh.suspicion import Suspicion

A, B, C, D, E = (PodId(hash_bytes(bytes([number]))[:16].hex()) for number in range(5))
RECORD = Record(A, 5, 2, Flag.MAINTENANCE, "10.0.0.1:7000", b"\x81\xa1x\x01", (B, C))
D_RECORD = RECORD._replace(pod=D)
ACCUSATION = Accusation(B, 7, A, 1.5)


def test_awareness_stays_within_its_bounds_and_scales_timeouts():
    awareness = Awareness(3)
    awareness.add(-1)
    assert awareness.scale(0.5) == 0.5
    awareness.add(9)
    assert (awareness.score, awareness.scale(0.5)) == (2, 1.5)


def test_suspicion_shortens_with_confirmations_and_expires_once():
    suspicion = Suspicion(1, A, 100.0, min_s=10.0, max_s=20.0, needed=2)
    assert suspicion.deadline() == 120.0
    assert not suspicion.accuse(1, A, 0.0, 101.0), "the same accuser is no confirmation"
    assert suspicion.accuse(1, B, 0.0, 101.0)
    assert suspicion.deadline() == pytest.approx(100 + 20 - 10 * math.log(2) / math.log(3))
    assert suspicion.accuse(1, C, 0.0, 101.0)
    assert suspicion.deadline() == 110.0
    assert not suspicion.accuse(1, D, 0.0, 101.0), "enough is known"
    assert [suspicion.check(now) for now in (109.9, 110.0, 111.0)] == [False, True, False]


def test_suspicion_starts_when_the_first_accuser_began():
    suspicion = Suspicion(1, A, 100.0, min_s=10.0, max_s=10.0, needed=0)
    suspicion.accuse(1, B, 30.0, 105.0)
    assert suspicion.check(105.0)


def queue(*pods, limit=10):
    one = GossipQueue(limit)
    for pod in pods:
        one.link_up(pod)
    return one


def test_queue_tells_each_update_once_to_each_but_who_knows_it():
    one = queue(A, B, C)
    one.put("x", ["x"], 5, (A,), 0.0)
    assert one.take(A, 100, 0.0) == [], "A told us"
    one.heard("x", C)
    assert one.take(C, 100, 0.0) == [], "C told us, too"
    assert one.take(B, 100, 0.0) == [["x"]]
    assert (one.take(B, 100, 0.0), len(one)) == ([], 0)


def test_queue_takes_the_oldest_within_the_budget_and_only_the_newest_of_a_key():
    one = queue(A)
    for name in ("old", "new", "old"):
        one.put(name[:3], name * 2, 60, (), 0.0)
    assert one.take(A, 100, 0.0) == ["newnew"]
    assert one.take(A, 10, 0.0) == ["oldold"], "the first is taken however large"


def test_queue_is_bounded_in_number_and_age_and_by_its_links():
    one = queue(A, B, limit=2)
    for number in range(5):
        one.put(number, number, 1, (), 0.0)
    assert one.told() == {3, 4}
    one.link_down(B)
    assert len(one) == 2
    one.drop(3)
    assert one.take(A, 100, 31.0) == []
    assert not one.waiting(A)


def test_gossip_takes_turns_over_the_links():
    gossip = Gossip(2, Random(1))
    for pod in (A, B, C, D):
        gossip.link_up(pod)
    gossip.tell(RECORD, (), 0.0)
    told = [send.pod for _ in range(2) for send in gossip.round([A, B, C, D], 0.0)]
    assert sorted(told) == sorted([A, B, C, D])
    assert gossip.round([A, B, C, D], 0.0) == []


def test_pods_are_listed_by_bucket_in_order():
    pods = frozenset(PodId(hash_bytes(bytes([number]))[:16].hex()) for number in range(200))
    parts = by_bucket(pods)
    assert sorted(pod for part in parts for pod in part) == sorted(pods)
    assert all(part == sorted(part) and {bucket_of(pod) for pod in part} <= {at} for at, part in enumerate(parts))


def test_summaries_differ_in_the_buckets_that_differ_whatever_the_order():
    one, other = Summary(), Summary()
    records = [RECORD._replace(pod=pod) for pod in (A, B, C)]
    for record in records:
        one.replace(None, record)
    for record in reversed(records):
        other.replace(None, record)
    assert (one.total(), one.differing(other.parts())) == (other.total(), frozenset())
    newer = records[1]._replace(version=9)
    other.replace(records[1], newer)
    assert one.total() != other.total()
    assert one.differing(other.parts()) == {bucket_of(B)}
    assert one.copy().total(D_RECORD) != one.total()


def test_what_differs_is_compared_after_a_while_and_ever_more_rarely():
    comparisons = Comparisons()
    times = [tenth for tenth in range(2000) if comparisons.heard(B, same=False, now=tenth / 10)]
    assert times[:4] == [8, 18, 38, 78]
    assert max(b - a for a, b in itertools.pairwise(times)) == 300
    comparisons.learnt(B)
    assert comparisons.heard(B, same=False, now=200.0)
    assert not comparisons.heard(B, same=True, now=300.0)
    assert not comparisons.heard(B, same=False, now=300.1)


def test_pages_split_what_is_too_long():
    big = [wire.encode_update(RECORD._replace(meta=msgpack.packb({"x": "y" * 1000}))) for _ in range(40)]
    sends = pages(B, big)
    assert len(sends) > 2
    assert all(len(msgpack.packb(send.message)) < 17 * 1024 for send in sends)
    assert sum(len(wire.decode(send.message).updates) for send in sends) == 40


def test_the_nearer_end_of_a_link_is_believed_only():
    def cut(claims, to_all=(), lost=()):
        records = {pod: RECORD._replace(pod=pod, links=tuple(links)) for pod, links in claims.items()}
        return unreachable([B], records, set(to_all), set(lost))

    claims = {B: [A], C: [B, A], D: [E], E: [D]}
    assert cut(claims) == {C, D, E}
    assert cut({**claims, B: [C]}) == {D, E}
    assert cut({**claims, B: [C]}, lost=[B]) == {C, D, E}
    assert cut(claims, to_all=[B]) == set()


@pytest.mark.parametrize("update", [RECORD, ACCUSATION])
def test_updates_survive_the_wire(update):
    packed = msgpack.packb([Kind.GOSSIP, [wire.encode_update(update)]])
    assert wire.decode(msgpack.unpackb(packed)).updates == [update]


def test_what_newer_versions_add_is_skipped_and_that_of_records_passed_on():
    accusation = wire.encode_update(ACCUSATION)
    assert isinstance(accusation, list)
    newer = RECORD._replace(rest=(7, ("x", b"y")), flags=Flag(1 << 9))
    message = [Kind.PING, 1, [wire.encode_update(newer), [2, "kind"], [*accusation, 5]], bytes(8), 9]
    decoded = wire.decode(msgpack.unpackb(msgpack.packb(message)))
    assert decoded.updates == [newer, ACCUSATION]
    assert wire.encode_update(decoded.updates[0]) == wire.encode_update(newer)
    assert wire.decode([99, "anything"]).kind is None


def test_digests_survive_the_wire():
    entries = [Known(A, 5, 2, None), Known(B, -1, 0, ACCUSATION)]
    packed = msgpack.packb([Kind.DIGEST, [wire.encode_known(entry) for entry in entries]])
    assert wire.decode(msgpack.unpackb(packed)).digest == entries


def with_field(index, value):
    fields = msgpack.unpackb(wire.encode_record(RECORD))
    fields[index] = value
    return [Kind.GOSSIP, [msgpack.packb(fields)]]


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        {},
        [0, []],
        [True, []],
        [Kind.GOSSIP, [b"\xc1"]],
        [Kind.GOSSIP, [bytes(9000)]],
        [Kind.PING, 1, [], b"short"],
        [Kind.SUMMARY, bytes(8)],
        [Kind.PING, 1],
        [Kind.PING, -1, []],
        [Kind.PING, True, []],
        [Kind.REQUEST, 1, b"short", []],
        [Kind.GOSSIP, [[]] * 513],
        with_field(0, b"x" * 15),
        with_field(1, 2**60),
        with_field(2, -1),
        with_field(3, 1 << 16),
        with_field(4, "x" * 301),
        with_field(4, "a\nb"),
        with_field(5, b"\xc1"),
        with_field(5, b"\x81\x01\x01"),
        with_field(5, b"\xc6" + b"x" * 1100),
        with_field(6, b"x" * 17),
        with_field(6, bytes(16 * 257)),
    ],
)
def test_what_no_honest_pod_sends_is_refused(message):
    with pytest.raises(MalformedError):
        wire.decode(message)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=33),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=20,
)


@given(st.integers(0, 8), st.lists(VALUES, max_size=4))
def test_decoding_anything_raises_nothing_else(kind, rest):
    with contextlib.suppress(MalformedError):
        wire.decode([kind, *rest])


def prober(helpers=(), awareness=None):
    return Prober(1.0, 0.5, 3, awareness or Awareness(3), Random(1), lambda target: helpers)


def test_a_probe_goes_direct_then_through_others_then_fails():
    awareness = Awareness(3)
    probes = prober([B, C], awareness)
    for pod in (A, B, C):
        probes.link_up(pod, 0.0)
    pings = {order.pod: order.head for order in probes.tick(0.0).orders}
    assert set(pings) == {A, B, C}
    for pod in (B, C):
        assert probes.on_ack(pod, pings[pod][1], 0.02) == Acked(pod, 0.02)
    orders = probes.tick(0.5).orders
    assert sorted(order.pod for order in orders) == sorted([A, B, C])
    requests = [order.head for order in orders if order.pod != A]
    assert all(head[0] is Kind.REQUEST and head[2] == wire.pod_bytes(A) for head in requests)
    for pod in (B, C):
        probes.on_nack(pod, pings[A][1])
    assert probes.tick(0.99).failed == []
    assert probes.tick(1.0).failed == [A]
    assert awareness.score == 0, "the helpers answered, so the fault is not here"


def test_helpers_that_say_nothing_hint_at_a_fault_here():
    awareness = Awareness(3)
    probes = prober([B], awareness)
    probes.link_up(A, 0.0)
    probes.link_up(B, 0.0)
    probes.tick(0.0)
    probes.tick(0.5)
    assert probes.tick(1.6).failed
    assert awareness.score > 0


def test_an_answer_through_a_helper_counts_but_only_from_one_that_was_asked():
    probes = prober([B])
    for pod in (A, B, C):
        probes.link_up(pod, 0.0)
    nonce = next(order.head[1] for order in probes.tick(0.0).orders if order.pod == A)
    assert probes.on_ack(B, nonce, 0.1) is None, "not asked yet"
    probes.tick(0.5)
    assert probes.on_ack(C, nonce, 0.6) is None, "never asked"
    assert probes.on_ack(B, nonce, 0.6) == Acked(A, None)


def test_a_helper_passes_on_the_answer_or_says_no():
    probes = prober()
    probes.link_up(A, 0.0)
    probes.tick(0.0)
    (ping,) = probes.on_request(B, 77, A, 0.0)
    assert ping.pod == A
    assert probes.on_ack(A, ping.head[1], 0.1) == Order(B, [Kind.ACK, 77])
    probes.on_request(B, 78, A, 1.0)
    assert Order(B, [Kind.NACK, 78]) in probes.tick(1.4).orders
    assert probes.on_request(B, 79, C, 2.0) == [Order(B, [Kind.NACK, 79])], "not linked to C"


def test_the_relays_are_bounded():
    probes = prober()
    probes.link_up(A, 0.0)
    answers = [probes.on_request(B, nonce, A, 0.0)[0].head[0] for nonce in range(300)]
    assert answers.count(Kind.PING) == 256
    assert answers.count(Kind.NACK) == 44


def test_who_is_slow_is_not_asked_the_same_ten_times():
    one = prober()
    one.link_up(A, 0.0)
    (ping,) = one.tick(0.0).orders
    assert sum(len(one.tick(tick / 100).orders) for tick in range(1, 31)) == 3, "every 0.09 s at first"
    one.on_ack(A, ping.head[1], 0.3)
    asked = [now / 100 for now in range(31, 180) for _ in one.tick(now / 100).orders]
    assert len(asked) == 2, "and every 0.6 s when it took 0.3 s, but at once when it's late"


def test_time_that_a_pod_has_slept_is_no_silence_of_others():
    one = prober()
    one.link_up(A, 0.0)
    one.tick(0.0)
    one.tick(0.5)
    one.slept(3.0)
    assert one.tick(3.9).failed == []
    assert one.tick(4.0).failed == [A]
