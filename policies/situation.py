"""The situation of the cluster as one pod judges it. Pure: who is there, who holds what, what room there is; a verdict out.

*favourable*: nothing hinders anybody, or repair is under way; *degraded*: copies are missing and can't be made anew;
*critical*: files can't be read. A content that never reached its copies and whose holder is away is *pending*: that is
a warning, not a situation, because nothing that was promised is broken. So is one whose holders said that they go away.

The verdict knows nothing of reactions: what is wanted is what the configuration says, also while fewer copies are made.
So a reaction can't make the situation that it came from look solved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final, Literal

from base.ids import ContentId, PodId

MAX_NAMED: Final = 2_000
"""Missing contents that a verdict names."""
NAME_BYTES: Final = 16
"""So much of a content's id names it in an acceptance."""


class Situation(Enum):
    """The values are those of ``wormhole status --json``."""

    FAVOURABLE = "favourable"
    DEGRADED = "degraded"
    CRITICAL = "critical"


class Grade(IntEnum):
    """How bad it is: a situation, or nothing at all."""

    WELL = 0
    FAVOURABLE = 1
    """Something failed, and hinders nobody."""
    DEGRADED = 2
    CRITICAL = 3

    @property
    def situation(self) -> Situation:
        """The situation that this is."""
        return (Situation.FAVOURABLE, Situation.FAVOURABLE, Situation.DEGRADED, Situation.CRITICAL)[self]


class Standing(Enum):
    """How well one content stands."""

    SAFE = "safe"
    """Enough kept copies, on pods that are alive or whose absence is planned."""
    SHORT = "short"
    """Readable, with too few kept copies."""
    PENDING = "pending"
    """Not readable now; it never had its copies, or its holders said that they go away."""
    MISSING = "missing"
    """Not readable now although it had its copies, or nobody is known to have it."""


def standing(
    *, wanted: int, kept: int, cached: int, planned: int, absent: int, promised: int | None = None
) -> Standing:
    """Judge one content.

    ``kept`` and ``cached`` count reachable pods that have it, ``planned`` those that announced their absence,
    ``absent`` those that vanished. ``promised``: how many copies were made of it lately, by default ``wanted``.
    """
    if kept or cached:
        return Standing.SAFE if kept + planned >= wanted else Standing.SHORT
    if planned or 0 < absent < (wanted if promised is None else promised):
        return Standing.PENDING
    return Standing.MISSING


@dataclass(frozen=True, slots=True)
class Tally:
    """How many files stand how."""

    total: int = 0
    short: int = 0
    pending: int = 0
    missing: int = 0
    stuck: int = 0
    """Of those that are short: so many can't get their copies."""


@dataclass(frozen=True, slots=True)
class Pods:
    """The full members as one pod sees them; each is in one of the first three sets, or in ``unseen``."""

    present: frozenset[PodId]
    """Who answers, or hasn't answered for so short that nothing is judged yet."""
    planned: frozenset[PodId]
    """Who said that it goes away, or is in maintenance, and doesn't answer."""
    lost: frozenset[PodId]
    """Who hasn't answered for `absent_after`, and said nothing."""
    room: Mapping[PodId, int] = field(default_factory=dict)
    """Bytes that those present can still store; who isn't in it has room enough."""
    unseen: frozenset[PodId] = frozenset()
    """Who was let in and hasn't come yet, as far as this pod saw: no copies are waited for, and nothing was lost."""
    here: frozenset[PodId] = frozenset()
    """A client pod that judges: what it has can be read here, and counts for nobody else."""

    @property
    def full(self) -> int:
        """How many there are."""
        return len(self.present) + len(self.planned) + len(self.lost)

    def without(self, gone: Collection[PodId]) -> Pods:
        """Return the same after some pods have vanished."""
        gone = frozenset(gone)
        return Pods(
            self.present - gone, self.planned - gone, self.lost | gone, self.room, self.unseen - gone, self.here
        )


@dataclass(frozen=True, slots=True)
class Held:
    """One content, and who is known to have it, whether it answers or not."""

    content: ContentId
    files: int
    size: int
    copies: int
    """As configured; at most one on each full member is wanted."""
    kept: frozenset[PodId]
    cached: frozenset[PodId]
    author: PodId | None = None
    promised: int | None = None
    """As many copies as are made of it at present, if fewer than configured."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What somebody who said `wormhole unfreeze` knew of: it fires no reaction again."""

    degraded: bool = False
    lost: frozenset[PodId] = frozenset()
    contents: frozenset[bytes] = frozenset()
    """Missing ones of which no lost pod is known to have a copy, by the first `NAME_BYTES` of their ids."""

    def without(self, returned: Collection[PodId]) -> Acceptance:
        """Return what is left when pods have come back: their next loss is a new one."""
        return Acceptance(self.degraded, self.lost - frozenset(returned), self.contents)


