"""`wormhole status`: the situation and its reason, what is done about it, who has how much room, transfers, warnings."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterable
from typing import Final

from base.ids import ContentId
from crdt_meta.node import Kind, Node
from mesh.api import Member, Role, State
from operations import staying
from operations.counting import connected_now
from operations.crisis import effects_of
from operations.finding import find, number_of, text_argument, text_of
from operations.parts import Parts
from operations.scrubbing import names_of
from operations.tally import GONE, Found
from operations.timekeeping import clock_warnings
from operations.where import names
from policies.reactions import Cause
from policies.situation import Grade, Situation, Standing, Tally

NAMED: Final = 20
"""Files that are named of each kind."""
FULL_SHARE: Final = 0.95
"""A pod with less room left than this leaves is warned of."""


async def status(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Describe the pod, the cluster as it sees it, and with ``path`` one file or folder."""
    members = parts.mesh.members()
    found = await parts.tallies.look(parts, parts.crisis.said.acceptance())
    tally = found.verdict.tally
    situation, reason = _situation(parts, found)
    me = next(member for member in members if member.pod == parts.mesh.pod_id)
    members_left = [one for one in members if one.role is Role.FULL and one.state not in GONE]
    incoming, outgoing = parts.transfer.moving()
    parts.rates.note(time.monotonic(), *parts.transfer.bytes_moved())
    in_rate, out_rate = parts.rates.per_s()
    crisis = parts.crisis
    answer: dict[str, object] = {
        "cluster": parts.roster.roster.cluster_name,
        "cluster_id": parts.mesh.cluster_id,
        "pod": me.name,
        "id": me.pod,
        "writer": "" if parts.editor is not None else parts.metadata.writer.hex(),
        "pid": os.getpid(),
        "home": str(parts.home.path),
        "mount": parts.mounts.directory,
        "address": parts.mesh.address,
        "situation": situation.value,
        "reason": reason,
        "connected": connected_now(parts),
        "frozen": bool(crisis.frozen or crisis.stopped),
        "stopped": bool(crisis.stopped),
        "doing": [
            {"reaction": one.effect.value, "cause": one.cause.value, "reason": one.reason} for one in crisis.stances
        ],
        "repair": _repair(parts, tally),
        "accepted": _accepted(parts, found),
        "pods": {
            "total": len(members_left),
            "alive": sum(one.state is State.ALIVE for one in members_left),
            "absent": sum(one.state is State.ABSENT for one in members_left),
        },
        "members": [_member(parts, one) for one in members if one.state not in GONE],
        "files": {
            "total": tally.total,
            "short_of_copies": tally.short,
            "pending": tally.pending,
            "missing": tally.missing,
        },
        "missing": _paths(parts, found.named.get(Standing.MISSING, ())),
        "pending": _paths(parts, found.named.get(Standing.PENDING, ())),
        "conflicts": len(parts.metadata.tree.conflicts()),
        "bytes": {"used": parts.transfer.bytes_used(), "limit": me.meta.get("bytes_limit")},
        "transfers": {
            "in": incoming,
            "out": outgoing,
            "in_bytes_per_s": in_rate,
            "out_bytes_per_s": out_rate,
            "limit_bytes_per_s": _limits(parts),
        },
        "warnings": warnings(parts, members, found),
    }
    path = text_argument(args, "path")
    return answer | about(parts, path) if path is not None else answer


def _situation(parts: Parts, found: Found) -> tuple[Situation, str]:
    """Return the situation that this pod shows, and why."""
    crisis, verdict = parts.crisis, found.verdict
    if parts.editor is not None and (crisis.contact.is_cut or not parts.editor.connected):
        return Situation.DEGRADED, crisis.cut_off_reason()
    is_informed = parts.editor is not None or crisis.is_informed()
    if crisis.contact.is_cut or (is_informed and not connected_now(parts)):
        return max(Grade.DEGRADED, verdict.grade).situation, crisis.cut_off_reason()
    if not is_informed:
        return Situation.FAVOURABLE, "Nothing is judged yet: this pod has not heard from the others since it started."
    reacts = any(one.cause is Cause.SITUATION for one in crisis.stances)
    if reacts and verdict.grade < crisis.steady.grade:
        return crisis.steady.grade.situation, f"It has just been solved. {verdict.reason}"
    return verdict.situation, verdict.reason


def _accepted(parts: Parts, found: Found) -> str:
    """Return who accepted the situation by `unfreeze`; empty: nobody, or something new has been lost since."""
    said = parts.roster.roster.orders().unfreeze
    verdict = found.verdict
    if said is None or verdict.grade is Grade.WELL or verdict.open >= verdict.grade:
        return ""
    return parts.live.name_of(said[0])


def _repair(parts: Parts, tally: Tally) -> list[dict[str, object]]:
    """Return whose copies are made anew, and in how many seconds; 0: it is being done."""
    left = parts.repairs_left_s() if tally.short and connected_now(parts) else {}
    return [{"pod": parts.live.name_of(pod), "in_s": round(left_s)} for pod, left_s in sorted(left.items())]


def _member(parts: Parts, member: Member) -> dict[str, object]:
    used = parts.transfer.bytes_used() if member.pod == parts.mesh.pod_id else member.meta.get("bytes_used")
    return {
        "name": member.name,
        "role": member.role.value,
        "state": member.state.value,
        "announced": member.announced,
        "bytes_used": used,
        "bytes_limit": member.meta.get("bytes_limit"),
        "doing": sorted(one.value for one in effects_of(member)),
    }


