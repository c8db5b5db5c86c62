from __future__ import annotations

from random import Random

import msgpack

from base.ids import PodId, WriterId, hash_bytes
from mesh import log_messages as wire
from mesh.antientropy import (
    MAX_FETCHES,
    MAX_FETCHES_PER_POD,
    SLOW_AFTER_S,
    AntiEntropy,
    page_body,
    page_entries,
    parse_since,
    since_body,
)
from mesh.api import Entry
from mesh.broadcast import Gap
from mesh.log_messages import MAX_MARKS, VectorPage
from mesh.wire import Tag

A, B, C, D = (PodId(hash_bytes(bytes([number]))[:16].hex()) for number in range(4))
W, X = WriterId(b"writer-w"), WriterId(b"writer-x")


def writer(number):
    return WriterId(number.to_bytes(8, "big"))


def vector(marks, *, answer_wanted=False, first=b"", end=b""):
    return wire.encode_vector(VectorPage(answer_wanted, first, end, marks))


def anti_entropy(*links, mine=None):
    one = AntiEntropy(A, Random(1))
    for pod in links:
        one.link_up(pod, mine or {}, 0.0)
    return one


def test_a_link_up_sends_the_vector():
    plan = AntiEntropy(A, Random(1)).link_up(B, {W: 3}, 0.0)
    assert [send.tag for send in plan.sends] == [Tag.LOG_VECTOR]
    assert wire.decode_vector(msgpack.unpackb(msgpack.packb(plan.sends[0].message))) == VectorPage(
        True, b"", b"", {W: 3}
    )


def test_what_the_other_has_is_fetched_from_where_the_log_stands_until_it_is_all_here():
    one = anti_entropy(B)
    (fetch,) = one.on_vector(B, vector({W: 9}), {W: 2}, 0.0).fetches
    assert (fetch.pod, fetch.writer, fetch.after) == (B, W, 2)
    assert one.on_gap(Gap(B, W, 9), {W: 2}, 0.0).fetches == [], "one at a time per writer"
    (fetch,) = one.on_page(fetch, [Entry(W, 3, b"")], {W: 3}, 0.1).fetches
    assert fetch.after == 3
    assert one.behind({W: 3})
    assert one.on_page(fetch, [], {W: 9}, 0.2).fetches == []
    assert not one.behind({W: 9})


def test_an_answer_is_sent_only_with_what_the_other_lacks():
    one = anti_entropy(B)
    sends = one.on_vector(B, vector({W: 9}, answer_wanted=True), {W: 9, X: 4}, 0.0).sends
    assert [decoded_page(send).marks for send in sends] == [{X: 4}]
    assert one.on_vector(B, vector({W: 9, X: 4}, answer_wanted=True), {W: 9, X: 4}, 0.0).sends == []
    assert one.on_vector(B, vector({W: 1}), {W: 9, X: 4}, 0.0).sends == []


def test_a_failing_pod_is_left_for_another_and_tried_again_later():
    one = anti_entropy(B, C)
    (fetch,) = one.on_vector(B, vector({W: 9}), {}, 0.0).fetches
    one.on_vector(C, vector({W: 5}), {}, 0.0)
    (second,) = one.on_failure(fetch, {}, 1.0).fetches
    assert second.pod == C
    assert one.on_page(second, [Entry(W, 1, b"")], {W: 5}, 1.1).fetches == []
    (third,) = one.tick({W: 5}, 2.1).fetches
    assert (third.pod, third.after) == (B, 5)


def test_a_slow_pod_is_left_for_another_and_its_late_answer_changes_nothing():
    one = anti_entropy(B, C)
    (fetch,) = one.on_vector(B, vector({W: 9}), {}, 0.0).fetches
    one.on_vector(C, vector({W: 9}), {}, 0.0)
    assert one.tick({}, SLOW_AFTER_S - 0.1).fetches == []
    (second,) = one.tick({}, SLOW_AFTER_S).fetches
    assert (second.pod, second.after) == (C, 0)
    assert one.on_page(fetch, [Entry(W, 1, b"")], {W: 1}, 5.0).fetches == []
    (third,) = one.on_page(second, [Entry(W, 1, b"")], {W: 1}, 5.1).fetches
    assert third.pod == C


def test_a_lost_link_moves_its_fetches_to_others():
    one = anti_entropy(B, C)
    (fetch,) = one.on_vector(B, vector({W: 9}), {}, 0.0).fetches
    one.on_vector(C, vector({W: 9}), {}, 0.0)
    assert [moved.pod for moved in one.link_down(fetch.pod, {}, 1.0).fetches] == [C]


