"""The clock of modification times goes with what the kernel calls now."""

import time

from vfs.clock import COARSE, Clock


def test_it_is_the_last_tick():
    clock = Clock()
    before_ns = time.clock_gettime_ns(COARSE)
    assert before_ns <= clock.now_ns() <= time.clock_gettime_ns(COARSE)


def test_it_is_never_before_what_the_kernel_called_now():
    clock = Clock()
    told_ns = time.time_ns()
    clock.told(told_ns)
    assert clock.now_ns() >= told_ns
    clock.told(5)
    assert clock.now_ns() >= told_ns


def test_times_in_the_future_are_somebodys_choice():
    clock = Clock()
    clock.told(time.time_ns() + 10**12)
    assert clock.now_ns() <= time.time_ns()


def test_a_clock_that_was_set_back_is_followed(monkeypatch):
    clock = Clock()
    clock.told(time.time_ns())
    now_ns = time.time_ns() - 10**13
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda _: now_ns - 1000)
    clock.told(now_ns)
    assert clock.now_ns() <= now_ns
