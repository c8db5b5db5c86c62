"""Who is there: SWIM with suspicion, incarnation and Lifeguard's local health, over the links of the mesh. Pure.

Theory of operation. Each pod says things about itself in one *record* (address, published values, links, whether in
maintenance, down or gone), ordered by (incarnation, version); records spread by gossip along the links, and pings carry
a sum of all that is known (`mesh.summary`), so that whoever missed something notices. Each linked pod is probed about
once a second, half as often where all is well (`mesh.probes`). One that answers neither us nor our helpers is
*accused*; the accusation spreads; the accused refutes it with a higher incarnation, which no one else may make up. A
pod that has answered us a moment ago does not become suspect on hearsay: we pass the accusation on to it instead. Who
stays suspected for `absent_after_s` is absent. Pods that nobody here is linked to are judged by whether a path of links
leads to them (`mesh.reachability`). A pod that a bad clock gave too low an incarnation is told its own old record and
goes above it.

What is known of others is in `mesh.census`, what of their word counts in `mesh.hearsay`; who is linked to whom in a
large cluster is decided in `mesh.view`.

This module must never wait, read a clock or roll its own dice, and nothing it receives may raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.api import State
from mesh.awareness import Awareness
from mesh.census import Census, own_view, state_of
from mesh.exchange import Exchange
from mesh.gossip import Gossip
from mesh.gossip_messages import Accusation, Flag, Kind, Known, Record
from mesh.hearsay import Hearsay
from mesh.member import MembershipSettings, MemberView, Near
from mesh.own_record import OwnRecord
from mesh.probes import Acked, Order, Prober
from mesh.send import Send
from mesh.summary import Summary
from mesh.wire import Tag

__all__ = ["TICK_S", "MemberView", "Membership", "MembershipSettings"]

TICK_S = 0.1
"""How often the shell calls `Membership.tick` while something is `due`, seconds."""

LATE_S = 0.2
"""With a tick so much later than planned this pod itself was held up."""
MAX_COMPLAINTS = 32
REVIEW_EVERY_S = 0.25
REVIEW_PODS_PER_S = 4000
"""With many pods paths are looked for more rarely: it takes a millisecond for 2,000."""


class Membership:
    """The membership of one pod. Not thread-safe; ``now`` must never go back."""

    def __init__(
        self, me: PodId, settings: MembershipSettings, rng: Random, incarnation: int, address: str = ""
    ) -> None:
        """``incarnation``: higher at every start, e.g. the milliseconds since the epoch."""
        self.me = me
        self._settings = settings
        self._rng = rng
        self._awareness = Awareness(settings.patience_max)
        self._prober = Prober(
            settings.probe_interval_s,
            settings.probe_timeout_s,
            settings.indirect_probes,
            self._awareness,
            rng,
            lambda target: self.census.helpers(target, self._links),
        )
        self.census = Census(me, settings)
        """What is known of the other members; only this class changes it."""
        self._links: dict[PodId, None] = {}
        self._gossip = Gossip(settings.gossip_pods, rng)
        self._own = OwnRecord(me, incarnation, address)
        self._exchange = Exchange(self.census, self._own)
        self._hearsay = Hearsay(
            *(self._own, self.census, self._gossip, self._exchange, self._awareness, self._links),
            ask=lambda pod, now: self._prober.hurry(now, (pod,)),
        )
        self._complaints: list[str] = []
        self._now = self._ticked = 0.0
        self._gossip_at = self._exchange_at = self._review_at = float("-inf")

    # -- what the shell tells

    def set_members(self, pods: Iterable[PodId], now: float) -> None:
        """Take over who belongs to the cluster and is not evicted; this pod may be among them."""
        self._now = now
        added, removed = self.census.set_members(pods if isinstance(pods, frozenset) else frozenset(pods), now)
        self._hearsay.changed.update(added, removed)
        if added or removed:
            self._gossip.set_size(len(self.census.members) + 1)
        if added:
            self._exchange_at = min(self._exchange_at, now)
            self._own.links_changed(now)
        self._gossip.tell(self._own.record, (), now)

    def recall(self, records: Mapping[PodId, Record], summary: Summary) -> None:
        """Begin with what was known before, all of it members; before `set_members`. ``summary``: of ``records``.

        A record of this pod itself among them is gone on from.
        """
        self.census.recall(records, summary)
        if self.me in records:
            self._own.record = records[self.me]

    def set_absent_after(self, absent_after_s: float, now: float) -> None:
        """Wait so long from now on until a pod that does not answer counts as absent, those suspected already, too."""
        self._now = now
        for pod in self.census.set_absent_after(absent_after_s, now):
            self._hearsay.touch(pod, self._now)

    def set_address(self, address: str) -> None:
        """Gossip ``HOST:PORT`` as where this pod listens; the empty string withdraws it."""
        self._hearsay.publish(self._own.set_address(address), self._now)

    def set_meta(self, values: Mapping[str, object]) -> None:
        """Gossip ``values`` about this pod; raises `UsageError` above 1 KiB packed or for what msgpack can't carry."""
        self._hearsay.publish(self._own.set_meta(values), self._now)

    def link_up(self, pod: PodId, now: float) -> list[Send]:
        """A link to ``pod`` is up: it is probed, and asked for all it knows, at once."""
        self._now = now
        self._links[pod] = None
        self.census.paths.doubt(())
        if pod in self.census:
            self.census.near.setdefault(pod, Near())
        self._own.links_changed(now)
        self._gossip.link_up(pod)
        self._prober.link_up(pod, now)
        return self._exchange.opening(pod, now)

    def link_down(self, pod: PodId, now: float, *, spared: bool = False) -> list[Send]:
        """The last link to ``pod`` is gone: others who may reach it are asked at once, unless it was ``spared``."""
        self._now = now
        if pod not in self._links:
            return []
        del self._links[pod]
        self.census.paths.doubt((pod,))
        self._own.links_changed(now)
        self._gossip.link_down(pod)
        self._exchange.forget(pod)
        self._prober.link_down(pod)
        if spared or pod not in self.census or self.census.gone(pod) or self.census.accused(pod):
            return []
        if not self.census.helpers(pod, self._links) and pod not in self.census.unreachable(self._links):
            return []  # those who are linked to it will miss it; here is nobody who could look
        return self._wrap(self._prober.ask_others(pod, now))

    def announce_down(self, now: float) -> list[Send]:
        """Tell all that this pod is about to stop: absent by its own word until it starts again."""
        return self._announce(Flag.DOWN, True, now)

    def announce_left(self, now: float) -> list[Send]:
        """Tell all that this pod leaves the cluster for good."""
        return self._announce(Flag.LEFT, True, now)

    def announce_maintenance(self, on: bool, now: float) -> list[Send]:
        """Tell all that this pod is in maintenance, or no longer. Not remembered over a restart: say it again."""
        return self._announce(Flag.MAINTENANCE, on, now)

    # -- what the shell asks

    def view(self, pod: PodId) -> MemberView:
        """Return how ``pod`` is seen; this pod and unknown ones, too."""
        if pod == self.me:
            return own_view(self._own.record, self._now)
        return self.census.view(pod, self._now, linked=pod in self._links)

    def state(self, pod: PodId) -> State:
        """Return what `view` shows as its state, many times as fast: asked for each content that is looked at."""
        return state_of(self._own.record, None)[0] if pod == self.me else self.census.state(pod)

    def address(self, pod: PodId) -> str:
        """Return what `view` shows as its address."""
        return self._own.record.address if pod == self.me else self.census.address(pod)

    def changes(self) -> set[PodId]:
        """Return whose state, announcement, values or address changed since the last call."""
        changed, self._hearsay.changed = self._hearsay.changed, set()
        return changed

    def complaints(self) -> list[str]:
        """Return why messages were ignored since the last call, at most `MAX_COMPLAINTS`, for the log."""
        complaints, self._complaints = self._complaints, []
        return complaints

    # -- messages and time

    def answer_client(self, sender: PodId, message: object, now: float) -> list[Send]:
        """Answer a `Tag.GOSSIP` frame of a client pod: it may ask who is there; what it says counts for nothing."""
        try:
            decoded = wire.decode(message)
        except wire.MalformedError:
            return []
        self._now = now
        asked = wire.question_of(decoded, self._own.record)
        return [] if asked is None else self._react(sender, asked, [])

    def receive(self, sender: PodId, message: object, now: float) -> list[Send]:
        """Take in the body of a `Tag.GOSSIP` frame from a linked pod; malformed ones are ignored whole."""
        self._now = now
        try:
            decoded = wire.decode(message)
        except wire.MalformedError as error:
            if len(self._complaints) < MAX_COMPLAINTS:
                self._complaints.append(f"ignored a membership message of {sender}: {error}")
            return []
        if sender in self.census:
            self.census.seen(sender, now)
        if not decoded.updates:  # most messages are pings and answers that say nothing else
            return self._react(sender, decoded, [])
        sends: list[Send] = []
        accused, witness_s = False, self._witness_s()
        for update in decoded.updates:
            sends += self._hearsay.update(update, sender, witness_s, now)
            accused = accused or (update.pod == self.me and isinstance(update, Accusation))
        refuted = [wire.encode_update(self._own.record)] if accused else []
        return sends + self._react(sender, decoded, refuted)

    def _react(self, sender: PodId, decoded: wire.Message, refuted: list[object]) -> list[Send]:
        match decoded.kind:
            case Kind.PING:
                if self._prober.on_ping(sender, decoded.nonce, decoded.heard, self._now):
                    self._alive(sender, None)
                answer = self._say(sender, [Kind.ACK, decoded.nonce], (), refuted)
                along = self._wrap(self._prober.along(self._now, self.me))
                return [answer, *self._compare(sender, decoded.sums), *along]
            case Kind.ACK:
                sends = self._compare(sender, decoded.sums)
                acked = self._prober.on_ack(sender, decoded.nonce, self._now)
                if isinstance(acked, Acked):
                    self._alive(*acked)
                elif acked is not None:
                    sends.append(self._say(*acked))
                return sends
            case Kind.REQUEST:
                return self._wrap(self._prober.on_request(sender, decoded.nonce, decoded.target, self._now))
            case Kind.NACK:
                self._prober.on_nack(sender, decoded.nonce)
            case Kind.GOSSIP if refuted:
                return [Send(sender, Tag.GOSSIP, [Kind.GOSSIP, refuted])]
            case Kind.DIGEST:
                return self._digest(sender, decoded.digest)
            case Kind.WANT:
                return self._exchange.on_want(sender, decoded.wanted)
            case Kind.SUMMARY:
                return self._exchange.on_summary(sender, decoded.sums, self._now)
        return []

    def _compare(self, sender: PodId, sums: bytes) -> list[Send]:
        if sender not in self._links:
            return []
        if sums and sums != self._exchange.sum():
            self._prober.hurry(self._now, (sender,))  # is it the same by then?
        return self._exchange.compare(sender, sums, self._now)

    def due(self) -> float:
        """Return when `tick` has something to do, unless this pod is told something before; early at times, never late."""
        if self._hearsay.urgent or self._own.changed_at is not None:
            return self._ticked
        due = min(self._prober.due(), self.census.expire_at)
        if self._exchange_at < due and self._links:
            due = self._exchange_at
        if self._gossip_at < due and not self._gossip.idle:
            due = self._gossip_at
        if self._review_at < due and self.census.undecided:
            due = self._review_at
        return due

    def tick(self, now: float, planned: float | None = None) -> list[Send]:
        """Do what is due. ``planned``: for when this call was planned, None: `TICK_S` after the last one."""
        self._now = now
        late_s = now - (self._ticked + TICK_S if planned is None else planned)
        if self._ticked > 0.0 and late_s > LATE_S:
            self._slept(late_s)
        self._ticked = now
        probes = self._prober.tick(now)
        for pod in probes.failed:
            self._hearsay.accuse(pod, now)
        if now >= self._review_at:
            self._review_at = now + max(REVIEW_EVERY_S, len(self.census.records) / REVIEW_PODS_PER_S)
            for pod in self.census.deduce(self._links, now):
                self._hearsay.touch(pod, self._now)
        for pod in self.census.expire(now):
            self._hearsay.touch(pod, self._now)
        if self._own.changed_at is not None:
            links = self._links
            self._hearsay.publish(self._own.review_links(links, lambda: self.census.lacks_links(links), now), self._now)
        sends = self._wrap(probes.orders)
        if now >= self._gossip_at or self._hearsay.urgent:
            self._hearsay.urgent = False
            self._gossip_at = now + self._settings.gossip_interval_s
            if not self._gossip.idle:
                sends += self._gossip.round(self._audience(), now)
        if now >= self._exchange_at and self._links:
            self._exchange_at = now + self._settings.exchange_interval_s * self._rng.uniform(0.8, 1.2)
            sends += self._exchange.opening(self._rng.choice(list(self._links)), now)
        return sends

    def _slept(self, seconds: float) -> None:
        """Don't count a time in which this pod did nothing (a busy machine, SIGSTOP) as others' silence."""
        self._prober.slept(seconds)
        self.census.slept(seconds)

    def _witness_s(self) -> float:
        """Return how long an answer to a probe shows that a pod lives, whatever others say."""
        return self._prober.interval_s() + self._settings.probe_timeout_s

    def _digest(self, sender: PodId, digest: Sequence[Known]) -> list[Send]:
        sends: list[Send] = []
        accused = False
        for known in digest:
            if known.pod == self.me and (known.incarnation, known.version) > self._own.record.stamp:
                self._hearsay.publish(self._own.rise_above(known.incarnation), self._now)
            if known.accusation is not None:
                accused = accused or known.pod == self.me
                sends += self._hearsay.update(known.accusation, sender, self._witness_s(), self._now)
        return sends + self._exchange.answer(sender, digest, self._now, accused=accused)

    def _alive(self, pod: PodId, round_trip_s: float | None) -> None:
        """A probe was answered. An accusation stands until the accused refutes it, though: the next ping says so."""
        if (near := self.census.near.get(pod)) is None:
            return
        near.proof = self._now
        self.census.seen(pod, self._now)
        if round_trip_s is not None:
            near.measured(round_trip_s)
        if self.census.clear_deduced(pod):
            self._hearsay.touch(pod, self._now)

    # -- sending

    def _announce(self, flag: Flag, on: bool, now: float) -> list[Send]:
        self._now = now
        self._hearsay.publish(self._own.set_flag(flag, on), self._now)
        message = [Kind.GOSSIP, [wire.encode_update(self._own.record)]]
        return [Send(pod, Tag.GOSSIP, message) for pod in self._links]

    def _audience(self) -> list[PodId]:
        """Return the linked pods that gossip will reach; the suspected hear what concerns them with each probe."""
        return [pod for pod in self._links if not self.census.accused(pod)]

    def _wrap(self, orders: Iterable[Order]) -> list[Send]:
        return [self._say(*order) for order in orders]

    def _say(self, pod: PodId, head: list[object], tail: Iterable[object] = (), first: Iterable[object] = ()) -> Send:
        """Add to a probe: what ``first`` says, what the addressee is accused of, some of the gossip, and the sum."""
        updates = [*first]
        accusation = self.census.accusation(pod, self._now)
        if accusation is not None:
            updates.append(wire.encode_update(accusation))
        if not self._gossip.idle:
            updates += self._gossip.piggyback(pod, self._now)
        if head[0] is Kind.PING or head[0] is Kind.ACK:
            return Send(pod, Tag.GOSSIP, [*head, updates, self._exchange.sum(), *tail])
        return Send(pod, Tag.GOSSIP, [*head, updates, *tail])
