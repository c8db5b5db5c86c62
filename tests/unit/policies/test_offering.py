"""How much room a pod offers."""

from __future__ import annotations

from policies.offering import MAX_REFUSED_S, REFUSED_S, Scale

MIB = 1 << 20


def test_what_found_no_room_is_offered_none_for_a_while() -> None:
    scale = Scale()
    assert scale.room(4 * MIB, 0.0) == 4 * MIB
    scale.refused(MIB, 1.0)
    assert scale.room(4 * MIB, 1.0) == MIB - 1
    assert scale.room(4 * MIB, REFUSED_S) == MIB - 1
    assert scale.room(4 * MIB, REFUSED_S + 1.0) == 4 * MIB


def test_who_refuses_again_and_again_offers_nothing_for_longer_each_time() -> None:
    scale, now, pauses = Scale(), 0.0, []
    for _ in range(6):
        scale.refused(MIB, now)
        scale.refused(2 * MIB, now)  # of several at once
        begun = now
        while scale.room(4 * MIB, now) < MIB:
            now += 0.5
        pauses.append(now - begun)
    assert pauses == [5, 10, 20, 40, 60, 60]
    scale.refused(MIB, now + 2 * MAX_REFUSED_S)
    assert scale.room(4 * MIB, now + 2 * MAX_REFUSED_S + REFUSED_S) >= MIB


def test_room_for_it_counts_at_once_when_as_much_was_freed() -> None:
    scale = Scale()
    scale.refused(MIB, 1.0)
    assert scale.room(MIB // 2, 1.0) == MIB // 2
    assert scale.room(MIB + MIB // 4, 2.0) == MIB - 1
    assert scale.room(2 * MIB, 3.0) >= MIB
    assert scale.room(MIB // 2, 4.0) == MIB // 2
    assert scale.room(2 * MIB, 5.0) >= MIB, "the refusal is forgotten"
    scale.refused(MIB, 6.0)
    assert scale.room(2 * MIB, 6.0) == MIB - 1, "a new one counts anew"