def test_a_pod_that_has_not_got_what_it_said_is_not_asked_over_and_over():
    one = anti_entropy(B)
    (fetch,) = one.on_vector(B, vector({W: 9}), {}, 0.0).fetches
    assert one.on_page(fetch, [], {}, 0.1).fetches == []
    assert one.tick({}, 20.0).fetches == []


def test_entries_that_the_log_refuses_are_asked_of_somebody_else():
    one = anti_entropy(B, C)
    (fetch,) = one.on_vector(B, vector({W: 9}), {}, 0.0).fetches
    one.on_vector(C, vector({W: 9}), {}, 0.0)
    (second,) = one.on_page(fetch, [Entry(W, 1, b"forged")], {}, 0.1).fetches
    assert second.pod == C


def test_fetches_are_bounded_and_spread():
    many = {writer(number): 5 for number in range(1, 100)}
    one = anti_entropy(B, C, D)
    fetches = one.on_vector(B, vector(many), {}, 0.0).fetches
    assert len(fetches) == MAX_FETCHES_PER_POD
    fetches += one.on_vector(C, vector(many), {}, 0.0).fetches
    fetches += one.on_vector(D, vector(many), {}, 0.0).fetches
    assert len(fetches) == 3 * MAX_FETCHES_PER_POD <= MAX_FETCHES
    assert len({fetch.writer for fetch in fetches}) == len(fetches)


def decoded_page(send):
    page = wire.decode_vector(send.message)
    assert isinstance(page, wire.VectorPage)
    return page


def test_large_vectors_go_in_pages_that_cover_all_writers():
    mine = {writer(number): 1 for number in range(1, 1001)}
    one, other = AntiEntropy(A, Random(1)), anti_entropy(A)
    (short,) = one.link_up(B, mine, 0.0).sends
    assert len(msgpack.packb(short.message)) < 16
    assert other.on_vector(A, short.message, dict(reversed(mine.items())), 0.0) == ([], []), "the same here"
    sends = one.on_vector(B, wire.encode_sum({W: 1}), mine, 0.0).sends
    assert max(len(msgpack.packb(send.message)) for send in sends) < 5_000
    pages = [decoded_page(send) for send in sends]
    assert [page.first for page in pages] == [b"", *[page.end for page in pages[:-1]]]
    assert pages[-1].end == b""
    assert all(len(page.marks) <= MAX_MARKS for page in pages)
    lacking = {writer(number): 1 for number in range(1, 1002) if number % 2}
    answers = [send for page in sends for send in other.on_vector(A, page.message, lacking, 0.0).sends]
    assert [decoded_page(send).marks for send in answers] == [{writer(1001): 1}]


def test_vectors_are_exchanged_about_every_ten_seconds():
    one = anti_entropy(B)
    times = [tenth / 10 for tenth in range(1000) if one.tick({}, tenth / 10).sends]
    assert 8 <= len(times) <= 13


def test_a_fetch_that_the_shell_lost_is_planned_again():
    one = anti_entropy(B)
    one.on_vector(B, vector({W: 9}), {}, 0.0)
    assert one.tick({}, 10.0).fetches == []
    assert len(one.tick({}, 21.0).fetches) == 1


def test_requests_and_pages_survive_the_wire_and_hostile_ones_do_no_harm():
    one = anti_entropy(B)
    (fetch,) = one.on_vector(B, vector({W: 9}), {W: 2}, 0.0).fetches
    asked = parse_since(msgpack.unpackb(msgpack.packb(since_body(fetch))))
    assert asked == (W, 2, fetch.limit_bytes)
    entries = [Entry(W, 3, b"x"), Entry(W, 4, b"y")]
    assert page_entries(msgpack.unpackb(msgpack.packb(page_body(entries))), fetch) == entries
    for answer in (None, [[2, b"y"]], [[3, b"x"], [3, b"y"]], [[5, b"x"], [4, b"y"]], [[3]], [["3", b"x"]]):
        assert page_entries(answer, fetch) == []
    for body in (None, [W, -1, 5], [W, 0, 0], [b"short", 0, 5], [W, 0]):
        assert parse_since(body) is None
    assert parse_since([W, 0, 2**40]) == (W, 0, wire.MAX_PAGE_BYTES)
    assert one.on_vector(B, ["garbage"], {}, 0.0) == ([], [])
    assert len(one.complaints()) == 1
