"""What a pod does about failures: looks at the situation, judges, reacts; and stops reacting when it is solved.

The decisions are `policies.situation` (how it stands, without flapping) and `policies.reactions` (what is done about it).
Here they get their facts and take effect: on the mount (`vfs.hold`), on traffic (`transfer.pace`), on the number of
copies (`TreeCatalogue.most_copies`). Every pod does so by itself; what people say to all pods is a record of the roster.

Nothing is judged before this pod has heard once, since its start, from everybody whom it reaches, nor while it is cut off.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Final

import anyio
from anyio import lowlevel

from base.errors import WormholeError
from base.ids import PodId
from crdt_meta.node import Delta
from mesh.api import Member, State
from mesh.wire import Tag
from operations.catalogue import ROOM
from operations.counting import connected_now, counted
from operations.notifying import Notice, Notifying
from operations.parts import Parts
from operations.said import Said
from operations.tally import Found
from policies.reactions import Cause, Effect, Reacting, follow, react
from policies.situation import Contact, Grade, Situation, Steady, Verdict
from transfer.pace import Limits

DOING: Final = "doing"
"""The value that a pod gossips about itself: the effects in force on it."""
NEWS_S: Final = 0.1
"""What was written is on its way to the other pods for so long: nothing is looked at meanwhile."""
SOON_S: Final = 0.5
"""Between two looks at everything while something is wrong."""
CALM_EVERY_S: Final = 10.0
"""The same while nothing is."""
REST: Final = 10.0
"""A look at everything rests for so many times as long as it took."""
CALM_REST: Final = 40.0
"""The same while nothing is wrong."""
AT_LEAST_EVERY_S: Final = 60.0
ASK_EVERY_S: Final = 2.0
"""A client pod asks so often what its full pod does."""

logger = logging.getLogger(__name__)


class Crisis:
    """See the module."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        parts.transfer.repairs(parts.catalogue.is_repair)
        self.said = Said(parts)
        self.contact = Contact()
        self.steady = Steady()
        """What is shown."""
        self._open = Steady()
        """What is reacted to: the same without what was accepted."""
        self.found: Found | None = None
        """The last look at everything; None: nothing was judged yet."""
        self.stances: tuple[Reacting, ...] = ()
        """What this pod does about it."""
        self._informed = False
        self._wake = anyio.Event()
        self._judge_at = self._rests_until = 0.0
        self.found_at = float("-inf")
        """When that began, by the event loop's clock."""
        self._judged_at = float("-inf")
        self._took_s = 0.0
        self._members: object = None
        self._room: object = None
        self._applied: object = None
        self._seen_number = 0
        """Up to which order the last verdict knew what was said."""
        self._followed: dict[str, frozenset[Effect]] = {}
        """On a client pod: what the full pod does that serves it."""
        if parts.editor is None:
            parts.mesh.handle(Tag.DOING, self._answer)
        self.notifying = Notifying(lambda: parts.pod.disconnected.notify, self._about)

    async def _answer(self, _sender: PodId, _body: object) -> object:
        return sorted({one.effect.value for one in self.stances})

    # -- facts

    @property
    def frozen(self) -> str:
        """Why nothing is written through this pod's mount; empty: it isn't frozen."""
        return self._reason(Effect.FREEZE)

    @property
    def stopped(self) -> str:
        """Why the mount refuses everything; empty: it doesn't."""
        return self._reason(Effect.STOP)

    def _reason(self, effect: Effect) -> str:
        return next((one.reason for one in self.stances if one.effect is effect), "")

    @property
    def verdict(self) -> Verdict | None:
        """The last verdict."""
        return None if self.found is None else self.found.verdict

    def is_informed(self) -> bool:
        """Tell whether this pod has heard enough since its start to judge."""
        if not self._informed:
            parts = self._parts
            alive = parts.mesh.alive() & frozenset(parts.catalogue.full_pods())
            alone = parts.catalogue.full_pods() == [parts.mesh.pod_id]
            heard = bool(alive) and alive <= parts.transfer.exchanged() and not parts.catalogue.is_behind()
            self._informed = alone or heard
        return self._informed

    # -- running

    def stir(self) -> None:
        """Look at who is there and what was said soon."""
        self._wake.set()

    def _members_changed(self) -> None:
        parts = self._parts
        found = parts.mesh.members()
        members = [(one.pod, one.state, one.announced, one.meta.get(DOING)) for one in found]
        room = [one.meta.get(ROOM) for one in found]
        if room != self._room:
            self._room = room
            self._news()
        returned = parts.editor is None and self.said.hear(found)
        seen = (members, self.said.number, parts.roster.roster.config_id(), parts.mesh.alive())
        if returned or seen != self._members:
            self._members = seen
            self._judge_at = 0.0
            self._wake.set()

    def _tree_changed(self, delta: Delta) -> None:
        if delta.contents:
            self._news()

    def _news(self) -> None:
        """Note that files or holdings have changed: look at everything before long, not while others wait for them."""
        found = self.found
        calm = found is not None and self.steady.grade is Grade.WELL is found.verdict.grade
        soonest = max(anyio.current_time() + NEWS_S, self._judged_at + (CALM_EVERY_S if calm else SOON_S))
        self._judge_at = min(self._judge_at, soonest)
        if self._next_at() < self._rests_until:
            self._wake.set()

    async def run(self) -> None:
        """Follow the situation until cancelled."""
        parts = self._parts
        parts.mesh.on_change(self._members_changed)
        parts.metadata.tree.on_delta(self._tree_changed)
        async with anyio.create_task_group() as group:
            group.start_soon(self.notifying.run)
            group.start_soon(self._hear_news if parts.editor is None else self._ask_often)
            while True:
                self._wake = anyio.Event()
                await self.look()
                self._rests_until = self._next_at()
                with anyio.move_on_at(self._rests_until):
                    await self._wake.wait()
                    await lowlevel.checkpoint()

    async def _hear_news(self) -> None:
        while True:
            await self._parts.transfer.news()
            self._news()
            await anyio.sleep(SOON_S)

    async def _ask_often(self) -> None:
        """On a client pod: ask the full pod that serves it what it does. Gossip comes to clients rarely."""
        parts = self._parts
        while True:
            pod = None if parts.editor is None else parts.editor.serves()
            if pod is not None:
                with suppress(WormholeError):
                    told = await parts.mesh.call(pod, Tag.DOING, None, timeout_s=ASK_EVERY_S)
                    self._followed = {parts.live.name_of(pod): effects_in(told)}
                    self._wake.set()
            await anyio.sleep(ASK_EVERY_S)

    def _next_at(self) -> float:
        now = anyio.current_time()
        due = [self._judge_due(), self.contact.due_at(self._parts.cluster.redundancy.absent_after_s)]
        due.append(self.said.drill_ends_at(now))
        return max(now + 0.02, min(at for at in due if at is not None))

    def _judge_due(self) -> float:
        if self._parts.editor is not None:
            return self._judged_at + AT_LEAST_EVERY_S
        due = [self._judge_at, self.steady.due_at(), self._open.due_at()]
        soonest = min(at for at in due if at is not None)
        rest = CALM_REST if self.steady.grade is Grade.WELL else REST
        return max(soonest, self._judged_at + max(SOON_S, rest * self._took_s))

    async def look(self) -> None:
        """Take in who is there, what there is and what was said; react."""
        now = anyio.current_time()
        parts = self._parts
        is_connected_now = connected_now(parts)
        was_cut = self.contact.is_cut
        self.contact.look(is_connected_now, parts.cluster.redundancy.absent_after_s, now)
        await self.react()
        if was_cut is not self.contact.is_cut:
            self._tell_contact()
        if self.contact.is_cut:  # what it sees of the others says nothing about them
            self.steady, self._open, self.found = Steady(), Steady(), None
        if now < self._judge_due():
            return
        may_judge = parts.editor is None and is_connected_now and not self.contact.is_cut and self.is_informed()
        self._judged_at = now
        self._judge_at = now + (AT_LEAST_EVERY_S if may_judge or self._informed else ASK_EVERY_S)
        if not may_judge:
            return
        started = time.monotonic()
        number, accepted = self.said.number, self.said.acceptance()
        self.found, self.found_at = await parts.tallies.look(parts, accepted), now
        self._took_s = time.monotonic() - started
        if connected_now(parts):  # else it was looked at while others went
            self._take(self.found.verdict, anew=number != self._seen_number)
            self._seen_number = number
            await self.react()

    def _take(self, verdict: Verdict, *, anew: bool) -> None:
        """Follow a verdict; ``anew``: somebody has said something since the last one, which counts at once."""
        now = anyio.current_time()
        before = self.steady.grade
        grade = self.steady.look(verdict.grade, now)
        if anew and verdict.open < self._open.grade:
            self._open.reset(verdict.open)
        self._open.look(verdict.open, now)
        self.said.look(verdict, is_short=self.steady.grade >= Grade.DEGRADED)
        if grade is not before:
            logger.info("the situation is %s: %s", grade.situation.value, verdict.reason)
        if grade.situation is not before.situation:
            effects = self._wanted()
            self._notify("situation", grade.situation, verdict.reason, effects)

    # -- reacting

    def _wanted(self) -> tuple[Reacting, ...]:
        """Return what this pod is to do now."""
        parts = self._parts
        when_cut_off = parts.pod.disconnected.reaction
        grade, reason = self._open.grade, "" if self.found is None else self.found.verdict.reason
        if parts.editor is not None:
            grade = Grade.WELL
        found = react(
            grade=grade,
            reason=reason,
            continuity=parts.cluster.continuity,
            cut_off=parts.editor is None and self.contact.is_cut,
            when_cut_off=when_cut_off,
            frozen_by=self.said.frozen_by,
            drill=self.said.rehearsed(),
        )
        if parts.editor is not None:
            known = {one.effect for one in found}
            followed = follow(self._followed, cut_off=self.contact.is_cut, when_cut_off=when_cut_off)
            found += tuple(one for one in followed if one.effect not in known)
        return found

    async def react(self) -> None:
        """Bring into effect what is to be done now."""
        parts = self._parts
        wanted = self._wanted()
        before, self.stances = self.stances, wanted
        effects = frozenset(one.effect for one in wanted)
        carried_out = frozenset(one.effect for one in wanted if not is_only_told(one))
        stops = bool(self.stopped) and not parts.hold.stopped
        parts.hold.set(frozen=self.frozen, stopped=self.stopped)
        network, continuity = parts.pod.network, parts.cluster.continuity
        throttle = continuity.throttle_bytes_per_s if Effect.THROTTLE in effects else None
        parts.transfer.limit(
            Limits(
                up=_lesser(network.upload_limit_bytes_per_s, throttle),
                down=_lesser(network.download_limit_bytes_per_s, throttle),
                repair=parts.cluster.redundancy.repair_limit_bytes_per_s,
            )
        )
        most = continuity.least_copies if Effect.FEWER_COPIES in carried_out else None
        if most != parts.catalogue.most_copies:
            parts.catalogue.most_copies = most
            parts.tallies.forget()
            parts.transfer.reconsider()
        if {(one.effect, one.cause) for one in before} != {(one.effect, one.cause) for one in wanted}:
            self._log(before, wanted)
        told = sorted(one.value for one in effects)
        if told != self._applied:
            self._applied = told
            parts.gossip({DOING: told})
        if stops:
            await parts.mounts.forget_everything()

    def _log(self, before: tuple[Reacting, ...], wanted: tuple[Reacting, ...]) -> None:
        old, new = ({(one.effect, one.cause): one for one in some} for some in (before, wanted))
        for key in new.keys() - old.keys():
            logger.warning("%s (%s): %s", new[key].effect.value, new[key].cause.value, new[key].reason)
        for key in old.keys() - new.keys():
            logger.info("no longer %s (%s)", old[key].effect.value, old[key].cause.value)

    # -- telling

    def _tell_contact(self) -> None:
        situation = Situation.DEGRADED if self.contact.is_cut else self.steady.grade.situation
        if self.contact.is_cut:
            reason = self.cut_off_reason()
            logger.warning("cut off: %s", reason)
            self._notify("cut-off", situation, reason, self.stances)
        else:
            logger.info("rejoined the cluster")
            self._notify("rejoined", situation, "This pod is connected to the cluster again.", self.stances)

    def cut_off_reason(self) -> str:
        """Return why this pod counts as cut off."""
        if self._parts.editor is not None:
            return "No full pod can be reached: this client pod can only read what it has."
        others = [one for one in counted(self._parts) if one.pod != self._parts.mesh.pod_id]
        reached = sum(one.state is State.ALIVE for one in others)
        return f"This pod is cut off: it reaches {reached} of {len(others)} other pods."

    def _notify(self, event: str, situation: Situation, reason: str, stances: tuple[Reacting, ...]) -> None:
        effects = ",".join(sorted({one.effect.value for one in stances}))
        self.notifying.tell(Notice(event, situation.value, reason, effects))

    def _about(self) -> dict[str, str]:
        parts = self._parts
        entry = parts.roster.roster.entry(parts.mesh.pod_id)
        return {
            "CLUSTER": parts.roster.roster.cluster_name,
            "POD": "" if entry is None else entry.name,
            "MOUNT": parts.mounts.directory or "",
            "HOME": str(parts.home.path),
        }


def effects_of(member: Member) -> frozenset[Effect]:
    """Return what a pod says that it does."""
    return effects_in(member.meta.get(DOING))


def effects_in(told: object) -> frozenset[Effect]:
    """Return the effects that a pod named; what it doesn't know is left out."""
    known = {one.value: one for one in Effect}
    return frozenset(known[one] for one in told if one in known) if isinstance(told, list) else frozenset()


def is_only_told(stance: Reacting) -> bool:
    """Tell whether an effect is announced and not carried out: a drill drops no copies."""
    return stance.cause is Cause.DRILL and stance.effect is Effect.FEWER_COPIES


def _lesser(one: int | None, other: int | None) -> int | None:
    found = [each for each in (one, other) if each is not None]
    return min(found, default=None)
