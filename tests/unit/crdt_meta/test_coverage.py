"""Which copies are here, by what adopters said of each other."""

from __future__ import annotations

from collections import Counter

import pytest

from base.ids import WriterId
from crdt_meta.coverage import copied
from crdt_meta.peers import Retired

ANN, BOB, EVE, TOM = (WriterId(name * 8) for name in (b"a", b"b", b"e", b"t"))
Adopted = dict[WriterId, list[Retired]]


def upto(writer: WriterId, adopted: Adopted, applied: dict[WriterId, int], *, may_come: bool = False) -> int:
    """Return what is covered where so much of each writer's log is here."""

    def is_here(one: Retired) -> bool | None:
        if applied.get(one.by, 0) >= one.sequence:
            return True
        return None if one.by in adopted else may_come

    return copied(writer, adopted, is_here, lambda owner, one: one.digest != b"other")


def test_an_adopters_log_is_here_or_may_come() -> None:
    adopted = {ANN: [Retired(7, BOB, 3)]}
    assert upto(ANN, adopted, {BOB: 3}) == 7
    assert upto(ANN, adopted, {BOB: 2}) == 0
    assert upto(ANN, adopted, {BOB: 2}, may_come=True) == 7
    assert upto(BOB, adopted, {BOB: 3}) == 0, "nobody adopted that"


def test_copies_of_copies_count_if_all_are_here_that_hold_them() -> None:
    adopted = {ANN: [Retired(7, BOB, 5, begun=3)], BOB: [Retired(4, EVE, 1), Retired(6, TOM, 1, since=4)]}
    assert upto(ANN, adopted, {EVE: 1, TOM: 1}) == 7
    assert upto(ANN, adopted, {EVE: 1}) == 0, "the fifth is missing"
    assert upto(ANN, adopted, {TOM: 1}) == 0, "the fourth is missing"
    assert upto(ANN, adopted, {TOM: 1}, may_come=True) == 7
    assert upto(BOB, adopted, {TOM: 1}) == 0, "what was before is missing"


def test_a_gap_and_another_life_are_not_covered() -> None:
    adopted = {ANN: [Retired(9, BOB, 5, since=4), Retired(3, BOB, 2), Retired(8, EVE, 2, digest=b"other")]}
    assert upto(ANN, adopted, {BOB: 5, EVE: 2}) == 3
    adopted[ANN].append(Retired(4, TOM, 1))
    assert upto(ANN, adopted, {BOB: 5, EVE: 2, TOM: 1}) == 9


@pytest.mark.parametrize("may_come", [False, True])
def test_adopters_who_adopted_each_other_prove_nothing(may_come: bool) -> None:
    adopted = {ANN: [Retired(7, BOB, 3)], BOB: [Retired(3, ANN, 7)]}
    assert upto(ANN, adopted, {}, may_come=may_come) == 0
    adopted[BOB].append(Retired(3, EVE, 1))
    assert upto(ANN, adopted, {EVE: 1}, may_come=may_come) == 7


def test_what_is_here_of_one_may_show_that_the_rest_of_it_is() -> None:
    """Eve's copies of ann's beginning hold bob's, and these hold the rest of ann's."""
    adopted = {ANN: [Retired(5, EVE, 1), Retired(9, BOB, 6)], BOB: [Retired(6, ANN, 5)]}
    assert upto(ANN, adopted, {EVE: 1}) == 9
    assert upto(ANN, adopted, {}) == 0


@pytest.mark.parametrize("known", [False, True])
def test_many_who_adopted_each_other_are_looked_at_once(known: bool) -> None:
    """A pod may say that of as many writers as it has, and the ways from one to another are more than can be gone."""
    writers = [WriterId(bytes([number]) * 8) for number in range(48)]
    adopted = {one: [Retired(9, by, 9) for by in writers if by != one] for one in writers}
    looked: Counter[tuple[WriterId, Retired]] = Counter()
    by_one = Retired(9, writers[-1], 9)

    def is_here(one: Retired) -> bool | None:
        return True if known and one == by_one else None

    def is_of_this_life(owner: WriterId, one: Retired) -> bool:
        looked[owner, one] += 1
        return True

    assert copied(writers[0], adopted, is_here, is_of_this_life) == (9 if known else 0)
    assert max(looked.values(), default=1) == 1
