"""Counting reads, over restarts as well."""

from __future__ import annotations

import pytest

from base.ids import ContentId
from policies.usage import HALF_LIFE_S, UseCounter

ONE, TWO = ContentId(b"1" * 32), ContentId(b"2" * 32)


@pytest.mark.parametrize(
    ("age_s", "levels"), [(0.0, {ONE: 4, TWO: 1}), (HALF_LIFE_S, {ONE: 3}), (10 * HALF_LIFE_S, {})]
)
def test_a_restart_forgets_no_more_than_the_time_does(age_s: float, levels: dict[ContentId, int]) -> None:
    before = UseCounter()
    for _ in range(8):
        before.count(ONE, 100.0)
    before.count(TWO, 100.0)
    assert before.levels(100.0) == {ONE: 4, TWO: 1}
    after = UseCounter()
    after.remember(before.counts(100.0), age_s, 5.0)
    assert {one: level for one, level in after.levels(5.0).items() if level > 1 or not age_s} == {
        one: level for one, level in levels.items() if level > 1 or not age_s
    }
    assert len(after.levels(5.0)) >= len(levels)
