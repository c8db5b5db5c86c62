"""`wormhole plan --lose POD,POD`: what would be lost if pods vanished at this moment, and what would be done about it.

The same judgement as `status` makes afterwards (`policies.situation`), of holders from which those pods are taken away.
"""

from __future__ import annotations

from anyio import lowlevel

from base.errors import UsageError
from base.ids import EMPTY_CONTENT, ContentId, PodId
from mesh.api import State
from operations.evicting import who
from operations.finding import text_argument
from operations.parts import Parts
from operations.scrubbing import names_of
from policies.situation import Standing, Tally, judge, standing
from transfer.api import Holders

PAGE = 256


async def plan(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Tell what losing pods would do; raises `NotFoundError` for a pod that there isn't, `UsageError` without any."""
    names = [name.strip() for name in (text_argument(args, "lose") or "").split(",") if name.strip()]
    if not names:
        raise UsageError("It isn't said which pods are lost.", "Name them: `wormhole plan --lose nas,desktop`.")
    entries = {entry.pod: entry.name for entry in (who(parts.roster.roster, name) for name in names)}
    tally, lost = await _without(parts, frozenset(entries))
    left = [pod for pod in parts.catalogue.full_pods() if pod not in entries and _answers(parts, pod)]
    copies = parts.catalogue.copies_wanted(parts.cluster.redundancy.copies)
    verdict = judge(tally, reachable_full_pods=len(left), copies=copies)
    continuity = parts.cluster.continuity
    reactions = {"favourable": continuity.favourable, "degraded": continuity.degraded, "critical": continuity.critical}
    return {
        "lose": sorted(entries.values()),
        "lost": lost,
        "short_of_copies": tally.short,
        "files": tally.total,
        "situation": verdict.situation.value,
        "reason": verdict.reason,
        "reaction": reactions[verdict.situation.value],
    }


def _answers(parts: Parts, pod: PodId) -> bool:
    return pod == parts.mesh.pod_id or pod in parts.mesh.alive()


async def _without(parts: Parts, gone: frozenset[PodId]) -> tuple[Tally, list[str]]:
    """Judge every content as if some pods were gone; return the counts of files, and the paths that nobody could read."""
    announced = frozenset(one.pod for one in parts.mesh.members() if one.announced and one.state is not State.ALIVE)
    paths: dict[Standing, list[str]] = {one: [] for one in Standing}
    after: ContentId | None = None
    while page := parts.catalogue.page(after, PAGE):
        for info in page:
            if info.content != EMPTY_CONTENT:
                found = _standing(parts, parts.transfer.holders(info.content), info.copies, gone, announced - gone)
                if found is not Standing.SAFE:
                    paths[found] += names_of(parts, info.content)[0]
        after = page[-1].content
        await lowlevel.checkpoint()
    short, pending, missing = (paths[one] for one in (Standing.SHORT, Standing.PENDING, Standing.MISSING))
    total = parts.metadata.tree.totals().files
    return Tally(total, len(short), len(pending), len(missing)), sorted(missing + pending)


def _standing(
    parts: Parts, holders: Holders, copies: int, gone: frozenset[PodId], announced: frozenset[PodId]
) -> Standing:
    absent = (holders.absent | (holders.kept | holders.cached) & gone) - announced
    return standing(
        wanted=parts.catalogue.copies_wanted(copies),
        kept=len(holders.kept - gone),
        cached=len(holders.cached - gone),
        planned=len(holders.absent & announced),
        absent=len(absent),
    )
