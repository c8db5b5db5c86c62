"""`wormhole nearby`: clusters seen on the network."""

from __future__ import annotations

from base.errors import NotFoundError
from commands.invocation import command, invocation
from commands.loop import run_async
from commands.output import document, note, table

_LOOK_AROUND_S = 3.0


@command("nearby", "wormhole nearby", "wormhole nearby --json")
def nearby() -> int:
    """List the clusters seen on the network.

    The exit code is 3 when there are none.
    """
    from discovery.nearby import nearby as look_around

    found = run_async(lambda: look_around(_LOOK_AROUND_S))
    clusters = [
        {"name": cluster.name, "id": cluster.id, "address": cluster.address, "admission": cluster.admission}
        for cluster in found
    ]
    if invocation().json:
        document({"clusters": clusters})
    elif clusters:
        table(("name", "id", "address", "admission"), [tuple(cluster.values()) for cluster in clusters])
    else:
        note("No cluster is seen on this network; check that a pod is up on it, or join with `--peer HOST:PORT`.")
    return 0 if clusters else NotFoundError.exit_code
