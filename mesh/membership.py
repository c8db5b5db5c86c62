"""Who is there: SWIM with suspicion, incarnation and Lifeguard's local health, over the links of the mesh. Pure.

Theory of operation. Each pod says things about itself in one *record* (address, published values, links, whether in
maintenance, down or gone), ordered by (incarnation, version); records spread by gossip along the links, and pings carry
a sum of all that is known (`mesh.summary`), so that whoever missed something notices. Each linked pod is probed about
once a second (`mesh.probes`). One that answers neither us nor our helpers is *accused*; the accusation spreads; the
accused refutes it with a higher incarnation, which no one else may make up. A pod that has answered us a moment ago
does not become suspect on hearsay: we pass the accusation on to it instead. Who stays suspected for `absent_after_s`
is absent. Pods that nobody here is linked to are judged by whether a path of links leads to them
(`mesh.reachability`). A pod that a bad clock gave too low an incarnation is told its own old record and goes above it.

What is known of others is in `mesh.census`; who is linked to whom in a large cluster is decided in `mesh.view`.

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
FORWARD_EVERY_S = 1.0
"""An accusation of one pod is passed on to it at most this often."""


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
        self._exchange = Exchange(self.census, lambda: self._own.record)
        self._changed: set[PodId] = set()
        self._complaints: list[str] = []
        self._now = self._ticked = 0.0
        self._gossip_at = self._exchange_at = self._review_at = float("-inf")
        self._urgent = False

    # -- what the shell tells

    def set_members(self, pods: Iterable[PodId], now: float) -> None:
        """Take over who belongs to the cluster and is not evicted; this pod may be among them."""
        self._now = now
        added, removed = self.census.set_members(pods if isinstance(pods, frozenset) else frozenset(pods), now)
        self._changed.update(added, removed)
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
            self._touch(pod)

    def set_address(self, address: str) -> None:
        """Gossip ``HOST:PORT`` as where this pod listens; the empty string withdraws it."""
        self._publish(self._own.set_address(address))

    def set_meta(self, values: Mapping[str, object]) -> None:
        """Gossip ``values`` about this pod; raises `UsageError` above 1 KiB packed or for what msgpack can't carry."""
        self._publish(self._own.set_meta(values))

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
        changed, self._changed = self._changed, set()
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
        sends: list[Send] = []
        accused = False
        for update in decoded.updates:
            sends += self._update(update, sender)
            accused = accused or (update.pod == self.me and isinstance(update, Accusation))
        refuted = [wire.encode_update(self._own.record)] if accused else []
        return sends + self._react(sender, decoded, refuted)

    def _react(self, sender: PodId, decoded: wire.Message, refuted: list[object]) -> list[Send]:
        sends: list[Send] = []
        match decoded.kind:
            case Kind.PING:
                if self._prober.on_ping(sender, decoded.nonce, decoded.heard, self._now):
                    self._alive(Acked(sender, None))
                sends += self._wrap([Order(sender, [Kind.ACK, decoded.nonce])], refuted)
                sends += self._compare(sender, decoded.sums)
            case Kind.ACK:
                sends += self._compare(sender, decoded.sums)
                answer = self._prober.on_ack(sender, decoded.nonce, self._now)
                if isinstance(answer, Acked):
                    self._alive(answer)
                elif answer is not None:
                    sends += self._wrap([answer])
            case Kind.REQUEST:
                sends += self._wrap(self._prober.on_request(sender, decoded.nonce, decoded.target, self._now))
            case Kind.NACK:
                self._prober.on_nack(sender, decoded.nonce)
            case Kind.GOSSIP:
                if refuted:
                    sends.append(Send(sender, Tag.GOSSIP, [Kind.GOSSIP, refuted]))
            case Kind.DIGEST:
                sends += self._digest(sender, decoded.digest)
            case Kind.WANT:
                sends += self._exchange.on_want(sender, decoded.wanted)
            case Kind.SUMMARY:
                sends += self._exchange.on_summary(sender, decoded.sums, self._now)
        return sends

    def _compare(self, sender: PodId, sums: bytes) -> list[Send]:
        return self._exchange.compare(sender, sums, self._now) if sender in self._links else []

    def due(self) -> float:
        """Return when `tick` has something to do, unless this pod is told something before; early at times, never late."""
        if self._urgent or self._own.undecided:
            return self._ticked
        times = [self._prober.due(), self.census.due()]
        if self._links:
            times.append(self._exchange_at)
        if not self._gossip.idle:
            times.append(self._gossip_at)
        if self.census.undecided:
            times.append(self._review_at)
        return min(times)

    def tick(self, now: float, planned: float | None = None) -> list[Send]:
        """Do what is due. ``planned``: for when this call was planned, None: `TICK_S` after the last one."""
        self._now = now
        late_s = now - (self._ticked + TICK_S if planned is None else planned)
        if self._ticked > 0.0 and late_s > LATE_S:
            self._slept(late_s)
        self._ticked = now
        probes = self._prober.tick(now)
        for pod in probes.failed:
            self._accuse(pod)
        if now >= self._review_at:
            self._review_at = now + max(REVIEW_EVERY_S, len(self.census.records) / REVIEW_PODS_PER_S)
            for pod in self.census.deduce(self._links, now):
                self._touch(pod)
        for pod in self.census.expire(now):
            self._touch(pod)
        links = self._links
        self._publish(self._own.review_links(links, lambda: self.census.lacks_links(links), now))
        sends = self._wrap(probes.orders)
        if now >= self._gossip_at or self._urgent:
            self._urgent = False
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

    def _digest(self, sender: PodId, digest: Sequence[Known]) -> list[Send]:
        sends: list[Send] = []
        accused = False
        for known in digest:
            if known.pod == self.me and (known.incarnation, known.version) > self._own.record.stamp:
                self._publish(self._own.rise_above(known.incarnation))
            if known.accusation is not None:
                accused = accused or known.pod == self.me
                sends += self._update(known.accusation, sender)
        return sends + self._exchange.answer(sender, digest, self._now, accused=accused)

    # -- updates

    def _update(self, update: wire.Update, source: PodId) -> list[Send]:
        if update.pod == self.me:
            self._hear_of_self(update)
        elif update.pod not in self.census:
            pass  # not in the roster (yet): the exchange that follows its admission brings it
        elif isinstance(update, Accusation):
            return self._hear_accusation(update, source)
        else:
            self._hear_record(update, source)
        return []

    def _hear_of_self(self, update: wire.Update) -> None:
        if isinstance(update, Accusation):
            if update.incarnation < self._own.record.incarnation or self._own.gone:
                return
            self._awareness.add(1)
        elif update.stamp <= self._own.record.stamp:
            return
        self._publish(self._own.rise_above(update.incarnation))

    def _hear_record(self, record: Record, source: PodId) -> None:
        known = self.census.records.get(record.pod)
        if known is not None and record.stamp <= known.stamp:
            if record.stamp == known.stamp:
                self._gossip.heard(record, source)
            return
        self._exchange.learnt(source)
        accused = record.pod in self.census.suspicions
        if self.census.take(record, self._now):
            self._touch(record.pod)
        if accused and record.pod not in self.census.suspicions:
            self._gossip.withdraw(record.pod)
            self._urgent = True
        told = self._links if record.flags & Flag.LINKED_TO_ALL else record.links
        self._gossip.tell(record, (source, *told), self._now)

    def _hear_accusation(self, update: Accusation, source: PodId) -> list[Send]:
        pod, now = update.pod, self._now
        if self.census.gone(pod) or update.incarnation < self.census.stamp(pod)[0]:
            return []
        near, witness_s = self.census.near.get(pod), self._prober.interval_s() + self._settings.probe_timeout_s
        if (
            pod not in self.census.suspicions
            and near is not None
            and pod in self._links
            and now - near.proof <= witness_s
        ):
            if now - near.forwarded < FORWARD_EVERY_S:
                return []
            near.forwarded = now
            return [Send(pod, Tag.GOSSIP, [Kind.GOSSIP, [wire.encode_update(update)]])]
        if self.census.hear_accusation(update, now):
            self._accusing(update, source)
        self._touch(pod)
        return []

    def _accuse(self, pod: PodId) -> None:
        news = self.census.accuse(pod, self._now)
        if news is not None:
            self._accusing(news, None)
        self._touch(pod)

    def _accusing(self, update: Accusation, source: PodId | None) -> None:
        self._urgent = True
        self._gossip.tell(update, () if source is None else (source,), self._now)

    def _alive(self, acked: Acked) -> None:
        """A probe was answered. An accusation stands until the accused refutes it, though: the next ping says so."""
        if (near := self.census.near.get(acked.pod)) is None:
            return
        near.proof = self._now
        self.census.seen(acked.pod, self._now)
        if acked.round_trip_s is not None:
            near.measured(acked.round_trip_s)
        if self.census.clear_deduced(acked.pod):
            self._touch(acked.pod)

    # -- sending

    def _announce(self, flag: Flag, on: bool, now: float) -> list[Send]:
        self._now = now
        self._publish(self._own.set_flag(flag, on))
        message = [Kind.GOSSIP, [wire.encode_update(self._own.record)]]
        return [Send(pod, Tag.GOSSIP, message) for pod in self._links]

    def _publish(self, new: bool) -> None:
        """Gossip this pod's own record if it is ``new``."""
        if new:
            self._gossip.tell(self._own.record, (), self._now)
            self._changed.add(self.me)

    def _audience(self) -> list[PodId]:
        """Return the linked pods that gossip will reach; the suspected hear what concerns them with each probe."""
        return [pod for pod in self._links if not self.census.accused(pod)]

    def _wrap(self, orders: Iterable[Order], first: Iterable[object] = ()) -> list[Send]:
        """Add to probes: what ``first`` says, what the addressee is accused of, some of the gossip, and the sum."""
        sends = []
        for pod, head, tail in orders:
            updates = list(first)
            accusation = self.census.accusation(pod, self._now)
            if accusation is not None:
                updates.append(wire.encode_update(accusation))
            updates += self._gossip.piggyback(pod, self._now)
            sums = [self._exchange.sum()] if head[0] in (Kind.PING, Kind.ACK) else []
            sends.append(Send(pod, Tag.GOSSIP, [*head, updates, *sums, *tail]))
        return sends

    def _touch(self, pod: PodId) -> None:
        """Note a change of what is shown of ``pod``; who is linked to all may have become so by it."""
        self._own.links_changed(self._now)
        self._changed.add(pod)
