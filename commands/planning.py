"""`wormhole plan`: what the loss of machines would mean, before it happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from commands.invocation import command, invocation, this_home
from commands.output import count, document, facts, printable, say
from control.client import call

_SHOWN = 20
_TIMEOUT_S = 600.0


@command("plan", "wormhole plan --lose nas", "wormhole plan --lose nas,desktop --json")
def plan(
    lose: Annotated[str, typer.Option(metavar="POD[,POD]", help="Names or ids of the pods that vanish.")],
) -> int:
    """Tell what would be lost if pods vanished now, and which reaction would fire.

    Nothing is changed. What has copies enough on others is made anew there after `redundancy.repair_after`.

    The exit code is 0 when everything could still be read, 1 when files would be lost.
    """
    body = call(this_home(), "plan", {"lose": lose}, timeout_s=_TIMEOUT_S)
    lost = body.get("lost")
    paths = [printable(path) for path in lost] if isinstance(lost, list) else []
    if invocation().json:
        document(body)
        return 1 if paths else 0
    names = body.get("lose")
    facts(
        {
            "without": ", ".join(map(printable, names)) if isinstance(names, list) else "-",
            "lost": count(len(paths), "file") if paths else "nothing",
            "short of copies": body.get("short_of_copies", "-"),
            "situation": f"{body.get('situation')}: {body.get('reason')}",
            "reaction": _reaction(body),
        }
    )
    for path in paths[:_SHOWN]:
        say(f"  {path}")
    if len(paths) > _SHOWN:
        say(f"  and {len(paths) - _SHOWN} more")
    return 1 if paths else 0


def _reaction(body: Mapping[str, object]) -> str:
    by = "" if body.get("reaction_of") != "disconnected" else " (`disconnected.reaction`: those left count as cut off)"
    return f"{body.get('reaction', '-')}{by}"
