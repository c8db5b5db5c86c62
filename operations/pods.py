"""`wormhole pods`: the members of the cluster, and who was one."""

from __future__ import annotations

from mesh.api import Member
from operations.parts import Parts


def member_row(parts: Parts, member: Member) -> dict[str, object]:
    """Return one member as scripts read it."""
    return {
        "name": member.name,
        "id": member.pod,
        "role": member.role.value,
        "administrator": parts.roster.roster.is_admin(member.pod),
        "state": member.state.value,
        "address": member.address,
        "latency_ms": member.latency_ms,
        "last_seen": member.last_seen,
        "bytes_used": member.meta.get("bytes_used", 0),
        "bytes_limit": member.meta.get("bytes_limit"),
    }


async def pods(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """List all members, this pod included."""
    return {"pods": [member_row(parts, member) for member in parts.mesh.members()]}
