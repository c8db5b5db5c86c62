"""Which pods some path of links leads to. Pure.

SWIM assumes that anybody may probe anybody. Here probes go along links only, and in a large cluster a pod is linked to
few. When a cluster is torn in two, the pods at the tear accuse each other, but those further inside the other half
have all who probe them on their own side: nobody here would ever miss them. So every pod gossips whom it is linked to
(as OSPF routers do), and a pod behind accused pods only is suspected by everyone for himself.

Looking at all paths takes time in proportion to the cluster, and something changes all the time in a large one. As long
as everybody was reached, only those need a look to whom a link has gone (`Paths.doubt`): if each of them is still
reached, so is everybody behind them. Such a look starts from both ends, which meet after a few dozen pods.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set

from base.ids import PodId
from mesh.gossip_messages import Record

FEW_PODS = 64
"""Among so many a look at everybody costs little."""
NEAR_PODS = 256
"""So many, or a little more, are reached from this end before the other end begins."""
MAX_BACK = 1024
"""Pods looked at from the other end; if they haven't met this end by then, everybody is looked at."""
MAX_DOUBTS = 256


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


class Paths:
    """Whom no path leads to, kept up to date at little cost."""

    def __init__(self) -> None:
        self.cut: set[PodId] = set()
        """The answer of the last `look`."""
        self._doubts: set[PodId] | None = None
        """Who may have lost his path since then; None: anybody."""
        self.fresh = False
        """Whether nothing has changed since the last `look`."""

    def nothing_cut(self) -> None:
        """Begin with paths to everybody."""
        self.cut, self._doubts, self.fresh = set(), set(), True

    def anything_changed(self) -> None:
        """Look at everybody the next time."""
        self._doubts, self.fresh = None, False

    def doubt(self, pods: Iterable[PodId]) -> None:
        """Note that paths have come or gone, and that those which ended in a link to one of ``pods`` may be gone."""
        self.fresh = False
        if self._doubts is not None:
            self._doubts.update(pods)
            if len(self._doubts) > MAX_DOUBTS:
                self._doubts = None

    def look(
        self, links: Collection[PodId], records: Mapping[PodId, Record], to_all: Set[PodId], lost: Set[PodId]
    ) -> set[PodId]:
        """Bring `cut` up to date and return it; arguments as those of `unreachable`."""
        if self._doubts is None or self.cut or to_all or len(records) <= FEW_PODS:
            self.cut = unreachable(links, records, to_all, lost)
        elif self._doubts:
            near = _near(links, records, lost)
            doubts = [pod for pod in self._doubts if pod in records and pod not in lost and pod not in near]
            if not all(_leads_back(pod, near, records, lost) for pod in doubts):
                self.cut = unreachable(links, records, to_all, lost)
        self._doubts, self.fresh = set(), True
        return self.cut


def _near(links: Collection[PodId], records: Mapping[PodId, Record], lost: Set[PodId]) -> set[PodId]:
    """Return some pods that paths lead to, the nearest first, about `NEAR_PODS`."""
    found = set(links) - lost
    frontier: Collection[PodId] = found
    while frontier and len(found) < NEAR_PODS:
        claims = [records[pod].links for pod in frontier if pod in records]
        frontier = set().union(*claims) - found - lost
        found |= frontier
    return found


def _leads_back(pod: PodId, near: Set[PodId], records: Mapping[PodId, Record], lost: Set[PodId]) -> bool:
    """Tell whether a path is found from one of ``near`` to ``pod``. The truth where it says yes; no may be wrong."""
    looked = {pod}
    todo = [pod]
    for here in todo:
        for before in records[here].links:
            record = records.get(before)
            if before in looked or before in lost or record is None or here not in record.links:
                continue
            if before in near:
                return True
            looked.add(before)
            todo.append(before)
        if len(looked) > MAX_BACK:
            return False
    return False
