from __future__ import annotations

from base.ids import PodId
from policies.absence import Absences

ANN, BOB = PodId("a" * 32), PodId("b" * 32)


def test_who_stays_away_is_given_up_when_the_time_has_come() -> None:
    absences = Absences()
    absences.note([ANN], 100.0)
    absences.note([ANN, BOB], 110.0)
    assert absences.given_up(30.0, 129.9) == frozenset()
    assert absences.next_at(30.0, 129.0) == 130.0
    assert absences.given_up(30.0, 130.0) == {ANN}
    assert absences.next_at(30.0, 130.0) == 140.0
    assert absences.given_up(30.0, 140.0) == {ANN, BOB}
    assert absences.next_at(30.0, 140.0) is None


def test_who_comes_back_counts_again_at_once_and_its_next_absence_from_the_beginning() -> None:
    absences = Absences()
    absences.note([ANN], 0.0)
    assert absences.given_up(30.0, 50.0) == {ANN}
    absences.note([], 51.0)
    assert absences.given_up(30.0, 51.0) == frozenset()
    absences.note([ANN], 60.0)
    assert absences.given_up(30.0, 89.0) == frozenset()
    assert absences.given_up(30.0, 90.0) == {ANN}


def test_a_shorter_or_longer_patience_counts_for_absences_under_way() -> None:
    absences = Absences()
    absences.note([ANN], 0.0)
    assert absences.given_up(0.0, 0.0) == {ANN}
    assert absences.given_up(1000.0, 500.0) == frozenset()
    assert absences.next_at(1000.0, 500.0) == 1000.0
