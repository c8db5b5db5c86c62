"""The situation of the cluster as one pod judges it. Pure: counts in, a verdict out.

*favourable*: nothing hinders anybody, or repair is under way; *degraded*: copies are missing and can't be made anew;
*critical*: files can't be read. A content that never reached its copies and whose holder is away is *pending*: that is
a warning, not a situation, because nothing that was promised is broken.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from base.ids import PodId


class Situation(Enum):
    """The values are those of ``wormhole status --json``."""

    FAVOURABLE = "favourable"
    DEGRADED = "degraded"
    CRITICAL = "critical"


class Standing(Enum):
    """How well one content stands."""

    SAFE = "safe"
    """Enough kept copies, on pods that are alive or whose absence is planned."""
    SHORT = "short"
    """Readable, with too few kept copies."""
    PENDING = "pending"
    """Not readable now; it never had its copies, and its holder is away."""
    MISSING = "missing"
    """Not readable now although it had its copies, or nobody is known to have it."""


def standing(*, wanted: int, kept: int, cached: int, planned: int, absent: int) -> Standing:
    """Judge one content.

    ``kept`` and ``cached`` count reachable pods that have it, ``planned`` those that announced their absence,
    ``absent`` those that vanished.
    """
    if kept + planned >= wanted:
        return Standing.SAFE
    if kept or cached:
        return Standing.SHORT
    if planned or 0 < absent < wanted:
        return Standing.PENDING
    return Standing.MISSING


@dataclass(frozen=True, slots=True)
class Tally:
    """How many files stand how."""

    total: int = 0
    short: int = 0
    pending: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The situation and, in one sentence, why."""

    situation: Situation
    reason: str


def judge(tally: Tally, *, reachable_full_pods: int, copies: int) -> Verdict:
    """Judge the whole: ``copies`` is what the configuration wants of the members that there are."""
    if tally.missing:
        return Verdict(Situation.CRITICAL, f"{tally.missing} of {tally.total} files can't be read: no holder answers.")
    if tally.short and reachable_full_pods < copies:
        return Verdict(
            Situation.DEGRADED,
            f"{tally.short} of {tally.total} files have too few copies, and too few pods answer to make them anew.",
        )
    if tally.short:
        return Verdict(Situation.FAVOURABLE, f"{tally.short} of {tally.total} files are getting their copies.")
    return Verdict(Situation.FAVOURABLE, "Every file has its copies.")


def is_connected(me: PodId, counted: Sequence[PodId], reachable: Collection[PodId]) -> bool:
    """Tell whether this pod is on the side of the network that goes on (DESIGN.md, Situations).

    ``counted`` are the counted full pods in the order of their admission; ``reachable`` those that answer. A pod is cut
    off if it reaches no other counted pod, or its side is under half of them, or just half without the earliest one.
    """
    others = [pod for pod in counted if pod != me]
    if not others:
        return True
    side = [pod for pod in counted if pod == me or pod in reachable]
    if side == [me]:
        return False
    if len(side) * 2 == len(counted):
        return counted[0] in side
    return len(side) * 2 > len(counted)
