"""`wormhole pods`: the members of the cluster."""

from __future__ import annotations

from commands.invocation import command, invocation, this_home
from commands.output import ago, document, size, table
from control.client import call


@command("pods", "wormhole pods", "wormhole pods --json")
def pods() -> None:
    """List the members: role, state, address, latency, space."""
    body = call(this_home(), "pods")
    if invocation().json:
        document(body)
        return
    rows = []
    members = body.get("pods")
    for member in members if isinstance(members, list) else []:
        limit = member.get("bytes_limit")
        rows.append(
            (
                member.get("name", ""),
                "admin" if member.get("administrator") is True else member.get("role", ""),
                member.get("state", ""),
                member.get("address") or "-",
                _latency(member.get("latency_ms")),
                size(member.get("bytes_used")),
                "-" if limit is None else size(limit),
                ago(member.get("last_seen")),
            )
        )
    headings = ("name", "role", "state", "address", "latency", "used", "limit", "last seen")
    table(headings, rows, right=frozenset({"latency", "used", "limit"}))


def _latency(latency_ms: object) -> str:
    return f"{latency_ms:.1f} ms" if isinstance(latency_ms, int | float) else "-"
