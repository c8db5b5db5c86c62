"""Which links there are: one control link for each pair of pods, a few bulk links on demand. Opens nothing itself."""

from __future__ import annotations

from typing import Final

from base.ids import PodId
from mesh.api import Lane
from mesh.link import Link

MAX_BULK_LINKS: Final = 2
"""Bulk links that this pod opens to one peer."""
SILENT_S: Final = 5.0
"""By a link that is well something comes more often, if only pings."""
BUSY_REQUESTS: Final = 2
"""A bulk link with this many unanswered requests is worth a second one."""


def prefers(new: Link, old: Link, me: PodId) -> bool:
    """Tell whether ``new`` replaces ``old``, both leading to one pod. Both ends come to the same answer.

    A restarted peer's link replaces that of its earlier run. Of two dialled by the same side the later attempt
    counts, of two dialled by different sides the one dialled by the smaller pod id; but none by which nothing came for
    some time: whoever dialled has lost it, as by a change of its address, and this side is still to learn that.
    """
    if new.peer.process != old.peer.process or old.silent_s() >= SILENT_S:
        return True
    if new.dialled == old.dialled:
        return new.peer.dial > old.peer.dial
    return new.dialled == (me < new.peer.pod)


class LinkTable:
    """The links of one pod."""

    def __init__(self, me: PodId) -> None:
        self._me = me
        self._control: dict[PodId, Link] = {}
        self._bulk: dict[PodId, list[Link]] = {}

    def control(self, pod: PodId) -> Link | None:
        """Return the control link to a pod."""
        return self._control.get(pod)

    def linked(self) -> list[PodId]:
        """Return the pods with a control link."""
        return list(self._control)

    def all(self) -> list[Link]:
        """Return the links that requests can be sent over, of both lanes."""
        return [*self._control.values(), *(link for links in self._bulk.values() for link in links)]

    def add(self, link: Link) -> Link | None:
        """Put a link in; return the control link that must go (perhaps this one), if there are two."""
        pod = link.peer.pod
        if link.peer.lane is Lane.BULK:
            if link.dialled:
                self._bulk.setdefault(pod, []).append(link)
            return None
        old = self._control.get(pod)
        if old is not None and not prefers(link, old, self._me):
            return link
        self._control[pod] = link
        return old

    def remove(self, link: Link) -> bool:
        """Take out a link that ended; tell whether the pod has lost its control link by that."""
        pod = link.peer.pod
        if link.peer.lane is Lane.BULK:
            links = self._bulk.get(pod, [])
            if link in links:
                links.remove(link)
            if not links:
                self._bulk.pop(pod, None)
            return False
        if self._control.get(pod) is not link:
            return False
        del self._control[pod]
        return True

    def bulk(self, pod: PodId) -> tuple[Link | None, bool]:
        """Return the least busy bulk link to a pod, and whether opening another one is worth it."""
        links = [link for link in self._bulk.get(pod, []) if link.usable]
        best = min(links, key=lambda link: link.in_flight, default=None)
        if best is None:
            return None, True
        return best, best.in_flight >= BUSY_REQUESTS and len(links) < MAX_BULK_LINKS
