"""Where to fetch a chunk from, when to ask another pod too, when to give up. Pure: the clock comes as ``now``.

For each chunk a `ChunkPlan` is asked for the `next` step until it is done. It knows two kinds of pods: *holders* (they
said so, or they wrote the content) and *others* (alive; they may have it all the same: a shared chunk, news under
way). Who is asked first follows from `Sources`, which learns each pod's latency and rate.

It gives up at once when nobody who could be asked has it, and after the deadline without progress otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from base.ids import PodId

FIRST_LATENCY_S: Final = 0.005
FIRST_RATE: Final = 20e6
"""Bytes per second assumed of a pod that sent nothing yet."""
SMOOTHING: Final = 0.3
COUNT_S: Final = 0.25
"""What a pod sends to several requests at once is counted for so long (s)."""
BLOCK_FAILED_S: Final = 1.0
BLOCK_DAMAGED_S: Final = 60.0
MAX_BLOCK_S: Final = 30.0
HEDGE_LEAST_S: Final = 1.0
HEDGE_FACTOR: Final = 4.0
HEDGE_DEADLINE_SHARE: Final = 0.4
QUICKER_LEAST_S: Final = 0.1
QUICKER_FACTOR: Final = 2.0
LOOK_S: Final = 0.25
"""Whether somebody else has nothing to do is looked at so often (s)."""
MAX_ASKED_AT_ONCE: Final = 3
ROUND_PAUSE_S: Final = 0.25
PART_S: Final = 0.5
MIN_PART_BYTES: Final = 128 << 10
MAX_PART_BYTES: Final = 1 << 20
MOST_RUNNING: Final = ((0.25, 2), (0.1, 4), (0.0, 16))
"""Requests to one pod at a time, by the seconds that each should take at its rate."""
AVOID_S: Final = 0.05
"""Handicap of a pod that others are preferred to (the author, when somebody else has the content)."""


@dataclass(slots=True)
class Source:
    """What was learnt about one pod as a server of chunks."""

    latency_s: float = FIRST_LATENCY_S
    rate: float | None = None
    """Bytes per second over all requests to it at once."""
    waiting_bytes: int = 0
    running: int = 0
    last_answer_at: float = float("-inf")
    counted_from: float = float("-inf")
    """Since then it was never idle and `counted_bytes` came from it."""
    counted_bytes: int = 0
    sent_bytes: int = 0
    """All that ever came from it."""
    blocked_until: float = float("-inf")
    failures: int = 0

    def expected_s(self, length: int) -> float:
        """Return how long a request of ``length`` bytes should take now."""
        return self.latency_s + (self.waiting_bytes + length) / (self.rate or FIRST_RATE)


class Sources:
    """All pods as servers of chunks."""

    def __init__(self) -> None:
        self._sources: dict[PodId, Source] = {}

    def of(self, pod: PodId) -> Source:
        """Return what is known about a pod."""
        return self._sources.setdefault(pod, Source())

    def order(self, pods: Iterable[PodId], length: int, now: float, avoid: PodId | None = None) -> list[PodId]:
        """Return pods, the one expected to answer first in front; those that failed lately come last."""

        def key(pod: PodId) -> tuple[bool, float, str]:
            source = self.of(pod)
            return source.blocked_until > now, source.expected_s(length) + (AVOID_S if pod == avoid else 0.0), pod

        return sorted(pods, key=key)

    def best_rate(self, since: float) -> float | None:
        """Return the best rate of the pods that answered since then; None when none of them sent much."""
        rates = [one.rate for one in self._sources.values() if one.rate is not None and one.last_answer_at >= since]
        return max(rates, default=None)

    def part_bytes(self, pod: PodId) -> int:
        """Return how much to ask for in one message: about half a second's worth, so that progress shows."""
        rate = self.of(pod).rate
        if rate is None:
            return MIN_PART_BYTES * 2
        part = MIN_PART_BYTES
        while part < MAX_PART_BYTES and part * 2 <= rate * PART_S:
            part *= 2
        return part

    def is_full(self, pod: PodId, length: int) -> bool:
        """Tell whether a pod has enough to do: more requests to a slow one only delay what others could send."""
        source = self.of(pod)
        seconds_each = length / (source.rate or FIRST_RATE)
        return source.running >= next(most for least_s, most in MOST_RUNNING if seconds_each >= least_s)

    def started(self, pod: PodId, length: int) -> None:
        """Note a request."""
        source = self.of(pod)
        source.waiting_bytes += length
        source.running += 1

    def ended(self, pod: PodId, length: int) -> None:
        """Note that a request isn't running any more, whatever came of it."""
        source = self.of(pod)
        source.waiting_bytes -= length
        source.running -= 1

    def answered(self, pod: PodId, size: int, elapsed_s: float, now: float) -> None:
        """Note an answer of ``size`` bytes."""
        source = self.of(pod)
        if now - elapsed_s > source.last_answer_at:  # it had nothing to do in between
            source.counted_from, source.counted_bytes = now - elapsed_s, 0
        source.last_answer_at = now
        source.failures = 0
        source.blocked_until = float("-inf")
        source.counted_bytes += size
        source.sent_bytes += size
        if size < MIN_PART_BYTES:
            source.latency_s += SMOOTHING * (elapsed_s - source.latency_s)
            return
        span_s = now - source.counted_from
        if source.running > 1 and span_s < COUNT_S:
            return  # of several at once the first to come says too much: buffers along the way were empty
        rate = source.counted_bytes / max(span_s, 1e-6)
        source.counted_from, source.counted_bytes = now, 0
        slower = source.rate is None or rate < source.rate / 2  # a network that became slow is believed at once
        source.rate = rate if slower or source.rate is None else source.rate + SMOOTHING * (rate - source.rate)

    def seen(self, pod: PodId, now: float) -> None:
        """Note an answer that tells nothing of the network: it may have waited for something else."""
        source = self.of(pod)
        source.last_answer_at = now
        source.failures = 0

    def failed(self, pod: PodId, now: float, *, damaged: bool = False) -> None:
        """Note that a pod didn't answer, or sent something else than was asked for."""
        source = self.of(pod)
        source.failures += 1
        pause = BLOCK_DAMAGED_S if damaged else min(MAX_BLOCK_S, BLOCK_FAILED_S * 2 ** min(source.failures - 1, 5))
        source.blocked_until = now + pause


