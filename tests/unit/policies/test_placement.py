"""Placement: who should keep a content."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from base.ids import PodId, hash_bytes
from policies.placement import Candidate, Case, copies_wanted, place, settle


def pods(count: int) -> list[Candidate]:
    return [Candidate(PodId(f"{index:032x}")) for index in range(count)]


@pytest.mark.parametrize(("copies", "members", "wanted"), [(3, 5, 3), (3, 2, 2), (1, 0, 0), (2, 2, 2)])
def test_copies_wanted(copies, members, wanted):
    assert copies_wanted(copies, members) == wanted


def test_the_author_is_first_and_the_order_of_the_candidates_is_nothing():
    candidates = pods(8)
    author = candidates[5].pod
    for index in range(50):
        content = hash_bytes(bytes([index]))
        placed = place(content, 1, 3, author, candidates)
        assert placed[0] == author
        assert len(set(placed)) == 3
        assert placed == place(content, 1, 3, author, candidates[::-1])
        assert place(content, 1, 8, author, candidates)[:3] == placed


def test_an_author_that_is_no_candidate_gets_nothing():
    assert PodId("f" * 32) not in place(b"x", 1, 3, PodId("f" * 32), pods(4))
    assert len(place(b"x", 1, 3, None, pods(4))) == 3


def test_room_counts_except_for_the_author():
    candidates = [Candidate(PodId("a" * 32), 1.0, 5), Candidate(PodId("b" * 32), 1.0, 10), Candidate(PodId("c" * 32))]
    assert set(place(b"x", 10, 3, None, candidates)) == {"b" * 32, "c" * 32}
    assert place(b"x", 10, 3, PodId("a" * 32), candidates)[0] == "a" * 32


def test_a_pod_of_no_weight_is_the_last():
    candidates = [*pods(3), Candidate(PodId("f" * 32), 0.0)]
    for index in range(30):
        assert place(bytes([index]), 1, 4, None, candidates)[-1] == "f" * 32


def test_few_pods_and_no_copies():
    assert place(b"x", 1, 3, None, []) == ()
    assert place(b"x", 1, 0, None, pods(3)) == ()
    assert len(place(b"x", 1, 5, None, pods(3))) == 3


def test_what_a_full_pod_wrote_goes_to_who_is_not_full():
    writer, other, third = (replace(one, available_bytes=9) for one in pods(3))
    full = replace(writer, is_full=True)
    for index in range(30):
        case = Case(bytes([index]), 5, 1, author=writer.pod, keepers=frozenset({writer.pod}))
        assert settle(case, [full, other]) == (other.pod,)
        assert settle(case, [full, replace(other, is_full=True)]) == (writer.pod,), "nobody is better off"
        assert settle(case, [full, replace(other, is_full=True), third]) == (third.pod,)
        assert settle(case, [full, replace(other, is_full=True, available_bytes=10)]) == (other.pod,)
        kept_by_other = replace(case, keepers=frozenset({writer.pod, other.pod}))
        assert settle(kept_by_other, [full, replace(other, is_full=True)]) == (other.pod,), "a copy too many goes"


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_impossible_weights(weight):
    with pytest.raises(ValueError, match="weight"):
        place(b"x", 1, 1, None, [Candidate(PodId("a" * 32), weight)])


def test_a_pod_stands_once():
    with pytest.raises(ValueError, match="twice"):
        place(b"x", 1, 1, None, [*pods(2), *pods(1)])


def test_shares_follow_weights():
    candidates = [Candidate(PodId("a" * 32), 1.0), Candidate(PodId("b" * 32), 2.0), Candidate(PodId("c" * 32), 5.0)]
    total = 8000
    first = [place(hash_bytes(index.to_bytes(4, "big")), 1, 1, None, candidates)[0] for index in range(total)]
    for candidate in candidates:
        expected = candidate.weight / 8
        assert abs(first.count(candidate.pod) / total - expected) < 4 * math.sqrt(expected * (1 - expected) / total)


def test_the_ranking_never_changes():
    """Pods of different versions must agree: these were computed once and stay."""
    candidates = [
        Candidate(PodId(letter * 32), weight) for letter, weight in zip("abcdef", (1, 1, 2, 0.5, 3, 0), strict=True)
    ]
    placed = [place(hash_bytes(bytes([index])), 1, 6, None, candidates) for index in range(4)]
    assert ["".join(pod[0] for pod in order) for order in placed] == ["ecbadf", "cebadf", "eacdbf", "ecdabf"]
