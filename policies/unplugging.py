"""Whether a pod can be unplugged without harm to a content. Pure."""

from __future__ import annotations

from collections.abc import Collection

from base.ids import PodId


def floor(least_copies: int, others: int) -> int:
    """Return how many kept copies must be left: as many as `continuity.least_copies`, or one on each other full pod."""
    return max(1, min(least_copies, others))


def endangers(
    pod: PodId,
    *,
    kept: Collection[PodId],
    cached: Collection[PodId],
    absent: Collection[PodId],
    author: PodId,
    least: int,
) -> bool:
    """Tell whether without ``pod`` a content has fewer than ``least`` kept copies on pods that answer.

    ``kept`` and ``cached`` answer, ``absent`` don't. A content that ``pod`` has no part in is none of its business; what
    nobody is known to have is at its author. A cached copy counts as the last one only.
    """
    left = len(set(kept) - {pod})
    if pod in cached:
        return left == 0
    has_it = pod in kept or pod in absent or (author == pod and not (kept or cached or absent))
    return has_it and left < least
