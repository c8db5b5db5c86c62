"""The verdict on single contents, on the whole and on being cut off."""

from __future__ import annotations

from dataclasses import replace

import pytest

from base.ids import ContentId, PodId, hash_bytes
from policies.situation import (
    CALM_S,
    NAME_BYTES,
    NOTHING,
    Acceptance,
    Contact,
    Grade,
    Held,
    Pods,
    Situation,
    Standing,
    Steady,
    Survey,
    Verdict,
    is_connected,
    standing,
)

A, B, C, D = (PodId(letter * 32) for letter in "abcd")
GB = 10**9


@pytest.mark.parametrize(
    ("wanted", "kept", "cached", "planned", "absent", "expected"),
    [
        (2, 2, 0, 0, 0, Standing.SAFE),
        (2, 1, 0, 1, 0, Standing.SAFE),
        (2, 1, 0, 0, 1, Standing.SHORT),
        (2, 0, 1, 0, 2, Standing.SHORT),
        (2, 0, 0, 0, 1, Standing.PENDING),
        (2, 0, 0, 1, 0, Standing.PENDING),
        (1, 0, 0, 1, 0, Standing.PENDING),
        (2, 0, 0, 2, 0, Standing.PENDING),
        (2, 0, 0, 0, 2, Standing.MISSING),
        (1, 0, 0, 0, 1, Standing.MISSING),
        (1, 0, 0, 0, 0, Standing.MISSING),
    ],
)
def test_standing(wanted: int, kept: int, cached: int, planned: int, absent: int, expected: Standing) -> None:
    assert standing(wanted=wanted, kept=kept, cached=cached, planned=planned, absent=absent) is expected


def pods(present: str, lost: str = "", planned: str = "", **room: int) -> Pods:
    def named(letters: str) -> frozenset[PodId]:
        return frozenset(PodId(letter * 32) for letter in letters)

    return Pods(named(present), named(planned), named(lost), {PodId(pod * 32): free for pod, free in room.items()})


def held(name: str, kept: str, copies: int = 2, **more: object) -> Held:
    holders = frozenset(PodId(letter * 32) for letter in kept)
    return replace(Held(ContentId(hash_bytes(name.encode())), 1, 1000, copies, holders, frozenset()), **more)  # type: ignore[arg-type]


def verdict(where: Pods, *contents: Held, accepted: Acceptance = NOTHING) -> Verdict:
    survey = Survey(where, accepted)
    for one in contents:
        survey.add(one)
    return survey.verdict(len(contents))


def test_all_is_well() -> None:
    found = verdict(pods("abc"), held("x", "ab"), held("y", "bc"))
    assert (found.grade, found.open, found.situation) == (Grade.WELL, Grade.WELL, Situation.FAVOURABLE)


def test_what_hinders_nobody_is_favourable() -> None:
    found = verdict(pods("abc", lost="d"), held("x", "ab"), held("y", "bd"))
    assert found.grade is Grade.FAVOURABLE
    assert found.tally.short == 1
    assert "1 of 2" in found.reason


def test_copies_that_nobody_is_there_to_take_are_degraded() -> None:
    assert verdict(pods("a", lost="b"), held("x", "ab")).grade is Grade.DEGRADED
    assert verdict(pods("ab", lost="c"), held("x", "abc", copies=3)).grade is Grade.DEGRADED


def test_a_cluster_that_never_had_enough_pods_is_well() -> None:
    assert verdict(pods("ab"), held("x", "ab", copies=3)).grade is Grade.WELL


def test_full_disks_are_degraded() -> None:
    full = pods("abc", lost="d", a=10, b=10, c=10)
    assert verdict(full, held("x", "ad")).grade is Grade.DEGRADED
    assert "room" in verdict(full, held("x", "ad")).reason
    assert verdict(pods("abc", lost="d", a=10, b=10, c=GB), held("x", "ad")).grade is Grade.FAVOURABLE
    assert verdict(pods("abc", lost="d", a=GB, b=10, c=10), held("x", "ad")).grade is Grade.DEGRADED, "it has it"


def test_room_for_each_copy_is_no_room_for_all() -> None:
    where = pods("abc", lost="d", a=1500, b=1500, c=1500)
    assert verdict(where, *(held(f"{number}", "ad") for number in range(3))).grade is Grade.FAVOURABLE
    assert verdict(where, *(held(f"{number}", "ad") for number in range(4))).grade is Grade.DEGRADED, "none takes half"


def test_files_that_nobody_can_read_are_critical() -> None:
    found = verdict(pods("abc", lost="d"), held("x", "d", copies=1), held("y", "ab"))
    assert found.grade is Grade.CRITICAL
    assert "1 of 2" in found.reason


def test_sleeping_laptops_and_what_never_had_copies_are_no_situation() -> None:
    assert verdict(pods("abc", planned="d"), held("x", "d", copies=1), held("y", "ad")).grade is Grade.WELL
    never = verdict(pods("abc", lost="d"), held("x", "d"))
    assert (never.grade, never.tally.pending) == (Grade.FAVOURABLE, 1)
    written = verdict(pods("abc", lost="d"), held("x", "", author=D))
    assert written.tally.pending == 1


def test_with_fewer_copies_the_loss_of_the_only_one_is_a_loss() -> None:
    assert verdict(pods("abc", lost="d"), held("x", "d", promised=1)).grade is Grade.CRITICAL


