"""What is done about what, and why."""

from __future__ import annotations

import pytest

from policies.reactions import Cause, Effect, drill_left_s, follow, react, reaction_to
from policies.schema import Continuity
from policies.situation import Grade, Situation

CONTINUITY = Continuity(favourable="throttle", degraded="fewer-copies", critical="stop")


def effects(**facts: object) -> set[tuple[Effect, Cause]]:
    given: dict[str, object] = {
        "grade": Grade.WELL,
        "reason": "so",
        "continuity": CONTINUITY,
        "cut_off": False,
        "when_cut_off": "freeze",
    }
    return {(one.effect, one.cause) for one in react(**(given | facts))}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("grade", "effect"),
    [(Grade.FAVOURABLE, Effect.THROTTLE), (Grade.DEGRADED, Effect.FEWER_COPIES), (Grade.CRITICAL, Effect.STOP)],
)
def test_each_situation_has_its_reaction(grade: Grade, effect: Effect) -> None:
    assert effects(grade=grade) == {(effect, Cause.SITUATION)}
    assert reaction_to(grade.situation, CONTINUITY) == effect.value


def test_nothing_is_done_where_nothing_failed_or_nothing_is_wanted() -> None:
    assert effects() == set()
    assert effects(grade=Grade.CRITICAL, continuity=Continuity()) == set()
    assert effects(cut_off=True, when_cut_off="continue") == set()


def test_a_cut_off_pod_obeys_its_own_configuration_only() -> None:
    assert effects(grade=Grade.CRITICAL, cut_off=True) == {(Effect.FREEZE, Cause.CUT_OFF)}


def test_a_word_of_a_person_holds_everywhere() -> None:
    assert effects(frozen_by="nas", cut_off=True) == {(Effect.FREEZE, Cause.BY_HAND), (Effect.FREEZE, Cause.CUT_OFF)}
    assert effects(drill=Situation.CRITICAL) == {(Effect.STOP, Cause.DRILL)}
    assert (
        "nas"
        in react(
            grade=Grade.WELL, reason="", continuity=CONTINUITY, cut_off=False, when_cut_off="stop", frozen_by="nas"
        )[0].reason
    )


def test_a_client_pod_does_what_full_pods_do() -> None:
    told = {"nas": frozenset({Effect.FREEZE, Effect.FEWER_COPIES}), "desktop": frozenset[Effect]()}
    assert {one.effect for one in follow(told, cut_off=False, when_cut_off="stop")} == {Effect.FREEZE}
    assert {one.effect for one in follow({}, cut_off=True, when_cut_off="stop")} == {Effect.STOP}


def test_a_drill_ends_by_its_record() -> None:
    assert drill_left_s(1000.0, 30.0, 1000.0) == 30.0
    assert drill_left_s(1000.0, 30.0, 1010.0) == 20.0
    assert drill_left_s(1000.0, 30.0, 5000.0) == 0.0
    assert drill_left_s(1000.0, 30.0, 998.0) == 30.0, "never longer than it was meant to be"
    assert drill_left_s(1000.0, 30.0, 0.0) == 0.0, "a clock that is far behind"