class Outcome(Enum):
    """What came of asking one pod for one chunk."""

    MISSING = "missing"
    """It doesn't have it."""
    FAILED = "failed"
    """No answer."""
    DAMAGED = "damaged"
    """Other bytes than those that the hash names."""


class Reason(Enum):
    """Why a chunk can't be had."""

    ABSENT = "absent"
    """Every pod that holds it is known to be away, or nobody does."""
    DEADLINE = "deadline"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask this pod now."""

    pod: PodId


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until then, or until something happens."""

    until: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """It can't be had."""

    reason: Reason


Step = Ask | Wait | GiveUp


@dataclass(frozen=True, slots=True)
class Candidates:
    """Whom one may ask now; all of them reachable."""

    holders: frozenset[PodId]
    others: frozenset[PodId]
    avoid: PodId | None = None
    coming: PodId | None = None
    """One that is only getting it, and can be asked to answer once it has."""


@dataclass(slots=True)
class ChunkPlan:
    """The search for one chunk of ``length`` bytes."""

    length: int
    deadline_s: float
    progress_at: float
    _running: dict[PodId, float] = field(default_factory=dict)
    _queued: dict[PodId, int] = field(default_factory=dict)
    """What a pod will have sent in all, in bytes, once it has sent what it was asked for before this."""
    _tried: dict[PodId, Outcome] = field(default_factory=dict)
    _resume_at: float | None = None

    def next(self, now: float, candidates: Candidates, sources: Sources) -> Step:
        """Return what to do now."""
        if not self._running:
            busy = [pod for pod in candidates.holders if sources.is_full(pod, self.length)]
            self.progress_at = max([self.progress_at, *(sources.of(pod).last_answer_at for pod in busy)])
        deadline_at = self.progress_at + self.deadline_s
        if now >= deadline_at:
            return GiveUp(Reason.DEADLINE)
        if self._resume_at is not None and not self._running:
            if now < self._resume_at:
                return Wait(min(self._resume_at, deadline_at))
            self._resume_at = None
            self._tried = {pod: outcome for pod, outcome in self._tried.items() if outcome is Outcome.DAMAGED}
        best = self._best(now, candidates, sources)
        if best is not None and sources.is_full(best, self.length):
            return Wait(deadline_at)
        if not self._running:
            return self._ask(best, now, sources) if best is not None else self._none_left(now, deadline_at, candidates)
        reachable = candidates.holders | candidates.others
        stalls = [
            now if pod not in reachable else self._stalls_at(pod, started_at, sources)
            for pod, started_at in self._running.items()
        ]
        if best is None or len(self._running) >= MAX_ASKED_AT_ONCE:
            return Wait(deadline_at)
        ask_at = max(*stalls, self._idle_at(best, sources))
        if now >= ask_at or (best in candidates.holders and self._is_quicker(best, now, sources)):
            return self._ask(best, now, sources)
        return Wait(min(ask_at, deadline_at, now + LOOK_S))

    def _is_quicker(self, pod: PodId, now: float, sources: Sources) -> bool:
        """Tell whether a pod with nothing to do would have sent it long before those that have it in their queues."""
        source = sources.of(pod)
        if source.running or source.blocked_until > now:
            return False
        left_s: list[float] = []
        for other, queued in ((sources.of(one), self._queued[one]) for one in self._running):
            before = queued - other.sent_bytes
            left_s.append((before + self.length) / other.rate if other.rate and before > 0 else 0.0)
        return min(left_s) > QUICKER_LEAST_S + QUICKER_FACTOR * source.expected_s(self.length)

    def _idle_at(self, pod: PodId, sources: Sources) -> float:
        """Return from when on a pod may be asked beside another one.

        While it answers none of its own requests it would hardly be quicker: then the network is slow, not the other pod.
        """
        source, asked_at = sources.of(pod), max(self._running.values())
        if not source.running or source.last_answer_at > asked_at:
            return asked_at
        return asked_at + HEDGE_DEADLINE_SHARE * self.deadline_s

    def _ask(self, pod: PodId, now: float, sources: Sources) -> Ask:
        self._running[pod] = now
        source = sources.of(pod)
        self._queued[pod] = source.sent_bytes + source.waiting_bytes
        return Ask(pod)

    def _best(self, now: float, candidates: Candidates, sources: Sources) -> PodId | None:
        for group in (candidates.holders, candidates.others):
            untried = [pod for pod in group if pod not in self._tried and pod not in self._running]
            if untried:
                free = [pod for pod in untried if not sources.is_full(pod, self.length)]
                return sources.order(free or untried, self.length, now, candidates.avoid)[0]
        return None

    def _stalls_at(self, pod: PodId, started_at: float, sources: Sources) -> float:
        source = sources.of(pod)
        patience_s = max(HEDGE_LEAST_S, HEDGE_FACTOR * source.expected_s(self.length))
        return max(started_at, source.last_answer_at) + min(patience_s, HEDGE_DEADLINE_SHARE * self.deadline_s)

    def _none_left(self, now: float, deadline_at: float, candidates: Candidates) -> Step:
        outcomes = set(self._tried.values())
        if Outcome.FAILED not in outcomes and not candidates.holders - self._damaged():
            return GiveUp(Reason.DAMAGED if Outcome.DAMAGED in outcomes else Reason.ABSENT)
        self._resume_at = now + ROUND_PAUSE_S
        return Wait(min(self._resume_at, deadline_at))

    def _damaged(self) -> frozenset[PodId]:
        return frozenset(pod for pod, outcome in self._tried.items() if outcome is Outcome.DAMAGED)

    def progressed(self, now: float) -> None:
        """Note that bytes came in."""
        self.progress_at = now

    def held_up(self, pod: PodId, now: float) -> None:
        """Note that asking a pod waits for this pod's own limits: it is no fault of that one."""
        self.progress_at = now
        if pod in self._running:
            self._running[pod] = now

    def ended(self, pod: PodId, outcome: Outcome) -> None:
        """Note that a pod won't deliver."""
        self._running.pop(pod, None)
        self._tried[pod] = outcome
