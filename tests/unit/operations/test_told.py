"""How room is told in steps without being told anew all the time."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from operations.mount_facts import Told


def test_going_back_and_forth_over_the_end_of_a_step_tells_nothing_new() -> None:
    told, rng = Told(), Random(1)
    assert told.value(1000, 100) == 1000
    assert {told.value(1000 + rng.randrange(-50, 150), 100) for _ in range(200)} == {1000}
    assert told.value(949, 100) == 900
    assert told.value(1040, 100) == 900
    assert told.value(1050, 100) == 1000
    assert told.value(0, 100) == 0, "what is full is told as full"


@given(st.lists(st.tuples(st.integers(0, 1 << 50), st.integers(0, 30)), min_size=1))
def test_what_is_told_is_a_step_and_near_the_truth(values: list[tuple[int, int]]) -> None:
    told = Told()
    for exact, bits in values:
        step = 1 << bits
        said = told.value(exact, step)
        assert said % step == 0
        assert said - step // 2 <= exact < said + step + max(1, step // 2)
