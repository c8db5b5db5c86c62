"""Up to which transaction are copies of a writer's records here, whoever made them? Pure.

Theory of operation. An adoption is *here* at once if the adopter's log is, as far as the copies go. If the adopter was
adopted in its turn, its copies are here if those are that others made of the transactions that hold them. So what is
here grows from what is here at once, until nothing follows any more (a least fixpoint). Adopters who adopted each other
prove nothing by that, and each adoption is looked at again only when something of its adopter has turned out to be
here: how many ways lead from one to another doesn't matter.

This module must never call copies here that aren't: the originals are dropped then.
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping

from base.ids import WriterId
from crdt_meta.peers import Retired


def copied(
    writer: WriterId,
    adopted: Mapping[WriterId, Collection[Retired]],
    is_here: Callable[[Retired], bool | None],
    is_of_this_life: Callable[[WriterId, Retired], bool],
) -> int:
    """Return up to which transaction copies of all that a writer wrote are here.

    ``adopted``: each adoption of each writer. ``is_here`` tells whether an adopter's copies are, None if that follows
    from who adopted it. ``is_of_this_life`` tells whether those of a writer are of the transactions that are known here.
    """
    here: dict[WriterId, list[Retired]] = defaultdict(list)
    waiting: dict[WriterId, list[tuple[WriterId, Retired]]] = defaultdict(list)
    """Adopters -> the adoptions, each of which writer, that are here if theirs are."""
    seen, reached = {writer}, [writer]
    while reached:
        owner = reached.pop()
        for one in adopted.get(owner, ()):
            verdict = is_here(one)
            if verdict and is_of_this_life(owner, one):
                insort(here[owner], one, key=_start)
            elif verdict is None:
                waiting[one.by].append((owner, one))
                if one.by not in seen:
                    seen.add(one.by)
                    reached.append(one.by)
    news = set(waiting)
    while news:
        by = news.pop()
        for owner, one in waiting.pop(by, ()):
            if _without_a_gap(here[by], one.begun) < one.sequence:
                waiting[by].append((owner, one))
            elif is_of_this_life(owner, one):
                insort(here[owner], one, key=_start)
                news.add(owner)
    return _without_a_gap(here[writer], 0)


def _without_a_gap(here: Collection[Retired], after: int) -> int:
    """Return up to where adoptions, sorted, cover all transactions after one."""
    for one in here:
        if one.since <= after < one.upto:
            after = one.upto
    return after


def _start(one: Retired) -> tuple[int, int]:
    return one.since, one.upto