def _paths(parts: Parts, contents: Iterable[ContentId]) -> list[str]:
    """Return the first paths that show some of these contents."""
    return [path for content in contents for path in names_of(parts, content)[0]][:NAMED]


def _limits(parts: Parts) -> dict[str, float | None]:
    """Return the limits in force for contents between pods."""
    limits = parts.transfer.limits()
    return {"in": limits.down, "out": limits.up, "repair": limits.repair}


def warnings(parts: Parts, members: list[Member], look: Found) -> list[str]:
    """Return what a person should know, one sentence each, with the command that helps."""
    full = len(parts.catalogue.full_pods())
    wanted = parts.cluster.redundancy.copies
    found = [_stance_advice(parts)] if parts.crisis.stances else []
    if full < wanted:
        found.append(
            f"{wanted} copies are wanted and the cluster has {number_of(full, 'full pod')}: "
            f"files have {full} until more join. Invite one with `wormhole invite`."
        )
    found += _of_absence(parts, members, look) if connected_now(parts) else _of_being_away(look.verdict.tally)
    found += [
        f"{member.name} is nearly full: raise its limit there (`wormhole config set storage.limit SIZE --pod-level`), "
        "or free some space, as by `wormhole trash empty`."
        for member in members
        if member.role is Role.FULL and member.state is State.ALIVE and _is_full(member)
    ]
    conflicts = len(parts.metadata.tree.conflicts())
    if conflicts:
        found.append(
            "Changed on two pods at the same time, so that versions stand side by side: "
            f"{number_of(conflicts, 'file')}. See `wormhole conflicts`."
        )
    if trouble := parts.transfer.trouble():
        found.append(
            f"This pod can't keep anything: {trouble}. What is on it stays; see to its disk, then start it again."
        )
    found += clock_warnings(parts.mesh.clocks.ahead_s(), {member.pod: member.name for member in members})
    found += parts.live.warnings()
    found += staying.warnings(parts)
    if parts.mounts.directory is None:
        found.append("The tree is not mounted on this pod. Mount it with `wormhole mount`.")
    return found


def _of_absence(parts: Parts, members: list[Member], look: Found) -> list[str]:
    """Return what follows from others' being away."""
    tally, found = look.verdict.tally, list[str]()
    if tally.pending:
        found.append(
            f"{number_of(tally.pending, 'file')} can only be had from an absent pod, which alone has the newest content. "
            f"{_where(parts, look, Standing.PENDING)} names it."
        )
    if tally.missing:
        accept = "" if _accepted(parts, look) else ", or accept it with `wormhole unfreeze`"
        found.append(
            f"{number_of(tally.missing, 'file')} can't be read: bring back a pod that has what is missing "
            f"({_where(parts, look, Standing.MISSING)} names it){accept}."
        )
    return found + [
        f"{member.name} does not answer. If it never returns, remove it with `wormhole evict {member.name}`."
        for member in members
        if member.role is Role.FULL and member.state in (State.SUSPECT, State.ABSENT) and not member.announced
    ]


def _of_being_away(tally: Tally) -> list[str]:
    """Return what follows from this pod's being away: the others are as they were, as far as it knows."""
    unreadable = tally.pending + tally.missing
    files = f"{number_of(unreadable, 'file')} can't be read here until then. " if unreadable else ""
    prepare = "`wormhole prepare DIR --for offline` gets what is needed on the way, before the next journey."
    return [f"This pod can't reach the others: check its network. {files}{prepare}"]


def _where(parts: Parts, look: Found, standing: Standing) -> str:
    paths = _paths(parts, look.named.get(standing, ()))
    return f"`wormhole where {shlex.quote(paths[0])}`" if paths else "`wormhole where PATH`"


def _is_full(member: Member) -> bool:
    used, limit = member.meta.get("bytes_used"), member.meta.get("bytes_limit")
    return isinstance(used, int) and isinstance(limit, int) and limit > 0 and used >= FULL_SHARE * limit


def _stance_advice(parts: Parts) -> str:
    """Return how the strongest of what this pod does ends."""
    stance = max(parts.crisis.stances, key=lambda one: _STRENGTH.index(one.effect.value))
    return f"{_DOES[stance.effect.value]}. {stance.reason} {_ENDS[stance.cause.value]}"


_STRENGTH: Final = ("throttle", "fewer-copies", "freeze", "stop")
_DOES: Final = {
    "throttle": "Traffic between pods is slowed down",
    "fewer-copies": "Fewer copies are kept",
    "freeze": "Nothing is written",
    "stop": "The mounts refuse everything",
}
_ENDS: Final = {
    "situation": "It ends once that is solved, or with `wormhole unfreeze`, which accepts it.",
    "cut off": "It ends once the pod is connected again.",
    "by hand": "It ends with `wormhole unfreeze`.",
    "drill": "It ends by itself, or with `wormhole unfreeze`.",
    "full pods": "See `wormhole status` there.",
}


def about(parts: Parts, path: str) -> dict[str, object]:
    """Describe one file or folder."""
    raw, node = find(parts.metadata.tree, path)
    text = text_of(raw)
    more: dict[str, object] = {"path": text, "kind": node.kind.name.lower(), "size": node.size}
    if node.kind is Kind.FILE:
        more |= file_facts(parts, text, node)
    return more


def file_facts(parts: Parts, path: str, node: Node) -> dict[str, object]:
    """Return what only files have."""
    return {
        "content": node.content.hex(),
        "copies_wanted": parts.catalogue.wanted_now(parts.catalogue.wanted(node.inode, path).copies),
        "kept": names(parts, parts.transfer.holders(node.content).kept),
    }
