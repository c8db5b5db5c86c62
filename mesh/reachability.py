"""Which pods some path of links leads to. Pure.

SWIM assumes that anybody may probe anybody. Here probes go along links only, and in a large cluster a pod is linked to
few. When a cluster is torn in two, the pods at the tear accuse each other, but those further inside the other half
have all who probe them on their own side: nobody here would ever miss them. So every pod gossips whom it is linked to
(as OSPF routers do), and a pod behind accused pods only is suspected by everyone for himself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from base.ids import PodId
from mesh.member import Peer


def reachable(me: PodId, claims: Mapping[PodId, Iterable[PodId] | None], lost: Collection[PodId]) -> set[PodId]:
    """Return the pods that a path from ``me`` leads to, ``me`` included, without passing through or to ``lost``.

    ``claims`` has for every pod whom it says it is linked to, None meaning everybody. The word of the end nearer to
    ``me`` counts: what a dead pod last said of its links proves nothing.
    """
    found = {me}
    queue = deque([me])
    while queue:
        said = claims.get(queue.popleft(), ())
        if said is None:
            return {pod for pod in claims if pod not in lost}
        for other in said:
            if other not in found and other in claims and other not in lost:
                found.add(other)
                queue.append(other)
    return found


def reachable_members(me: PodId, links: Iterable[PodId], peers: Mapping[PodId, Peer]) -> set[PodId]:
    """Return `reachable` by what the members' records say of their links."""
    claims: dict[PodId, Iterable[PodId] | None] = {me: links}
    lost = set()
    for pod, peer in peers.items():
        if peer.record is None or peer.gone or peer.accused:
            lost.add(pod)
            claims[pod] = ()
        else:
            claims[pod] = None if peer.linked_to_all else peer.record.links
    return reachable(me, claims, lost)


def helpers(target: PodId, links: Iterable[PodId], peers: Mapping[PodId, Peer]) -> list[PodId]:
    """Return the linked pods that say they are linked to ``target`` and are themselves above suspicion."""
    found = []
    for pod in links:
        peer = peers.get(pod)
        if pod == target or peer is None or peer.record is None or peer.suspicion is not None or peer.gone:
            continue
        if peer.linked_to_all or target in peer.record.links:
            found.append(pod)
    return found
