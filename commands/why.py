"""`wormhole why`: the rule behind each copy."""

from __future__ import annotations

from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import document, facts, say, table
from commands.paths import of_running_pod
from control.client import call


@command("why", "wormhole why photos/cat.jpg", "wormhole why ~/Wormhole/photos/cat.jpg --json")
def why(path: Annotated[str, typer.Argument(metavar="PATH", help="A file of the tree.")]) -> None:
    """Explain where a file is kept, and by which rule.

    Each copy, cache and refusal has a reason. The rules are those of the cluster (`wormhole config show`) and of this
    pod (`--pod-level`); what another pod's own pod.toml says is not known here.
    """
    home = this_home()
    body = call(home, "why", {"path": of_running_pod(home, path)})
    if invocation().json:
        document(body)
        return
    facts({"path": body.get("path"), "copies wanted": body.get("copies_wanted"), "by": body.get("rule")})
    say("")
    pods = body.get("pods")
    rows = [
        [row.get("name"), row.get("state"), row.get("has"), row.get("reason")]
        for row in (pods if isinstance(pods, list) else [])
    ]
    table(["Pod", "State", "Has", "Why"], rows)
