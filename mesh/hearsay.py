"""What pods say of each other and of this one: what of it counts, and who is told of it next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.awareness import Awareness
from mesh.census import TO_ALL, Census
from mesh.exchange import Exchange
from mesh.gossip import Gossip
from mesh.gossip_messages import Accusation, Kind, Record
from mesh.own_record import OwnRecord
from mesh.send import Send
from mesh.wire import Tag

FORWARD_EVERY_S = 1.0
"""An accusation of one pod is passed on to it at most this often."""


class Hearsay:
    """Takes updates into the census, and has the gossip spread what is news. One pod's; ``links`` are its linked pods."""

    def __init__(
        self,
        own: OwnRecord,
        census: Census,
        gossip: Gossip,
        exchange: Exchange,
        awareness: Awareness,
        links: Collection[PodId],
        ask: Callable[[PodId, float], None],
    ) -> None:
        self._own = own
        self._census = census
        self._gossip = gossip
        self._exchange = exchange
        self._awareness = awareness
        self._links = links
        self._ask = ask
        """Called with a linked pod that others accuse, and the time: it is to be pinged soon."""
        self.changed: set[PodId] = set()
        """Whose state, announcement, values or address changed."""
        self.urgent = False
        """Whether there is something to tell at the next tick."""

    def publish(self, new: bool, now: float) -> None:
        """Gossip this pod's own record if it is ``new``."""
        if new:
            self._gossip.tell(self._own.record, (), now)
            self.changed.add(self._census.me)

    def touch(self, pod: PodId, now: float) -> None:
        """Note a change of what is shown of ``pod``; who is linked to all may have become so by it."""
        self._own.links_changed(now)
        self.changed.add(pod)

    def accuse(self, pod: PodId, now: float) -> None:
        """Accuse a pod that didn't answer this one."""
        news = self._census.accuse(pod, now)
        if news is not None:
            self._spread(news, (), now)
        self.touch(pod, now)

    def update(self, update: wire.Update, source: PodId, witness_s: float, now: float) -> Sequence[Send]:
        """Take in what ``source`` says; ``witness_s``: whoever answered within it isn't suspected on hearsay."""
        if update.pod == self._census.me:
            self._of_self(update, now)
        elif update.pod not in self._census.members:
            pass  # not in the roster (yet): the exchange that follows its admission brings it
        elif isinstance(update, Accusation):
            return self._accusation(update, source, witness_s, now)
        else:
            self._record(update, source, now)
        return ()

    def _of_self(self, update: wire.Update, now: float) -> None:
        if isinstance(update, Accusation):
            if update.incarnation < self._own.record.incarnation or self._own.gone:
                return
            self._awareness.add(1)
        elif update.stamp <= self._own.record.stamp:
            return
        self.publish(self._own.rise_above(update.incarnation), now)

    def _record(self, record: Record, source: PodId, now: float) -> None:
        pod = record.pod
        known = self._census.records.get(pod)
        if known is record or (known is not None and record.stamp <= known.stamp):
            if known is record or record.stamp == known.stamp:
                self._gossip.heard(record, source)
            return
        self._exchange.learnt(source)
        accused = pod in self._census.suspicions
        if self._census.take(record, now):
            self.touch(pod, now)
        if accused and pod not in self._census.suspicions:
            self._gossip.withdraw(pod)
            self.urgent = True
        told = self._links if int(record.flags) & TO_ALL else record.links
        self._gossip.tell(record, {source, *told}, now)

    def _accusation(self, update: Accusation, source: PodId, witness_s: float, now: float) -> Sequence[Send]:
        pod, census = update.pod, self._census
        suspicion = census.suspicions.get(pod)
        if suspicion is not None and suspicion.knows(update.incarnation, update.accuser, update.age_s, now):
            return ()
        if census.gone(pod) or update.incarnation < census.stamp(pod)[0]:
            return ()
        near = census.near.get(pod)
        if suspicion is None and near is not None and pod in self._links and now - near.proof <= witness_s:
            if now - near.forwarded < FORWARD_EVERY_S:
                return ()
            near.forwarded = now
            self._ask(pod, now)
            return [Send(pod, Tag.GOSSIP, [Kind.GOSSIP, [wire.encode_update(update)]])]
        if census.hear_accusation(update, now):
            self._spread(update, (source,), now)
        self.touch(pod, now)
        return ()

    def _spread(self, update: Accusation, besides: Collection[PodId], now: float) -> None:
        self.urgent = True
        self._gossip.tell(update, besides, now)