NOTHING: Final = Acceptance()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one look at everything says."""

    grade: Grade
    reason: str
    """In one sentence."""
    open: Grade
    """The same without what was accepted: what a reaction answers."""
    tally: Tally
    lost: frozenset[PodId] = frozenset()
    orphans: tuple[ContentId, ...] = ()
    """The first missing contents of which no lost pod is known to have a copy."""

    @property
    def situation(self) -> Situation:
        """The situation."""
        return self.grade.situation


class Survey:
    """Looks at contents one after the other, then judges."""

    def __init__(self, pods: Pods, accepted: Acceptance = NOTHING) -> None:
        self._pods = pods
        self._accepted = accepted
        self._counts: dict[Standing, int] = {}
        self._stuck = 0
        self._open_missing = 0
        self._orphans: list[ContentId] = []
        self._lacking = self._lacking_bytes = 0

    def add(self, held: Held) -> Standing:
        """Take in one content; return how it stands."""
        pods = self._pods
        holders = held.kept | held.cached
        if not holders and held.author is not None:  # who wrote it has the bytes before its holdings are known
            holders = frozenset({held.author})
        wanted = min(held.copies, pods.full)
        kept, cached = held.kept & pods.present, (holders - held.kept) & (pods.present | pods.here)
        planned, absent = holders & pods.planned, holders & (pods.lost | pods.unseen)
        found = standing(
            wanted=wanted,
            kept=len(kept),
            cached=len(cached),
            planned=len(planned),
            absent=len(absent),
            promised=None if held.promised is None else min(held.promised, pods.full),
        )
        self._counts[found] = self._counts.get(found, 0) + held.files
        if found is Standing.SHORT:
            self._short(held, kept, wanted - len(kept) - len(planned))
        elif found is Standing.MISSING:
            self._missing(held, holders - pods.present - pods.planned)
        return found

    def _short(self, held: Held, kept: frozenset[PodId], lacking: int) -> None:
        room = self._pods.room
        takers = sum(1 for pod in self._pods.present - kept if room.get(pod, held.size) >= held.size)
        if takers < lacking:
            self._stuck += held.files
        self._lacking += lacking
        self._lacking_bytes += lacking * held.size

    def _missing(self, held: Held, absent: frozenset[PodId]) -> None:
        """Note that nobody can read it; ``absent`` are those who had it, evicted ones included."""
        if held.files and not absent and len(self._orphans) < MAX_NAMED:
            self._orphans.append(held.content)
        accepted = self._accepted
        known = absent <= accepted.lost if absent else held.content[:NAME_BYTES] in accepted.contents
        if not known:
            self._open_missing += held.files

    def add_many(
        self, files: int, size: int, *, wanted: int, kept: int, cached: int, planned: int, absent: int
    ) -> None:
        """Take in many files that stand alike, of ``size`` bytes on the average, of whose holders the number is known."""
        found = standing(wanted=wanted, kept=kept, cached=cached, planned=planned, absent=absent)
        self._counts[found] = self._counts.get(found, 0) + files
        pods = self._pods
        if found is Standing.SHORT:
            lacking = wanted - kept - planned
            takers = sum(1 for pod in pods.present if pods.room.get(pod, size) >= size)
            self._stuck += files if min(takers, len(pods.present) - kept) < lacking else 0
            self._lacking += lacking * files
            self._lacking_bytes += lacking * size * files
        elif found is Standing.MISSING and not (absent and pods.lost <= self._accepted.lost):
            self._open_missing += files

    def verdict(self, total: int) -> Verdict:
        """Judge; ``total`` is the number of files."""
        pods, accepted = self._pods, self._accepted
        short, pending, missing = (
            self._counts.get(one, 0) for one in (Standing.SHORT, Standing.PENDING, Standing.MISSING)
        )
        stuck = self._stuck
        if not stuck and short and pods.present <= pods.room.keys():
            mean = max(1, self._lacking_bytes // max(1, self._lacking))  # a pod takes whole contents only
            stuck = short if self._lacking > sum(pods.room[pod] // mean for pod in pods.present) else 0
        tally = Tally(total, short, pending, missing, stuck)
        new_loss = not pods.lost <= accepted.lost
        grades = (
            [Grade.FAVOURABLE] * bool(pods.lost) + [Grade.DEGRADED] * bool(stuck) + [Grade.CRITICAL] * bool(missing)
        )
        opened = [
            *[Grade.FAVOURABLE] * new_loss,
            *[Grade.DEGRADED] * bool(stuck and (new_loss or not accepted.degraded)),
            *[Grade.CRITICAL] * bool(self._open_missing),
        ]
        grade = max(grades, default=Grade.WELL)
        reason = _reason(tally, grade, roomless=bool(stuck) and len(pods.present) >= 2)
        return Verdict(grade, reason, max(opened, default=Grade.WELL), tally, pods.lost, tuple(self._orphans))


def _reason(tally: Tally, grade: Grade, *, roomless: bool) -> str:
    def files(number: int) -> str:
        return f"{number:,} of {tally.total:,} files"

    if grade is Grade.CRITICAL:
        return f"{files(tally.missing)} can't be read: nobody who answers has them."
    if grade is Grade.DEGRADED:
        why = "too few pods with room for them answer" if roomless else "too few pods answer to make them anew"
        return f"{files(tally.stuck)} have too few copies, and {why}."
    if tally.short and grade is Grade.FAVOURABLE:
        return f"{files(tally.short)} have too few copies, and there is room to make them anew."
    if tally.short:
        return f"{files(tally.short)} are getting their copies."
    if grade is Grade.FAVOURABLE:
        return "A pod doesn't answer, and every file has copies elsewhere."
    return "Every file has its copies."


RISE_S: Final = 1.0
"""What got worse counts once it has been so for this long."""
CALM_S: Final = 3.0
"""What got better counts once it has been so for this long, at first."""
MAX_CALM_S: Final = 60.0
RESTLESS_S: Final = 600.0
"""What gets worse again within this time has to be better for twice as long the next time."""


class Steady:
    """A grade that doesn't flap. Times are seconds of any one clock that only goes forward."""

    def __init__(self, grade: Grade = Grade.WELL) -> None:
        self.grade = grade
        self._since: float | None = None
        """Since when what is seen differs, on one side of the grade."""
        self._nearest = grade
        """What was seen since then that differs the least."""
        self._calm_s = CALM_S
        self._fell_at = float("-inf")

    def look(self, seen: Grade, now: float) -> Grade:
        """Take in what is seen now; return what counts."""
        if seen == self.grade or (self._since is not None and (seen > self.grade) != (self._nearest > self.grade)):
            self._since = None
        if seen == self.grade:
            return self.grade
        worse = seen > self.grade
        if self._since is None:
            self._since, self._nearest = now, seen
        self._nearest = min(self._nearest, seen) if worse else max(self._nearest, seen)
        if now - self._since >= (RISE_S if worse else self._calm_s):
            if worse:
                again = now - self._fell_at < RESTLESS_S
                self._calm_s = min(MAX_CALM_S, 2 * self._calm_s) if again else CALM_S
            else:
                self._fell_at = now
            self.grade, self._since = self._nearest, None
        return self.grade

    def reset(self, grade: Grade) -> None:
        """Take over a grade at once: a person decided."""
        self.grade, self._since = grade, None

    def due_at(self) -> float | None:
        """Return when to look again although nothing has changed; None: not before something has."""
        if self._since is None:
            return None
        return self._since + (RISE_S if self._nearest > self.grade else self._calm_s)


