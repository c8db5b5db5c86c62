"""Whose clock is wrong."""

from __future__ import annotations

import pytest

from base.ids import PodId
from mesh.clocks import AGREES_WITHIN_S, Clocks, agrees, own_lead_s, wrong
from operations.timekeeping import clock_warnings, span

A, B, C = PodId("a"), PodId("b"), PodId("c")
HOUR = 3600.0


def test_an_offset_is_compensated_for_the_round_trip_and_for_changes_of_the_own_clock() -> None:
    clocks = Clocks()
    clocks.heard(A, theirs_s=10_000.5, asked_at_s=50.0, answered_at_s=51.0)
    assert clocks.ahead_s([A, B], wall_s=10_000.5, steady_s=50.5) == {A: 0.0}
    assert clocks.ahead_s([A], wall_s=10_100.5, steady_s=150.5) == {A: 0.0}
    assert clocks.ahead_s([A], wall_s=13_700.5, steady_s=150.5) == {A: -HOUR}, "somebody set the own clock"
    clocks.keep({B})
    assert clocks.ahead_s([A], wall_s=0, steady_s=0) == {}


@pytest.mark.parametrize("theirs_s", [float("inf"), float("-inf"), float("nan"), 1e300])
def test_absurd_answers_are_ignored(theirs_s: float) -> None:
    clocks = Clocks()
    clocks.heard(A, theirs_s, 1.0, 2.0)
    clocks.heard(B, 5.0, 2.0, 1.0)
    assert clocks.ahead_s([A, B], 0, 0) == {}


@pytest.mark.parametrize(
    ("ahead_s", "expected"),
    [
        ([], False),  # nobody to ask
        ([0.0], True),
        ([AGREES_WITHIN_S], True),
        ([AGREES_WITHIN_S + 1], False),  # one of two: nobody knows which
        ([-HOUR], False),
        ([HOUR, 0.5], True),  # the other one is wrong
        ([HOUR, HOUR], False),
        ([HOUR, -HOUR], True),
        ([HOUR, HOUR, 0], False),  # a draw
        ([HOUR, 0, 0], True),
        ([-365 * 24 * HOUR] * 5, False),
    ],
)
def test_the_own_clock_agrees_with_the_median(ahead_s: list[float], expected: bool) -> None:
    assert agrees(ahead_s) is expected


def test_status_names_the_clock_that_is_wrong() -> None:
    names = {A: "nas", B: "laptop", C: "attic"}
    assert clock_warnings({}, names) == []
    assert clock_warnings({A: 1.0, B: -100.0}, names) == []
    (own,) = clock_warnings({A: -3720.0, B: -3719.0, C: -3721.0}, names)
    assert own.startswith("The clock of this pod is 1 h 2 min ahead of the others' (median of 3 pods).")
    (own,) = clock_warnings({A: 56 * 365 * 24 * HOUR + 7200}, names)
    assert own.startswith("The clock of this pod is 56 y 2 h behind the others' (median of 1 pod).") or "56 y" in own
    (other,) = clock_warnings({A: -3720.0, B: 0.5, C: 0}, names)
    assert other == "The clock of nas is 1 h 2 min behind the others'. Set it right there."
    assert clock_warnings({A: 365 * 24 * HOUR, B: 0.0}, names) == [
        "The clock of nas is 1 y ahead of the others'. Set it right there."
    ]
    assert own_lead_s([]) is None
    assert wrong({}) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (121, "2 min 1 s"), (3720, "1 h 2 min"), (3601, "1 h"), (365 * 86_400, "1 y"), (90_000, "1 d 1 h")],
)
def test_spans(seconds: float, text: str) -> None:
    assert span(seconds) == text
