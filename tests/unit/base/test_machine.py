"""Is the machine busy with something else? Asked of a kernel's counters, and of the real ones."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass

from base.machine import BUSY, WINDOW_S, OtherWork, worked_s


@dataclass
class Kernel:
    now_s: float = 100.0
    worked_s: float = 5000.0

    def passes(self, seconds: float, worked_s: float) -> None:
        self.now_s += seconds
        self.worked_s += worked_s


def test_own_work_doesnt_count_and_other_work_does() -> None:
    kernel = Kernel()
    other = OtherWork(lambda: kernel.worked_s, lambda: kernel.now_s)
    kernel.passes(1.0, 0.8)
    other.own(0.5)
    other.own(0.25)
    assert not other.is_busy()
    kernel.passes(1.0, 1.3)
    other.own(0.8)
    assert other.is_busy(), "half a processor by others"
    kernel.passes(1.0, 0.8)
    other.own(0.8)
    assert not other.is_busy(), "and over"


def test_a_moment_is_too_short_to_tell() -> None:
    kernel = Kernel()
    other = OtherWork(lambda: kernel.worked_s, lambda: kernel.now_s)
    kernel.passes(WINDOW_S / 10, WINDOW_S / 10)
    assert not other.is_busy()
    kernel.passes(WINDOW_S, BUSY * WINDOW_S)
    assert other.is_busy(), "what came before counts from then on"


def test_the_kernel_counts_the_work_of_all() -> None:
    before_s, ends = worked_s(), time.monotonic() + 60.0
    burner = multiprocessing.get_context("spawn").Process(target=burn, daemon=True)
    burner.start()
    try:
        while worked_s() - before_s < 0.2:
            assert time.monotonic() < ends, "somebody works"
    finally:
        burner.kill()
        burner.join()


def burn() -> None:
    while True:
        pass
