"""The full exchange: what one pod knows, in a few bytes or as a digest, and what another answers to it. Pure.

Gossip is quick but may miss somebody; the exchange, at a link-up, every 30 s with one linked pod, and when the sums on
pings keep differing, misses nothing. Few pods exchange digests at once; many first compare the sums of parts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.census import Census
from mesh.gossip import pages
from mesh.gossip_messages import BUCKETS, Kind, Known
from mesh.own_record import OwnRecord
from mesh.send import Send
from mesh.summary import Comparisons, Summary, bucket_of, by_bucket
from mesh.wire import Tag

DIGEST_ENTRIES = 256
FEW_PODS = 64
"""Among so many a digest (1.7 KiB) costs little more than a summary."""


class Exchange:
    """The exchanges of one pod, which knows ``census`` and its own record."""

    def __init__(self, census: Census, own: OwnRecord) -> None:
        self._census = census
        self._own = own
        self._comparisons = Comparisons()

    def sum(self) -> bytes:
        """Return the sum of all that is known here, to ride on a ping."""
        return self._census.summary.total(self._own.record)

    def opening(self, to: PodId, now: float) -> list[Send]:
        """Return the messages that begin an exchange with ``to``."""
        if len(self._census.members) <= FEW_PODS:
            return self._digests(to, None, now)
        return [Send(to, Tag.GOSSIP, [Kind.SUMMARY, self._total().parts()])]

    def compare(self, sender: PodId, sums: bytes, now: float) -> list[Send]:
        """Look into it if what a linked pod knows has differed from what we know for some time."""
        same = not sums or sums == self.sum()
        if same and self._comparisons.all_same:
            return []
        return self.opening(sender, now) if self._comparisons.heard(sender, same=same, now=now) else []

    def learnt(self, source: PodId) -> None:
        """Note that a linked pod told something new: it is worth going on."""
        self._comparisons.learnt(source)

    def forget(self, pod: PodId) -> None:
        """Forget a pod that is no longer linked."""
        self._comparisons.forget(pod)

    def on_summary(self, sender: PodId, sums: bytes, now: float) -> list[Send]:
        """Return digests of the parts in which ``sender`` knows something else."""
        buckets = self._total().differing(sums)
        return self._digests(sender, buckets, now) if buckets else []

    def on_want(self, sender: PodId, wanted: Iterable[PodId]) -> list[Send]:
        """Return the records that ``sender`` asks for."""
        own = self._own.record
        records = {pod: own if pod == own.pod else self._census.records.get(pod) for pod in wanted}
        return pages(sender, [wire.encode_update(record) for record in records.values() if record])

    def answer(self, to: PodId, digest: Iterable[Known], now: float, *, accused: bool) -> list[Send]:
        """Return what ``to`` lacks by its ``digest``, and the request for what is missing here.

        ``accused``: it accuses this pod, so it gets our own record in any case.
        """
        own, census = self._own.record, self._census
        updates: dict[PodId, list[object]] = {}
        wanted: dict[PodId, bytes] = {}
        for known in digest:
            mine = own if known.pod == own.pod else census.records.get(known.pod)
            if mine is None and known.pod not in census:
                continue
            stamp = mine.stamp if mine else (-1, 0)
            theirs = (known.incarnation, known.version)
            found: list[object] = []
            if mine is not None and (stamp > theirs or (accused and mine is own)):
                found.append(wire.encode_update(mine))
            elif stamp < theirs:
                wanted[known.pod] = wire.pod_bytes(known.pod)
            accusation = census.accusation(known.pod, now) if known.pod != to else None
            if accusation is not None and known.accusation is None:
                found.append(wire.encode_update(accusation))
            updates[known.pod] = found
        sends = [Send(to, Tag.GOSSIP, [Kind.WANT, list(wanted.values())])] if wanted else []
        return sends + pages(to, [update for found in updates.values() for update in found])

    def _total(self) -> Summary:
        summary = self._census.summary.copy()
        summary.replace(None, self._own.record)
        return summary

    def _digests(self, to: PodId, buckets: Collection[int] | None, now: float) -> list[Send]:
        """Return the messages that tell ``to`` which records and accusations are known here, in pages of 7 KiB.

        ``buckets``: those of these parts only, None: all.
        """
        own, census = self._own.record, self._census
        entries = []
        if buckets is None or bucket_of(own.pod) in buckets:
            entries.append(wire.encode_known(Known(own.pod, *own.stamp, None)))
        parts = by_bucket(census.members)
        chosen = range(BUCKETS) if buckets is None else buckets
        entries += [
            wire.encode_known(Known(pod, *census.stamp(pod), census.accusation(pod, now)))
            for pod in sorted(pod for part in chosen for pod in parts[part] if pod != own.pod)
        ]
        return [
            Send(to, Tag.GOSSIP, [Kind.DIGEST, entries[at : at + DIGEST_ENTRIES]])
            for at in range(0, len(entries), DIGEST_ENTRIES)
        ]
