"""The verdict on single contents, on the whole and on being cut off."""

from __future__ import annotations

import pytest

from base.ids import PodId
from policies.situation import Situation, Standing, Tally, is_connected, judge, standing


@pytest.mark.parametrize(
    ("wanted", "kept", "cached", "planned", "absent", "expected"),
    [
        (2, 2, 0, 0, 0, Standing.SAFE),
        (2, 1, 0, 1, 0, Standing.SAFE),
        (2, 1, 0, 0, 1, Standing.SHORT),
        (2, 0, 1, 0, 2, Standing.SHORT),
        (2, 0, 0, 0, 1, Standing.PENDING),
        (2, 0, 0, 1, 0, Standing.PENDING),
        (2, 0, 0, 0, 2, Standing.MISSING),
        (1, 0, 0, 0, 1, Standing.MISSING),
        (1, 0, 0, 0, 0, Standing.MISSING),
    ],
)
def test_standing(wanted: int, kept: int, cached: int, planned: int, absent: int, expected: Standing) -> None:
    assert standing(wanted=wanted, kept=kept, cached=cached, planned=planned, absent=absent) is expected


def test_judge() -> None:
    assert judge(Tally(10), reachable_full_pods=3, copies=2).situation is Situation.FAVOURABLE
    assert judge(Tally(10, short=4), reachable_full_pods=3, copies=2).situation is Situation.FAVOURABLE
    assert judge(Tally(10, short=4), reachable_full_pods=1, copies=2).situation is Situation.DEGRADED
    assert judge(Tally(10, pending=4), reachable_full_pods=1, copies=2).situation is Situation.FAVOURABLE
    verdict = judge(Tally(10, missing=4), reachable_full_pods=3, copies=2)
    assert verdict.situation is Situation.CRITICAL
    assert "4 of 10" in verdict.reason


A, B, C, D = (PodId(letter * 32) for letter in "abcd")


@pytest.mark.parametrize(
    ("me", "counted", "reachable", "expected"),
    [
        (A, [A], set(), True),
        (A, [A, B], set(), False),
        (B, [A, B], set(), False),
        (B, [A, B], {A}, True),
        (A, [A, B, C], set(), False),
        (C, [A, B, C], {B}, True),
        (C, [A, B, C, D], {D}, False),
        (A, [A, B, C, D], {B}, True),
        (D, [A, B, C, D], {B, C}, True),
    ],
)
def test_connected(me: PodId, counted: list[PodId], reachable: set[PodId], expected: bool) -> None:
    assert is_connected(me, counted, reachable) is expected
