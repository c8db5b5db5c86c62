"""What people said to the whole cluster (`freeze`, `unfreeze`, `drill`), as it holds for this pod at this moment.

An `unfreeze` names the pods whose loss it accepts. One that has come back can be lost anew: that ends the acceptance of its
loss, for everybody. No record tells so; whoever saw it gossips it (`RETURNED`), so that a pod that was away at that time
knows, and each pod keeps it over its own restarts. The same goes for a shortage that was accepted and has ended.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from statistics import median
from typing import Final, NamedTuple

import anyio
import msgpack

from base.errors import RefusedError
from base.ids import PodId
from mesh.api import Member, State
from mesh.records import Order
from operations.parts import Parts
from policies.reactions import drill_left_s
from policies.situation import NOTHING, Acceptance, Situation, Verdict

RETURNED: Final = "returned"
"""The value that a pod gossips about itself: an acceptance and what has ended of it, see `pack_ended`."""
META_RETURNED: Final = "crisis_returned"
NOTICED_S: Final = 10.0
"""What everybody notices is noticed within so long by each."""
MAX_LOGGED: Final = 20

logger = logging.getLogger(__name__)


class Which(NamedTuple):
    """Names an acceptance: two pods may have given their orders the same number."""

    number: int
    signer: PodId


class Said:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._which: Which | None = None
        """The acceptance that is followed."""
        self._has_looked = False
        """There was none when this pod looked first."""
        self._followed_since = 0.0
        self._returned: frozenset[PodId] = frozenset()
        """Of its pods those that came back."""
        self._is_short_no_more = False
        """The shortage that was accepted has ended once."""
        self._drill: tuple[int, float] | None = None
        """The drill taken part in, and when it ends by the event loop's clock."""

    def check_rights(self) -> None:
        """Raise `RefusedError` where this pod may say nothing to the whole cluster."""
        roster, me = self._parts.roster.roster, self._parts.mesh.pod_id
        if not roster.is_admin(me):
            names = sorted(self._parts.live.name_of(pod) for pod in roster.pods() if roster.is_admin(pod))
            advice = f"Say it on one that does: {', '.join(names[:5])}."
            raise RefusedError("This pod doesn't administer the cluster.", advice)

    @property
    def number(self) -> int:
        """Up to which order this pod knows."""
        return self._parts.roster.roster.orders().number

    @property
    def frozen_by(self) -> str:
        """The name of the pod on which somebody froze the cluster by hand; empty: nobody did, or it was lifted."""
        frozen = self._parts.roster.roster.orders().freeze
        return "" if frozen is None else self._parts.live.name_of(frozen[0])

    # -- what was accepted

    def acceptance(self) -> Acceptance:
        """Return what the last `unfreeze` accepted and that still holds."""
        order = self._followed()
        if order is None:
            return NOTHING
        degraded = "degraded" in order.situation.split("+") and not self._is_short_no_more
        return Acceptance(degraded, frozenset(order.pods), frozenset(order.contents)).without(self._returned)

    def _followed(self) -> Order | None:
        """Return the last `unfreeze`; begin to follow another one than before, or go on after a restart."""
        said = self._parts.roster.roster.orders().unfreeze
        if said is None:
            self._has_looked = True
            return None
        signer, order = said
        which = Which(order.number, signer)
        if which != self._which:
            if self._which is not None or self._has_looked:
                names = ", ".join(map(self._parts.live.name_of, order.pods[:MAX_LOGGED]))
                accepted = f"; accepted is the loss of {names}" if names else ""
                logger.info("unfreeze was said on %s%s", self._parts.live.name_of(signer), accepted)
            self._which, self._followed_since = which, time.monotonic()
            self._returned, self._is_short_no_more = frozenset(), False
            stored = self._parts.metadata.store.get_meta(META_RETURNED)
            if stored is not None:
                self._take(unpack_ended(msgpack.unpackb(stored), which, order.pods))
                self._tell(order)
        return order

    def _take(self, ended: tuple[frozenset[PodId], bool]) -> bool:
        """Take in what has ended besides of the acceptance; tell whether that is new."""
        returned, is_short_no_more = self._returned | ended[0], self._is_short_no_more or ended[1]
        if (returned, is_short_no_more) == (self._returned, self._is_short_no_more):
            return False
        for pod in sorted(returned - self._returned):
            logger.info("%s is back: its loss is no longer accepted", self._parts.live.name_of(pod))
        self._returned, self._is_short_no_more = returned, is_short_no_more
        return True

    def _tell(self, order: Order) -> None:
        if self._which is not None and (self._returned or self._is_short_no_more):
            told = pack_ended(self._which, order.pods, self._returned, self._is_short_no_more)
            self._parts.gossip({RETURNED: told})

    def hear(self, members: Iterable[Member]) -> bool:
        """Take in what other pods saw return; tell whether that is new."""
        order = self._followed()
        if order is None or self._which is None:
            return False
        told = [unpack_ended(one.meta.get(RETURNED), self._which, order.pods) for one in members]
        news = [self._take(each) for each in told]
        if any(news):
            self._keep(order)
        return any(news)

    def look(self, verdict: Verdict, *, is_short: bool) -> None:
        """Note what has ended as this pod sees it; ``is_short``: it counts as degraded, or did a moment ago."""
        order = self._followed()
        if order is None:
            return
        # who was last heard of before this pod knew of the order is alive no more, perhaps, and nobody has noticed yet
        earliest = time.time() - (time.monotonic() - self._followed_since)
        alive = {
            one.pod
            for one in self._parts.mesh.members()
            if one.state is State.ALIVE and one.last_seen is not None and one.last_seen > earliest
        }
        late_s = self._parts.cluster.redundancy.absent_after_s + NOTICED_S
        has_noticed = time.monotonic() - self._followed_since >= late_s
        is_over = has_noticed and not verdict.tally.stuck and not is_short
        if self._take((frozenset(alive & set(order.pods)), is_over)):
            self._keep(order)

    def _keep(self, order: Order) -> None:
        if self._which is not None:
            packed: bytes = msgpack.packb(pack_ended(self._which, order.pods, self._returned, self._is_short_no_more))
            self._parts.metadata.store.set_meta(META_RETURNED, packed)
            self._parts.metadata.committer.request()
            self._tell(order)

    # -- drills

    def drill_ends_at(self, now: float) -> float | None:
        """Return when the drill that is on ends, by the event loop's clock; None: there is none."""
        said = self._parts.roster.roster.orders().drill
        if said is None:
            return None
        signer, order = said
        if self._drill is None or self._drill[0] != order.number:
            ahead = self._parts.mesh.clocks.ahead_s()
            right_s = time.time() + ahead.get(signer, median(ahead.values()) if ahead else 0.0)
            self._drill = order.number, now + drill_left_s(order.time_ns / 1e9, order.for_ms / 1e3, right_s)
        return self._drill[1] if now < self._drill[1] else None

    def rehearsed(self) -> Situation | None:
        """Return the situation that a drill rehearses now."""
        said = self._parts.roster.roster.orders().drill
        if said is None or self.drill_ends_at(anyio.current_time()) is None:
            return None
        return next((one for one in Situation if one.value == said[1].situation), None)


def pack_ended(
    which: Which, pods: tuple[PodId, ...], returned: frozenset[PodId], is_short_no_more: bool
) -> list[object]:
    """Return what has ended of an acceptance: which one, a bit for each of its pods that came back, the shortage."""
    bits = sum(1 << place for place, pod in enumerate(pods) if pod in returned)
    return [which.number, which.signer, bits.to_bytes((len(pods) + 7) // 8, "little"), is_short_no_more]


def unpack_ended(told: object, which: Which, pods: tuple[PodId, ...]) -> tuple[frozenset[PodId], bool]:
    """Return which of an acceptance's pods came back, and whether its shortage has ended; nothing of another acceptance."""
    match told:
        case [int(number), str(signer), bytes(bits), bool(is_short_no_more)] if (number, signer) == which:
            places = int.from_bytes(bits[: len(pods)], "little")
            return frozenset(pod for place, pod in enumerate(pods) if places >> place & 1), is_short_no_more
    return frozenset(), False
