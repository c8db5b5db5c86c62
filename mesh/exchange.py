"""The full exchange: a digest of what one pod knows, and what another answers to it. Pure.

Gossip is quick but may miss somebody; the exchange, at a link-up and every 30 s with one linked pod, misses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from base.ids import PodId
from mesh import gossip_messages as wire
from mesh.gossip import pages
from mesh.gossip_messages import Kind, Known, Record
from mesh.member import Peer
from mesh.send import Send
from mesh.wire import Tag

DIGEST_ENTRIES = 256


def digests(to: PodId, own: Record, peers: Mapping[PodId, Peer], now: float) -> list[Send]:
    """Return the messages that tell ``to`` which records and accusations are known here, in pages of 13 KiB."""
    entries = [wire.encode_known(Known(own.pod, *own.stamp, None))]
    for pod, peer in peers.items():
        stamp = peer.record.stamp if peer.record else (-1, 0)
        entries.append(wire.encode_known(Known(pod, *stamp, peer.accusation(pod, now))))
    return [
        Send(to, Tag.GOSSIP, [Kind.DIGEST, entries[at : at + DIGEST_ENTRIES]])
        for at in range(0, len(entries), DIGEST_ENTRIES)
    ]


def answer(
    to: PodId, digest: Iterable[Known], own: Record, peers: Mapping[PodId, Peer], now: float, *, accused: bool
) -> list[Send]:
    """Return what ``to`` lacks by its ``digest``, and the request for what is missing here.

    ``accused``: it accuses this pod, so it gets our own record in any case.
    """
    updates: dict[PodId, list[list[object]]] = {}
    wanted: dict[PodId, bytes] = {}
    for known in digest:
        peer = peers.get(known.pod)
        mine = own if known.pod == own.pod else peer.record if peer else None
        if peer is None and mine is None:
            continue
        stamp = mine.stamp if mine else (-1, 0)
        theirs = (known.incarnation, known.version)
        found: list[list[object]] = []
        if mine is not None and (stamp > theirs or (accused and mine is own)):
            found.append(wire.encode_update(mine))
        elif stamp < theirs:
            wanted[known.pod] = wire.pod_bytes(known.pod)
        accusation = peer.accusation(known.pod, now) if peer and known.pod != to else None
        if accusation is not None and known.accusation is None:
            found.append(wire.encode_update(accusation))
        updates[known.pod] = found
    sends = [Send(to, Tag.GOSSIP, [Kind.WANT, list(wanted.values())])] if wanted else []
    return sends + pages(to, [update for found in updates.values() for update in found])
