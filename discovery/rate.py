"""How often strangers may knock: token buckets for each host and for all together. Pure; takes the time."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

HOST_BURST: Final = 20.0
HOST_PER_S: Final = 0.5
TOTAL_BURST: Final = 60.0
TOTAL_PER_S: Final = 5.0
MAX_HOSTS: Final = 1024


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_s: float

    def fill(self, now_s: float, per_s: float, burst: float) -> float:
        self.tokens = min(burst, self.tokens + max(0.0, now_s - self.filled_s) * per_s)
        self.filled_s = now_s
        return self.tokens


class KnockRate:
    """Allows 20 joins at once from one host and then one every two seconds; 60 and five a second from all hosts."""

    def __init__(self) -> None:
        self._hosts: OrderedDict[str, _Bucket] = OrderedDict()
        self._total = _Bucket(TOTAL_BURST, 0.0)

    def allow(self, host: str, now_s: float) -> bool:
        """Tell whether a join from ``host`` may go on at ``now_s`` (monotonic seconds), and count it if so."""
        bucket = self._hosts.setdefault(host, _Bucket(HOST_BURST, now_s))
        self._hosts.move_to_end(host)
        if len(self._hosts) > MAX_HOSTS:
            self._hosts.popitem(last=False)
        if bucket.fill(now_s, HOST_PER_S, HOST_BURST) < 1 or self._total.fill(now_s, TOTAL_PER_S, TOTAL_BURST) < 1:
            return False
        bucket.tokens -= 1
        self._total.tokens -= 1
        return True

    def forgive(self, host: str) -> None:
        """Take back one that `allow` counted: it was let in, so it was no stranger."""
        for bucket, burst in ((self._hosts.get(host), HOST_BURST), (self._total, TOTAL_BURST)):
            if bucket is not None:
                bucket.tokens = min(burst, bucket.tokens + 1)
