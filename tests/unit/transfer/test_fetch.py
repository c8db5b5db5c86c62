"""The fetch planner, step by step."""

from __future__ import annotations

from base.ids import PodId
from transfer.fetch import (
    MAX_PART_BYTES,
    MIN_PART_BYTES,
    Ask,
    Candidates,
    ChunkPlan,
    GiveUp,
    Outcome,
    Reason,
    Sources,
    Wait,
)

A, B, C = (PodId(letter * 32) for letter in "abc")
MIB = 1 << 20


def candidates(*holders: PodId, others: tuple[PodId, ...] = (), avoid: PodId | None = None) -> Candidates:
    return Candidates(frozenset(holders), frozenset(others), avoid)


def plan() -> ChunkPlan:
    return ChunkPlan(MIB, 10.0, 0.0)


def test_the_quickest_is_asked_and_the_busy_one_is_not() -> None:
    sources = Sources()
    for _ in range(20):
        sources.answered(A, MIB, 0.1, 0.0)
        sources.answered(B, MIB, 0.01, 0.0)
    assert plan().next(0.0, candidates(A, B), sources) == Ask(B)
    for _ in range(40):
        sources.started(B, MIB)
    assert plan().next(0.0, candidates(A, B), sources) == Ask(A)


def test_the_next_holder_is_asked_when_one_fails_then_the_others() -> None:
    sources, chunk = Sources(), plan()
    assert chunk.next(0.0, candidates(A, others=(B, C)), sources) == Ask(A)
    chunk.ended(A, Outcome.FAILED)
    first = chunk.next(0.1, candidates(A, others=(B, C)), sources)
    assert first == Ask(B)
    chunk.ended(B, Outcome.MISSING)
    assert chunk.next(0.1, candidates(A, others=(B, C)), sources) == Ask(C)
    chunk.ended(C, Outcome.MISSING)
    waits = chunk.next(0.2, candidates(A, others=(B, C)), sources)
    assert isinstance(waits, Wait)
    assert chunk.next(waits.until, candidates(A, others=(B, C)), sources) == Ask(A)


def test_nobody_to_ask_ends_at_once() -> None:
    assert plan().next(0.0, candidates(), Sources()) == GiveUp(Reason.ABSENT)
    chunk, sources = plan(), Sources()
    assert chunk.next(0.0, candidates(others=(B,)), sources) == Ask(B)
    chunk.ended(B, Outcome.MISSING)
    assert chunk.next(0.0, candidates(others=(B,)), sources) == GiveUp(Reason.ABSENT)


def test_a_holder_without_the_chunk_yet_is_asked_again_until_the_deadline() -> None:
    chunk, sources, now = plan(), Sources(), 0.0
    asked = 0
    while True:
        step = chunk.next(now, candidates(A), sources)
        if isinstance(step, Ask):
            asked += 1
            chunk.ended(A, Outcome.MISSING)
        elif isinstance(step, Wait):
            assert step.until > now
            now = step.until
        else:
            break
    assert step == GiveUp(Reason.DEADLINE)
    assert now == 10.0
    assert 10 < asked < 60


def test_progress_moves_the_deadline() -> None:
    chunk, sources = plan(), Sources()
    chunk.next(0.0, candidates(A), sources)
    chunk.progressed(9.0)
    assert isinstance(chunk.next(18.0, candidates(A), sources), Wait)
    assert chunk.next(19.0, candidates(A), sources) == GiveUp(Reason.DEADLINE)


def test_a_stalled_source_is_hedged_and_a_slow_one_that_delivers_is_not() -> None:
    chunk, sources = plan(), Sources()
    assert chunk.next(0.0, candidates(A), sources) == Ask(A)
    assert waited(chunk, sources, 0.9) == [Wait(0.25), Wait(0.75)]
    sources.answered(A, MIB, 0.9, 0.99)
    assert isinstance(chunk.next(1.1, candidates(A, B), sources), Wait)
    assert chunk.next(9.0, candidates(A, B), sources) == Ask(B)
    assert isinstance(chunk.next(9.0, candidates(A, B), sources), Wait)


