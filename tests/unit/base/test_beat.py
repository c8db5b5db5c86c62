"""Looks on one beat: when each comes, and that one wake-up serves them all."""

from __future__ import annotations

import anyio
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from base import beat


@pytest.fixture
def anyio_backend():
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@given(st.floats(0, 1e7), st.floats(beat.BEAT_S, 600))
def test_a_pause_ends_on_a_beat_and_never_later_than_asked_for(now_s: float, pause_s: float) -> None:
    at = beat.after(now_s, pause_s)
    assert at % beat.BEAT_S == 0
    assert now_s < at <= now_s + pause_s + 1e-6
    assert at > now_s + pause_s - beat.BEAT_S - 1e-6


@given(st.floats(0, 1e7), st.floats(0.01, beat.BEAT_S))
def test_a_shorter_one_on_the_next(now_s: float, pause_s: float) -> None:
    assert now_s < beat.after(now_s, pause_s) <= now_s + beat.BEAT_S + 1e-6


@given(st.integers(0, 10**6), st.integers(1, 30), st.floats(0, 0.2))
def test_who_rests_for_whole_beats_keeps_them_though_each_look_takes_a_moment(
    beats: int, count: int, took: float
) -> None:
    now_s = (beats + took) * beat.BEAT_S
    assert beat.after(now_s, count * beat.BEAT_S) == (beats + count) * beat.BEAT_S


async def test_those_who_came_at_different_times_are_woken_together() -> None:
    woken: list[tuple[float, float]] = []

    async def look(first_s: float, every_s: float) -> None:
        await anyio.sleep(first_s)
        while True:
            await beat.rest(every_s)
            woken.append((anyio.current_time(), every_s))

    async with anyio.create_task_group() as group:
        for first_s, every_s in ((0.1, 2.0), (0.7, 4.0), (1.9, 2.0), (3.3, 5.0), (0.4, 10.0)):
            group.start_soon(look, first_s, every_s)
        await anyio.sleep(60.5)
        group.cancel_scope.cancel()
    times = {at for at, _ in woken}
    assert len(times) <= 31, "one wake-up every other second, whoever looks then"
    counts = {every_s: sum(1 for _, one in woken if one == every_s) for every_s in (4.0, 5.0, 10.0)}
    assert 14 <= counts[4.0] <= 16
    assert 12 <= counts[5.0] <= 15
    assert 5 <= counts[10.0] <= 7
