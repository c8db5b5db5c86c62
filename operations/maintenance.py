"""`wormhole maintenance`: this pod is going to be away on purpose, or no longer."""

from __future__ import annotations

from mesh.records import Maintenance, seal
from operations.parts import Parts


async def maintenance(parts: Parts, args: dict[str, object]) -> dict[str, object]:
    """Say so by a signed record, so that everybody knows it, also who was away or starts meanwhile."""
    wanted, roster, identity = args.get("on") is True, parts.roster.roster, parts.identity
    changed = roster.is_maintained(identity.pod_id) is not wanted
    if changed:
        record = Maintenance(roster.next_maintenance(identity.pod_id), wanted)
        await parts.mesh.learn([seal(record, roster.cluster_id, identity.pod_id, identity.sign)])
    return {"maintenance": wanted, "changed": changed}
