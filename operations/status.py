"""`wormhole status`: the situation and its reason, what is missing or short, transfers, warnings."""

from __future__ import annotations

import os

from crdt_meta.node import Kind, Node
from mesh.api import Member, Role, State
from operations.finding import find, number_of, text_argument, text_of
from operations.parts import Parts
from operations.timekeeping import clock_warnings
from operations.where import names
from policies.situation import Situation, Tally, Verdict, is_connected, judge


async def status(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Describe the pod, the cluster as it sees it, and with ``path`` one file or folder."""
    members = parts.mesh.members()
    tally = await parts.tallies.tally(parts)
    counted = [member for member in members if is_counted(member)]
    reachable = frozenset(one.pod for one in counted if one.state is State.ALIVE)
    connected = is_connected(parts.mesh.pod_id, [one.pod for one in by_admission(parts, counted)], reachable)
    copies = parts.catalogue.copies_wanted(parts.cluster.redundancy.copies)
    if parts.editor is not None:
        connected = parts.editor.connected
    verdict = judge(tally, reachable_full_pods=len(reachable), copies=copies)
    if not connected and parts.editor is not None:
        reason = "No full pod can be reached: this client pod can only read what it has."
        verdict = Verdict(Situation.DEGRADED, reason)
    me = next(member for member in members if member.pod == parts.mesh.pod_id)
    members_left = [one for one in members if one.role is Role.FULL and one.state not in (State.LEFT, State.EVICTED)]
    incoming, outgoing = parts.transfer.moving()
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
        "situation": verdict.situation.value,
        "reason": verdict.reason,
        "connected": connected,
        "frozen": False,
        "pods": {
            "total": len(members_left),
            "alive": sum(one.state is State.ALIVE for one in members_left),
            "absent": sum(one.state is State.ABSENT for one in members_left),
        },
        "files": {
            "total": tally.total,
            "short_of_copies": tally.short,
            "pending": tally.pending,
            "missing": tally.missing,
        },
        "bytes": {"used": parts.transfer.bytes_used(), "limit": me.meta.get("bytes_limit")},
        "transfers": {"in": incoming, "out": outgoing},
        "warnings": warnings(parts, members, tally),
    }
    path = text_argument(args, "path")
    return answer | about(parts, path) if path is not None else answer


def is_counted(member: Member) -> bool:
    """Tell whether a pod counts for the situation: full, and not gone or away by its own announcement."""
    gone = member.state in (State.LEFT, State.EVICTED, State.MAINTENANCE)
    return member.role is Role.FULL and not gone and not member.announced


def by_admission(parts: Parts, members: list[Member]) -> list[Member]:
    """Sort members by the time of their admission, the founder first."""
    entries = parts.roster.roster.pods()
    return sorted(members, key=lambda member: (entries[member.pod].order, member.pod))


def warnings(parts: Parts, members: list[Member], tally: Tally) -> list[str]:
    """Return what a person should know although nothing is wrong yet, one sentence each."""
    full = len(parts.catalogue.full_pods())
    wanted = parts.cluster.redundancy.copies
    found: list[str] = []
    if full < wanted:
        found.append(
            f"{wanted} copies are wanted and the cluster has {number_of(full, 'full pod')}: "
            f"files have {full} until more join."
        )
    if tally.pending:
        found.append(
            f"{number_of(tally.pending, 'file')} can only be had from an absent pod, which alone has the newest content."
        )
    found += [
        f"{member.name} does not answer."
        for member in members
        if member.role is Role.FULL and member.state in (State.SUSPECT, State.ABSENT) and not member.announced
    ]
    conflicts = len(parts.metadata.tree.conflicts())
    if conflicts:
        found.append(
            "Changed on two pods at the same time, so that versions stand side by side: "
            f"{number_of(conflicts, 'file')}. See `wormhole conflicts`."
        )
    found += clock_warnings(parts.mesh.clocks.ahead_s(), {member.pod: member.name for member in members})
    found += parts.live.warnings()
    if parts.mounts.directory is None:
        found.append("The tree is not mounted on this pod.")
    return found


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
        "copies_wanted": parts.catalogue.copies_wanted(parts.catalogue.wanted(node.inode, path).copies),
        "kept": names(parts, parts.transfer.holders(node.content).kept),
    }
