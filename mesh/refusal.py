"""Why a record was left out of a roster, for the log. Pure; decides nothing."""

from __future__ import annotations

from base.errors import DamagedError
from mesh import records
from mesh.api import Role
from mesh.records import Config, Record
from mesh.roster import OF_FULL_PODS, Roster


def refusal(roster: Roster, data: bytes) -> str:
    """Return what is wrong with a record that `Roster.add_all` left out; empty when it may merely have come too early."""
    try:
        record = records.decode(data)
    except DamagedError:
        return "it is malformed"
    if roster.knows(record.id):
        return ""
    if record.cluster not in ("", roster.cluster_id):
        return "it is of another cluster"
    entry = roster.entry(record.signer)
    if entry is None:
        return ""
    if not record.signed_by(entry.public_key):
        return "its signature is wrong"
    if entry.role is Role.CLIENT and isinstance(record.payload, OF_FULL_PODS):
        return f"its signer, {entry.name}, is a client"
    return _of_configuration(roster, record, entry.name)


def _of_configuration(roster: Roster, record: Record, name: str) -> str:
    payload = record.payload
    if isinstance(payload, Config) and (not payload.parent or roster.knows(payload.parent)):
        return f"{name} does not administer by the configuration that it follows"
    return ""