def test_who_was_let_in_and_never_came_is_no_loss() -> None:
    coming = Pods(frozenset({A}), frozenset(), frozenset(), {}, frozenset({B}))
    assert verdict(coming, held("x", "a")).grade is Grade.WELL
    assert verdict(coming, held("x", "b", author=B)).grade is Grade.CRITICAL, "of one wanted copy, as far as known"
    known = Pods(frozenset({A, C}), frozenset(), frozenset(), {}, frozenset({B}))
    assert verdict(known, held("x", "b")).tally.pending == 1


def test_who_wrote_it_has_it() -> None:
    assert verdict(pods("abc"), held("x", "", author=A)).tally.short == 1
    assert verdict(pods("abc"), held("x", "", author=None)).grade is Grade.CRITICAL


def test_what_was_accepted_fires_nothing_and_what_is_lost_later_does() -> None:
    accepted = Acceptance(degraded=True, lost=frozenset({D}))
    gone = held("x", "d", copies=1)
    found = verdict(pods("abc", lost="d"), gone, accepted=accepted)
    assert (found.grade, found.open) == (Grade.CRITICAL, Grade.WELL)
    new = held("y", "c", copies=1)
    found = verdict(pods("ab", lost="cd"), gone, new, accepted=accepted)
    assert found.open is Grade.CRITICAL
    found = verdict(pods("ab", lost="cd"), gone, held("z", "abc", copies=3), accepted=accepted)
    assert (found.grade, found.open) == (Grade.CRITICAL, Grade.DEGRADED)
    assert verdict(pods("abc", lost="d"), gone, accepted=accepted.without([D])).open is Grade.CRITICAL


def test_new_files_that_are_short_for_an_accepted_reason_fire_nothing() -> None:
    accepted = Acceptance(degraded=True, lost=frozenset({C}))
    found = verdict(pods("ab", lost="c"), held("new", "ab", copies=3), accepted=accepted)
    assert (found.grade, found.open) == (Grade.DEGRADED, Grade.WELL)


def test_missing_contents_that_no_lost_pod_has_are_accepted_by_name() -> None:
    one, other = held("x", ""), held("y", "")
    found = verdict(pods("abc"), one)
    assert found.orphans == (one.content,)
    accepted = Acceptance(contents=frozenset({one.content[:NAME_BYTES]}))
    assert verdict(pods("abc"), one, accepted=accepted).open is Grade.WELL
    assert verdict(pods("abc"), one, other, accepted=accepted).open is Grade.CRITICAL


def test_evicting_an_accepted_pod_fires_nothing() -> None:
    accepted = Acceptance(lost=frozenset({D}))
    found = verdict(pods("abc"), held("x", "d", copies=1), accepted=accepted)
    assert (found.grade, found.open) == (Grade.CRITICAL, Grade.WELL)


def test_a_grade_rises_soon_and_falls_after_a_while() -> None:
    steady = Steady()
    assert steady.look(Grade.CRITICAL, 0.0) is Grade.WELL
    assert steady.due_at() == 1.0
    assert steady.look(Grade.CRITICAL, 1.0) is Grade.CRITICAL
    assert steady.look(Grade.WELL, 2.0) is Grade.CRITICAL
    assert steady.look(Grade.DEGRADED, 3.0) is Grade.CRITICAL
    assert steady.look(Grade.WELL, 2.0 + CALM_S) is Grade.DEGRADED, "the worst of the time"
    assert steady.look(Grade.WELL, 2.0 + CALM_S) is Grade.DEGRADED
    assert steady.look(Grade.WELL, 2.0 + 2 * CALM_S) is Grade.WELL


def test_what_is_over_at_once_never_counts() -> None:
    steady = Steady()
    for now in range(0, 100, 2):
        assert steady.look(Grade.CRITICAL, now) is Grade.WELL
        assert steady.look(Grade.WELL, now + 0.9) is Grade.WELL


def test_what_keeps_coming_back_is_left_later_each_time() -> None:
    steady, now, lengths = Steady(), 0.0, []
    for _ in range(6):
        while steady.look(Grade.DEGRADED, now) is not Grade.DEGRADED:
            now += 0.5
        began = now
        while steady.look(Grade.WELL, now) is not Grade.WELL:
            now += 0.5
        lengths.append(now - began)
    assert lengths == [3, 6, 12, 24, 48, 60]


def test_being_cut_off_is_noticed_after_a_while_and_ends_after_a_moment() -> None:
    contact = Contact()
    assert not contact.look(False, 60.0, 0.0)
    assert contact.due_at(60.0) == 10.0
    assert not contact.look(True, 60.0, 9.0)
    assert not contact.look(False, 6.0, 20.0)
    assert contact.look(False, 6.0, 26.0)
    assert contact.look(True, 6.0, 27.0)
    assert contact.look(True, 6.0, 28.5)
    assert not contact.look(True, 6.0, 29.0)
    assert not contact.look(False, 0.1, 30.0)
    assert not contact.look(False, 0.1, 33.0), "who was let in just now may have to start yet"
    assert contact.look(False, 0.1, 34.0)


@pytest.mark.parametrize(
    ("me", "counted", "reachable", "half", "some"),
    [
        (A, [A], set(), True, True),
        (A, [A, B], set(), False, False),
        (B, [A, B], set(), False, False),
        (B, [A, B], {A}, True, True),
        (A, [A, B, C], set(), False, False),
        (C, [A, B, C], {B}, True, True),
        (C, [A, B, C, D], {D}, False, True),
        (A, [A, B, C, D], {B}, True, True),
        (D, [A, B, C, D], {B, C}, True, True),
        (D, [A, B, C], set(), False, False),
    ],
)
def test_connected(me: PodId, counted: list[PodId], reachable: set[PodId], half: bool, some: bool) -> None:
    assert is_connected(me, counted, reachable) is half
    assert is_connected(me, counted, reachable, "any") is some
