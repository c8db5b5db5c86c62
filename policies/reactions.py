"""What a pod does about a situation, about being cut off, and on a person's word. Pure.

Each pod judges and acts by itself. A reaction comes and goes with its cause; nothing is remembered here. A cut off pod
obeys `[disconnected]` only, since what it sees of the others says nothing about them.

A reaction must never prevent its own cure: whatever is in force, reading what can be read (but for `stop`), repair,
removing files, emptying the trash, joining, evicting and configuring go on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from policies.schema import Continuity, CutOffReaction
from policies.situation import Grade, Situation


class Effect(Enum):
    """What is done; the values are those of the configuration."""

    THROTTLE = "throttle"
    """Traffic between pods is slowed down."""
    FEWER_COPIES = "fewer-copies"
    """Fewer copies are made, and those beyond are dropped."""
    FREEZE = "freeze"
    """Nothing is written through a mount."""
    STOP = "stop"
    """The mounts refuse everything."""


class Cause(Enum):
    """Why."""

    SITUATION = "situation"
    CUT_OFF = "cut off"
    BY_HAND = "by hand"
    DRILL = "drill"
    FULL_PODS = "full pods"
    """A client pod does what the full pods do that it reaches."""


@dataclass(frozen=True, slots=True)
class Reacting:
    """One effect in force."""

    effect: Effect
    cause: Cause
    reason: str
    """In one sentence."""


def reaction_to(situation: Situation, continuity: Continuity) -> str:
    """Return the reaction that the configuration names for a situation."""
    named = {
        Situation.FAVOURABLE: continuity.favourable,
        Situation.DEGRADED: continuity.degraded,
        Situation.CRITICAL: continuity.critical,
    }
    return named[situation]


CUT_OFF_REASON: Final = "This pod is cut off from the rest of the cluster."


def react(
    *,
    grade: Grade,
    reason: str,
    continuity: Continuity,
    cut_off: bool,
    when_cut_off: CutOffReaction,
    frozen_by: str = "",
    drill: Situation | None = None,
) -> tuple[Reacting, ...]:
    """Return all that a pod is to do.

    ``grade`` is what was not accepted (`policies.situation.Verdict.open`), without flapping; ``reason`` says why.
    ``frozen_by`` names the pod on which somebody froze the cluster by hand; empty: nobody did. ``drill``: which
    situation is being rehearsed.
    """
    found: list[Reacting] = []
    if frozen_by:
        found.append(Reacting(Effect.FREEZE, Cause.BY_HAND, f"The cluster was frozen by hand on {frozen_by}."))
    if drill is not None:
        found += _effect(reaction_to(drill, continuity), Cause.DRILL, f"A drill: as if it were {drill.value}.")
    if cut_off:
        found += _effect(when_cut_off, Cause.CUT_OFF, CUT_OFF_REASON)
    elif grade is not Grade.WELL:
        found += _effect(reaction_to(grade.situation, continuity), Cause.SITUATION, reason)
    return tuple(found)


def follow(told: dict[str, frozenset[Effect]], *, cut_off: bool, when_cut_off: CutOffReaction) -> tuple[Reacting, ...]:
    """Return what a client pod is to do: what full pods do, given by their names, as far as it concerns clients."""
    found: list[Reacting] = []
    for effect in (Effect.THROTTLE, Effect.FREEZE, Effect.STOP):
        names = sorted(name for name, effects in told.items() if effect in effects)
        if names:
            found.append(Reacting(effect, Cause.FULL_PODS, f"The full pods do so: {', '.join(names[:3])}."))
    if cut_off:
        found += _effect(when_cut_off, Cause.CUT_OFF, "No full pod can be reached.")
    return tuple(found)


def _effect(reaction: str, cause: Cause, reason: str) -> list[Reacting]:
    return [] if reaction == "continue" else [Reacting(Effect(reaction), cause, reason)]


MOST_EARLY_S: Final = 60.0
"""A drill that begins later than this by the own clock isn't taken part in: one of the clocks is wrong."""


def drill_left_s(begun_s: float, for_s: float, now_s: float) -> float:
    """Return how long a drill goes on, 0 when it is over; times are wall clocks', corrected as far as possible."""
    passed_s = now_s - begun_s
    if passed_s < -MOST_EARLY_S:
        return 0.0
    return max(0.0, for_s - max(0.0, passed_s))
