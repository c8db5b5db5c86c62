"""How fast contents come and go, over the last few seconds. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

SPAN_S: Final = 5.0


class _Sample(NamedTuple):
    at: float
    bytes_in: int
    bytes_out: int


class Rates:
    """Remembers how much had moved at which time (seconds of a clock that only goes forward)."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=64)

    def note(self, now: float, bytes_in: int, bytes_out: int) -> None:
        """Note how many bytes have come in and gone out so far."""
        self._samples.append(_Sample(now, bytes_in, bytes_out))
        while len(self._samples) > 2 and now - self._samples[1].at >= SPAN_S:
            self._samples.popleft()

    def per_s(self) -> tuple[int, int]:
        """Return the bytes a second that came in and went out lately."""
        if len(self._samples) < 2:
            return 0, 0
        first, last = self._samples[0], self._samples[-1]
        passed_s = last.at - first.at
        if passed_s <= 0:
            return 0, 0
        return round((last.bytes_in - first.bytes_in) / passed_s), round((last.bytes_out - first.bytes_out) / passed_s)