REJOIN_S: Final = 2.0
"""A pod that was cut off goes on once it has been linked for so long."""
CUT_OFF_S: Final = 10.0
"""A pod counts itself as cut off after so long, or after `absent_after` if that is less, but never before"""
LEAST_CUT_OFF_S: Final = 4.0
"""so long: who was let in a moment ago needs it to start."""


class Contact:
    """Whether a pod is cut off, without flapping."""

    def __init__(self) -> None:
        self.is_cut = False
        self._since: float | None = None

    def look(self, connected: bool, absent_after_s: float, now: float) -> bool:
        """Take in whether the pod is connected now; return whether it counts as cut off."""
        if connected is not self.is_cut:
            self._since = None
            return self.is_cut
        if self._since is None:
            self._since = now
        if now - self._since >= self._wait_s(absent_after_s):
            self.is_cut, self._since = not self.is_cut, None
        return self.is_cut

    def _wait_s(self, absent_after_s: float) -> float:
        return REJOIN_S if self.is_cut else max(LEAST_CUT_OFF_S, min(CUT_OFF_S, absent_after_s))

    def due_at(self, absent_after_s: float) -> float | None:
        """Return when to look again although nothing has changed."""
        return None if self._since is None else self._since + self._wait_s(absent_after_s)


def is_connected(
    me: PodId,
    counted: Sequence[PodId],
    reachable: Collection[PodId],
    quorum: Literal["half", "any"] = "half",
) -> bool:
    """Tell whether this pod is on the side of the network that goes on (DESIGN.md, Situations).

    ``counted`` are the counted full pods in the order of their admission; ``reachable`` those that answer. A pod is cut
    off if it reaches no other counted pod, or its side is under half of them, or just half without the earliest one;
    with ``quorum`` any only in the first case.
    """
    others = [pod for pod in counted if pod != me]
    if not others:
        return True
    side = [pod for pod in counted if pod == me or pod in reachable]
    if side in ([me], []):
        return False
    if quorum == "any":
        return True
    if len(side) * 2 == len(counted):
        return counted[0] in side
    return len(side) * 2 > len(counted)
