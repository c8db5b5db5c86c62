"""Who counts for the situation, and whether this pod is on the side of the network that goes on."""

from __future__ import annotations

from mesh.api import Member, Role, State
from operations.parts import Parts
from policies.situation import is_connected


def counted(parts: Parts) -> list[Member]:
    """Return the pods that count for the situation, in the order of their admission, the founder first.

    They are full and neither gone nor away by their own announcement. Who was let in and never came doesn't count: it
    hasn't said under which id it writes, which each full pod does as soon as it is linked.
    """
    roster = parts.roster.roster
    entries, came = roster.pods(), {*roster.writers().values(), parts.mesh.pod_id}
    found = [one for one in parts.mesh.members() if one.pod in came and _is_there(one)]
    return sorted(found, key=lambda member: (entries[member.pod].order, member.pod))


def _is_there(member: Member) -> bool:
    gone = member.state in (State.LEFT, State.EVICTED, State.MAINTENANCE)
    return member.role is Role.FULL and not gone and not member.announced


def connected_now(parts: Parts) -> bool:
    """Tell whether this pod is on the side of the network that goes on, at this moment."""
    if parts.editor is not None:
        return parts.editor.connected
    found = counted(parts)
    reachable = frozenset(one.pod for one in found if one.state is State.ALIVE)
    return is_connected(parts.mesh.pod_id, [one.pod for one in found], reachable, parts.pod.disconnected.quorum)
