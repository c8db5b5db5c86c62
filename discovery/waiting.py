"""Who asked to join and waits for approval, and who was denied. Pure; takes the time; everything is bounded.

A joiner asks again every few seconds with the same key. One that stopped asking is forgotten soon, so that nobody
approves a pod that isn't there any more; one that was denied is told so for an hour.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from base.ids import PodId
from discovery.join_messages import Request

ASK_EVERY_S: Final = 2.0
"""How often a joiner asks whether it was approved."""
FORGET_AFTER_S: Final = 20.0
MAX_WAITING: Final = 64
MAX_OF_HOST: Final = 8
DENIED_S: Final = 3600.0
MAX_DENIED: Final = 1024


@dataclass(frozen=True, slots=True)
class Waiting:
    """One joiner. Times are seconds on a monotonic clock."""

    request: Request
    host: str
    since_s: float
    last_s: float


class WaitingRoom:
    """The joiners that asked this pod."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[PodId, Waiting] = OrderedDict()
        self._denied: OrderedDict[PodId, float] = OrderedDict()

    def ask(self, request: Request, host: str, now_s: float) -> bool | None:
        """Take note of a joiner; return whether it is new, None when there is no room for it."""
        self._prune(now_s)
        known = self._waiting.get(request.pod)
        if known is None:
            of_host = sum(one.host == host for one in self._waiting.values())
            if len(self._waiting) >= MAX_WAITING or of_host >= MAX_OF_HOST:
                return None
        since_s = now_s if known is None else known.since_s
        self._waiting[request.pod] = Waiting(request, host, since_s, now_s)
        return known is None

    def waiting(self, now_s: float) -> list[Waiting]:
        """Return who waits, the longest first."""
        self._prune(now_s)
        return list(self._waiting.values())

    def admitted(self, pod: PodId) -> None:
        """Take note that a joiner waits no more."""
        self._waiting.pop(pod, None)

    def deny(self, pod: PodId, now_s: float) -> None:
        """Turn a joiner away."""
        self._waiting.pop(pod, None)
        self._denied[pod] = now_s
        self._denied.move_to_end(pod)
        if len(self._denied) > MAX_DENIED:
            self._denied.popitem(last=False)

    def is_denied(self, pod: PodId, now_s: float) -> bool:
        """Tell whether a joiner was turned away within the last hour."""
        at_s = self._denied.get(pod)
        return at_s is not None and now_s - at_s < DENIED_S

    def _prune(self, now_s: float) -> None:
        for pod in [pod for pod, one in self._waiting.items() if now_s - one.last_s > FORGET_AFTER_S]:
            del self._waiting[pod]