def waited(chunk: ChunkPlan, sources: Sources, until: float) -> list[Wait]:
    """Return the first and last of the steps of a chunk while A is asked and B could be."""
    steps: list[Wait] = []
    now = 0.0
    while now < until:
        step = chunk.next(now, candidates(A, B), sources)
        assert isinstance(step, Wait)
        steps.append(step)
        now = step.until
    return [steps[0], steps[-2]]


def test_nobody_is_hedged_by_one_who_answers_nothing_either() -> None:
    """All requests went out at once over a slow network: asking for all again elsewhere would halve it."""
    first, second, sources = plan(), plan(), Sources()
    assert first.next(0.0, candidates(A), sources) == Ask(A)
    sources.started(A, MIB)
    assert second.next(0.0, candidates(B), sources) == Ask(B)
    sources.started(B, MIB)
    assert isinstance(first.next(3.0, candidates(A, B), sources), Wait)
    sources.answered(B, MIB, 3.1, 3.1)
    assert first.next(3.2, candidates(A, B), sources) == Ask(B)


def test_who_has_nothing_to_do_takes_over_from_a_long_queue() -> None:
    sources, chunks = Sources(), [plan() for _ in range(6)]
    for chunk in chunks:
        assert chunk.next(0.0, candidates(A), sources) == Ask(A)
        sources.started(A, MIB)
    sources.answered(A, MIB // 2, 0.5, 0.5)  # a MiB a second
    assert isinstance(chunks[0].next(0.6, candidates(A, B), sources), Wait), "it is on its way"
    assert chunks[5].next(0.6, candidates(A, B), sources) == Ask(B)
    sources.started(B, MIB)
    assert isinstance(chunks[4].next(0.6, candidates(A, B), sources), Wait), "one at a time"
    sources.answered(B, MIB, 0.1, 0.7)
    sources.ended(B, MIB)
    assert chunks[4].next(0.7, candidates(A, B), sources) == Ask(B)


def test_the_rate_is_that_of_all_requests_at_once_and_a_fall_is_believed() -> None:
    sources = Sources()
    for _ in range(4):
        sources.started(A, MIB)
    for number in range(1, 5):
        sources.answered(A, MIB, 0.05 * number, 0.05 * number)  # the first comes quickly
    sources.answered(A, MIB, 0.1, 0.3)
    assert sources.of(A).rate == 5 * MIB / 0.3
    for number in range(1, 4):
        sources.answered(A, MIB, 1.0, 0.3 + number)
    rate = sources.of(A).rate
    assert rate is not None
    assert rate < 1.1 * MIB


def test_a_source_that_went_away_is_replaced_at_once() -> None:
    chunk, sources = plan(), Sources()
    assert chunk.next(0.0, candidates(A), sources) == Ask(A)
    assert chunk.next(0.01, candidates(B), sources) == Ask(B)


def test_damaged_copies_are_not_asked_again() -> None:
    chunk, sources = plan(), Sources()
    assert chunk.next(0.0, candidates(A), sources) == Ask(A)
    chunk.ended(A, Outcome.DAMAGED)
    assert chunk.next(0.0, candidates(A), sources) == GiveUp(Reason.DAMAGED)


def test_a_failing_pod_comes_last_until_it_answers() -> None:
    sources = Sources()
    sources.failed(A, 0.0)
    assert sources.order([A, B], MIB, 0.5) == [B, A]
    sources.failed(A, 0.5)
    assert sources.order([A, B], MIB, 2.0) == [B, A]
    sources.answered(A, MIB, 0.001, 2.0)
    assert sources.order([A, B], MIB, 2.0) == [A, B]


def test_the_author_is_spared_when_others_have_it() -> None:
    assert Sources().order([A, B], 1000, 0.0, avoid=A) == [B, A]


def test_slow_links_get_small_parts_and_few_requests() -> None:
    sources = Sources()
    sources.answered(A, MIB, 20.0, 0.0)
    assert sources.part_bytes(A) == MIN_PART_BYTES
    sources.answered(B, MIB, 0.001, 0.0)
    assert sources.part_bytes(B) == MAX_PART_BYTES
    for pod in (A, A, B, B):
        sources.started(pod, MIB)
    assert sources.is_full(A, MIB)
    assert not sources.is_full(B, MIB)
    sources.ended(A, MIB)
    assert not sources.is_full(A, MIB)
