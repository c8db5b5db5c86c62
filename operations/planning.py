"""`wormhole plan --lose POD,POD`: what would be lost if pods vanished at this moment, and what would be done about it.

The same judgement as `status` makes afterwards (`policies.situation`), of holders from which those pods are taken away.
"""

from __future__ import annotations

from base.errors import UsageError
from base.ids import PodId
from mesh.api import State
from operations.counting import counted
from operations.evicting import who
from operations.finding import text_argument
from operations.parts import Parts
from operations.scrubbing import names_of
from operations.tally import look_one_by_one, pods_of
from policies.reactions import reaction_to
from policies.situation import Grade, Standing, Verdict, is_connected
from transfer.api import ContentInfo


async def plan(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Tell what losing pods would do; raises `NotFoundError` for a pod that there isn't, `UsageError` without any."""
    names = [name.strip() for name in (text_argument(args, "lose") or "").split(",") if name.strip()]
    if not names:
        raise UsageError("It isn't said which pods are lost.", "Name them: `wormhole plan --lose nas,desktop`.")
    entries = {entry.pod: entry.name for entry in (who(parts.roster.roster, name) for name in names)}
    pods = pods_of(parts).without(entries.keys() & set(parts.catalogue.full_pods()))
    lost: list[str] = []

    def note(found: Standing, info: ContentInfo) -> None:
        if found in (Standing.PENDING, Standing.MISSING):
            lost.extend(names_of(parts, info.content)[0])

    verdict = (await look_one_by_one(parts, pods, parts.crisis.said.acceptance(), note)).verdict
    reaction, by = _reaction(parts, frozenset(entries), verdict)
    return {
        "lose": sorted(entries.values()),
        "lost": sorted(lost),
        "short_of_copies": verdict.tally.short,
        "files": verdict.tally.total,
        "situation": verdict.situation.value,
        "reason": verdict.reason,
        "reaction": reaction,
        "reaction_of": by,
    }


def _reaction(parts: Parts, gone: frozenset[PodId], verdict: Verdict) -> tuple[str, str]:
    """Return what those left would do, and by which part of the configuration."""
    there = counted(parts)
    left = [one.pod for one in there if one.state is State.ALIVE and one.pod not in gone]
    order = [one.pod for one in there]
    quorum = parts.pod.disconnected.quorum
    if left and not any(is_connected(pod, order, left, quorum) for pod in left):
        return parts.pod.disconnected.reaction, "disconnected"
    if verdict.open is Grade.WELL:
        return "continue", "continuity"
    return reaction_to(verdict.open.situation, parts.cluster.continuity), "continuity"
