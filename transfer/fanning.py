"""Who fetches a new content from whom, so that its writer sends it once and nobody sends it to many. Pure.

The pods that should keep it stand in an order that all compute alike, by the hash of content and pod. The first two
share the writer's one upload: each fetches half of the pieces from it and the others from each other. Whoever stands
behind them fetches all from one of those before, at most `fan_out` from each, while it arrives there::

                    writer
              half /      \\ half
                 A <------> B          A and B serve one more each, with fan_out = 2
                 |          |
                 C          D          two each
                / \\        / \\

A pod fetches the pieces that come from the root first, and those behind it in the same order. A parent that gets nowhere
is waited for for `PATIENCE_S`; then everybody who has the content is asked, as in a repair.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from base.ids import ChunkId, ContentId, PodId
from policies.placement import draw

FRESH_S: Final = 600.0
"""So long after it was written a content spreads this way; later it is fetched from all who have it."""
PATIENCE_S: Final = 3.0
MAX_PLANS: Final = 10_000


@dataclass(slots=True)
class Plan:
    """From whom one pod fetches the pieces of one content."""

    me: PodId
    root: PodId
    pair: tuple[PodId, ...]
    """The one or two who share the root's upload."""
    parent: PodId
    """Who is asked for what the root isn't."""
    leader: PodId
    """Which of the pair this pod's pieces come by."""
    progress_at: float
    has_begun: bool = False
    """Whether something of it has come."""
    given_up: bool = False

    def source(self, piece: ChunkId) -> PodId:
        """Return whom to ask for a piece."""
        if self.me not in self.pair:
            return self.parent
        return self.root if self._owner(piece) == self.me else self.parent

    def _owner(self, piece: ChunkId) -> PodId:
        return self.pair[piece[0] % len(self.pair)]

    def in_order(self, pieces: Collection[ChunkId]) -> list[ChunkId]:
        """Return pieces in the order in which to fetch them: that of their arrival at who sends them."""
        return sorted(pieces, key=lambda piece: self._owner(piece) != self.leader)

    def is_hopeful(self, now: float) -> bool:
        """Tell whether to go on waiting for the parent; once given up it stays so."""
        self.given_up = self.given_up or now - self.progress_at >= PATIENCE_S
        return not self.given_up


def plan(
    content: ContentId, me: PodId, root: PodId, targets: Collection[PodId], fan_out: int, now: float
) -> Plan | None:
    """Return from whom ``me`` fetches; None when it is the only target, and may ask anybody.

    ``targets``: the pods that are to keep the content, the root not among them.
    """
    line = sorted((pod for pod in targets if pod != root), key=lambda pod: (draw(content, pod), pod), reverse=True)
    if len(line) < 2 or me not in line:
        return None
    pair = tuple(line[:2]) if fan_out >= 2 else (line[0],)
    parents = _parents(line, pair, fan_out)
    leader = me
    while leader not in pair:
        leader = parents[leader]
    parent = next((pod for pod in pair if pod != me), root) if me in pair else parents[me]
    return Plan(me, root, pair, parent, leader, now)


def _parents(line: Sequence[PodId], pair: Sequence[PodId], fan_out: int) -> dict[PodId, PodId]:
    """Give each pod behind the pair one of those before it, at most ``fan_out`` to each."""
    parents: dict[PodId, PodId] = {}
    level, room, behind = list(pair), fan_out - len(pair) + 1, list(line[len(pair) :])  # a pair serves each other, too
    while behind:
        slots = [pod for _ in range(room) for pod in level]  # in turn, so that all branches grow alike
        level, behind = behind[: len(slots)], behind[len(slots) :]
        parents |= dict(zip(level, slots, strict=False))
        room = fan_out
    return parents


class Fanning:
    """The plans of what is being fetched now. Times are the event loop's."""

    def __init__(self) -> None:
        self._plans: dict[ContentId, Plan] = {}
        self.fan_out = 2

    def begin(self, content: ContentId, found: Plan | None) -> Plan | None:
        """Follow a plan, unless an earlier one is followed already; return which."""
        known = self._plans.get(content)
        if known is not None or found is None:
            return known
        self._plans[content] = found
        if len(self._plans) > MAX_PLANS:
            del self._plans[next(iter(self._plans))]
        return found

    def end(self, content: ContentId) -> None:
        """Forget the plan of a content: all of it is here, or isn't needed."""
        self._plans.pop(content, None)

    def progressed(self, content: ContentId, now: float) -> None:
        """Note that a piece of a content came, or that its parent is getting one."""
        known = self._plans.get(content)
        if known is not None:
            known.progress_at, known.has_begun = now, True

    def gets_on(self, content: ContentId, now: float) -> bool:
        """Tell whether a content is being fetched and something of it came lately."""
        known = self._plans.get(content)
        return known is not None and known.has_begun and now - known.progress_at < PATIENCE_S / 2

    def source(self, content: ContentId, piece: ChunkId, now: float) -> PodId | None:
        """Return the one pod to ask for a piece; None: any that has it."""
        known = self._plans.get(content)
        return known.source(piece) if known is not None and known.is_hopeful(now) else None
