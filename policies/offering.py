"""What each full pod says of itself for placement: its room, what it wishes for, how fast and how laden it is. Pure.

The values are in coarse steps, and a step back needs more than a step forth (hysteresis): what they decide moves bytes,
and must not move them because a disk's free space wavers. The record is a list of whole numbers behind a version; what
a newer version adds stands at its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median_low
from typing import Final

META: Final = "place"
"""Its name among the values that a pod gossips."""
VERSION: Final = 1
MAX_WISH: Final = 10
CAPACITY_STEPS: Final = 16
"""Steps of capacity in a doubling: 4 % each."""
LOAD_STEPS: Final = 16
FULL_SHARE: Final = 32
"""A pod is full with less than this share of its capacity free, until it has `RELIEF` times as much."""
RELIEF: Final = 4
LEAST_FULL_BYTES: Final = 1 << 20
ROOM_MARGIN: Final = 1.25
"""Room grows by a step once there is so much more than the step."""
REFUSED_S: Final = 5.0
"""So long after a refusal a pod offers less room than what it refused, unless as much was freed meanwhile: it may have come
of several copies that came at once. After one that follows soon upon that it is twice as long ..."""
MAX_REFUSED_S: Final = 60.0
"""... up to this: then what is counted as room is none."""
SPEED_LIMIT: Final = 23
"""Faster networks than 2^23 bytes (8 MiB) a second are all the same."""
SLOW_STEPS: Final = 2
"""Slow is who has less than a quarter of the others' speed."""
MAX_STEP: Final = 1 << 12
BILLION: Final = 1_000_000_000
MAX_TIME_S: Final = 1 << 40
MAX_BYTES: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one pod says."""

    capacity: int = 0
    """`CAPACITY_STEPS` times the binary logarithm of the bytes that it offers in all; 0: nothing."""
    room_bytes: int = 0
    """It has at least so much left for further copies."""
    is_full: bool = False
    speed: int = 0
    """Binary logarithm of the bytes a second that its network carries; 0: not measured."""
    load: int = 0
    """`LOAD_STEPS` times the binary logarithm of the share of its capacity that it keeps, in billionths; 0: none."""
    replicas: int = 0
    new_files: int = 0
    hot: int = 0
    cold: int = 0
    joined_s: int = 0
    """When it came to the cluster, seconds since the epoch by its clock; 0: not known."""

    @property
    def weight(self) -> float:
        """Its share of the copies in proportion to others': the capacity in MiB."""
        return math.pow(2.0, min(self.capacity, 64 * CAPACITY_STEPS) / CAPACITY_STEPS - 20)

    @property
    def share(self) -> float:
        """How much of its capacity it keeps."""
        return (math.pow(2.0, self.load / LOAD_STEPS) - 1) / BILLION

    def pack(self) -> list[int]:
        """Return it as it is gossiped."""
        return [
            VERSION,
            self.capacity,
            self.room_bytes,
            int(self.is_full),
            self.speed,
            self.load,
            self.replicas,
            self.new_files,
            self.hot,
            self.cold,
            self.joined_s,
        ]


def unpack(value: object) -> Wishes | None:
    """Read what a pod gossiped; None when it said nothing that can be understood."""
    match value:
        case [
            int(version),
            int(capacity),
            int(room),
            int(is_full),
            int(speed),
            int(load),
            int(replicas),
            int(new_files),
            int(hot),
            int(cold),
            int(joined_s),
            *_,
        ] if (
            version >= VERSION
            and all(0 <= one < MAX_STEP for one in (capacity, speed, load))
            and 0 <= room <= MAX_BYTES
            and 0 <= joined_s <= MAX_TIME_S
            and all(abs(one) <= MAX_WISH for one in (replicas, new_files, hot, cold))
        ):
            return Wishes(capacity, room, bool(is_full), speed, load, replicas, new_files, hot, cold, joined_s)
    return None


def slow_speed(speeds: Iterable[int]) -> int:
    """Return the speed from which on downwards a pod counts as slow among pods of these speeds (0: not measured)."""
    known = [speed for speed in speeds if speed]
    return median_low(known) - SLOW_STEPS if len(known) > 1 else 0


def mean_share(said: Iterable[Wishes]) -> float:
    """Return which share of its capacity each of these pods would keep, if what they keep were spread evenly."""
    known = [one for one in said if one.capacity]
    total = sum(one.weight for one in known)
    return sum(one.share * one.weight for one in known) / total if total else 0.0


class Scale:
    """Turns what one pod measures into steps. Times are seconds of any one clock that only goes forward."""

    def __init__(self) -> None:
        self._room_step = -1
        self._is_full = False
        self._speed = 0
        self._refused: tuple[float, int] | None = None
        """Until when, and the size."""
        self._pause_s = REFUSED_S
        self._least_free_bytes: int | None = None
        """The least room since the refusal."""

    def refused(self, size: int, now: float) -> None:
        """Note that a copy of ``size`` bytes found no room."""
        if self._refused is None or now >= self._refused[0] + MAX_REFUSED_S:
            self._pause_s = REFUSED_S
        elif now >= self._refused[0]:
            self._pause_s = min(MAX_REFUSED_S, 2 * self._pause_s)
        else:
            size = min(size, self._refused[1])
        self._refused, self._least_free_bytes = (now + self._pause_s, size), None

    def limits_changed(self) -> None:
        """Forget what found no room: there may be more of it now."""
        self._refused = None

    def short(self) -> None:
        """Note that a program's write found no room: full, whatever is left."""
        self._is_full = True

    def capacity(self, capacity_bytes: int) -> int:
        """Return the step of a capacity."""
        return round(CAPACITY_STEPS * math.log2(capacity_bytes)) if capacity_bytes > 1 else 0

    def is_full(self, capacity_bytes: int, free_bytes: int) -> bool:
        """Tell whether a pod with so much left is full."""
        least = max(min(LEAST_FULL_BYTES, capacity_bytes // 4), capacity_bytes // FULL_SHARE)
        self._is_full = free_bytes < (RELIEF * least if self._is_full else least)
        return self._is_full

    def room(self, free_bytes: int, now: float) -> int:
        """Return how many bytes to offer: a power of two, at most what is left."""
        step = free_bytes.bit_length() - 1
        if step > self._room_step >= 0 and free_bytes < ROOM_MARGIN * (1 << self._room_step + 1):
            step = self._room_step
        self._room_step = step
        offered = 1 << step if step >= 0 else 0
        if self._refused is not None and now < self._refused[0]:
            size = self._refused[1]
            least = free_bytes if self._least_free_bytes is None else min(free_bytes, self._least_free_bytes)
            self._least_free_bytes = least
            if free_bytes < least + size:
                return min(offered, max(0, size - 1))
            self._refused = None
        return offered

    def load(self, capacity_bytes: int, kept_bytes: int) -> int:
        """Return the step of how much is kept of what could be."""
        billionths = kept_bytes * BILLION // max(1, capacity_bytes)
        return min(MAX_STEP - 1, round(LOAD_STEPS * math.log2(1 + billionths)))

    def speed(self, bytes_per_s: float | None) -> int:
        """Return the step of a speed; it changes when the speed is well inside another step."""
        if bytes_per_s is None or bytes_per_s < 2:
            return self._speed
        exact = min(math.log2(bytes_per_s), float(SPEED_LIMIT))
        if not self._speed or abs(exact - self._speed) >= 1:
            self._speed = max(1, round(exact))
        return self._speed
