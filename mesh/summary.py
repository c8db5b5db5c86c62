"""Sums of what a pod knows, by which two find out in a few bytes whether they know the same. Pure.

Each record counts with a number made of pod, incarnation and version; a sum is the exclusive or of these numbers, so
that it doesn't depend on any order and a new record changes it at once, whatever the size of the cluster. The sum of
all rides on every ping; where it differs for longer than gossip takes, the sums of `BUCKETS` parts are compared, and
only the records of parts that differ are listed. So peace costs the same with five pods and with ten thousand.

Not made against forgery: pods are verified, and whoever is lied to asks again elsewhere.
"""

from __future__ import annotations

from functools import lru_cache

from base.ids import PodId, hash_bytes
from mesh.gossip_messages import BUCKETS, SUM_BYTES, Record, pod_bytes

COMPARE_AFTER_S = 0.8
"""Sums that differ for this long are looked into: gossip is slower than a ping."""
COMPARE_PAUSE_S = 1.0
COMPARE_PAUSE_MAX_S = 30.0
"""Comparing again waits twice as long each time as long as it changes nothing, up to this."""


_BUCKET_OF = {f"{number:02x}": number % BUCKETS for number in range(256)}


def bucket_of(pod: PodId) -> int:
    """Return to which part of a summary a pod belongs."""
    return _BUCKET_OF[pod[:2]]


@lru_cache(2)
def by_bucket(pods: frozenset[PodId]) -> list[list[PodId]]:
    """Return the pods of each part, sorted."""
    parts: list[list[PodId]] = [[] for _ in range(BUCKETS)]
    for pod in sorted(pods):
        parts[bucket_of(pod)].append(pod)
    return parts


@lru_cache(1 << 15)
def _number(pod: PodId, incarnation: int, version: int) -> int:
    said = pod_bytes(pod) + incarnation.to_bytes(8, "big") + version.to_bytes(8, "big")
    return int.from_bytes(hash_bytes(said)[:SUM_BYTES], "big")


class Summary:
    """The sums of a changing set of records."""

    def __init__(self) -> None:
        self._buckets = [0] * BUCKETS
        self._all = 0
        self._total: tuple[int, Record | None, bytes] = (-1, None, b"")
        """What `total` said last: it is asked for with each ping."""

    def copy(self) -> Summary:
        """Return one with the same sums."""
        other = Summary()
        other._buckets, other._all = list(self._buckets), self._all
        return other

    def replace(self, old: Record | None, new: Record | None) -> None:
        """Take ``old`` out, if it was in, and ``new`` in."""
        for record in (old, new):
            if record is not None:
                number = _number(record.pod, record.incarnation, record.version)
                self._all ^= number
                self._buckets[bucket_of(record.pod)] ^= number

    def total(self, besides: Record | None = None) -> bytes:
        """Return the sum of all, `SUM_BYTES` long; with a record that is ``besides`` counted, too."""
        of, with_, said = self._total
        if of != self._all or with_ is not besides:
            number = 0 if besides is None else _number(besides.pod, besides.incarnation, besides.version)
            said = (self._all ^ number).to_bytes(SUM_BYTES, "big")
            self._total = self._all, besides, said
        return said

    def parts(self) -> bytes:
        """Return the sums of the buckets, one behind the other."""
        return b"".join(part.to_bytes(SUM_BYTES, "big") for part in self._buckets)

    def differing(self, parts: bytes) -> frozenset[int]:
        """Return the buckets whose sums aren't those in ``parts``."""
        mine = self.parts()
        at = range(0, len(mine), SUM_BYTES)
        return frozenset(i // SUM_BYTES for i in at if mine[i : i + SUM_BYTES] != parts[i : i + SUM_BYTES])


class Comparisons:
    """When to compare with which linked pod."""

    def __init__(self) -> None:
        self._differs: dict[PodId, float] = {}
        self._next: dict[PodId, tuple[float, float]] = {}

    @property
    def all_same(self) -> bool:
        """Whether nobody's sum differs."""
        return not self._differs

    def forget(self, pod: PodId) -> None:
        """Forget a pod that is no longer linked."""
        self._differs.pop(pod, None)
        self._next.pop(pod, None)

    def heard(self, pod: PodId, *, same: bool, now: float) -> bool:
        """Note whether a linked pod's sum was ours; return whether to compare now."""
        if same:
            self.forget(pod)
            return False
        since = self._differs.setdefault(pod, now)
        due, pause_s = self._next.get(pod, (since + COMPARE_AFTER_S, COMPARE_PAUSE_S))
        if now < due:
            return False
        self._next[pod] = now + pause_s, min(2 * pause_s, COMPARE_PAUSE_MAX_S)
        return True

    def learnt(self, pod: PodId) -> None:
        """Note that comparing brought something: it goes on without a pause."""
        self._next.pop(pod, None)
