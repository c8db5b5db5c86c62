"""Which pods should keep a content: a pure function that every pod computes alike, without asking anybody.

Weighted rendezvous hashing: each pod draws a number from the hash of content and pod, and the highest draws win. The
logarithmic method makes a pod's share of the contents proportional to its weight (C. Schindelhauer, G. Schomaker:
"Weighted distributed hash tables", SPAA 2005; D. G. Thaler, C. V. Ravishankar: "Using name-based mappings to increase
hit rates", IEEE/ACM Transactions on Networking 6(1), 1998). A pod that comes takes only what it wins itself, and a
pod that goes leaves only what it had.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from base.ids import PodId, hash_bytes

_DOMAIN = b"wormhole placement 1\0"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A full pod that may keep a copy."""

    pod: PodId
    weight: float = 1.0
    """Its share in proportion to the others', at least 0; a pod of weight 0 is taken when no other is left."""
    available_bytes: int | None = None
    """Room for further contents; ``None``: unknown, taken for enough."""


def copies_wanted(copies: int, full_members: int) -> int:
    """Return how many copies a content should have: as configured, but no more than there are full members."""
    return max(0, min(copies, full_members))


def place(
    content: bytes, size: int, copies: int, author: PodId | None, candidates: Sequence[Candidate]
) -> tuple[PodId, ...]:
    """Return the pods that should keep ``content``, best first: at most ``copies``, fewer when there is no room.

    The author is the first when it is a candidate, with room or not: it has the bytes. ``size`` is in bytes. The order
    of ``candidates`` doesn't matter; each pod may stand in it once. Raises `ValueError` for a negative or infinite
    weight, or a pod that stands there twice.
    """
    if len({candidate.pod for candidate in candidates}) != len(candidates):
        raise ValueError("a pod stands twice among the candidates")
    ranked = sorted(candidates, key=lambda candidate: _rank(content, candidate), reverse=True)
    first = [candidate.pod for candidate in ranked if candidate.pod == author]
    others = [candidate.pod for candidate in ranked if candidate.pod != author and _has_room(candidate, size)]
    return tuple([*first, *others][: max(0, copies)])


def _has_room(candidate: Candidate, size: int) -> bool:
    return candidate.available_bytes is None or candidate.available_bytes >= size


def _rank(content: bytes, candidate: Candidate) -> tuple[float, float, PodId]:
    """Return what the candidates of one content are ordered by, the highest first."""
    if not 0 <= candidate.weight < math.inf:
        raise ValueError(f"a weight must be finite and at least 0, not {candidate.weight}")
    digest = hash_bytes(_DOMAIN + candidate.pod.encode() + b"\0" + content)
    # 52 bits and a half: exact in a double, and never 0 or 1.
    draw = ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) / 2**52
    return candidate.weight / -math.log(draw), draw, candidate.pod
