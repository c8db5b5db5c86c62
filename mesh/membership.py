"""Who is there: SWIM with suspicion, incarnation and Lifeguard's local health, over the links of the mesh. Pure.

Theory of operation. Each pod says things about itself in one *record* (address, published values, links, whether in
maintenance, down or gone), ordered by (incarnation, version); records spread by gossip and by a full exchange of
digests. Each linked pod is probed about once a second (`mesh.probes`). One that answers neither us nor our helpers is
*accused*; the accusation spreads; the accused refutes it with a higher incarnation, which no one else may make up. A
pod that has answered us a moment ago does not become suspect on hearsay: we pass the accusation on to it instead.
Who stays suspected for `absent_after_s` is absent. Pods that nobody here is linked to are judged by whether a path of
links leads to them (`mesh.reachability`). A pod that a bad clock gave too low an incarnation is told its own old record
and goes above it.

This module must never wait, read a clock or roll its own dice, and nothing it receives may raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.awareness import Awareness
from mesh.exchange import answer, digests
from mesh.gossip import Gossip, pages
from mesh.gossip_messages import Accusation, Flag, Kind, Known, Record
from mesh.member import MembershipSettings, MemberView, Peer
from mesh.own_record import OwnRecord
from mesh.probes import Acked, Order, Prober
from mesh.reachability import helpers, reachable_members
from mesh.send import Send
from mesh.suspicion import Suspicion
from mesh.wire import Tag

__all__ = ["TICK_S", "MemberView", "Membership", "MembershipSettings"]

TICK_S = 0.1
"""How often the shell calls `Membership.tick`, seconds."""

MAX_COMPLAINTS = 32
REVIEW_EVERY_S = 0.25
DEDUCE_AFTER_S = 0.5
"""No path for this long: suspected. Gossip about changed links comes together, but not at one moment."""
NEWBORN_S = 1.0
"""A pod that has just started is known earlier than who is linked to it: so long no path is needed."""
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
            self._helpers_for,
        )
        self._peers: dict[PodId, Peer] = {}
        self._links: dict[PodId, None] = {}
        self._gossip = Gossip(settings.gossip_pods, settings.retransmit_multiplier, rng)
        self._own = OwnRecord(me, incarnation, address)
        self._changed: set[PodId] = set()
        self._complaints: list[str] = []
        self._now = 0.0
        self._gossip_at = self._exchange_at = self._graph_at = float("-inf")
        self._graph: set[PodId] | None = None
        self._urgent = False

    # -- what the shell tells

    def set_members(self, pods: Iterable[PodId], now: float) -> None:
        """Take over who belongs to the cluster and is not evicted; this pod may be among them."""
        self._now = now
        wanted = set(pods) - {self.me}
        for pod in self._peers.keys() - wanted:
            del self._peers[pod]
            self._graph = None
            self._changed.add(pod)
        added = [pod for pod in sorted(wanted) if pod not in self._peers]
        for pod in added:
            self._peers[pod] = Peer(self._suspicion(-1, None, now))
            self._touch(pod)
        self._gossip.set_size(len(self._peers) + 1)
        if added:
            self._exchange_at = min(self._exchange_at, now)
            self._own.links_changed(now)
        self._gossip.tell(self._own.record, None, now)

    def set_absent_after(self, absent_after_s: float, now: float) -> None:
        """Wait so long from now on until a pod that does not answer counts as absent, those suspected already, too."""
        self._now = now
        self._settings = replace(self._settings, absent_after_s=absent_after_s)
        for pod, peer in self._peers.items():
            if peer.suspicion is not None and peer.suspicion.wait_anew(*self._waits_s(), now):
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
        self._graph = None
        self._own.links_changed(now)
        self._prober.link_up(pod, now)
        return digests(pod, self._own.record, self._peers, now)

    def link_down(self, pod: PodId, now: float) -> list[Send]:
        """The last link to ``pod`` is gone: others who may reach it are asked at once."""
        self._now = now
        if pod not in self._links:
            return []
        del self._links[pod]
        self._graph = None
        self._own.links_changed(now)
        self._prober.link_down(pod)
        peer = self._peers.get(pod)
        if peer is None or peer.gone or peer.accused:
            return []
        peer.cut_since = None
        if not self._helpers_for(pod) and pod in reachable_members(self.me, self._links, self._peers):
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
        peer = self._peers.get(pod)
        if pod == self.me:
            peer = Peer(None)
            peer.take(self._own.record)
            peer.last_seen = self._now
        return (peer or Peer(self._suspicion(-1, None, self._now))).view()

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
        if decoded.kind not in (Kind.PING, Kind.DIGEST, Kind.WANT):
            return []
        own, self._now = self._own.record.stamp, now
        asked = [
            known._replace(accusation=None)
            for known in decoded.digest
            if known.pod != self.me or (known.incarnation, known.version) <= own
        ]
        return self._react(sender, decoded._replace(updates=(), digest=asked), [])

    def receive(self, sender: PodId, message: object, now: float) -> list[Send]:
        """Take in the body of a `Tag.GOSSIP` frame from a linked pod; malformed ones are ignored whole."""
        self._now = now
        try:
            decoded = wire.decode(message)
        except wire.MalformedError as error:
            if len(self._complaints) < MAX_COMPLAINTS:
                self._complaints.append(f"ignored a membership message of {sender}: {error}")
            return []
        peer = self._peers.get(sender)
        if peer is not None:
            peer.last_seen = now
        sends: list[Send] = []
        for update in decoded.updates:
            sends += self._update(update, sender)
        accused = any(update.pod == self.me and isinstance(update, Accusation) for update in decoded.updates)
        refuted = [wire.encode_update(self._own.record)] if accused else []
        return sends + self._react(sender, decoded, refuted)

    def _react(self, sender: PodId, decoded: wire.Message, refuted: list[list[object]]) -> list[Send]:
        sends: list[Send] = []
        match decoded.kind:
            case Kind.PING:
                sends += self._wrap([Order(sender, [Kind.ACK, decoded.nonce])], refuted)
            case Kind.ACK:
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
                sends += self._exchange(sender, decoded.digest)
            case Kind.WANT:
                records = {pod: self._record(pod) for pod in decoded.wanted}
                sends += pages(sender, [wire.encode_update(record) for record in records.values() if record])
        return sends

    def tick(self, now: float) -> list[Send]:
        """Do what is due; call it every `TICK_S`."""
        self._now = now
        probes = self._prober.tick(now)
        for pod in probes.failed:
            self._accuse(pod)
        if now >= self._graph_at:
            self._graph_at = now + REVIEW_EVERY_S
            self._judge_unlinked()
            self._gossip.review(self._audience(), now)
        self._publish(self._own.review_links(self._links, self._peers, now))
        for pod, peer in self._peers.items():
            if peer.suspicion is not None and peer.suspicion.check(now):
                self._touch(pod)
        sends = self._wrap(probes.orders)
        if now >= self._gossip_at or self._urgent:
            self._urgent = False
            self._gossip_at = now + self._settings.gossip_interval_s
            sends += self._gossip.round(self._audience())
        if now >= self._exchange_at and self._links:
            self._exchange_at = now + self._settings.exchange_interval_s * self._rng.uniform(0.8, 1.2)
            sends += digests(self._rng.choice(list(self._links)), self._own.record, self._peers, now)
        return sends

    def _exchange(self, sender: PodId, digest: Sequence[Known]) -> list[Send]:
        sends: list[Send] = []
        accused = False
        for known in digest:
            if known.pod == self.me and (known.incarnation, known.version) > self._own.record.stamp:
                self._publish(self._own.rise_above(known.incarnation))
            if known.accusation is not None:
                accused = accused or known.pod == self.me
                sends += self._update(known.accusation, sender)
        return sends + answer(sender, digest, self._own.record, self._peers, self._now, accused=accused)

    def _record(self, pod: PodId) -> Record | None:
        if pod == self.me:
            return self._own.record
        peer = self._peers.get(pod)
        return peer.record if peer else None

    # -- updates

    def _update(self, update: wire.Update, source: PodId) -> list[Send]:
        if update.pod == self.me:
            self._hear_of_self(update)
            return []
        peer = self._peers.get(update.pod)
        if peer is None:
            return []  # not in the roster (yet): the exchange that follows its admission brings it
        if isinstance(update, Accusation):
            return self._hear_accusation(peer, update, source)
        self._hear_record(peer, update, source)
        return []

    def _hear_of_self(self, update: wire.Update) -> None:
        if isinstance(update, Accusation):
            if update.incarnation < self._own.record.incarnation or self._own.gone:
                return
            self._awareness.add(1)
        elif update.stamp <= self._own.record.stamp:
            return
        self._publish(self._own.rise_above(update.incarnation))

    def _hear_record(self, peer: Peer, record: Record, source: PodId) -> None:
        if peer.record is not None and record.stamp <= peer.record.stamp:
            if record.stamp == peer.record.stamp:
                self._gossip.heard(record, source)
            return
        newborn = peer.record is None or record.incarnation > peer.record.incarnation
        links_before = (peer.record.links, peer.linked_to_all) if peer.record else None
        peer.take(record)
        peer.last_seen = self._now
        suspicion = peer.suspicion
        if suspicion is not None and (record.incarnation > suspicion.incarnation or peer.gone):
            peer.suspicion = None
            self._gossip.withdraw(record.pod)
            self._urgent = True
        if newborn:
            peer.cut_since = self._now + NEWBORN_S
        if newborn or links_before != (record.links, peer.linked_to_all):
            self._graph = None
        self._gossip.tell(record, source, self._now)
        self._touch(record.pod)

    def _hear_accusation(self, peer: Peer, update: Accusation, source: PodId) -> list[Send]:
        if peer.gone or (peer.record is not None and update.incarnation < peer.record.incarnation):
            return []
        now = self._now
        if peer.suspicion is None and update.pod in self._links and now - peer.proof <= self._witness_s():
            if now - peer.forwarded < FORWARD_EVERY_S:
                return []
            peer.forwarded = now
            return [Send(update.pod, Tag.GOSSIP, [Kind.GOSSIP, [wire.encode_update(update)]])]
        if peer.suspicion is None:
            start = now - update.age_s
            peer.suspicion = self._suspicion(update.incarnation, update.accuser, start)
            self._accusing(update, source)
        elif peer.suspicion.accuse(update.incarnation, update.accuser, update.age_s, now):
            self._accusing(update, source)
        peer.suspicion.check(now)
        self._touch(update.pod)
        return []

    def _accuse(self, pod: PodId) -> None:
        peer = self._peers.get(pod)
        if peer is None or peer.gone or peer.record is None:
            return
        age_s = max(0.0, self._now - peer.suspicion.started) if peer.suspicion else 0.0
        update = Accusation(pod, peer.record.incarnation, self.me, age_s)
        if peer.suspicion is None:
            peer.suspicion = self._suspicion(update.incarnation, self.me, self._now)
            self._accusing(update, None)
        elif peer.suspicion.accuse(update.incarnation, self.me, age_s, self._now):
            self._accusing(update, None)
        self._touch(pod)

    def _accusing(self, update: Accusation, source: PodId | None) -> None:
        self._urgent = True
        self._gossip.tell(update, source, self._now)

    def _alive(self, acked: Acked) -> None:
        """A probe was answered. An accusation stands until the accused refutes it, though: the next ping says so."""
        peer = self._peers.get(acked.pod)
        if peer is None:
            return
        peer.proof = peer.last_seen = self._now
        if acked.round_trip_s is not None:
            peer.measured(acked.round_trip_s)
        if peer.suspicion is not None and peer.suspicion.deduced:
            peer.suspicion = None
            self._touch(acked.pod)

    def _suspicion(self, incarnation: int, accuser: PodId | None, started: float) -> Suspicion:
        settings = self._settings
        least, most = self._waits_s()
        enough = len(self._peers) - 1 >= settings.confirmations
        needed = settings.confirmations if enough and accuser is not None else 0
        return Suspicion(incarnation, accuser, started, min_s=least, max_s=most, needed=needed)

    def _waits_s(self) -> tuple[float, float]:
        """Return the shortest and the longest wait until a suspected pod counts as absent."""
        least = self._settings.absent_after_s
        return least, max(least, min(least * self._settings.unconfirmed_factor, least + 10.0))

    def _witness_s(self) -> float:
        return self._prober.interval_s() + self._settings.probe_timeout_s

    # -- links

    def _helpers_for(self, target: PodId) -> list[PodId]:
        return helpers(target, self._links, self._peers)

    def _judge_unlinked(self) -> None:
        """Suspect whom no path leads to, and clear who was suspected for that reason only."""
        unlinked = [pod for pod, peer in self._peers.items() if pod not in self._links and peer.record is not None]
        if not unlinked:
            return
        if self._graph is None:
            self._graph = reachable_members(self.me, self._links, self._peers)
        found = self._graph
        for pod in unlinked:
            peer = self._peers[pod]
            if pod in found:
                peer.cut_since = None
                peer.last_seen = self._now
                if peer.suspicion is not None:
                    peer.suspicion = None
                    self._touch(pod)
            elif peer.suspicion is None and not peer.gone:
                peer.cut_since = self._now if peer.cut_since is None else peer.cut_since
                if self._now - peer.cut_since >= DEDUCE_AFTER_S:
                    assert peer.record is not None
                    peer.suspicion = self._suspicion(peer.record.incarnation, None, peer.cut_since)
                    self._touch(pod)

    # -- sending

    def _announce(self, flag: Flag, on: bool, now: float) -> list[Send]:
        self._now = now
        self._publish(self._own.set_flag(flag, on))
        message = [Kind.GOSSIP, [wire.encode_update(self._own.record)]]
        return [Send(pod, Tag.GOSSIP, message) for pod in self._links]

    def _publish(self, new: bool) -> None:
        """Gossip this pod's own record if it is ``new``."""
        if new:
            self._gossip.tell(self._own.record, None, self._now)
            self._changed.add(self.me)

    def _audience(self) -> list[PodId]:
        """Return the linked pods that gossip will reach; the suspected hear what concerns them with each probe."""
        return [pod for pod in self._links if pod not in self._peers or not self._peers[pod].accused]

    def _wrap(self, orders: Iterable[Order], first: Iterable[object] = ()) -> list[Send]:
        """Add updates to probes: what ``first`` says, what the addressee is accused of, and some of the gossip."""
        sends = []
        for pod, head in orders:
            updates = list(first)
            peer = self._peers.get(pod)
            accusation = peer.accusation(pod, self._now) if peer else None
            if accusation is not None:
                updates.append(wire.encode_update(accusation))
            updates += self._gossip.piggyback(pod)
            sends.append(Send(pod, Tag.GOSSIP, [*head, updates]))
        return sends

    def _touch(self, pod: PodId) -> None:
        """Note a change of what is shown of ``pod``; who is linked to all may have become so by it."""
        if self._peers[pod].show():
            self._graph = None
            self._own.links_changed(self._now)
            self._changed.add(pod)
