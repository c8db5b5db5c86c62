"""Which pods some path of links leads to. Pure.

SWIM assumes that anybody may probe anybody. Here probes go along links only, and in a large cluster a pod is linked to
few. When a cluster is torn in two, the pods at the tear accuse each other, but those further inside the other half
have all who probe them on their own side: nobody here would ever miss them. So every pod gossips whom it is linked to
(as OSPF routers do), and a pod behind accused pods only is suspected by everyone for himself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set

from base.ids import PodId
from mesh.gossip_messages import Record


def unreachable(
    links: Iterable[PodId], records: Mapping[PodId, Record], to_all: Set[PodId], lost: Set[PodId]
) -> set[PodId]:
    """Return the pods with a record that no path from here leads to, without those in ``lost``.

    ``links``: whom this pod is linked to; ``to_all``: who says that he is linked to everybody. No path goes through
    ``lost`` pods. The word of the end nearer to us counts: what a dead pod last said of its links proves nothing.
    """
    found: set[PodId] = set()
    frontier: Collection[PodId] = set(links) - lost
    while frontier:
        if not to_all.isdisjoint(frontier):
            return set()
        found.update(frontier)
        claims = [records[pod].links for pod in frontier if pod in records]
        frontier = set().union(*claims) - found - lost
    return records.keys() - found - lost
