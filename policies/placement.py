"""Which pods should keep a content: a pure function that every pod computes alike, without asking anybody.

Weighted rendezvous hashing: each pod draws a number from the hash of content and pod, and the highest draws win. The
logarithmic method makes a pod's share of the contents proportional to its weight (C. Schindelhauer, G. Schomaker:
"Weighted distributed hash tables", SPAA 2005; D. G. Thaler, C. V. Ravishankar: "Using name-based mappings to increase
hit rates", IEEE/ACM Transactions on Networking 6(1), 1998). A pod that comes takes only what it wins itself, and a
pod that goes leaves only what it had.

Who keeps a content goes on keeping it, but for three reasons, none of which can move it back and forth: somebody
*wishes* for it more, a pod that came later *claims* the share that it wins by the hash, or its writer is *full*.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from base.ids import PodId, hash_bytes

_DOMAIN = b"wormhole placement 1\0"
ROOMY = 2
"""A full pod takes over from another one what it has room for so many times."""
LEAST_EXCESS = 1e-12
"""Taken for pods without an excess, so that the hash decides among them."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A full pod that may keep a copy."""

    pod: PodId
    weight: float = 1.0
    """Its share in proportion to the others', at least 0; a pod of weight 0 is taken when no other is left."""
    available_bytes: int | None = None
    """Room for further contents; ``None``: unknown, taken for enough."""
    first: int = 0
    """How much it wishes for the first copy; the highest gets it."""
    wish: int = 0
    """How much it wishes for one of the further copies; the highest get them."""
    takes: bool = True
    """Whether it can fetch now; one that can't goes on keeping what it has."""
    is_full: bool = False
    """Short of room: what it wrote, and isn't wished for or claimed there, goes to others that want it as much and
    aren't full themselves, or have room for `ROOMY` times as much."""
    is_slow: bool = False
    """Its network is far slower than the others'."""
    excess: float = 0.0
    """By how much it keeps more than its share, in any unit: of copies too many those go that are on laden pods, each
    pod's in proportion to its excess."""
    joined_s: float = 0.0
    """When it came to the cluster, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Case:
    """A content that is to be placed."""

    content: bytes
    size: int
    copies: int
    author: PodId | None = None
    """Who has it from the beginning: with equal wishes the first copy stays there."""
    keepers: frozenset[PodId] = frozenset()
    """Who keeps it and counts, whether it answers or not."""
    cached: frozenset[PodId] = frozenset()
    """Who has it in a cache: the copy is there already."""
    born_s: float = math.inf
    """When it was written, in seconds since the epoch; infinite: not known, so nobody came after it."""


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
    _check(candidates)
    ranked = sorted(candidates, key=lambda candidate: _rank(content, candidate), reverse=True)
    first = [candidate.pod for candidate in ranked if candidate.pod == author]
    others = [candidate.pod for candidate in ranked if candidate.pod != author and has_room(candidate, size)]
    return tuple([*first, *others][: max(0, copies)])


def settle(case: Case, candidates: Sequence[Candidate]) -> tuple[PodId, ...]:
    """Return the pods that should keep a content, given who keeps it now: the first copy's in front.

    At most ``case.copies``, fewer when there is no room. Whoever keeps it and isn't named may drop it as soon as those
    who are named have it. Keepers that aren't candidates don't count. Raises as `place`.
    """
    _check(candidates)
    able = [one for one in candidates if one.pod in case.keepers or has_room(one, case.size)]
    ranks = {one.pod: _rank(case.content, one) for one in able}
    claims = _claims(case, able, ranks)
    keeping = [one for one in able if one.pod in case.keepers]
    lightness = {one.pod: -_heaviness(case.content, one) for one in keeping} if len(keeping) > case.copies else {}
    left = [one for one in able if one.takes or one.pod in case.keepers]
    chosen: list[PodId] = []
    while left and len(chosen) < case.copies:
        is_first = not chosen

        def key(one: Candidate, is_first: bool = is_first) -> tuple[object, ...]:
            keeps, writes = one.pod in case.keepers, one.pod == case.author
            if not case.keepers:
                keeps = writes
            return (
                one.first if is_first else one.wish,
                one.pod in claims,
                not one.is_full or (not writes and (keeps or has_room(one, ROOMY * case.size))),
                keeps,
                writes and not claims,
                not one.is_slow,
                one.pod in case.cached,
                lightness.get(one.pod, 0.0),
                ranks[one.pod],
            )

        best = max(left, key=key)
        left.remove(best)
        chosen.append(best.pod)
    return tuple(chosen)


def _claims(case: Case, able: Sequence[Candidate], ranks: dict[PodId, tuple[float, float, PodId]]) -> Collection[PodId]:
    """Return the pods that came after the content was written, and win it by wish and hash: their share.

    Those that are away are counted, so that nothing moves because somebody is away for a while.
    """
    if all(one.joined_s <= case.born_s for one in able):
        return ()
    order = sorted(able, key=lambda one: (one.wish, ranks[one.pod]), reverse=True)
    return {one.pod for one in order[: max(0, case.copies)] if one.joined_s > case.born_s}


def _heaviness(content: bytes, keeper: Candidate) -> float:
    """Return what the keepers of a content are ordered by when there are too many: the heaviest goes.

    A draw weighted by excess, independent of the one that placed the content.
    """
    return max(keeper.excess, LEAST_EXCESS) / -math.log(draw(b"excess" + content, keeper.pod))


def has_room(candidate: Candidate, size: int) -> bool:
    """Tell whether a content of ``size`` bytes finds room."""
    return candidate.available_bytes is None or candidate.available_bytes >= size


def _check(candidates: Sequence[Candidate]) -> None:
    if len({candidate.pod for candidate in candidates}) != len(candidates):
        raise ValueError("a pod stands twice among the candidates")


def draw(content: bytes, pod: PodId) -> float:
    """Return the number between 0 and 1 that a pod draws for a content."""
    digest = hash_bytes(_DOMAIN + pod.encode() + b"\0" + content)
    # 52 bits and a half: exact in a double, and never 0 or 1.
    return ((int.from_bytes(digest[:8], "big") >> 12) + 0.5) / 2**52


def _rank(content: bytes, candidate: Candidate) -> tuple[float, float, PodId]:
    """Return what the candidates of one content are ordered by, the highest first."""
    if not 0 <= candidate.weight < math.inf:
        raise ValueError(f"a weight must be finite and at least 0, not {candidate.weight}")
    drawn = draw(content, candidate.pod)
    return candidate.weight / -math.log(drawn), drawn, candidate.pod
