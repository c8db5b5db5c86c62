"""The pacer: the rate holds, the urgent go first, nobody waits for ever."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transfer.pace import SHARE, STILL_S, Bucket, Limits, Pacer, Paces

pytestmark = pytest.mark.anyio


def through(bucket: Bucket, sizes: list[tuple[int, int]], step_s: float = 0.01, end_s: float = 1000.0) -> list[float]:
    """Ask for all at once; return when each passed."""
    tickets = [bucket.ask(size, urgency) for size, urgency in sizes]
    passed: dict[int, float] = {}
    now = 0.0
    while len(passed) < len(tickets) and now < end_s:
        bucket.grant(now)
        for index, ticket in enumerate(tickets):
            if ticket.granted:
                passed.setdefault(index, now)
        now += step_s
    return [passed[index] for index in range(len(tickets))]


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=50), st.integers(10_000, 1_000_000))
def test_never_more_than_the_rate_and_one_piece(sizes: list[int], rate: int) -> None:
    bucket = Bucket()
    bucket.set_rate(rate, 0.0)
    times = through(bucket, [(size, 0) for size in sizes])
    for start in range(len(sizes)):
        for end in range(start + 1, len(sizes)):
            moved = sum(sizes[start:end])  # the last one has only just begun
            assert moved <= rate * (times[end] - times[start] + 0.02)


def test_who_is_urgent_goes_first() -> None:
    bucket = Bucket()
    bucket.set_rate(100, 0.0)
    times = through(bucket, [(100, 2), (100, 2), (100, 0), (100, 1)])
    assert times.index(min(times)) == 2
    assert times[2] < times[3] < times[0] < times[1]


def test_without_a_limit_nobody_waits() -> None:
    assert through(Bucket(), [(10**9, 2)] * 10) == [0.0] * 10


def test_another_rate_counts_for_those_who_wait() -> None:
    bucket = Bucket()
    bucket.set_rate(10, 0.0)
    first, second = bucket.ask(1000, 0), bucket.ask(10, 0)
    bucket.grant(0.0)
    assert (first.granted, second.granted) == (True, False)
    bucket.set_rate(1000, 1.0)
    assert bucket.grant(1.0) == pytest.approx(1.99)
    bucket.grant(2.0)
    assert second.granted


def test_what_was_not_needed_is_given_back() -> None:
    bucket = Bucket()
    bucket.set_rate(100, 0.0)
    bucket.ask(100, 0)
    bucket.grant(0.0)
    bucket.give_back(90)
    second = bucket.ask(1, 0)
    bucket.grant(0.2)
    assert second.granted


async def test_who_gives_up_holds_up_nobody() -> None:
    pacer = Pacer()
    pacer.set_limit(1000 / SHARE)
    await pacer.turn(100)
    with anyio.move_on_after(0.01):
        await pacer.turn(10_000_000)
    begun = anyio.current_time()
    await pacer.turn(1)
    assert anyio.current_time() - begun < 60, "and not for hours"


async def test_who_waits_is_heard_of() -> None:
    pacer = Pacer()
    pacer.set_limit(1000 / SHARE)
    heard: list[float] = []
    await pacer.turn(700)
    await pacer.turn(1, still=lambda: heard.append(anyio.current_time()))
    assert len(heard) >= 0.7 / STILL_S - 1


def test_pieces_are_small_where_the_line_is_slow() -> None:
    pacer = Pacer()
    assert pacer.piece_bytes(1 << 20) == 1 << 20
    pacer._bucket.set_rate(100_000, 0.0)
    assert pacer.piece_bytes(1 << 20) == 10_000
    assert pacer.piece_bytes(100) == 100


async def test_all_limits_are_taken_over_and_dropped() -> None:
    paces = Paces()
    paces.set(Limits(up=1000, down=2000, repair=500))
    assert (paces.up.rate, paces.down.rate, paces.repair.rate) == (1000 * SHARE, 2000 * SHARE, 500 * SHARE)
    paces.set(Limits())
    assert (paces.up.rate, paces.down.rate, paces.repair.rate) == (None, None, None)
